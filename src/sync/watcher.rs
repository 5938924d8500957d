//! What the file system tells: events become touched names of a root.
//!
//! Each directory is watched by itself, from just before it is listed (see [`Follower`]): so what a root's options pass
//! over is not watched, and nothing falls between listing and watching. Our own reading makes no events: only changes
//! are asked for, not what is opened or read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, EventKindMask, ModifyKind, RenameMode};
use notify::{Config, ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::debounce::{Change, Debouncer};
use crate::discovery::filter::Filter;
use crate::discovery::walk::Follower;
use crate::model::scan::{Root, RootId};
use crate::model::stamp::{FileStat, Stamp};
use crate::model::volume::Host;
use crate::os;
use crate::scan::Seen;
use crate::volume::Volumes;

/// What is asked for: everything that changes a file, and not that one is opened or read.
const CHANGES: EventKindMask = EventKindMask::CREATE
    .union(EventKindMask::REMOVE)
    .union(EventKindMask::MODIFY_DATA)
    .union(EventKindMask::MODIFY_META)
    .union(EventKindMask::MODIFY_NAME)
    .union(EventKindMask::ACCESS_CLOSE);

/// Follows directories, and collects what happens in them. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Watcher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Arc<Mutex<State>>,
    /// None if the system lets us have none, for this reason.
    system: Mutex<Result<RecommendedWatcher, String>>,
    changed: Arc<Notify>,
    host: Host,
}

/// What the events are held against.
#[derive(Debug)]
struct State {
    debouncer: Debouncer,
    roots: BTreeMap<RootId, WatchedRoot>,
    /// The directories that are followed.
    followed: BTreeSet<PathBuf>,
    /// Those that were until something was moved: by their names, the system may still follow what was there.
    stale: BTreeSet<PathBuf>,
    /// Devices whose file systems send no events, and their kinds.
    silent_devices: HashMap<u64, Option<String>>,
    /// The files of the index, which change whenever we write.
    own_files: Vec<PathBuf>,
}

#[derive(Debug)]
struct WatchedRoot {
    path: PathBuf,
    filter: Filter,
    /// Since its last walk nothing was missed: what the index knows of it is what it was.
    is_settled: bool,
    /// Why it has to be walked anew.
    lost: Option<String>,
    /// Why it cannot be followed.
    refused: Option<String>,
    events: u64,
}

impl Watcher {
    /// Follows nothing yet.
    pub(super) fn new(host: Host, own_files: Vec<PathBuf>, quiet: Duration) -> Self {
        let state = Arc::new(Mutex::new(State {
            debouncer: Debouncer::new(quiet),
            roots: BTreeMap::new(),
            followed: BTreeSet::new(),
            stale: BTreeSet::new(),
            silent_devices: HashMap::new(),
            own_files,
        }));
        let changed = Arc::new(Notify::new());
        let (heard, wake) = (Arc::clone(&state), Arc::clone(&changed));
        let hear = move |event: notify::Result<Event>| {
            locked(&heard).hear(event, Instant::now());
            wake.notify_one();
        };
        let system = RecommendedWatcher::new(hear, Config::default().with_event_kinds(CHANGES));
        let system = Mutex::new(system.map_err(|error| why_refused(&error)));
        Self(Arc::new(Shared { state, system, changed, host }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.0.state)
    }

    /// Takes on a root, or its new options. Its directories are followed as they are listed.
    pub(super) fn take_on(&self, root: &Root, filter: Filter, refused: Option<String>) {
        let system = locked(&self.0.system);
        let refused = refused.or_else(|| system.as_ref().err().cloned());
        drop(system);
        let watched = WatchedRoot {
            path: root.path.clone(),
            filter,
            is_settled: false,
            lost: None,
            refused,
            events: 0,
        };
        self.state().roots.insert(root.id, watched);
    }

    /// Does not follow a root any more.
    pub(super) fn let_go(&self, root: RootId) {
        let path = self.state().roots.get(&root).map(|root| root.path.clone());
        if let Some(path) = path {
            self.unfollow(&path);
        }
        let mut state = self.state();
        state.debouncer.forget(root);
        state.roots.remove(&root);
    }

    /// Before a root is walked: what was touched in it is seen by the walk.
    pub(super) fn begin_walk(&self, root: RootId) {
        let mut state = self.state();
        state.debouncer.forget(root);
        let Some(root) = state.roots.get_mut(&root) else { return };
        root.is_settled = false;
        root.lost = None;
        let path = root.path.clone();
        drop(state);
        self.forget_stale(&path);
    }

    /// After a walk that reached its end.
    pub(super) fn end_walk(&self, root: RootId) {
        if let Some(root) = self.state().roots.get_mut(&root) {
            root.is_settled = root.lost.is_none();
        }
    }

    /// Why a root cannot be followed; its watches are given back.
    pub(super) fn refused(&self, root: RootId) -> Option<String> {
        let refused = |state: &State| {
            let root = state.roots.get(&root)?;
            Some((root.path.clone(), root.refused.clone()?))
        };
        let (path, reason) = refused(&self.state())?;
        self.unfollow(&path);
        self.state().debouncer.forget(root);
        Some(reason)
    }

    /// Why a root has to be walked anew, if it has.
    pub(super) fn lost(&self, root: RootId) -> Option<String> {
        self.state().roots.get(&root)?.lost.clone()
    }

    /// Events of a root so far.
    pub(super) fn events(&self, root: RootId) -> u64 {
        self.state().roots.get(&root).map_or(0, |root| root.events)
    }

    /// Directories that are followed below a path.
    pub(super) fn followed_below(&self, path: &Path) -> usize {
        below(&self.state().followed, path).count()
    }

    /// Ends when something was touched; at once if something was since the last time.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// When there is something quiet to look at.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.state().debouncer.next_due()
    }

