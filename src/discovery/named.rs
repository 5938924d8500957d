//! `--files-from`: files named one by one, on a line each or separated by NUL.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, BufRead};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc::Sender;

use super::LISTING_ENTRIES;
use super::filter::Filter;
use super::outbox::Outbox;
use crate::cancel::Cancel;
use crate::model::group::ProblemRow;
use crate::model::listing::{Absent, Coverage, Entry, Listing, Problem};
use crate::model::path::absolute_bytes;
use crate::model::stamp::FileStat;
use crate::progress::Progress;
use crate::volume::{Place, Volumes};

/// What a list of names is to be read with.
#[derive(Debug)]
pub struct NamedRequest {
    /// The byte that ends a name: a newline, or NUL, so that a name can hold anything a path can.
    pub delimiter: u8,
    /// What relative names are below.
    pub current_directory: PathBuf,
    /// Which of the named files are of interest.
    pub filter: Filter,
    /// A link that is named stands for its target; else it is passed over.
    pub follow_links: bool,
}

/// How a list of names was read.
#[derive(Debug)]
pub struct NamedEnd {
    /// False if it was stopped.
    pub complete: bool,
    /// Names that could not be found or read: there is no row that could hold this.
    pub problems: Vec<ProblemRow>,
}

/// Reads names and sends the files they name; blocks until done. Directories and special files are
/// passed over.
///
/// # Errors
/// If the list itself cannot be read.
pub fn list_named(
    request: &NamedRequest,
    names: &mut dyn BufRead,
    volumes: &Volumes,
    listings: Sender<Vec<Listing>>,
    cancel: &Cancel,
    progress: &Progress,
) -> io::Result<NamedEnd> {
    let mut end = NamedEnd { complete: true, problems: Vec::new() };
    let mut output = Output { outbox: Outbox::new(listings, progress), open: None };
    let mut name = Vec::new();
    while names.read_until(request.delimiter, &mut name)? > 0 {
        if cancel.is_requested() || output.outbox.is_closed() {
            end.complete = false;
            break;
        }
        if name.last() == Some(&request.delimiter) {
            name.pop();
        }
        if name.is_empty() {
            continue;
        }
        let path = OsString::from_vec(std::mem::take(&mut name));
        let path = request.current_directory.join(path);
        let taken = find(&path, request.follow_links).and_then(|(absolute, metadata)| {
            if is_wanted(&absolute, &metadata, &request.filter) {
                return output.add(&absolute, &metadata, volumes);
            }
            progress.passed_over.add(1);
            Ok(())
        });
        if let Err(error) = taken {
            end.problems.push(ProblemRow { host: None, path, problem: Problem::of(&error).to_text() });
        }
    }
    output.close();
    end.complete &= output.outbox.flush().is_ok();
    Ok(end)
}

/// The real path and the metadata of a name. The directory part may hold links; the last part is
/// resolved only if links are followed.
fn find(path: &Path, follow_links: bool) -> io::Result<(PathBuf, Metadata)> {
    let metadata = std::fs::symlink_metadata(path)?;
    let (parent, name) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !(follow_links && metadata.is_symlink()) => (parent, name),
        _ => {
            let absolute = std::fs::canonicalize(path)?;
            let metadata = std::fs::symlink_metadata(&absolute)?;
            return Ok((absolute, metadata));
        }
    };
    Ok((std::fs::canonicalize(parent)?.join(name), metadata))
}

/// Patterns see the absolute path without its first slash: there is no root to be below.
fn is_wanted(absolute: &Path, metadata: &Metadata, filter: &Filter) -> bool {
    let bytes = absolute_bytes(absolute);
    let relative = bytes.strip_prefix(b"/").unwrap_or(bytes);
    let name = absolute.file_name().unwrap_or_default().as_bytes();
    metadata.is_file()
        && !filter.passes_over(name, relative)
        && filter.includes(relative)
        && filter.takes_size(metadata.len())
}

/// Neighbours in the list that lie in one directory become one listing.
struct Output<'a> {
    outbox: Outbox<'a>,
    open: Option<OpenDirectory>,
}

struct OpenDirectory {
    absolute: PathBuf,
    place: Place,
    device: u64,
    entries: Vec<Entry>,
}

impl Output<'_> {
    fn add(&mut self, absolute: &Path, metadata: &Metadata, volumes: &Volumes) -> io::Result<()> {
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let fits = |open: &OpenDirectory| open.absolute == parent && open.entries.len() < LISTING_ENTRIES;
        if !self.open.as_ref().is_some_and(fits) {
            self.close();
            let device = std::fs::metadata(parent)?.dev();
            let place = volumes.locate(parent, device);
            self.open =
                Some(OpenDirectory { absolute: parent.to_path_buf(), place, device, entries: Vec::new() });
        }
        if let Some(open) = &mut self.open {
            open.entries.push(Entry::of(name.as_bytes(), &FileStat::from(metadata), open.device));
        }
        Ok(())
    }

    /// Ends the open directory: the list goes on with another.
    fn close(&mut self) {
        let Some(OpenDirectory { place: Place { volume, path }, mut entries, .. }) = self.open.take() else {
            return;
        };
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        entries.dedup_by(|a, b| a.name == b.name);
        let listing =
            Listing { volume, directory: path, coverage: Coverage::Selected(Absent::default()), entries };
        // A closed channel means "stop"; the loop sees it at the next name.
        let _ = self.outbox.push(listing);
    }
}
