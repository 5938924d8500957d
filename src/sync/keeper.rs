//! The keeper: what is due is reconciled, what was seen is followed, one thing after the other.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backon::{BackoffBuilder as _, ExponentialBuilder};

use super::pieces::halves;
use super::roots::{KeptRoot, SIGN};
use super::told::{Teller, Told};
use super::watcher::Watcher;
use crate::cancel::Cancel;
use crate::concurrency::Threads;
use crate::config::{IntervalError, WatchSettings};
use crate::discovery::filter::Filter;
use crate::discovery::walk::Follower;
use crate::index::{Index, IndexError};
use crate::model::scan::{Root, RootId, ScanCounts, ScanKind};
use crate::model::upkeep::WatchMode;
use crate::model::volume::Host;
use crate::progress::Progress;
use crate::scan::{Followed, Journal, Reconciled, ScanError, Scanner, Seen, Workers};

/// What a watcher did is summed in rows of so long.
const JOURNAL_INTERVAL: Duration = Duration::from_hours(1);

/// Nothing happened for so long: the index is prepared for fast reports.
const SETTLE_AFTER: Duration = Duration::from_secs(10);

/// A rest is so many times as long as the work before it: at least half of the time is left to others.
const SHARE: u32 = 1;

/// Preparing for reports, which looks at everything that is known, takes less.
const SETTLE_SHARE: u32 = 50;

/// The least pause between two walks of a root of which events are lost again and again.
const LEAST_PAUSE: Duration = Duration::from_secs(5);

/// Names that are refused one by one before it is the index that is at fault.
const MOST_REFUSED: usize = 10;

/// Pauses while the index is away: each is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Why nothing is kept up to date.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// There is nothing to watch.
    #[error(
        "no directory is marked to be watched: name some, or mark them with 'dupfind roots add DIR --watch'"
    )]
    NothingToWatch,
    /// The index knows none of the named directories any more.
    #[error(
        "the index knows none of these directories any more (was it deleted, or were they removed from it?); \
         'dupfind watch DIR' begins anew"
    )]
    NothingLeft,
    /// The options of a root contradict each other.
    #[error("{path}: {source}")]
    Intervals {
        /// The root, for people.
        path: String,
        /// What is wrong.
        source: IntervalError,
    },
    /// A run could not begin.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Opens the index again after it was away.
#[async_trait(?Send)]
pub trait Opener {
    /// One attempt.
    async fn open(&self) -> Result<Arc<dyn Index>, String>;
}

/// What a keeper works with.
pub struct KeeperSettings {
    /// The roots that are watched; none for all that are marked to be.
    pub roots: Option<Vec<RootId>>,
    /// What holds for roots without options of their own.
    pub watch: WatchSettings,
    /// How the work is divided, but for what a root says.
    pub workers: Workers,
    /// This host.
    pub host: Host,
    /// The wish to stop.
    pub cancel: Cancel,
    /// Is told what happens.
    pub teller: Teller,
    /// Opens the index again.
    pub opener: Box<dyn Opener>,
}

impl std::fmt::Debug for KeeperSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeeperSettings").field("roots", &self.roots).finish_non_exhaustive()
    }
}

/// Keeps roots up to date until it is told to stop.
#[derive(Debug)]
pub struct Keeper {
    settings: KeeperSettings,
    index: Arc<dyn Index>,
    watcher: Watcher,
    roots: BTreeMap<RootId, KeptRoot>,
    journal: Journal,
    journal_began: Instant,
    signed: Instant,
    /// The index was not told yet how a root stands now.
    is_news: bool,
    /// What was seen is not looked at sooner.
    rest_until: Instant,
    /// When something was written that reports do not know yet.
    unsettled: Option<Instant>,
    /// The index is not prepared for reports sooner.
    settle_not_before: Instant,
}

impl Keeper {
    /// Prepares; nothing is watched yet.
    pub fn new(index: Arc<dyn Index>, settings: KeeperSettings) -> Self {
        let watcher = Watcher::new(settings.host.clone(), index.own_files(), settings.watch.debounce);
        let now = Instant::now();
        Self {
            settings,
            index,
            watcher,
            roots: BTreeMap::new(),
            journal: Journal::default(),
            journal_began: now,
            signed: now,
            is_news: true,
            rest_until: now,
            unsettled: None,
            settle_not_before: now,
        }
    }

