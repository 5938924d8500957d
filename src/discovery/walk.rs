//! The walk: a directory is a task, listed by one thread of a pool, which sends what it found and
//! queues the directories in it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fmt::Debug;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc::Sender;

use super::filter::Filter;
use super::open_listing::OpenListing;
use super::outbox::{Closed, Outbox};
pub use super::tasks::Order;
use super::tasks::{Running, Tasks};
use crate::cancel::Cancel;
use crate::concurrency::{Concurrency, Meter, Threads};
use crate::model::listing::{Absent, Coverage, Entry, Listing, Problem};
use crate::model::path::{absolute_bytes, strip_prefix};
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
    /// What of it is walked.
    pub part: Part,
    /// Who is told of directories before they are listed.
    pub follower: Option<Arc<dyn Follower>>,
    /// The root's options.
    pub settings: ScanSettings,
    /// Their patterns, compiled.
    pub filter: Filter,
    /// Other roots: each is walked by itself, with its own options, so this walk stays outside.
    pub other_roots: HashSet<Location>,
    /// Which directories come first.
    pub order: Order,
    /// How many directories are listed at once.
    pub threads: Threads,
    /// Files of the index itself, which change while we read: never listed.
    pub own_files: Vec<PathBuf>,
}

/// What of a root is walked.
#[derive(Debug, Clone)]
pub enum Part {
    /// All of it.
    Whole,
    /// What lies below one of its directories, and the directory itself: its real path.
    Below(PathBuf),
    /// Names that were touched, by the real paths of their directories. A directory that one of them turns out to be
    /// is listed, and walked if its follower does not know it yet.
    Names(BTreeMap<PathBuf, BTreeSet<Box<[u8]>>>),
}

/// Somebody who wants to know what happens in directories from the moment on in which they are listed.
pub trait Follower: Send + Sync + Debug {
    /// A directory on this device is about to be listed.
    fn enter(&self, directory: &Path, device: u64);

    /// True if it was entered, and is followed since.
    fn knows(&self, directory: &Path) -> bool;

    /// What is known of a directory and what lies below it does not hold any more: it has to be walked.
    fn forget(&self, directory: &Path);
}

/// How a walk ended.
#[derive(Debug)]
pub struct WalkEnd {
    /// False if it was stopped: then nothing follows about what was not seen.
    pub complete: bool,
    /// The subtrees it walked wholly: the root, or the part that was asked for, and the filesystems mounted in them.
    pub entered: Vec<Place>,
    /// Directories that were listed without what lies below them.
    pub listed: Vec<Place>,
    /// Directories that only links led to, or that hold files that only links led to.
    pub linked: Vec<Place>,
}

/// The device and the inode of a directory.
type DirectoryNumber = (u64, u64);

/// What all tasks of a walk share.
struct Walk<'a> {
    request: &'a WalkRequest,
    volumes: &'a Volumes,
    outbox: Outbox<'a>,
    cancel: &'a Cancel,
    progress: &'a Progress,
    tasks: Tasks<Task>,
    root_device: u64,
    own_root: Location,
    stopped: AtomicBool,
    entered: Mutex<Vec<Place>>,
    listed: Mutex<Vec<Place>>,
    linked: Mutex<Vec<Place>>,
    /// Files that links led to, by their directory: listed at the end, when it
    /// is known which directories were walked.
    linked_files: Mutex<HashMap<DirectoryNumber, LinkedFiles>>,
    /// Directories seen; kept only where links can lead to one twice.
    visited: Mutex<HashSet<DirectoryNumber>>,
    /// The paths, as patterns see them, under which these were listed to their end.
    listed_under: Mutex<HashMap<DirectoryNumber, Box<[u8]>>>,
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
    inode: u64,
    /// The path below the root, as patterns see it.
    relative: Vec<u8>,
    /// Levels below the root: its own entries are at 1.
    depth: usize,
    reach: Reach,
}

/// What became of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// It is listed.
    AsFile,
    /// It will be.
    AsDirectory,
    /// It is nothing that this walk takes.
    No,
}

/// How far a task goes.
#[derive(Clone, PartialEq, Eq)]
enum Reach {
    /// To everything below.
    Below,
    /// To the directory itself, and below those in it that nobody follows.
    Itself,
    /// To these names alone, in the same way.
    Names(BTreeSet<Box<[u8]>>),
}

