//! The walk: a directory is a task, listed by one thread of a pool, which sends what it found and
//! queues the directories in it.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc::Sender;

use super::LISTING_ENTRIES;
use super::filter::Filter;
use super::outbox::Outbox;
use crate::cancel::Cancel;
use crate::concurrency::{Concurrency, Meter, Threads};
use crate::model::listing::{Coverage, Entry, Listing, Problem};
use crate::model::path::absolute_bytes;
use crate::model::settings::ScanSettings;
use crate::model::stamp::FileStat;
use crate::model::volume::Location;
use crate::os::{DirectoryEntry, EntryKind, OpenDirectory};
use crate::progress::Progress;
use crate::volume::{Place, Volumes};

/// To look at an entry takes as long as reading a page that is in memory.
const BYTES_LIKE_AN_ENTRY: u64 = 4096;

/// What a walk is to cover.
#[derive(Debug)]
pub struct WalkRequest {
    /// An existing directory: absolute, free of symbolic links.
    pub root: PathBuf,
    /// The root's options.
    pub settings: ScanSettings,
    /// Their patterns, compiled.
    pub filter: Filter,
    /// Other roots: each is walked by itself, with its own options, so this walk stays outside.
    pub other_roots: HashSet<Location>,
    /// How many directories are listed at once.
    pub threads: Threads,
    /// Files of the index itself, which change while we read: never listed.
    pub own_files: Vec<PathBuf>,
}

/// How a walk ended.
#[derive(Debug)]
pub struct WalkEnd {
    /// False if it was stopped: then nothing follows about what was not seen.
    pub complete: bool,
    /// The subtrees it entered: the root and the filesystems mounted in it.
    pub entered: Vec<Place>,
    /// Directories that only links led to, or that hold files that only links led to.
    pub linked: Vec<Place>,
}

/// What all tasks of a walk share.
struct Walk<'a> {
    request: &'a WalkRequest,
    volumes: &'a Volumes,
    outbox: Outbox<'a>,
    cancel: &'a Cancel,
    progress: &'a Progress,
    tasks: Tasks,
    root_device: u64,
    own_root: Location,
    stopped: AtomicBool,
    entered: Mutex<Vec<Place>>,
    linked: Mutex<Vec<Place>>,
    /// Files that links led to, by the device and inode of their directory: listed at the end, when it
    /// is known which directories were walked.
    linked_files: Mutex<HashMap<(u64, u64), LinkedFiles>>,
    /// Directories seen, by device and inode; kept only where links can lead to one twice.
    visited: Mutex<HashSet<(u64, u64)>>,
}

/// Files that links led to in one directory.
struct LinkedFiles {
    place: Place,
    entries: Vec<Entry>,
}

/// A directory to be listed.
struct Task {
    absolute: PathBuf,
    place: Place,
    device: u64,
    /// The path below the root, as patterns see it.
    relative: Vec<u8>,
    /// Levels below the root: its own entries are at 1.
    depth: usize,
}

/// Lists everything below a root, on the threads of `pool`; blocks until done.
///
/// Trouble with a directory is a listing of its own ([`Coverage::Unreadable`]). A closed channel
/// means "stop".
///
/// # Errors
/// If the root itself cannot be read.
pub fn walk(
    request: &WalkRequest,
    volumes: &Volumes,
    pool: &rayon::ThreadPool,
    listings: Sender<Vec<Listing>>,
    cancel: &Cancel,
    progress: &Progress,
) -> io::Result<WalkEnd> {
    let metadata = std::fs::metadata(&request.root)?;
    let (device, root_inode) = (metadata.dev(), metadata.ino());
    let place = volumes.locate(&request.root, device);
    let walk = Walk {
        request,
        volumes,
        outbox: Outbox::new(listings, progress),
        cancel,
        progress,
        tasks: Tasks::default(),
        root_device: device,
        own_root: place.location(),
        stopped: AtomicBool::new(false),
        entered: Mutex::new(vec![place.clone()]),
        linked: Mutex::default(),
        linked_files: Mutex::default(),
        visited: Mutex::default(),
    };
    let root = Task { absolute: request.root.clone(), place, device, relative: Vec::new(), depth: 1 };
    walk.visit(device, root_inode);
    walk.tasks.push(root);
    let list = |task: Task, (): &mut (), meter: &mut Meter<'_>| {
        let _running = Running(&walk.tasks);
        walk.list(&task, meter);
        ControlFlow::Continue(())
    };
    Concurrency::new(request.threads).divide(pool, || walk.tasks.next(), || (), list);
    walk.list_linked_files();
    let was_sent = walk.outbox.flush().is_ok();
    Ok(WalkEnd {
        complete: was_sent && !walk.stopped.into_inner(),
        entered: walk.entered.into_inner().unwrap_or_else(PoisonError::into_inner),
        linked: walk.linked.into_inner().unwrap_or_else(PoisonError::into_inner),
    })
}