    /// Reconciles all roots, and follows what happens in them from then on, until a stop is asked for.
    pub async fn run(mut self) -> Result<(), SyncError> {
        self.look_for_roots().await?;
        if self.roots.is_empty() {
            return Err(SyncError::NothingToWatch);
        }
        let mut is_ready = false;
        while !self.settings.cancel.is_requested() {
            if self.settings.roots.is_some() && self.roots.is_empty() {
                return Err(SyncError::NothingLeft);
            }
            self.note_losses();
            if std::mem::take(&mut self.is_news) {
                self.tell_index().await;
            }
            let done = if self.signed.elapsed() >= SIGN {
                self.sign(is_ready).await
            } else if let Some(seen) = self.take_seen() {
                self.follow(seen).await
            } else if let Some(root) = self.root_due() {
                self.reconcile(root).await
            } else if self.is_time_to_settle() {
                self.settle().await
            } else {
                if !std::mem::replace(&mut is_ready, true) {
                    self.tell(&Told::Ready);
                    // What is touched from now on is found among many files.
                    self.unsettled = Some(Instant::now());
                }
                self.wait().await;
                Ok(())
            };
            if let Err(error) = done {
                self.lose(&error).await;
            }
        }
        let roots: Vec<RootId> = self.roots.keys().copied().collect();
        Ok(self.index.end_watches(&self.settings.host.name, &roots).await?)
    }

    fn tell(&self, told: &Told) {
        (self.settings.teller)(told);
    }

    /// Reads which roots there are, and what holds for them.
    async fn look_for_roots(&mut self) -> Result<(), SyncError> {
        let known = self.index.roots().await?;
        let is_wanted = |root: &&Root| match &self.settings.roots {
            Some(named) => named.contains(&root.id),
            None => root.upkeep.watch,
        };
        let wanted: Vec<Root> = known.iter().filter(is_wanted).cloned().collect();
        let gone: Vec<RootId> =
            self.roots.keys().filter(|id| wanted.iter().all(|root| root.id != **id)).copied().collect();
        for id in gone {
            let is_known = known.iter().any(|root| root.id == id);
            self.let_go(id, if is_known { "it is not marked any more" } else { "the index forgot it" });
        }
        for root in wanted {
            let settings = self.settings.watch.of_root(&root.upkeep);
            let settings = settings.map_err(|source| SyncError::Intervals {
                path: crate::model::path::escape_path(&root.path),
                source,
            })?;
            match self.roots.get_mut(&root.id) {
                Some(kept) if kept.root.settings == root.settings && kept.root.upkeep == root.upkeep => {}
                Some(kept) => {
                    kept.root = root.clone();
                    kept.settings = settings;
                    kept.hurry("its options changed".to_owned());
                    self.take_on(&root)?;
                }
                None => {
                    self.take_on(&root)?;
                    self.roots.insert(root.id, KeptRoot::new(root, settings));
                }
            }
        }
        Ok(())
    }

    fn take_on(&self, root: &Root) -> Result<(), SyncError> {
        let filter = Filter::new(&root.settings).map_err(ScanError::from)?;
        let refused = if root.upkeep.poll.is_some() {
            Some("its options say so".to_owned())
        } else if root.settings.follow_links {
            Some("links are followed, and where they lead to is not watched".to_owned())
        } else {
            None
        };
        self.watcher.let_go(root.id);
        self.watcher.take_on(root, filter, refused);
        Ok(())
    }

    fn let_go(&mut self, id: RootId, reason: &'static str) {
        self.watcher.let_go(id);
        if let Some(kept) = self.roots.remove(&id) {
            self.tell(&Told::LetGo { root: kept.path(), reason });
        }
    }

    /// Roots of which events were lost are walked again, but not without a pause.
    fn note_losses(&mut self) {
        for kept in self.roots.values_mut() {
            if kept.mode == WatchMode::Live
                && !kept.is_hurried()
                && let Some(reason) = self.watcher.lost(kept.id())
            {
                (self.settings.teller)(&Told::Lost { root: kept.path(), reason: reason.clone() });
                // Until it was walked; the log has said so.
                kept.mode = WatchMode::Polled(format!("events were lost: {reason}"));
                kept.hurry(reason);
                self.is_news = true;
            }
        }
    }

