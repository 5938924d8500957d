//! `dupfind files`

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::context::Context;
use super::exit::{Exit, Failure};
use crate::config::Flags;
use crate::index::{FilesReader, Index};
use crate::model::file::{FileItem, FilesFilter, WantedFiles};
use crate::model::path::{VolumePath, escape_path, shown_path};
use crate::model::volume::{Extent, MountMap, Places};
use crate::report::files::{FileDetails, FileList, FilesJson, FilesSink};

/// Show what the index knows of a file, or of all files below a directory
///
/// Size, time, hash, whether it is still to be read or could not be, and how many
/// other files have the same content. No file is touched: PATH need not exist any
/// more. Copies are counted on disk: a hard link to the file itself is none.
///
/// Examples:
///   dupfind files ~/Photos/2019/party.jpg
///   dupfind files ~/Photos --duplicates | less
///   dupfind files --host nas /srv/photos --json | jq -r '.files[] | select(.duplicates == 0).path'
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct FilesArgs {
    /// A file or a directory; one of another host as reports show it, with the host in front
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Say where the copies are, too, as is always said of a single file
    #[arg(long)]
    duplicates: bool,
    /// PATH is a path of this host
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// At most N files
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print as JSON: one document, written as it is read, each file on a line of its own
    #[arg(long)]
    json: bool,
}

/// Where a path that the user named lies.
struct Meant {
    /// Without links, as far as it exists.
    path: PathBuf,
    /// Its host, if that is another one.
    host: Option<String>,
    mounts: MountMap,
}

pub(super) async fn run(args: FilesArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = context.settings(&Flags::default())?;
    let index = context.open_index(&settings).await?;
    let places = index.places(&settings.host.name).await?;
    let meant = meant(&args, &places, &settings.host.name)?;
    let Opened { mut reader, first, is_one } = open(index.as_ref(), &places, &meant, &args).await?;
    let output = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let mut sink: Box<dyn FilesSink> = if args.json {
        Box::new(FilesJson::new(output, &meant.path, args.duplicates || is_one)?)
    } else if is_one {
        Box::new(FileDetails::new(output, context.style))
    } else {
        Box::new(FileList::new(output, context.style))
    };
    write(reader.as_mut(), first, sink.as_mut(), args.limit, context).await
}

async fn write(
    reader: &mut dyn FilesReader,
    first: Vec<FileItem>,
    sink: &mut dyn FilesSink,
    limit: Option<u64>,
    context: &Context,
) -> Result<Exit, Failure> {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut items = first;
    loop {
        if context.cancel.is_requested() {
            return Err(Failure::Interrupted("interrupted; the list is not whole".to_owned()));
        }
        if items.is_empty() {
            sink.finish(false)?;
            return Ok(Exit::Done);
        }
        for item in &items {
            if matches!(item, FileItem::File(_)) {
                if left == 0 {
                    sink.finish(true)?;
                    return Ok(Exit::Done);
                }
                left -= 1;
            }
            sink.item(item)?;
        }
        items = reader.next().await?;
    }
}

/// The path that the user named, and where: on this host, or on another that the index knows.
fn meant(args: &FilesArgs, places: &Places, here: &str) -> Result<Meant, Failure> {
    let find =
        |name: &str| places.hosts().find(|(host, _)| ***host == *name).map(|(_, mounts)| mounts.clone());
    let (host, path) = match &args.host {
        Some(name) => (Some(name.clone()), args.path.clone()),
        None => match host_in_front(&args.path).filter(|(name, _)| find(name).is_some()) {
            Some((name, path)) => (Some(name), path),
            None => (None, args.path.clone()),
        },
    };
    let host = host.filter(|name| name != here);
    let Some(name) = host else {
        return Ok(Meant { path: real_path(&path)?, host: None, mounts: find(here).unwrap_or_default() });
    };
    let Some(mounts) = find(&name) else {
        let known: Vec<&str> = places.hosts().map(|(host, _)| &**host).collect();
        let known = known.join(", ");
        return Err(Failure::Usage(format!(
            "--host {name}: the index knows no such host; it knows: {known}"
        )));
    };
    Ok(Meant { path: std::path::absolute(&path)?, host: Some(name), mounts })
}

/// `nas:/srv/photos` as the host and the path there.
fn host_in_front(path: &Path) -> Option<(String, PathBuf)> {
    let bytes = path.as_os_str().as_bytes();
    let colon = bytes.windows(2).position(|pair| pair == b":/")?;
    let host = String::from_utf8(bytes[..colon].to_vec()).ok()?;
    Some((host, PathBuf::from(OsStr::from_bytes(&bytes[colon + 1..]))))
}

/// The path without links, as far as it exists.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    let through_parent = || {
        let parent = path.parent()?;
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        Some(std::fs::canonicalize(parent).ok()?.join(path.file_name()?))
    };
    match std::fs::canonicalize(path) {
        Ok(real) => Ok(real),
        Err(_) => through_parent().map_or_else(|| std::path::absolute(path), Ok),
    }
}

/// A reader of what the user named, and what it read first.
struct Opened {
    reader: Box<dyn FilesReader>,
    first: Vec<FileItem>,
    is_one: bool,
}

/// What of the index is at a path: a file, or a directory.
async fn open(
    index: &dyn Index,
    places: &Places,
    meant: &Meant,
    args: &FilesArgs,
) -> Result<Opened, Failure> {
    // One more tells whether there are more.
    let limit = args.limit.map(|limit| limit.saturating_add(1));
    if let Some(wanted) = meant.mounts.locate(&meant.path).and_then(|place| as_file(&place)) {
        let filter = FilesFilter { wanted, limit, with_copies: true };
        let mut reader = index.files(&filter, places).await?;
        let first = reader.next().await?;
        if !first.is_empty() {
            return Ok(Opened { reader, first, is_one: true });
        }
    }
    let extents = meant.mounts.extents_below(&meant.path);
    if !index.knows(&extents).await? {
        let path = match &meant.host {
            Some(host) => shown_path(Some(host), &meant.path),
            None => escape_path(&meant.path),
        };
        let message = format!("{path}: not in the index; 'dupfind roots' lists what was scanned");
        return Err(Failure::Usage(message));
    }
    let wanted = WantedFiles::Below(extents);
    let mut reader =
        index.files(&FilesFilter { wanted, limit, with_copies: args.duplicates }, places).await?;
    let first = reader.next().await?;
    Ok(Opened { reader, first, is_one: false })
}

/// A place as a name in a directory.
fn as_file(place: &Extent) -> Option<WantedFiles> {
    let path = place.path.as_bytes();
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    let directory = Extent { volume: place.volume, path: VolumePath::new(&path[..slash]) };
    Some(WantedFiles::Named { directory, name: path[slash + 1..].into() })
}