    /// What is quiet by now.
    pub(super) fn take(&self) -> Option<Seen> {
        self.state().debouncer.take(Instant::now())
    }

    /// Takes back what could not be dealt with.
    pub(super) fn give_back(&self, seen: Seen) {
        self.state().debouncer.give_back(seen, Instant::now());
    }

    /// Does not follow anything from a directory on any more.
    fn unfollow(&self, path: &Path) {
        let followed = take_below(&mut self.state().followed, path);
        if let Ok(system) = locked(&self.0.system).as_mut() {
            for path in followed {
                // What is gone is not followed any more, either.
                let _ = system.unwatch(&path);
            }
        }
        self.forget_stale(path);
    }

    /// Has the system follow nothing by names from a directory on that are not followed. It drops most of them itself.
    fn forget_stale(&self, path: &Path) {
        let stale = take_below(&mut self.state().stale, path);
        if stale.is_empty() {
            return;
        }
        if let Ok(system) = locked(&self.0.system).as_mut() {
            let held = system.watched_paths().unwrap_or_default();
            let held: HashSet<PathBuf> = held.into_iter().map(|(path, _)| path).collect();
            for path in stale.iter().filter(|path| held.contains(*path)) {
                let _ = system.unwatch(path);
            }
        }
    }

    /// The kind of a file system that sends no events of what others do in it; none if it sends them.
    fn silent_kind(&self, device: u64) -> Option<String> {
        if let Some(known) = self.state().silent_devices.get(&device) {
            return known.clone();
        }
        let volumes = Volumes::read(&self.0.host).ok();
        let kind = volumes.and_then(|volumes| volumes.kind_of_device(device).map(str::to_owned));
        let silent = kind.filter(|kind| is_silent(kind));
        self.state().silent_devices.insert(device, silent.clone());
        silent
    }

    fn refuse(&self, directory: &Path, reason: String) {
        let mut state = self.state();
        if let Some(root) = state.root_of(directory)
            && let Some(root) = state.roots.get_mut(&root)
        {
            root.refused.get_or_insert(reason);
        }
    }
}

/// The inode, as the index knows it, of a file with several names.
fn inode_of_linked(path: &Path) -> Option<u64> {
    let metadata = std::fs::symlink_metadata(path).ok().filter(|it| it.is_file() && it.nlink() > 1)?;
    let directory = std::fs::metadata(path.parent()?).ok()?;
    Some(Stamp::of(&FileStat::from(&metadata), directory.dev()).inode)
}