impl<'a> Walk<'a> {
    fn list(&self, task: &Task, meter: &mut Meter<'_>) {
        if self.cancel.is_requested() || self.stopped.load(Ordering::Relaxed) {
            self.stop();
            return;
        }
        let mut listing = OpenListing::new(self, task);
        let asked = Instant::now();
        let read = self.read_entries(task, &mut listing);
        // Of a directory that was sent in pieces, the time would be that of the index, too.
        if listing.pieces == 0 {
            meter.note(asked.elapsed(), listing.entries.len() as u64 * BYTES_LIKE_AN_ENTRY);
        }
        match read {
            Ok(()) => listing.close(None),
            // Removed since its parent was listed: that is no trouble, it is simply gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound && task.depth > 1 => {}
            Err(error) => listing.close(Some(Problem::of(&error))),
        }
        self.progress.directories.add(1);
    }

    fn read_entries(&self, task: &Task, listing: &mut OpenListing<'_, 'a>) -> io::Result<()> {
        let mut directory = OpenDirectory::open(&task.absolute)?;
        let mut relative = Vec::with_capacity(task.relative.len() + 64);
        while let Some(entry) = directory.next_entry()? {
            relative.clear();
            relative.extend_from_slice(&task.relative);
            if !relative.is_empty() {
                relative.push(b'/');
            }
            relative.extend_from_slice(entry.name());
            self.take_entry(task, &directory, &entry, &relative, listing)?;
            if self.stopped.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }

    fn take_entry(
        &self,
        task: &Task,
        directory: &OpenDirectory,
        entry: &DirectoryEntry,
        relative: &[u8],
        listing: &mut OpenListing<'_, 'a>,
    ) -> io::Result<()> {
        let name = entry.name();
        if self.request.filter.passes_over(name, relative) {
            return Ok(());
        }
        match entry.kind {
            EntryKind::Directory => return self.enter(task, directory, entry, relative),
            EntryKind::Link if self.request.settings.follow_links => {
                self.follow(task, name, relative);
                return Ok(());
            }
            EntryKind::Link | EntryKind::Other => {
                self.progress.passed_over.add(1);
                return Ok(());
            }
            EntryKind::File => {}
        }
        if !self.request.filter.includes(relative) || self.is_own_file(task, name) {
            return Ok(());
        }
        let Some(stat) = directory.stat(entry)? else { return Ok(()) };
        if stat.is_file && self.request.filter.takes_size(stat.size) {
            listing.add(Entry::of(name, &stat, task.device));
        }
        Ok(())
    }

    /// Queues a subdirectory, unless it belongs to another root or lies too deep.
    fn enter(
        &self,
        task: &Task,
        directory: &OpenDirectory,
        entry: &DirectoryEntry,
        relative: &[u8],
    ) -> io::Result<()> {
        let Some(stat) = directory.stat(entry)? else { return Ok(()) };
        let name = entry.name();
        let absolute = task.absolute.join(OsStr::from_bytes(name));
        let device = stat.device;
        let depth = task.depth + 1;
        let mounted_here = device != task.device || self.volumes.is_mount_point(&absolute);
        let place = if mounted_here {
            self.volumes.locate(&absolute, device)
        } else {
            Place { volume: Arc::clone(&task.place.volume), path: task.place.path.join(name) }
        };
        if self.request.other_roots.contains(&place.location()) {
            return Ok(());
        }
        if mounted_here {
            self.note_entered(place.clone());
            if self.request.settings.one_file_system && device != self.root_device {
                return Ok(());
            }
        }
        if self.request.settings.max_depth.is_some_and(|levels| depth > levels) {
            return Ok(());
        }
        if self.request.settings.follow_links && !self.visit(device, stat.inode) {
            return Ok(());
        }
        self.tasks.push(Task { absolute, place, device, relative: relative.to_vec(), depth });
        Ok(())
    }

    /// Takes on what a symbolic link points to, under its real path, so that nothing ever has two
    /// paths. A link that leads nowhere, in a circle, or into another root is passed over.
    fn follow(&self, task: &Task, name: &[u8], relative: &[u8]) {
        let target = std::fs::canonicalize(task.absolute.join(OsStr::from_bytes(name)));
        let target = target.and_then(|path| Ok((std::fs::metadata(&path)?, path)));
        let Ok((metadata, absolute)) = target else {
            self.progress.passed_over.add(1);
            return;
        };
        let directory = if metadata.is_dir() { Some(absolute.as_path()) } else { absolute.parent() };
        let Some(directory) = directory else { return };
        let Ok(inside) = std::fs::metadata(directory) else { return };
        let device = inside.dev();
        if self.request.settings.one_file_system && device != self.root_device {
            return;
        }
        let place = self.volumes.locate(directory, device);
        if self.belongs_to_another_root(&place) {
            return;
        }
        if metadata.is_dir() {
            let depth = task.depth + 1;
            let too_deep = self.request.settings.max_depth.is_some_and(|levels| depth > levels);
            if too_deep || !self.visit(device, metadata.ino()) {
                return;
            }
            locked(&self.linked).push(place.clone());
            self.tasks.push(Task { absolute, place, device, relative: relative.to_vec(), depth });
            return;
        }
        let wanted = metadata.is_file()
            && self.request.filter.includes(relative)
            && self.request.filter.takes_size(metadata.len());
        if let (true, Some(name)) = (wanted, absolute.file_name()) {
            let entry = Entry::of(name.as_bytes(), &FileStat::from(&metadata), device);
            let directory = (device, inside.ino());
            let mut linked_files = locked(&self.linked_files);
            let files = linked_files.entry(directory).or_insert(LinkedFiles { place, entries: Vec::new() });
            files.entries.push(entry);
            drop(linked_files);
        }
    }

    /// Of a directory that was not walked, the files that links led to are all there is: those that
    /// no link leads to any more are gone. In one that was, they join the others.
    fn list_linked_files(&self) {
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        let linked_files = std::mem::take(&mut *locked(&self.linked_files));
        for ((device, inode), LinkedFiles { place, mut entries }) in linked_files {
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            entries.dedup_by(|a, b| a.name == b.name);
            let was_walked = !self.visit(device, inode);
            if !was_walked {
                locked(&self.linked).push(place.clone());
            }
            let coverage = if was_walked { Coverage::Selected } else { Coverage::Whole };
            let Place { volume, path } = place;
            self.send(Listing { volume, directory: path, coverage, entries });
        }
    }

    /// True if the nearest root around a place is not this one.
    fn belongs_to_another_root(&self, place: &Place) -> bool {
        let around = |root: &Location| {
            let holds = root.identity == place.volume.identity && place.path.is_within(&root.path);
            holds.then_some(root.path.as_bytes().len())
        };
        let nearest_other = self.request.other_roots.iter().filter_map(around).max();
        nearest_other.is_some() && nearest_other > around(&self.own_root)
    }

    fn is_own_file(&self, task: &Task, name: &[u8]) -> bool {
        let is_own = |own: &PathBuf| {
            let directory = absolute_bytes(own).strip_suffix(name).and_then(|rest| rest.strip_suffix(b"/"));
            directory == Some(absolute_bytes(&task.absolute))
        };
        self.request.own_files.iter().any(is_own)
    }

    /// True the first time.
    fn visit(&self, device: u64, inode: u64) -> bool {
        locked(&self.visited).insert((device, inode))
    }

    fn note_entered(&self, place: Place) {
        locked(&self.entered).push(place);
    }

    fn send(&self, listing: Listing) {
        if self.outbox.push(listing).is_err() {
            self.stop();
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// Directories to be listed, the last found first: so few wait at any time.
#[derive(Default)]
struct Tasks {
    state: Mutex<TaskState>,
    changed: Condvar,
}

#[derive(Default)]
struct TaskState {
    waiting: Vec<Task>,
    /// Tasks that were handed out and not finished: they may add some.
    running: usize,
}

impl Tasks {
    fn push(&self, task: Task) {
        locked(&self.state).waiting.push(task);
        self.changed.notify_one();
    }

    /// The next directory; waits if only those that are being listed can add one.
    fn next(&self) -> Option<Task> {
        let mut state = locked(&self.state);
        loop {
            if let Some(task) = state.waiting.pop() {
                state.running += 1;
                return Some(task);
            }
            if state.running == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A task that was handed out, until it is finished. Nobody must wait for one that panicked, either.
struct Running<'a>(&'a Tasks);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = locked(&self.0.state);
        state.running -= 1;
        let is_last = state.running == 0;
        drop(state);
        if is_last {
            self.0.changed.notify_all();
        }
    }
}

/// A directory while it is being listed; sends pieces as they fill.
struct OpenListing<'w, 'a> {
    walk: &'w Walk<'a>,
    place: Place,
    entries: Vec<Entry>,
    pieces: usize,
}

impl<'w, 'a> OpenListing<'w, 'a> {
    fn new(walk: &'w Walk<'a>, task: &Task) -> Self {
        Self { walk, place: task.place.clone(), entries: Vec::new(), pieces: 0 }
    }

    fn add(&mut self, entry: Entry) {
        if self.entries.len() == LISTING_ENTRIES {
            self.send(Coverage::Piece { first: self.pieces == 0, last: false });
            self.pieces += 1;
        }
        self.entries.push(entry);
    }

    fn close(mut self, trouble: Option<Problem>) {
        let coverage = match trouble {
            Some(problem) => Coverage::Unreadable(problem),
            // A walk that was told to stop may have left the loop early.
            None if self.walk.stopped.load(Ordering::Relaxed) => Coverage::Selected,
            None if self.pieces == 0 => Coverage::Whole,
            None => Coverage::Piece { first: false, last: true },
        };
        self.send(coverage);
    }

    fn send(&mut self, coverage: Coverage) {
        let mut entries = std::mem::take(&mut self.entries);
        // The index keeps a directory's files in the order of their names.
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.walk.send(Listing {
            volume: Arc::clone(&self.place.volume),
            directory: self.place.path.clone(),
            coverage,
            entries,
        });
    }
}

/// A set that threads share; one that panicked left it whole, as each change is a single step.
fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::path::VolumePath;
    use crate::model::volume::{Mount, MountedVolume, VolumeIdentity};

    #[test]
    fn nobody_waits_for_a_task_that_panicked() {
        let tasks = Tasks::default();
        let volume = MountedVolume {
            identity: VolumeIdentity("test".into()),
            mount: Mount { root: VolumePath::new(b""), at: b"/".as_slice().into() },
        };
        let place = Place { volume: Arc::new(volume), path: VolumePath::new(b"") };
        tasks.push(Task { absolute: PathBuf::new(), place, device: 0, relative: Vec::new(), depth: 1 });
        std::thread::scope(|scope| {
            let panicking = scope.spawn(|| {
                let _running = tasks.next().map(|_| Running(&tasks));
                // The other one waits by now, or finds that all is done.
                std::thread::sleep(std::time::Duration::from_millis(20));
                panic!("a bug");
            });
            while locked(&tasks.state).running == 0 && !panicking.is_finished() {
                std::thread::yield_now();
            }
            assert!(tasks.next().is_none());
            assert!(panicking.join().is_err());
        });
    }
}