    fn take_seen(&self) -> Option<Seen> {
        if Instant::now() < self.rest_until { None } else { self.watcher.take() }
    }

    fn root_due(&self) -> Option<RootId> {
        self.roots.values().filter(|kept| kept.is_due()).min_by_key(|kept| kept.next.at).map(KeptRoot::id)
    }

    /// Waits until there may be something to do.
    async fn wait(&self) {
        let now = Instant::now();
        let mut until = now + SIGN.saturating_sub(self.signed.elapsed());
        for kept in self.roots.values().filter(|kept| !matches!(kept.mode, WatchMode::Offline(_))) {
            until = until.min(now + kept.time_left());
        }
        let due = self.watcher.next_due();
        if let Some(due) = due {
            until = until.min(due.max(self.rest_until));
        }
        tokio::select! {
            // What is touched before it is quiet changes nothing.
            () = self.watcher.changed(), if due.is_none() => {}
            () = self.settings.cancel.requested() => {}
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }

    fn scanner(&self, root: Option<&Root>) -> Result<Scanner, ScanError> {
        let mut workers = self.settings.workers;
        if let Some(upkeep) = root.map(|root| &root.upkeep) {
            workers.walk = upkeep.threads.map_or(workers.walk, Threads::exactly);
            workers.read = upkeep.io_threads.map_or(workers.read, Threads::exactly);
            workers.batch = upkeep.batch_size.unwrap_or(workers.batch);
        }
        self.scanner_with(workers)
    }

    fn scanner_with(&self, workers: Workers) -> Result<Scanner, ScanError> {
        let (host, cancel) = (self.settings.host.clone(), self.settings.cancel.clone());
        Scanner::new(Arc::clone(&self.index), host, workers, cancel, Arc::new(Progress::default()))
    }

    /// What was seen is mostly little, and in memory: threads that wait for a disk would be made each time for nothing.
    fn scanner_of_few(&self) -> Result<Scanner, ScanError> {
        let workers = self.settings.workers;
        let few = |threads: Threads| Threads::exactly(threads.least);
        let workers = Workers { walk: few(workers.walk), read: few(workers.read), ..workers };
        self.scanner_with(workers)
    }

    fn follower(&self) -> Arc<dyn Follower> {
        Arc::new(self.watcher.clone())
    }

    /// Brings the index up to date with what was seen.
    async fn follow(&mut self, seen: Seen) -> Result<(), ScanError> {
        let began = Instant::now();
        let mut waiting = vec![seen];
        let mut refused = 0;
        while let Some(seen) = waiting.pop() {
            let began = Instant::now();
            match self.try_to_follow(&seen).await {
                Ok(followed) => self.note_followed(followed, began.elapsed()),
                // What the index refuses is halved until it is a single name: that is left to the next reconciliation.
                Err(error) if is_refusal(&error) && refused < MOST_REFUSED => match halves(seen) {
                    Ok((first, second)) => waiting.extend([second, first]),
                    Err(directory) => {
                        refused += 1;
                        self.tell(&Told::Refused { directory, error: error.to_string() });
                    }
                },
                Err(error) => {
                    waiting.push(seen);
                    for seen in waiting {
                        self.watcher.give_back(seen);
                    }
                    return Err(error);
                }
            }
        }
        self.rest_until = self.rest_until.max(Instant::now() + began.elapsed() * SHARE);
        Ok(())
    }

    async fn try_to_follow(&mut self, seen: &Seen) -> Result<Followed, ScanError> {
        if self.journal_began.elapsed() >= JOURNAL_INTERVAL {
            self.journal.turn_over();
            self.journal_began = Instant::now();
        }
        let scanner = self.scanner_of_few()?;
        let mut journal = std::mem::take(&mut self.journal);
        let result = self.while_signing(scanner.follow(seen, &mut journal, self.follower())).await;
        self.journal = journal;
        result
    }

    fn note_followed(&mut self, followed: Followed, took: Duration) {
        let Followed { counts, moved, offline, forgotten } = followed;
        if counts.have_changes() || moved > 0 || counts.hashed > 0 || counts.problems > 0 {
            self.unsettled = Some(Instant::now());
            self.is_news = true;
            self.tell(&Told::Followed { counts, moved, took });
        }
        for (id, reason) in offline {
            self.set_mode(id, WatchMode::Offline(reason));
        }
        for id in forgotten {
            self.let_go(id, "the index forgot it");
        }
        let live: Vec<RootId> =
            self.roots.values().filter(|kept| kept.mode == WatchMode::Live).map(KeptRoot::id).collect();
        for id in live {
            if let Some(reason) = self.watcher.refused(id) {
                self.set_mode(id, WatchMode::Polled(reason));
                if let Some(kept) = self.roots.get_mut(&id) {
                    kept.hurry("events do not come any more".to_owned());
                }
            }
        }
    }

    /// What has to do with the index alone waits for it; anything else is tried again after a while.
    async fn lose(&mut self, error: &ScanError) {
        if let ScanError::Index(_) = error {
            return self.lose_index(error).await;
        }
        self.tell(&Told::Trouble { error: error.to_string() });
        self.rest_until = Instant::now() + LEAST_PAUSE;
    }

    /// Walks a root again.
    async fn reconcile(&mut self, id: RootId) -> Result<(), ScanError> {
        let Some(kept) = self.roots.get(&id) else { return Ok(()) };
        let (root, kind, reason) = (kept.root.clone(), kept.kind, kept.next.reason.clone());
        if self.was_reconciled_elsewhere(id).await? {
            return self.plan(id).await;
        }
        let path = root.path.clone();
        self.tell(&Told::Reconciling { root: path.clone(), kind, reason });
        let began = Instant::now();
        self.watcher.begin_walk(id);
        let scanner = self.scanner(Some(&root))?;
        let result = self.while_signing(scanner.reconcile_root(id, kind, Some(self.follower()))).await;
        match result {
            Ok(Reconciled::Done(report)) if report.is_interrupted() => {}
            Ok(Reconciled::Done(report)) => {
                self.watcher.end_walk(id);
                self.note_reconciled(id, kind, report.counts, began.elapsed());
                self.plan(id).await?;
            }
            Ok(Reconciled::Unreachable(reason)) => {
                self.put_off(id, &reason);
                self.set_mode(id, WatchMode::Offline(reason));
            }
            Ok(Reconciled::Forgotten) => self.let_go(id, "the index forgot it"),
            Err(error) if matches!(error, ScanError::Index(_)) && !is_refusal(&error) => return Err(error),
            Err(error) => {
                let error = error.to_string();
                self.put_off(id, &error);
                self.tell(&Told::Failed { root: path, error });
            }
        }
        Ok(())
    }

    fn note_reconciled(&mut self, id: RootId, kind: ScanKind, counts: ScanCounts, took: Duration) {
        let Some(kept) = self.roots.get_mut(&id) else { return };
        kept.rest(LEAST_PAUSE.max(took * SHARE));
        let root = kept.path();
        self.tell(&Told::Reconciled { root, kind, counts, took });
        let mode = self.watcher.refused(id).map_or(WatchMode::Live, WatchMode::Polled);
        self.set_mode(id, mode);
    }

    async fn plan(&mut self, id: RootId) -> Result<(), ScanError> {
        let (index, host) = (Arc::clone(&self.index), Arc::clone(&self.settings.host.name));
        if let Some(kept) = self.roots.get_mut(&id) {
            kept.plan(index.as_ref(), &host).await?;
            self.is_news = true;
        }
        Ok(())
    }

    fn put_off(&mut self, id: RootId, reason: &str) {
        if let Some(kept) = self.roots.get_mut(&id) {
            kept.put_off(format!("the last one failed: {reason}"));
        }
    }

    /// True if another process reconciled a root since this one planned to.
    async fn was_reconciled_elsewhere(&self, id: RootId) -> Result<bool, IndexError> {
        let Some(planned) = self.roots.get(&id).and_then(KeptRoot::planned_at) else { return Ok(false) };
        let roots = self.index.roots().await?;
        let last = roots.iter().find(|root| root.id == id).and_then(|root| root.last_scan.as_ref());
        Ok(last.is_some_and(|scan| scan.discovered && scan.started_at > planned && scan.ended_at.is_some()))
    }

    fn set_mode(&mut self, id: RootId, mode: WatchMode) {
        let Some(kept) = self.roots.get_mut(&id) else { return };
        if kept.mode == mode {
            return;
        }
        self.is_news = true;
        kept.mode = mode;
        let root = kept.path();
        let told = match kept.mode.clone() {
            WatchMode::Live => {
                let directories = self.watcher.followed_below(&root);
                Told::Live { root, directories }
            }
            WatchMode::Polled(reason) => Told::Polled { root, reason, every: kept.settings.poll },
            WatchMode::Offline(reason) => Told::Offline { root, reason },
        };
        self.tell(&told);
    }

    fn is_time_to_settle(&self) -> bool {
        let is_quiet = |since: Instant| since.elapsed() >= SETTLE_AFTER;
        self.unsettled.is_some_and(is_quiet) && Instant::now() >= self.settle_not_before
    }

    /// Prepares the index for reports, and notes in the history what it holds.
    async fn settle(&mut self) -> Result<(), ScanError> {
        self.unsettled = None;
        let began = Instant::now();
        let scanner = self.scanner(None)?;
        let settled = self.while_signing(scanner.settle(&self.journal)).await;
        self.settle_not_before = Instant::now() + began.elapsed() * SETTLE_SHARE;
        settled
    }

    /// What recurs: says what is watched, looks for roots that came, went, or can be reached again.
    async fn sign(&mut self, is_ready: bool) -> Result<(), ScanError> {
        self.signed = Instant::now();
        if !is_ready {
            self.tell(&Told::Starting);
        }
        match self.look_for_roots().await {
            Ok(()) => {}
            Err(SyncError::Index(error)) => return Err(error.into()),
            Err(error) => self.tell(&Told::Trouble { error: error.to_string() }),
        }
        let scanner = self.scanner(None)?;
        for kept in self.roots.values_mut() {
            if matches!(kept.mode, WatchMode::Offline(_)) && scanner.is_reachable(&kept.root) {
                kept.mode = WatchMode::Polled("not reconciled yet".to_owned());
                kept.kind = ScanKind::Startup;
                kept.hurry("it can be reached again".to_owned());
            }
        }
        self.tell_index().await;
        Ok(())
    }

    async fn tell_index(&self) {
        let signs: Vec<_> =
            self.roots.values().map(|kept| kept.sign(self.watcher.events(kept.id()))).collect();
        // If the index is away, whatever is done next tells.
        let _ = self.index.sign_watches(&self.settings.host.name, &signs).await;
    }

    /// Goes on saying what is watched while something takes its time. Both go on at the same time: one may wait for a
    /// lock that the other holds.
    async fn while_signing<T>(&self, work: impl Future<Output = T>) -> T {
        // Behind a pointer: what a walk does and what the keeper does are compiled each by itself.
        let mut work: Pin<Box<dyn Future<Output = T> + '_>> = Box::pin(work);
        let mut signing = pin!(async {
            loop {
                tokio::time::sleep(SIGN).await;
                self.tell_index().await;
            }
        });
        tokio::select! {
            done = &mut work => done,
            () = &mut signing => unreachable!("it goes on for ever"),
        }
    }

    /// Waits until the index can be used again; then everything is reconciled.
    async fn lose_index(&mut self, error: &ScanError) {
        if self.settings.cancel.is_requested() {
            return;
        }
        self.tell(&Told::IndexAway { error: error.to_string() });
        let mut pauses = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .build();
        while self.settings.cancel.sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await {
            let Ok(index) = self.settings.opener.open().await else { continue };
            if index.roots().await.is_ok() {
                self.index = index;
                self.journal.turn_over();
                for kept in self.roots.values_mut() {
                    kept.hurry("the index was away".to_owned());
                }
                self.tell(&Told::IndexBack);
                return;
            }
        }
    }
}

/// True if the index is there, and does not take what it was given.
fn is_refusal(error: &ScanError) -> bool {
    matches!(error, ScanError::Index(IndexError::Database { .. } | IndexError::Damaged(_)))
}
