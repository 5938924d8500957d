//! `dupfind scan`

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::context::Context;
use super::exit::{Exit, Failure};
use super::progress::ProgressDisplay;
use crate::config::{Flags, Settings};
use crate::format::{bytes, count, plural};
use crate::index::Index;
use crate::model::group::{ReportFilter, Summary};
use crate::model::path::escape_path;
use crate::model::settings::{HashPolicy, ScanSettings};
use crate::progress::Progress;
use crate::scan::{RootRequest, ScanError, ScanReport, Scanner, check_root};

/// Find duplicate files below directories
///
/// Walks the directories, then reads those files that may be duplicates: of each
/// other, or of anything scanned before. The options are remembered with each
/// directory: a later scan that gives none uses them again, one that gives some
/// replaces them all.
///
/// Examples:
///   dupfind scan ~/Photos
///   dupfind scan --min-size 1MiB --exclude '*.iso' --exclude cache/ /srv
///   find . -name '*.raw' -print0 | dupfind scan --files-from - --null
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ScanArgs {
    /// Directories to scan
    #[arg(value_name = "DIR", required_unless_present = "files_from")]
    directories: Vec<PathBuf>,
    #[command(flatten)]
    options: ScanOptions,
    /// Scan the files named in FILE, one on a line ('-': standard input); nothing is removed from the index
    #[arg(long, value_name = "FILE", conflicts_with = "directories")]
    files_from: Option<PathBuf>,
    /// Names in --files-from end with NUL instead of a newline
    #[arg(long, requires = "files_from")]
    null: bool,
    /// Only find the files; 'dupfind resume' reads them later
    #[arg(long)]
    discover_only: bool,
    #[command(flatten)]
    work: WorkOptions,
    /// Print the outcome as JSON
    #[arg(long, help_heading = "Options")]
    json: bool,
}

/// The options that are remembered with a root.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which files (remembered)")]
pub(super) struct ScanOptions {
    /// Smallest size: 10K, 1.5GiB (K is 1000, KiB is 1024) [default: 1]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    min_size: Option<u64>,
    /// Largest size
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_size: Option<u64>,
    /// Only files that match this glob: on the path below DIR if it holds a slash, else on any name (repeatable)
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Pass over files and directories that match this glob, in the same way (repeatable)
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Include names that begin with a dot
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    hidden: Option<bool>,
    /// Include also what is ignored by default: names with a leading dot, `*~` `*.tmp` `*.temp` `.DS_Store` `Thumbs.db`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    no_default_ignores: Option<bool>,
    /// Stay on the filesystem of DIR
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    one_file_system: Option<bool>,
    /// Follow symbolic links; what they point to is kept under its real path
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    follow_links: Option<bool>,
    /// Levels to descend; 1 is what lies directly in DIR
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    max_depth: Option<usize>,
    /// Which files to hash: those that may be duplicates (candidates), all, or none: these are listed, never read
    #[arg(long, value_name = "WHICH", value_enum, hide_possible_values = true)]
    hash: Option<Hash>,
    /// The same as --hash all
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, conflicts_with = "hash")]
    hash_all: Option<bool>,
}

/// [`HashPolicy`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Hash {
    Candidates,
    All,
    None,
}

impl From<Hash> for HashPolicy {
    fn from(hash: Hash) -> Self {
        match hash {
            Hash::Candidates => Self::Candidates,
            Hash::All => Self::All,
            Hash::None => Self::None,
        }
    }
}

/// How the work is divided.
#[derive(Debug, Args)]
#[command(next_help_heading = "How it is done")]
pub(super) struct WorkOptions {
    /// Threads that walk; 1 does one thing after the other [default: processors, more if the disk is slow]
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    threads: Option<usize>,
    /// Files read at once [default: processors, more if the disk is slow]
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    io_threads: Option<usize>,
    /// Rows written to the index at once [default: 8192]
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    batch_size: Option<usize>,
}

impl WorkOptions {
    pub(super) fn into_flags(self) -> Flags {
        let Self { threads, io_threads, batch_size } = self;
        Flags { threads, io_threads, batch_size, ..Flags::default() }
    }
}

impl ScanOptions {
    /// The settings for a root: none if no option was given, so that the remembered ones stay.
    fn into_settings(self, defaults: &ScanSettings) -> Option<ScanSettings> {
        self.are_given().then(|| self.over(defaults))
    }