/// Paths from one on. Those of a set are in the order of their components, so they stand together.
fn below<'a>(paths: &'a BTreeSet<PathBuf>, top: &Path) -> impl Iterator<Item = &'a PathBuf> + use<'a> {
    let from = paths.range::<Path, _>((Bound::Included(top), Bound::Unbounded));
    let top = top.to_path_buf();
    from.take_while(move |path| path.starts_with(&top))
}

fn take_below(paths: &mut BTreeSet<PathBuf>, top: &Path) -> Vec<PathBuf> {
    let taken: Vec<PathBuf> = below(paths, top).cloned().collect();
    for path in &taken {
        paths.remove(path);
    }
    taken
}

/// File systems that others change without this host being told, or that tell nothing at all.
fn is_silent(kind: &str) -> bool {
    const SILENT: [&str; 12] = [
        "nfs",
        "cifs",
        "smb",
        "9p",
        "ceph",
        "glusterfs",
        "afs",
        "lustre",
        "gpfs",
        "virtiofs",
        "vboxsf",
        "fuse.",
    ];
    kind == "fuse" || SILENT.iter().any(|silent| kind.starts_with(silent))
}

impl Follower for Watcher {
    fn enter(&self, directory: &Path, device: u64) {
        let is_stale;
        {
            let mut state = self.state();
            let root = state.root_of(directory).and_then(|id| state.roots.get(&id));
            if root.is_none_or(|root| root.refused.is_some()) || state.followed.contains(directory) {
                return;
            }
            state.followed.insert(directory.to_path_buf());
            is_stale = state.stale.remove(directory);
        }
        if let Some(kind) = self.silent_kind(device) {
            return self.refuse(directory, format!("{kind} sends no events"));
        }
        // Not while the state is locked: the system's thread may be waiting for it.
        let watched = match locked(&self.0.system).as_mut() {
            Ok(system) => {
                if is_stale {
                    // Asked to follow a name that it has, the system does nothing, whatever is there now.
                    let _ = system.unwatch(directory);
                }
                system.watch(directory, RecursiveMode::NonRecursive)
            }
            Err(_) => return,
        };
        let Err(error) = watched else { return };
        self.state().followed.remove(directory);
        let is_unreadable = |source: &std::io::Error| {
            use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
            matches!(source.kind(), NotADirectory | NotFound | PermissionDenied)
        };
        match &error.kind {
            // The listing will say so.
            ErrorKind::PathNotFound => {}
            ErrorKind::Io(source) if is_unreadable(source) => {}
            _ => self.refuse(directory, why_refused(&error)),
        }
    }

    fn knows(&self, directory: &Path) -> bool {
        self.state().followed.contains(directory)
    }

    fn forget(&self, directory: &Path) {
        self.state().forget_followed(directory);
    }
}

impl State {
    /// The innermost root that a path lies in.
    fn root_of(&self, path: &Path) -> Option<RootId> {
        let around = self.roots.iter().filter(|(_, root)| path.starts_with(&root.path));
        around.max_by_key(|(_, root)| root.path.as_os_str().len()).map(|(id, _)| *id)
    }

