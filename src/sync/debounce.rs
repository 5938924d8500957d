//! Names that were touched, until they are quiet.
//!
//! What is kept is which names to look at, not what happened to them: looking at one tells what it is, however many
//! events were lost or came twice. Only moves are kept in their order.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::model::scan::RootId;
use crate::scan::{Seen, SeenMove};

/// Names that are waited for at most; a root with more is walked instead.
const MOST_TOUCHED: usize = 200_000;

/// Names that are looked at together at most.
const MOST_AT_ONCE: usize = 50_000;

/// What never gets quiet is looked at after so many times the time it takes to be quiet.
const LONGEST_WAIT: u32 = 20;

/// Something that happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The content or the metadata of what is there may have changed.
    Written,
    /// Something was made there.
    Created,
    /// Something was moved to it.
    Arrived,
    /// It was removed, or moved away.
    Gone,
}

/// A name that was touched.
#[derive(Debug)]
struct Touch {
    root: RootId,
    /// When it is quiet, if nothing happens any more.
    due: Instant,
    /// When it is looked at, whatever happens.
    latest: Instant,
    /// What is there now was written to.
    is_written: bool,
    /// What is there now is not what was there before.
    is_other: bool,
    /// What was there before was written to.
    was_rewritten: bool,
    /// Its inode then, if it had other names.
    rewritten_inode: Option<u64>,
}

impl Touch {
    fn new(root: RootId, due: Instant, latest: Instant) -> Self {
        Self {
            root,
            due,
            latest,
            is_written: false,
            is_other: false,
            was_rewritten: false,
            rewritten_inode: None,
        }
    }
}

/// Collects changes until they are quiet.
#[derive(Debug)]
pub(super) struct Debouncer {
    quiet: Duration,
    touched: BTreeMap<PathBuf, Touch>,
    moves: Vec<SeenMove>,
    /// Files that got another name.
    linked: Vec<(PathBuf, u64)>,
    /// Events since the last look, by root.
    events: BTreeMap<RootId, u64>,
}

impl Debouncer {
    pub(super) fn new(quiet: Duration) -> Self {
        Self {
            quiet,
            touched: BTreeMap::new(),
            moves: Vec::new(),
            linked: Vec::new(),
            events: BTreeMap::new(),
        }
    }

    /// Takes down that a name was touched. Returns a root whose names are too many: they are forgotten, and it has to
    /// be walked.
    #[must_use]
    pub(super) fn touch(
        &mut self,
        path: PathBuf,
        root: RootId,
        change: Change,
        now: Instant,
    ) -> Option<RootId> {
        *self.events.entry(root).or_default() += 1;
        // What is removed often comes back at once: a file that is saved by replacing it, or moved.
        let quiet = if change == Change::Gone { self.quiet * 2 } else { self.quiet };
        let latest = now + self.quiet * LONGEST_WAIT;
        let touch = self.touched.entry(path).or_insert(Touch::new(root, now, latest));
        touch.due = touch.due.max(now + quiet).min(touch.latest);
        touch.root = root;
        match change {
            Change::Written => {
                touch.is_written = true;
                touch.was_rewritten |= !touch.is_other;
            }
            Change::Created | Change::Arrived => {
                touch.is_written = change == Change::Created;
                touch.is_other = true;
            }
            Change::Gone => touch.is_other = true,
        }
        if self.touched.len() <= MOST_TOUCHED {
            return None;
        }
        self.fullest().inspect(|root| self.forget(*root))
    }

    /// True if what is there was not written to yet, as far as is known, but is now.
    pub(super) fn is_first_write(&self, path: &Path) -> bool {
        self.touched.get(path).is_none_or(|touch| !touch.was_rewritten && !touch.is_other)
    }

    /// Takes down that a file was written to that has other names, too.
    pub(super) fn note_linked_write(&mut self, path: &Path, inode: u64) {
        if let Some(touch) = self.touched.get_mut(path) {
            touch.rewritten_inode = Some(inode);
        }
    }

    /// Takes down that a file got another name.
    pub(super) fn note_link(&mut self, path: PathBuf, inode: u64) {
        self.linked.push((path, inode));
    }

