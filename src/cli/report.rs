//! `dupfind report`

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use tempfile::NamedTempFile;

use super::context::Context;
use super::exit::{Exit, Failure};
use super::scan::parse_size;
use crate::config::Flags;
use crate::index::Index;
use crate::model::group::{ReportFilter, SortBy};
use crate::model::path::{VolumePath, escape_path};
use crate::model::stamp::Nanos;
use crate::model::volume::{Extent, Places, VolumeId, VolumeIdentity};
use crate::report::csv::CsvSink;
use crate::report::html::{DEFAULT_GROUPS, History, HtmlSink};
use crate::report::json::JsonSink;
use crate::report::text::{FdupesSink, TextSink, notes};
use crate::report::{Head, Sink, common_limit, write_report};

/// Show the duplicates, from the index alone
///
/// No file is touched. A group is two or more files with the same content; hard
/// links of one file count as one. Reclaimable is what is freed if one file of
/// each group stays.
///
/// Examples:
///   dupfind report --limit 20
///   dupfind report --html duplicates.html
///   dupfind report --json - --under ~/Photos --min-size 1MiB | jq .summary
///   dupfind report --host nas --under /srv/photos
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ReportArgs {
    /// Write a page for the browser: one file, no network needed
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write JSON ('-': standard output)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write CSV, RFC 4180 ('-': standard output)
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// What is written to standard output if no file is asked for
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
    /// With --format fdupes: end names with NUL instead of a newline
    #[arg(short = '0', long = "null")]
    null: bool,
    /// Only files below PATH count: a group needs two of them (repeatable)
    #[arg(long, value_name = "PATH")]
    under: Vec<PathBuf>,
    /// Only files on disks that this host mounts count (repeatable); with one host, --under is a path there
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Only files on this volume count: its identity, or how it begins, as 'dupfind status' shows it (repeatable)
    #[arg(long, value_name = "ID")]
    volume: Vec<String>,
    /// Leave out groups of smaller files
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    min_size: Option<u64>,
    /// Order of the groups
    #[arg(long, value_enum, value_name = "KEY", default_value_t = Sort::Reclaimable)]
    sort: Sort,
    /// At most N groups [default: all; 1000 in the HTML table]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// As fdupes prints it
    Fdupes,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sort {
    /// Most reclaimable bytes first
    Reclaimable,
    /// Largest files first
    Size,
    /// Most files first
    Count,
    /// By the path of the first file
    Path,
}

impl From<Sort> for SortBy {
    fn from(sort: Sort) -> Self {
        match sort {
            Sort::Reclaimable => Self::Reclaimable,
            Sort::Size => Self::Size,
            Sort::Count => Self::Count,
            Sort::Path => Self::Path,
        }
    }
}

pub(super) async fn run(args: ReportArgs, context: &Context) -> Result<Exit, Failure> {
    if args.null && args.format != Format::Fdupes {
        return Err(Failure::Usage("--null needs --format fdupes".to_owned()));
    }
    let settings = context.settings(&Flags::default())?;
    let index = context.open_index(&settings).await?;
    let mut files = Vec::new();
    let own_files = index.own_files();
    let is_own = |path: &&PathBuf| std::fs::canonicalize(path).is_ok_and(|path| own_files.contains(&path));
    if let Some(path) = [&args.html, &args.json, &args.csv].into_iter().flatten().find(is_own) {
        return Err(Failure::Usage(format!("{}: this is the index; name another file", escape_path(path))));
    }
    let places = index.places(&settings.host.name).await?;
    let history = match &args.html {
        Some(_) => History::read(index.as_ref(), &places).await?,
        None => History::default(),
    };
    let mut sinks = open_sinks(&args, history, context, &mut files)?;

    let mut filter = ReportFilter {
        under: None,
        min_size: args.min_size.unwrap_or_default(),
        sort: args.sort.into(),
        limit: common_limit(&sinks),
    };
    let (limits, under) = limits(&args, index.as_ref(), &places, &settings.host.name, context).await?;
    filter.under = limits;
    let mut reader = index.report(&filter, &places).await?;
    let head = Head {
        generated_at: Nanos::now(),
        summary: reader.summary(),
        roots: index.roots().await?.iter().map(Into::into).collect(),
        under,
        min_size: filter.min_size,
        sort: filter.sort,
    };
    write_report(&head, reader.as_mut(), &mut sinks, &context.cancel).await?;
    drop(sinks);
    for file in files {
        file.keep(context)?;
    }
    let text_says_it = args.format == Format::Text && is_for_standard_output(&args);
    if !text_says_it {
        say_notes(&head, context);
    }
    Ok(Exit::Done)
}

/// What --host, --volume and --under leave: each narrows what the others leave, repetitions of one widen it.
/// Returns the subtrees, and the paths of --under.
async fn limits(
    args: &ReportArgs,
    index: &dyn Index,
    places: &Places,
    here: &str,
    context: &Context,
) -> Result<(Option<Vec<Extent>>, Vec<PathBuf>), Failure> {
    let mut left: Option<Vec<Extent>> = None;
    let mut narrow = |to: Vec<Extent>| {
        left = Some(match left.take() {
            None => to,
            Some(before) => {
                before.iter().flat_map(|a| to.iter().filter_map(|b| a.intersection(b).cloned())).collect()
            }
        });
    };
    let mut on_hosts = Vec::new();
    for name in &args.host {
        let known = places.hosts().find(|(host, _)| ***host == **name);
        let Some((_, mounts)) = known else {
            return Err(Failure::Usage(unknown("host", name, places.hosts().map(|(host, _)| &**host))));
        };
        on_hosts.extend(mounts.iter().map(|(volume, mount)| Extent { volume, path: mount.root.clone() }));
    }
    if !args.host.is_empty() {
        narrow(on_hosts);
    }
    let volumes = if args.volume.is_empty() { Vec::new() } else { index.volumes().await? };
    let mut on_volumes = Vec::new();
    for name in &args.volume {
        let is_exact = |(_, identity): &&(VolumeId, VolumeIdentity)| {
            *identity.0 == **name || *identity == VolumeIdentity::named(name)
        };
        let exact = volumes.iter().find(is_exact);
        let mut beginning = volumes.iter().filter(|(_, identity)| identity.0.starts_with(name.as_str()));
        let found = exact.or_else(|| beginning.next().filter(|_| beginning.next().is_none()));
        let Some((volume, _)) = found else {
            return Err(Failure::Usage(unknown(
                "volume",
                name,
                volumes.iter().map(|(_, identity)| &*identity.0),
            )));
        };
        on_volumes.push(Extent { volume: *volume, path: VolumePath::new(b"") });
    }
    if !args.volume.is_empty() {
        narrow(on_volumes);
    }
    let paths_of = if let [host] = args.host.as_slice() { host } else { here };
    let mounts = places.hosts().find(|(host, _)| ***host == *paths_of).map(|(_, mounts)| mounts.clone());
    let mounts = mounts.unwrap_or_default();
    let (mut below, mut paths) = (Vec::new(), Vec::new());
    for path in &args.under {
        let is_here = paths_of == here;
        let real = if is_here { std::fs::canonicalize(path).ok() } else { None };
        let resolved = real.map_or_else(|| std::path::absolute(path), Ok)?;
        let extents = mounts.extents_below(&resolved);
        if !index.knows(&extents).await? {
            context.warn(&format!("{}: the index knows nothing below it", escape_path(path)));
        }
        below.extend(extents);
        paths.push(resolved);
    }
    if !args.under.is_empty() {
        narrow(below);
    }
    Ok((left, paths))
}

fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known = known.collect::<Vec<_>>().join(", ");
    format!("--{kind} {name}: the index knows no such {kind}, or several; it knows: {known}")
}