    fn hear(&mut self, event: notify::Result<Event>, now: Instant) {
        let event = match event {
            Ok(event) if event.need_rescan() => {
                return self
                    .lose_all("more happened at once than the system remembers (its queue overflowed)");
            }
            Ok(event) => event,
            Err(error) => return self.lose_all(&format!("the system's events failed: {error}")),
        };
        let Some(path) = event.paths.first() else { return };
        match event.kind {
            EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_))
            | EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                let is_first = self.debouncer.is_first_write(path);
                self.touch(path, Change::Written, now);
                // Unless it is nothing that is looked at.
                if is_first && !self.debouncer.is_first_write(path) {
                    self.note_write(path);
                }
            }
            EventKind::Create(_) => {
                self.forget_followed(path);
                self.touch(path, Change::Created, now);
                self.note_link(path);
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                self.forget_followed(path);
                self.touch(path, Change::Arrived, now);
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
                if let [from, to] = &event.paths[..] {
                    self.note_move(from, to);
                }
            }
            EventKind::Remove(_) => {
                // The system follows nothing that is no more.
                take_below(&mut self.followed, path);
                self.touch(path, Change::Gone, now);
            }
            EventKind::Modify(ModifyKind::Name(_)) => {
                self.forget_followed(path);
                self.touch(path, Change::Gone, now);
            }
            EventKind::Any | EventKind::Access(_) | EventKind::Modify(_) | EventKind::Other => {}
        }
    }

    /// What was removed or moved away is not followed any more, and what is new at its place is not yet: a directory
    /// that nobody follows is walked wholly, whatever was thought to be below it.
    fn forget_followed(&mut self, path: &Path) {
        self.stale.extend(take_below(&mut self.followed, path));
    }

    fn touch(&mut self, path: &Path, change: Change, now: Instant) {
        let Some(id) = self.root_of(path) else { return };
        let Some(root) = self.roots.get_mut(&id) else { return };
        if root.refused.is_some() || self.own_files.iter().any(|own| own == path) {
            return;
        }
        let relative = path.strip_prefix(&root.path).unwrap_or(path).as_os_str().as_bytes();
        if path == root.path {
            root.events += 1;
            // It was removed, moved or unmounted, or its permissions changed: a walk tells.
            root.lost.get_or_insert_with(|| "the directory itself changed".to_owned());
        } else if !passes_over(&root.filter, relative) {
            root.events += 1;
            if let Some(full) = self.debouncer.touch(path.to_path_buf(), id, change, now) {
                self.lose(full, "more was touched than is worth remembering");
            }
        }
    }

    /// A new name may be one of a file that is there already. When it is quiet, it may be gone again.
    fn note_link(&mut self, path: &Path) {
        if self.root_of(path).is_some()
            && let Some(inode) = inode_of_linked(path)
        {
            self.debouncer.note_link(path.to_path_buf(), inode);
        }
    }

    /// So may be the name by which a file was written to that has others.
    fn note_write(&mut self, path: &Path) {
        if let Some(inode) = inode_of_linked(path) {
            self.debouncer.note_linked_write(path, inode);
        }
    }

    fn note_move(&mut self, from: &Path, to: &Path) {
        let is_settled = |path: &Path| {
            self.root_of(path).and_then(|id| self.roots.get(&id)).is_some_and(|root| root.is_settled)
        };
        let is_known = is_settled(from) && is_settled(to);
        if self.root_of(to).is_some() {
            self.debouncer.note_move(from, to, is_known);
        }
    }

    fn lose_all(&mut self, reason: &str) {
        let roots: Vec<RootId> = self.roots.keys().copied().collect();
        for root in roots {
            self.lose(root, reason);
        }
    }

    fn lose(&mut self, root: RootId, reason: &str) {
        if let Some(root) = self.roots.get_mut(&root)
            && root.refused.is_none()
        {
            root.is_settled = false;
            root.lost.get_or_insert_with(|| reason.to_owned());
        }
    }
}

/// The name alone: what lies in a directory that is passed over is not followed.
fn passes_over(filter: &Filter, relative: &[u8]) -> bool {
    let name = relative.rsplit(|byte| *byte == b'/').next().unwrap_or(relative);
    filter.passes_over(name, relative)
}

/// Why the system does not let us follow, and what to do about it, see `inotify(7)`.
fn why_refused(error: &notify::Error) -> String {
    let too_many_instances =
        |source: &std::io::Error| source.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error());
    match &error.kind {
        ErrorKind::MaxFilesWatch => limit("max_user_watches", "directories that may be watched", 4),
        ErrorKind::Io(source) if too_many_instances(source) => {
            limit("max_user_instances", "programs that may watch", 2)
        }
        _ => error.to_string(),
    }
}

fn limit(name: &str, of_what: &str, times: u64) -> String {
    let present = os::inotify_limit(name);
    let advice = present.map(|present| format!("; raise it: sysctl fs.inotify.{name}={}", present * times));
    let present = present.map(|present| format!(" ({present})")).unwrap_or_default();
    format!("the system's limit of {of_what}{present} is reached{}", advice.unwrap_or_default())
}

/// State that threads share; one that panicked left it whole, as each change is a single step.
fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