    /// Takes down that something was renamed, after both of its names were touched. `is_known`: the index knew it as it
    /// was, but for what was noted here; else what it knows must not follow.
    pub(super) fn note_move(&mut self, from: &Path, to: &Path, is_known: bool) {
        let was_written = self.touched.get(from).is_some_and(|touch| touch.is_written);
        if let (true, Some(touch)) = (was_written, self.touched.get_mut(to)) {
            touch.is_written = true;
        }
        // What was written below it before is below its new name now.
        let root = self.touched.get(to).map(|touch| touch.root);
        for old in self.below(from) {
            if let (Some(touch), Ok(rest)) = (self.touched.remove(&old), old.strip_prefix(from)) {
                let root = root.unwrap_or(touch.root);
                self.touched.insert(to.join(rest), Touch { root, ..touch });
            }
        }
        if !is_known {
            self.moves.clear();
            return;
        }
        match self.moves.last_mut() {
            Some(last) if last.to == from => last.to = to.to_path_buf(),
            _ => self.moves.push(SeenMove { from: from.to_path_buf(), to: to.to_path_buf(), is_clean: true }),
        }
    }

    /// When there is something to look at next; none if nothing was touched.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.touched.values().map(|touch| touch.due).min()
    }

    /// What is quiet. Moves come first, whatever is quiet: a name that was moved away must not be found to be gone
    /// before what was known of it has moved.
    pub(super) fn take(&mut self, now: Instant) -> Option<Seen> {
        let due = self.touched.iter().filter(|(_, touch)| touch.due <= now).take(MOST_AT_ONCE);
        let due: Vec<PathBuf> = due.map(|(path, _)| path.clone()).collect();
        if due.is_empty() {
            return None;
        }
        let mut seen = Seen {
            moves: std::mem::take(&mut self.moves),
            linked: std::mem::take(&mut self.linked),
            ..Seen::default()
        };
        for moved in &mut seen.moves {
            moved.is_clean &= self.touched.get(&moved.to).is_some_and(|touch| !touch.is_written);
            // Their rows move, or are replaced: afterwards nobody knows what they were.
            for name in [&moved.from, &moved.to] {
                if let Some(touch) = self.touched.get_mut(name)
                    && std::mem::take(&mut touch.was_rewritten)
                {
                    seen.rewritten.push(name.clone());
                }
            }
        }
        seen.rewritten.extend(self.rewritten_below_others());
        for path in due {
            let Some(touch) = self.touched.remove(&path) else { continue };
            seen.linked.extend(touch.rewritten_inode.map(|inode| (path.clone(), inode)));
            if touch.was_rewritten {
                seen.rewritten.push(path.clone());
            }
            let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let name = name.as_bytes().into();
            let names = &mut seen.roots.entry(touch.root).or_default().names;
            match names.get_mut(directory) {
                Some(names) => drop(names.insert(name)),
                None => drop(names.insert(directory.to_path_buf(), [name].into())),
            }
        }
        for (root, touched) in &mut seen.roots {
            touched.events = self.events.remove(root).unwrap_or_default();
        }
        Some(seen)
    }

    /// Takes back what could not be dealt with: it is looked at again, and nothing of it is certain any more.
    pub(super) fn give_back(&mut self, seen: Seen, now: Instant) {
        self.linked.extend(seen.linked);
        for (root, touched) in seen.roots {
            *self.events.entry(root).or_default() += touched.events;
            for (directory, names) in touched.names {
                for name in names {
                    let path = directory.join(OsStr::from_bytes(&name));
                    let (due, latest) = (now + self.quiet, now + self.quiet * LONGEST_WAIT);
                    let touch = self.touched.entry(path).or_insert(Touch::new(root, due, latest));
                    touch.is_written = true;
                    touch.was_rewritten = true;
                }
            }
        }
    }

    /// Forgets what was touched in a root: all of it is looked at in another way.
    pub(super) fn forget(&mut self, root: RootId) {
        self.touched.retain(|_, touch| touch.root != root);
        self.events.remove(&root);
        self.moves.clear();
    }

    /// Names that were written to in directories that are others by now: what is known of them goes as soon as one of
    /// these is looked at, be they quiet or not.
    fn rewritten_below_others(&self) -> Vec<PathBuf> {
        let is_other = |path: &Path| self.touched.get(path).is_some_and(|touch| touch.is_other);
        let mut found = Vec::new();
        // Names of a directory come together.
        let mut last: Option<(&Path, bool)> = None;
        for (path, _) in self.touched.iter().filter(|(_, touch)| touch.was_rewritten) {
            let Some(directory) = path.parent() else { continue };
            let is_below = match last {
                Some((last, is_below)) if last == directory => is_below,
                _ => directory.ancestors().any(is_other),
            };
            last = Some((directory, is_below));
            if is_below {
                found.push(path.clone());
            }
        }
        found
    }

    fn fullest(&self) -> Option<RootId> {
        let mut counts: BTreeMap<RootId, usize> = BTreeMap::new();
        for touch in self.touched.values() {
            *counts.entry(touch.root).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(root, _)| root)
    }

    /// Paths below a directory, but not itself. Paths are in the order of their components, so they stand together.
    fn below(&self, directory: &Path) -> Vec<PathBuf> {
        let after = self.touched.range::<Path, _>((Bound::Excluded(directory), Bound::Unbounded));
        after.map(|(path, _)| path).take_while(|path| path.starts_with(directory)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: RootId = RootId(1);
    const QUIET: Duration = Duration::from_millis(500);

    fn touch(debouncer: &mut Debouncer, path: &str, change: Change, now: Instant) {
        assert_eq!(debouncer.touch(path.into(), ROOT, change, now), None);
    }

    fn rename(debouncer: &mut Debouncer, from: &str, to: &str, now: Instant) {
        touch(debouncer, from, Change::Gone, now);
        touch(debouncer, to, Change::Arrived, now);
        debouncer.note_move(Path::new(from), Path::new(to), true);
    }

    fn names(seen: &Seen) -> Vec<String> {
        let names = seen.roots.values().flat_map(|touched| &touched.names);
        let paths = names.flat_map(|(directory, names)| {
            names.iter().map(move |name| format!("{}/{}", directory.display(), String::from_utf8_lossy(name)))
        });
        paths.collect()
    }

    #[test]
    fn a_name_is_looked_at_once_when_it_is_quiet() {
        let (mut debouncer, start) = (Debouncer::new(QUIET), Instant::now());
        for write in 0..5 {
            touch(&mut debouncer, "/r/a", Change::Written, start + QUIET / 2 * write);
            assert!(debouncer.take(start + QUIET / 2 * write).is_none());
        }
        let quiet = start + QUIET * 3;
        assert_eq!(debouncer.next_due(), Some(quiet));
        let seen = debouncer.take(quiet).unwrap();
        assert_eq!(names(&seen), ["/r/a"]);
        assert_eq!(seen.roots[&ROOT].events, 5);
        assert_eq!(debouncer.next_due(), None);
        assert!(debouncer.take(quiet).is_none());
    }

    #[test]
    fn what_never_gets_quiet_is_looked_at_all_the_same() {
        let (mut debouncer, start) = (Debouncer::new(QUIET), Instant::now());
        let looks = (0..200).filter(|tenth| {
            let now = start + QUIET / 10 * *tenth;
            touch(&mut debouncer, "/r/log", Change::Written, now);
            debouncer.take(now).is_some()
        });
        assert_eq!(looks.count(), 0);
        assert!(debouncer.take(start + QUIET * LONGEST_WAIT).is_some());
    }

    #[test]
    fn what_is_removed_and_comes_back_is_a_change_and_no_loss() {
        let (mut debouncer, start) = (Debouncer::new(QUIET), Instant::now());
        touch(&mut debouncer, "/r/a", Change::Gone, start);
        assert!(debouncer.take(start + QUIET).is_none());
        touch(&mut debouncer, "/r/a", Change::Arrived, start + QUIET);
        assert_eq!(names(&debouncer.take(start + QUIET * 2).unwrap()), ["/r/a"]);
    }

    #[test]
    fn what_was_written_below_a_directory_that_is_another_now_is_named_at_once() {
        let (mut debouncer, start) = (Debouncer::new(QUIET), Instant::now());
        touch(&mut debouncer, "/r/d", Change::Gone, start);
        let start = start + QUIET;
        touch(&mut debouncer, "/r/d/new", Change::Created, start);
        touch(&mut debouncer, "/r/d/e/written", Change::Written, start + QUIET / 2);
        touch(&mut debouncer, "/r/written", Change::Written, start + QUIET / 2);
        assert!(!debouncer.is_first_write(Path::new("/r/d/e/written")));
        debouncer.note_linked_write(Path::new("/r/d/e/written"), 7);
        let seen = debouncer.take(start + QUIET).unwrap();
        assert_eq!(names(&seen), ["/r/d", "/r/d/new"]);
        assert_eq!((seen.rewritten, seen.linked), (vec!["/r/d/e/written".into()], vec![]));
        let seen = debouncer.take(start + QUIET * 2).unwrap();
        assert_eq!(names(&seen), ["/r/written", "/r/d/e/written"]);
        assert_eq!(seen.linked, [("/r/d/e/written".into(), 7)]);
    }

    #[test]
    fn a_move_comes_before_anything_is_looked_at_and_knows_whether_the_file_was_written() {
        let (mut debouncer, start) = (Debouncer::new(QUIET), Instant::now());
        touch(&mut debouncer, "/r/early", Change::Written, start);
        let later = start + QUIET / 2;
        rename(&mut debouncer, "/r/a", "/r/b", later);
        touch(&mut debouncer, "/r/c", Change::Written, later);
        rename(&mut debouncer, "/r/c", "/r/d", later);
        rename(&mut debouncer, "/r/e", "/r/f", later);
        touch(&mut debouncer, "/r/f", Change::Written, later);
        let seen = debouncer.take(start + QUIET).unwrap();
        assert_eq!(names(&seen), ["/r/early"]);
        let moves: Vec<_> = seen.moves.iter().map(|it| (it.from.to_str().unwrap(), it.is_clean)).collect();
        assert_eq!(moves, [("/r/a", true), ("/r/c", false), ("/r/e", false)]);
        let rest = debouncer.take(later + QUIET * 2).unwrap();
        assert_eq!(names(&rest), ["/r/a", "/r/b", "/r/c", "/r/d", "/r/e", "/r/f"]);
        assert!(rest.moves.is_empty());
    }

    #[test]
    fn what_was_touched_in_a_directory_goes_with_it() {
        let (mut debouncer, start) = (Debouncer::new(QUIET), Instant::now());
        touch(&mut debouncer, "/r/d/x", Change::Written, start);
        touch(&mut debouncer, "/r/d-not", Change::Written, start);
        rename(&mut debouncer, "/r/d", "/r/e", start);
        rename(&mut debouncer, "/r/e", "/r/f", start);
        let seen = debouncer.take(start + QUIET * 2).unwrap();
        assert_eq!(names(&seen), ["/r/d", "/r/d-not", "/r/e", "/r/f", "/r/f/x"]);
        let moved = SeenMove { from: "/r/d".into(), to: "/r/f".into(), is_clean: true };
        assert_eq!(seen.moves, [moved], "two steps of one thing are one");
    }

    #[test]
    fn too_many_names_of_a_root_are_forgotten_and_told() {
        let (mut debouncer, now) = (Debouncer::new(QUIET), Instant::now());
        touch(&mut debouncer, "/other", Change::Written, now);
        let mut told = Vec::new();
        for number in 0..=MOST_TOUCHED {
            told.extend(debouncer.touch(format!("/r/{number}").into(), RootId(2), Change::Written, now));
        }
        assert_eq!(told, [RootId(2)]);
        let seen = debouncer.take(now + QUIET).unwrap();
        assert!(seen.roots.contains_key(&ROOT));
    }

    #[test]
    fn what_is_given_back_is_looked_at_again_and_is_not_certain() {
        let (mut debouncer, start) = (Debouncer::new(QUIET), Instant::now());
        rename(&mut debouncer, "/r/a", "/r/b", start);
        let seen = debouncer.take(start + QUIET * 2).unwrap();
        debouncer.give_back(seen, start);
        rename(&mut debouncer, "/r/b", "/r/c", start);
        let seen = debouncer.take(start + QUIET * 2).unwrap();
        assert_eq!(names(&seen), ["/r/a", "/r/b", "/r/c"]);
        assert!(!seen.moves[0].is_clean);
    }
}