/// Puts the path of a name in a directory, as patterns see both, into `relative`.
fn put_relative(relative: &mut Vec<u8>, directory: &[u8], name: &[u8]) {
    relative.clear();
    relative.extend_from_slice(directory);
    if !relative.is_empty() {
        relative.push(b'/');
    }
    relative.extend_from_slice(name);
}

/// Lists what is asked for of a root; blocks until done.
///
/// Trouble with a directory is a listing of its own ([`Coverage::Unreadable`]). A closed channel
/// means "stop".
///
/// # Errors
/// If the root itself, or the part of it that is asked for, is not there.
pub fn walk(
    request: &WalkRequest,
    volumes: &Volumes,
    listings: Sender<Vec<Listing>>,
    cancel: &Cancel,
    progress: &Progress,
) -> io::Result<WalkEnd> {
    let device = std::fs::metadata(&request.root)?.dev();
    let own_root = volumes.locate(&request.root, device).location();
    let walk = Walk {
        request,
        volumes,
        outbox: Outbox::new(listings, progress),
        cancel,
        progress,
        tasks: Tasks::new(request.order),
        root_device: device,
        own_root,
        stopped: AtomicBool::new(false),
        entered: Mutex::default(),
        listed: Mutex::default(),
        linked: Mutex::default(),
        linked_files: Mutex::default(),
        visited: Mutex::default(),
        listed_under: Mutex::default(),
    };
    walk.begin()?;
    let list = |running: Running<'_, Task>, (): &mut (), meter: &mut Meter<'_>| {
        walk.list(&running.task, meter);
        ControlFlow::Continue(())
    };
    Concurrency::new(request.threads).divide("walk", || walk.tasks.next(), || (), list);
    walk.list_linked_files();
    let was_sent = walk.outbox.flush().is_ok();
    Ok(WalkEnd {
        complete: was_sent && !walk.stopped.into_inner(),
        entered: walk.entered.into_inner().unwrap_or_else(PoisonError::into_inner),
        listed: walk.listed.into_inner().unwrap_or_else(PoisonError::into_inner),
        linked: walk.linked.into_inner().unwrap_or_else(PoisonError::into_inner),
    })
}

impl<'a> Walk<'a> {
    /// Queues what the walk begins with.
    fn begin(&self) -> io::Result<()> {
        match &self.request.part {
            Part::Whole => self.begin_at(&self.request.root, Reach::Below),
            Part::Below(directory) => self.begin_at(directory, Reach::Below),
            Part::Names(touched) => {
                for (directory, names) in touched {
                    // One that is gone, is shut, or was replaced by a link was touched itself, and says so.
                    let is_itself = std::fs::canonicalize(directory).is_ok_and(|real| real == *directory);
                    // What is not followed is another directory than the one whose names were touched.
                    let follower = self.request.follower.as_ref();
                    let is_other = follower.is_some_and(|follower| !follower.knows(directory));
                    let reach = if is_other { Reach::Below } else { Reach::Names(names.clone()) };
                    if is_itself && let Err(error) = self.begin_at(directory, reach) {
                        debug_assert_eq!(Problem::of(&error), Problem::Vanished, "it was there a moment ago");
                    }
                }
                Ok(())
            }
        }
    }

