//! The roots that a keeper keeps up to date, and how each stands.

use std::path::PathBuf;
use std::time::Duration;

use super::schedule::{self, LOOKED_BACK, Past};
use crate::config::WatchSettings;
use crate::index::{Index, Result};
use crate::model::history::HistoryFilter;
use crate::model::scan::{Root, RootId, ScanKind, ScanStatus};
use crate::model::stamp::Nanos;
use crate::model::upkeep::{NextReconciliation, WatchMode, WatchSign};

/// How often the index is told what is watched, and asked what is to be: three times in a watcher's patience.
pub(super) const SIGN: Duration = Duration::from_secs(20);

/// Rows of the history that are searched for reconciliations: those of the watcher itself lie between them.
const HISTORY: u64 = 500;

/// How long after a failed reconciliation the next one is tried.
const TRY_AGAIN: Duration = Duration::from_mins(5);

/// A root, and how it stands.
#[derive(Debug)]
pub(super) struct KeptRoot {
    pub(super) root: Root,
    /// What holds for it.
    pub(super) settings: WatchSettings,
    pub(super) mode: WatchMode,
    since: Nanos,
    pub(super) next: NextReconciliation,
    /// The kind of the next reconciliation.
    pub(super) kind: ScanKind,
    /// When the next one was planned; none if it is hurried.
    planned: Option<Nanos>,
    /// No hurried one sooner.
    rests_until: Nanos,
}

impl KeptRoot {
    /// One that is to be reconciled at once.
    pub(super) fn new(root: Root, settings: WatchSettings) -> Self {
        let now = Nanos::now();
        Self {
            root,
            settings,
            mode: WatchMode::Polled("not reconciled yet".to_owned()),
            since: now,
            next: NextReconciliation { at: now, reason: "the watcher began".to_owned() },
            kind: ScanKind::Startup,
            planned: None,
            rests_until: now,
        }
    }

    pub(super) fn id(&self) -> RootId {
        self.root.id
    }

    pub(super) fn path(&self) -> PathBuf {
        self.root.path.clone()
    }

    pub(super) fn is_due(&self) -> bool {
        self.next.at <= Nanos::now() && !matches!(self.mode, WatchMode::Offline(_))
    }

    /// Reconciles at once, or as soon as it has rested.
    pub(super) fn hurry(&mut self, reason: String) {
        self.planned = None;
        self.next = NextReconciliation { at: Nanos::now().max(self.rests_until), reason };
    }

    /// True if something happened that the next reconciliation is for.
    pub(super) fn is_hurried(&self) -> bool {
        self.planned.is_none()
    }

    /// When the next one was planned, if it is by the schedule.
    pub(super) fn planned_at(&self) -> Option<Nanos> {
        self.planned
    }

    /// Is not hurried again for a while.
    pub(super) fn rest(&mut self, pause: Duration) {
        self.rests_until = after(pause);
    }

    /// How long it is until the next one.
    pub(super) fn time_left(&self) -> Duration {
        Duration::from_nanos(u64::try_from(self.next.at.0 - Nanos::now().0).unwrap_or_default())
    }

    /// After a reconciliation that could not be done.
    pub(super) fn put_off(&mut self, reason: String) {
        self.planned = None;
        self.next = NextReconciliation { at: after(TRY_AGAIN.min(self.settings.interval)), reason };
    }

    /// After a reconciliation: when the next one is, by what the last ones found.
    pub(super) async fn plan(&mut self, index: &dyn Index, host: &str) -> Result<()> {
        self.kind = ScanKind::Reconcile;
        let (interval, reason) = if let WatchMode::Polled(_) = self.mode {
            let every = crate::format::duration(self.settings.poll);
            (self.settings.poll, format!("every {every}: no events come"))
        } else {
            let runs = index.history(HistoryFilter { root: Some(self.id()), limit: HISTORY }).await?;
            let is_past = |run: &&crate::model::history::Run| {
                let is_whole = run.root.as_ref().is_some_and(|root| root.within.is_none());
                run.kind == ScanKind::Reconcile && run.status == ScanStatus::Completed && is_whole
            };
            let past: Vec<Past> = runs
                .iter()
                .filter(is_past)
                .take(LOOKED_BACK)
                .map(|run| Past { missed: run.counts.changes(), files: run.counts.files_seen })
                .collect();
            schedule::interval(&self.settings, &past)
        };
        let interval = schedule::with_jitter(interval, self.id(), host, Nanos::now().0);
        self.planned = Some(Nanos::now());
        self.next = NextReconciliation { at: after(interval), reason };
        Ok(())
    }

    pub(super) fn sign(&self, events: u64) -> WatchSign {
        WatchSign {
            root: self.id(),
            mode: self.mode.clone(),
            since: self.since,
            events,
            next: Some(self.next_look()),
        }
    }

    /// When something is done about it next, as people are to know it.
    fn next_look(&self) -> NextReconciliation {
        match self.mode {
            WatchMode::Offline(_) => {
                NextReconciliation { at: after(SIGN), reason: "as soon as it can be reached".to_owned() }
            }
            WatchMode::Live | WatchMode::Polled(_) => self.next.clone(),
        }
    }
}

fn after(interval: Duration) -> Nanos {
    let nanos = i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX);
    Nanos(Nanos::now().0.saturating_add(nanos))
}