    fn are_given(&self) -> bool {
        self.min_size.is_some()
            || self.max_size.is_some()
            || !self.include.is_empty()
            || !self.exclude.is_empty()
            || self.hidden.is_some()
            || self.no_default_ignores.is_some()
            || self.one_file_system.is_some()
            || self.follow_links.is_some()
            || self.max_depth.is_some()
            || self.hash().is_some()
    }

    /// Which files are to be hashed, if that was said.
    pub(super) fn hash(&self) -> Option<HashPolicy> {
        self.hash.map(HashPolicy::from).or(self.hash_all.map(HashPolicy::of_flag))
    }

    /// These settings, but for what was given.
    pub(super) fn over(&self, others: &ScanSettings) -> ScanSettings {
        let or_others = |patterns: &Vec<String>, others: &Vec<String>| {
            if patterns.is_empty() { others.clone() } else { patterns.clone() }
        };
        ScanSettings {
            min_size: self.min_size.unwrap_or(others.min_size),
            max_size: self.max_size.or(others.max_size),
            include: or_others(&self.include, &others.include),
            exclude: or_others(&self.exclude, &others.exclude),
            hidden: self.hidden.unwrap_or(others.hidden),
            default_ignores: self.no_default_ignores.map_or(others.default_ignores, |no| !no),
            one_file_system: self.one_file_system.unwrap_or(others.one_file_system),
            follow_links: self.follow_links.unwrap_or(others.follow_links),
            max_depth: self.max_depth.or(others.max_depth),
            hash: self.hash().unwrap_or(others.hash),
        }
    }
}

pub(super) async fn run(args: ScanArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = context.settings(&args.work.into_flags())?;
    if args.files_from.is_some() && args.options.hash() == Some(HashPolicy::None) {
        let message = "--hash none is for directories; with --files-from, --discover-only reads nothing";
        return Err(Failure::Usage(message.to_owned()));
    }
    let given = args.options.into_settings(&settings.scan);
    let mut requests = Vec::new();
    for directory in &args.directories {
        requests.push(RootRequest { path: check_root(directory)?, settings: given.clone() });
    }
    let names = args.files_from.as_deref().map(open_names).transpose()?;
    let patterns = given.as_ref().unwrap_or(&settings.scan);
    crate::discovery::filter::Filter::new(patterns).map_err(ScanError::from)?;

    let index = context.create_index(&settings).await?;
    let run = StartedRun::new(&settings, index, context)?;
    let report = match names {
        Some(names) => {
            let delimiter = if args.null { 0 } else { b'\n' };
            let here = std::env::current_dir()?;
            let options = given.unwrap_or(settings.scan);
            run.scanner.scan_named(names, delimiter, here, &options, args.discover_only).await?
        }
        None => run.scanner.scan(&requests, &settings.scan, args.discover_only).await?,
    };
    run.finish(&report, args.json, context).await
}

/// A scanner with its display, from the start to the summary.
pub(super) struct StartedRun {
    pub(super) scanner: Scanner,
    index: Arc<dyn Index>,
    display: ProgressDisplay,
    progress: Arc<Progress>,
    began: Instant,
}

impl StartedRun {
    pub(super) fn new(
        settings: &Settings,
        index: Arc<dyn Index>,
        context: &Context,
    ) -> Result<Self, Failure> {
        let progress = Arc::new(Progress::default());
        let display = ProgressDisplay::start(&progress, context);
        let scanner = Scanner::new(
            Arc::clone(&index),
            settings.host.clone(),
            settings.workers,
            context.cancel.clone(),
            Arc::clone(&progress),
        )?;
        Ok(Self { scanner, index, display, progress, began: Instant::now() })
    }

    /// Takes the display away; returns how long it was there.
    pub(super) fn stop(self) -> Duration {
        drop(self.display);
        self.began.elapsed()
    }