fn is_for_standard_output(args: &ReportArgs) -> bool {
    args.html.is_none() && args.json.is_none() && args.csv.is_none()
}

fn say_notes(head: &Head, context: &Context) {
    if let (Some(at), true) = (head.last_scan(), context.verbose) {
        context.say(&format!("last scanned {}", crate::format::moment(at)));
    }
    for note in notes(head) {
        context.warn(&note);
    }
}

fn open_sinks(
    args: &ReportArgs,
    history: History,
    context: &Context,
    files: &mut Vec<PendingFile>,
) -> Result<Vec<Box<dyn Sink>>, Failure> {
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    let dash = Path::new("-");
    let named = [&args.html, &args.json, &args.csv].into_iter().flatten();
    if named.clone().filter(|path| *path == dash).count() > 1 {
        return Err(Failure::Usage("only one report can go to standard output".to_owned()));
    }
    let paths: Vec<&PathBuf> = named.collect();
    if let Some(twice) = paths.iter().enumerate().find(|(index, path)| paths[..*index].contains(path)) {
        return Err(Failure::Usage(format!("{}: named for two reports", escape_path(twice.1))));
    }
    let mut open = |path: &Path| -> Result<Box<dyn Write>, Failure> {
        if path == dash {
            return Ok(standard_output());
        }
        let (file, writer) = PendingFile::create(path)?;
        files.push(file);
        Ok(Box::new(writer))
    };
    if let Some(path) = &args.html {
        sinks.push(Box::new(HtmlSink::new(open(path)?, args.limit.unwrap_or(DEFAULT_GROUPS), history)));
    }
    if let Some(path) = &args.json {
        sinks.push(Box::new(JsonSink::new(open(path)?, args.limit)));
    }
    if let Some(path) = &args.csv {
        sinks.push(Box::new(CsvSink::new(open(path)?, args.limit)));
    }
    if sinks.is_empty() {
        let terminator = if args.null { 0 } else { b'\n' };
        sinks.push(match args.format {
            Format::Text => Box::new(TextSink::new(standard_output(), context.style, args.limit)),
            Format::Fdupes => Box::new(FdupesSink::new(standard_output(), terminator, args.limit)),
        });
    }
    Ok(sinks)
}