    fn begin_at(&self, directory: &Path, reach: Reach) -> io::Result<()> {
        let metadata = std::fs::symlink_metadata(directory)?;
        if !metadata.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let device = metadata.dev();
        let place = self.volumes.locate(directory, device);
        let relative = strip_prefix(absolute_bytes(directory), absolute_bytes(&self.request.root));
        let relative = relative.unwrap_or_default();
        let relative = relative.strip_prefix(b"/").unwrap_or(relative).to_vec();
        let levels = relative.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).count();
        if reach == Reach::Below {
            self.note_entered(place.clone());
        }
        let inode = metadata.ino();
        self.visit(device, inode);
        let absolute = directory.to_path_buf();
        let task = Task { absolute, place, device, inode, relative, depth: levels + 1, reach };
        self.tasks.push(task, FileStat::from(&metadata).mtime);
        Ok(())
    }

    fn list(&self, task: &Task, meter: &mut Meter<'_>) {
        if self.cancel.is_requested() || self.stopped.load(Ordering::Relaxed) {
            self.stop();
            return;
        }
        let is_selection = matches!(task.reach, Reach::Names(_));
        let mut listing = OpenListing::new(&self.outbox, task.place.clone(), is_selection);
        let asked = Instant::now();
        let read = self.read_entries(task, &mut listing);
        // Of a directory that was sent in pieces, the time would be that of the index, too.
        if listing.pieces() == 0 {
            meter.note(asked.elapsed(), listing.entries.len() as u64 * BYTES_LIKE_AN_ENTRY);
        }
        let was_stopped = self.stopped.load(Ordering::Relaxed);
        match read {
            Ok(()) => {
                if self.request.settings.follow_links {
                    let relative = task.relative.as_slice().into();
                    locked(&self.listed_under).insert((task.device, task.inode), relative);
                }
                self.note_sent(&listing.close(None, was_stopped));
            }
            // Removed since its parent was listed: that is no trouble, it is simply gone.
            Err(error) if Problem::of(&error) == Problem::Vanished && task.depth > 1 => {}
            Err(error) => self.note_sent(&listing.close(Some(Problem::of(&error)), was_stopped)),
        }
        self.progress.directories.add(1);
    }

    fn read_entries(&self, task: &Task, listing: &mut OpenListing<'_, 'a>) -> io::Result<()> {
        if let (Some(follower), Reach::Below | Reach::Itself) = (&self.request.follower, &task.reach) {
            // Before it is listed: what happens from now on is told, and what happened before is seen.
            follower.enter(&task.absolute, task.device);
        }
        let mut directory = OpenDirectory::open(&task.absolute)?;
        let mut relative = Vec::with_capacity(task.relative.len() + 64);
        if let Reach::Names(names) = &task.reach {
            return self.look_at_names(task, &directory, names, listing);
        }
        while let Some(entry) = directory.next_entry()? {
            put_relative(&mut relative, &task.relative, entry.name());
            self.take_entry(task, &directory, &entry, &relative, listing)?;
            if self.stopped.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }

    fn look_at_names(
        &self,
        task: &Task,
        directory: &OpenDirectory,
        names: &BTreeSet<Box<[u8]>>,
        listing: &mut OpenListing<'_, 'a>,
    ) -> io::Result<()> {
        let mut relative = Vec::new();
        for name in names {
            let entry = directory.entry(name)?;
            put_relative(&mut relative, &task.relative, name);
            let taken = match &entry {
                Some(entry) => self.take_entry(task, directory, entry, &relative, listing)?,
                None => Taken::No,
            };
            if taken != Taken::AsFile {
                listing.absent.files.push(name.clone());
            }
            if taken != Taken::AsDirectory {
                listing.absent.directories.push(name.clone());
            }
            self.note_sent(&listing.send_if_full());
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
    ) -> io::Result<Taken> {
        let name = entry.name();
        if self.request.filter.passes_over(name, relative) {
            return Ok(Taken::No);
        }
        match entry.kind {
            EntryKind::Directory => return self.enter(task, directory, entry, relative),
            EntryKind::Link if self.request.settings.follow_links => {
                self.follow(task, name, relative);
                return Ok(Taken::No);
            }
            EntryKind::Link | EntryKind::Other => {
                self.progress.passed_over.add(1);
                return Ok(Taken::No);
            }
            EntryKind::File => {}
        }
        if !self.request.filter.includes(relative) || self.is_own_file(task, name) {
            return Ok(Taken::No);
        }
        let Some(stat) = directory.stat(entry)?.filter(|stat| stat.is_file) else { return Ok(Taken::No) };
        let file = Entry::of(name, &stat, task.device);
        if self.request.filter.takes_size(stat.size) {
            self.note_sent(&listing.add(file));
            return Ok(Taken::AsFile);
        }
        if listing.is_selection && file.has_other_names {
            listing.absent.linked.push(file.stamp);
        }
        Ok(Taken::No)
    }

    /// Queues a subdirectory, unless it belongs to another root or lies too deep.
    fn enter(
        &self,
        task: &Task,
        directory: &OpenDirectory,
        entry: &DirectoryEntry,
        relative: &[u8],
    ) -> io::Result<Taken> {
        let Some(stat) = directory.stat(entry)? else { return Ok(Taken::No) };
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
            return Ok(Taken::No);
        }
        let reach = match task.reach {
            Reach::Itself if self.is_followed(&absolute) => return Ok(Taken::No),
            Reach::Names(_) if self.is_followed(&absolute) => Reach::Itself,
            _ => Reach::Below,
        };
        if reach == Reach::Below && (mounted_here || task.reach != Reach::Below) {
            self.note_entered(place.clone());
        }
        if mounted_here && self.request.settings.one_file_system && device != self.root_device {
            return Ok(Taken::No);
        }
        if self.request.settings.max_depth.is_some_and(|levels| depth > levels) {
            return Ok(Taken::No);
        }
        let inode = stat.inode;
        if self.request.settings.follow_links && !self.visit(device, inode) {
            return Ok(Taken::No);
        }
        if reach == Reach::Itself {
            locked(&self.listed).push(place.clone());
        }
        let task = Task { absolute, place, device, inode, relative: relative.to_vec(), depth, reach };
        self.tasks.push(task, stat.mtime);
        Ok(Taken::AsDirectory)
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
            let (inode, depth) = (metadata.ino(), task.depth + 1);
            let too_deep = self.request.settings.max_depth.is_some_and(|levels| depth > levels);
            if too_deep || !self.visit(device, inode) {
                return;
            }
            locked(&self.linked).push(place.clone());
            let (relative, reach) = (relative.to_vec(), Reach::Below);
            let task = Task { absolute, place, device, inode, relative, depth, reach };
            self.tasks.push(task, FileStat::from(&metadata).mtime);
            return;
        }
        let wanted = metadata.is_file()
            && self.request.filter.includes(relative)
            && self.request.filter.takes_size(metadata.len())
            && !self.request.own_files.contains(&absolute);
        if let (true, Some(name)) = (wanted, absolute.file_name()) {
            let entry = Entry::of(name.as_bytes(), &FileStat::from(&metadata), device);
            let files = LinkedFiles { place, entries: Vec::new() };
            let directory = (device, inside.ino());
            locked(&self.linked_files).entry(directory).or_insert(files).entries.push(entry);
        }
    }

    /// Of a directory that was not walked, the files that links led to are all there is: those that
    /// no link leads to any more are gone. In one that was, those that it did not take by itself join the others.
    fn list_linked_files(&self) {
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        let linked_files = std::mem::take(&mut *locked(&self.linked_files));
        let is_whole = matches!(self.request.part, Part::Whole);
        let listed_under = std::mem::take(&mut *locked(&self.listed_under));
        for ((device, inode), LinkedFiles { place, mut entries }) in linked_files {
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            entries.dedup_by(|a, b| a.name == b.name);
            if let Some(directory) = listed_under.get(&(device, inode)).filter(|_| is_whole) {
                entries.retain(|entry| !self.takes_by_itself(directory, entry));
                if entries.is_empty() {
                    continue;
                }
            }
            let was_walked = !self.visit(device, inode);
            if !was_walked {
                locked(&self.linked).push(place.clone());
            }
            // Of a part, what was not walked may be walked with the rest.
            let is_all = !was_walked && is_whole;
            let coverage = if is_all { Coverage::Whole } else { Coverage::Selected(Absent::default()) };
            let Place { volume, path } = place;
            self.note_sent(&self.outbox.push(Listing { volume, directory: path, coverage, entries }));
        }
    }

    /// True if a file is listed with its directory, whether a link leads to it or not.
    fn takes_by_itself(&self, directory: &[u8], file: &Entry) -> bool {
        let mut relative = Vec::new();
        put_relative(&mut relative, directory, &file.name);
        !self.request.filter.passes_over(&file.name, &relative) && self.request.filter.includes(&relative)
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

    fn is_followed(&self, directory: &Path) -> bool {
        self.request.follower.as_ref().is_some_and(|follower| follower.knows(directory))
    }

    /// True the first time.
    fn visit(&self, device: u64, inode: u64) -> bool {
        locked(&self.visited).insert((device, inode))
    }

    fn note_entered(&self, place: Place) {
        locked(&self.entered).push(place);
    }

    /// Nobody takes listings any more: that means "stop".
    fn note_sent(&self, sent: &Result<(), Closed>) {
        if sent.is_err() {
            self.stop();
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// A set that threads share; one that panicked left it whole, as each change is a single step.
fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