    /// Says how it went, and decides the exit code.
    pub(super) async fn finish(
        self,
        report: &ScanReport,
        json: bool,
        context: &Context,
    ) -> Result<Exit, Failure> {
        let elapsed = self.began.elapsed();
        drop(self.display);
        for root in &report.skipped_roots {
            context.warn(&root.problem);
        }
        for name in &report.unknown_names {
            context.warn(&format!("{}: {}", escape_path(&name.path), name.problem));
        }
        if context.verbose || report.was_named {
            let passed_over = self.progress.passed_over.get();
            if passed_over > 0 {
                let what =
                    if report.was_named { "not a file, or not asked for" } else { "links and special files" };
                context.say(&format!("passed over {} ({what})", count(passed_over)));
            }
        }
        if json {
            let summary = match report.summary {
                Some(summary) => summary,
                None => self.index.summary(&ReportFilter::default()).await?,
            };
            writeln!(io::stdout(), "{}", outcome_json(report, &summary, elapsed))?;
        } else if let Some(summary) = report.summary.filter(|_| !context.quiet) {
            let text = outcome_text(report, &summary, elapsed, context);
            io::stdout().write_all(text.as_bytes())?;
        }
        if report.is_interrupted() {
            let how = if report.was_named {
                "run the same command again to go on"
            } else {
                "'dupfind resume' goes on"
            };
            context.say(&format!("interrupted; what was done is kept: {how}"));
            return Ok(Exit::Interrupted);
        }
        let problems = report.counts.problems > 0 || !report.skipped_roots.is_empty();
        Ok(if problems { Exit::Problems } else { Exit::Done })
    }
}

fn outcome_text(report: &ScanReport, summary: &Summary, elapsed: Duration, context: &Context) -> String {
    let counts = &report.counts;
    let mut lines = Vec::new();
    if counts.directories > 0 {
        lines.push(format!(
            "{} with {} in {}: {} new, {} changed, {} gone",
            plural(counts.files_seen, "file", "files"),
            bytes(counts.bytes_seen),
            plural(counts.directories, "directory", "directories"),
            count(counts.added),
            count(counts.updated),
            count(counts.removed),
        ));
    }
    lines.push(format!(
        "read {} of {} in {:.1} s",
        bytes(counts.bytes_read),
        plural(counts.hashed, "possible duplicate", "possible duplicates"),
        elapsed.as_secs_f64()
    ));
    let reclaimable = context.style.bold(&format!("{} reclaimable", bytes(summary.reclaimable_bytes)));
    let groups = plural(summary.groups, "group", "groups");
    let redundant = plural(summary.redundant_files, "redundant file", "redundant files");
    lines.push(format!("{reclaimable}: {redundant} in {groups}"));
    if summary.pending_files > 0 {
        let files = plural(summary.pending_files, "file", "files");
        lines.push(context.style.warning(&format!("{files} still to be read: 'dupfind resume'")));
    }
    let listed = counts.problems - report.unknown_names.len() as u64;
    if listed > 0 {
        let problems = plural(listed, "problem", "problems");
        lines.push(context.style.warning(&format!("{problems}: 'dupfind status --problems' lists them")));
    }
    lines.push(
        context
            .style
            .dim("'dupfind report' lists them, 'dupfind report --html FILE' shows them in a browser"),
    );
    lines.join("\n") + "\n"
}

fn outcome_json(report: &ScanReport, summary: &Summary, elapsed: Duration) -> serde_json::Value {
    let counts = &report.counts;
    let skipped = |row: &crate::model::group::ProblemRow| json!({ "path": row.path.to_string_lossy(), "problem": row.problem });
    json!({
        "version": 1,
        "status": report.status.as_str(),
        "seconds": elapsed.as_secs_f64(),
        "directories": counts.directories,
        "files_seen": counts.files_seen,
        "bytes_seen": counts.bytes_seen,
        "added": counts.added,
        "updated": counts.updated,
        "removed": counts.removed,
        "hashed": counts.hashed,
        "bytes_read": counts.bytes_read,
        "problems": counts.problems,
        "skipped_roots": report.skipped_roots.iter().map(skipped).collect::<Vec<_>>(),
        "unknown_names": report.unknown_names.iter().map(skipped).collect::<Vec<_>>(),
        "summary": super::status::summary_json(summary),
    })
}

fn open_names(path: &Path) -> Result<Box<dyn BufRead + Send>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(BufReader::new(file))),
        Err(error) => Err(Failure::Usage(format!("--files-from {}: {error}", escape_path(path)))),
    }
}

/// A size as people write it.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let size: ByteSize =
        text.parse().map_err(|_| "expected a size such as 4096, 10K or 1.5GiB".to_owned())?;
    Ok(size.as_u64())
}

pub(super) fn parse_positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a number from 1".to_owned()),
    }
}