fn standard_output() -> Box<dyn Write> {
    Box::new(BufWriter::with_capacity(64 * 1024, io::stdout()))
}

/// A report file that appears under its name only when it is whole, in place of the one that was
/// there and with its permissions. A name that stands for something else (a pipe, a device) is
/// written to as it is.
struct PendingFile {
    path: PathBuf,
    temporary: Option<NamedTempFile>,
}

impl PendingFile {
    fn create(path: &Path) -> Result<(Self, BufWriter<File>), Failure> {
        let failed = |error: io::Error| Failure::Usage(format!("write {}: {error}", escape_path(path)));
        // A link stays a link: what it leads to is written.
        let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let existing = std::fs::metadata(&target).ok();
        if let Some(special) = existing.as_ref().filter(|metadata| !metadata.is_file()) {
            if special.is_dir() {
                return Err(failed(io::ErrorKind::IsADirectory.into()));
            }
            let file = File::options().write(true).open(&target).map_err(failed)?;
            return Ok((Self { path: target, temporary: None }, BufWriter::with_capacity(64 * 1024, file)));
        }
        let directory =
            target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let default_mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        let temporary =
            tempfile::Builder::new().permissions(default_mode).tempfile_in(directory).map_err(failed)?;
        if let Some(metadata) = &existing {
            temporary.as_file().set_permissions(metadata.permissions()).map_err(failed)?;
        }
        let writer = BufWriter::with_capacity(64 * 1024, temporary.reopen().map_err(failed)?);
        Ok((Self { path: target, temporary: Some(temporary) }, writer))
    }

    fn keep(self, context: &Context) -> Result<(), Failure> {
        let Self { path, temporary } = self;
        if let Some(temporary) = temporary {
            let kept = temporary.persist(&path);
            kept.map_err(|error| Failure::Usage(format!("write {}: {}", escape_path(&path), error.error)))?;
        }
        context.say(&format!("wrote {}", escape_path(&path)));
        Ok(())
    }
}
