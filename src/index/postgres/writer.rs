//! A process that writes: each call a transaction, said again if the connection is lost.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use tokio::task::JoinSet;

use super::leases::{Held, LeaseReader};
use super::session::Session;
use super::workers::Heartbeat;
use super::{catalog, changes, discovery, leases, lookups, rot, summary, watches, workers, write_back};
use crate::index::{IndexError, PendingReader, Result, Writer, Written, convert};
use crate::model::group::Summary;
use crate::model::listing::{Listing, Move};
use crate::model::path::VolumePath;
use crate::model::pending::{Outcome, Scope, Stage, Unread};
use crate::model::rot::{Ended, HashRange};
use crate::model::scan::{RootId, ScanCounts, ScanId, ScanKind, ScanStatus};
use crate::model::settings::ScanSettings;
use crate::model::upkeep::Upkeep;
use crate::model::volume::{Extent, MountMap, MountedVolume, Places, VolumeId, VolumeIdentity};
use crate::model::worker::{Participant, WorkerId};

/// Rows in a statement. More gain nothing (1,000 and 10,000 measured the same), fewer cost round trips.
const MOST_ROWS: usize = 8192;

/// A server that refuses so few rows for their size has another reason.
const FEWEST_ROWS: usize = 16;

/// Joined to the index until it is closed.
#[derive(Debug)]
pub(super) struct PostgresWriter {
    session: Session,
    worker: WorkerId,
    held: Held,
    /// Volumes that have a row.
    volumes: HashMap<VolumeIdentity, VolumeId>,
    most_rows: MostRows,
    /// Outcomes that are being written, a batch at a time, while the process lists and reads on.
    writing: JoinSet<Result<()>>,
    heartbeat: Heartbeat,
}

/// The most rows in a statement: fewer once the server refused one for its size.
#[derive(Debug, Clone)]
struct MostRows(Arc<AtomicUsize>);

impl MostRows {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// True if the error is one of size, and half as many rows may be worth a try.
    fn can_be_fewer(&self, error: &IndexError) -> bool {
        let can = error.is_too_large() && self.get() > FEWEST_ROWS;
        if can {
            self.0.store(self.get() / 2, Ordering::Relaxed);
        }
        can
    }
}

impl PostgresWriter {
    pub(super) async fn join(session: Session, participant: &Participant) -> Result<Self> {
        let patience = session.options().patience;
        let join =
            async |connection: &mut PgConnection| workers::join(connection, participant, patience).await;
        let worker = session.transaction("join the index", join).await?;
        let heartbeat = Heartbeat::start(session.clone(), worker, participant.clone());
        Ok(Self {
            session,
            worker,
            held: Held::default(),
            volumes: HashMap::new(),
            most_rows: MostRows(Arc::new(AtomicUsize::new(MOST_ROWS))),
            writing: JoinSet::new(),
            heartbeat,
        })
    }

    /// Waits until the outcomes that are being written are written.
    async fn finish_writing(&mut self) -> Result<()> {
        while let Some(written) = self.writing.join_next().await {
            written.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        }
        Ok(())
    }

    /// Does something that another process may keep from being done, until it may be.
    async fn when_free<T>(
        &self,
        operation: &'static str,
        mut work: impl AsyncFnMut(&mut PgConnection) -> Result<T>,
    ) -> Result<T> {
        let mut was_told = false;
        loop {
            let holder = match self.session.transaction(operation, &mut work).await {
                Err(IndexError::Busy { holder }) => holder,
                result => return result,
            };
            self.session.options().on_busy.wait_for(holder, &mut was_told).await?;
        }
    }
}

/// In the order of the rows, so that two workers that write the same rows wait for each other.
fn in_order(outcomes: &[Outcome]) -> Vec<&Outcome> {
    let mut in_order: Vec<&Outcome> = outcomes.iter().collect();
    in_order.sort_unstable_by(|a, b| (a.key.directory, &a.key.name).cmp(&(b.key.directory, &b.key.name)));
    in_order
}

#[async_trait(?Send)]
impl Writer for PostgresWriter {
    async fn is_alone(&mut self) -> Result<bool> {
        let worker = self.worker;
        let look = async |connection: &mut PgConnection| workers::is_alone(connection, worker).await;
        self.session.transaction("look for other workers", look).await
    }

    async fn commit(&mut self) -> Result<()> {
        self.finish_writing().await
    }

    /// Each call was a transaction of its own.
    async fn roll_back(&mut self) {}

    async fn register_volume(&mut self, host: &str, volume: &MountedVolume) -> Result<VolumeId> {
        let put = async |connection: &mut PgConnection| catalog::put_volume(connection, host, volume).await;
        let id = self.session.transaction("remember a volume", put).await?;
        self.volumes.insert(volume.identity.clone(), id);
        Ok(id)
    }

    async fn forget_names(&mut self, host: &str, used: &[VolumeIdentity]) -> Result<()> {
        let forget =
            async |connection: &mut PgConnection| catalog::forget_names(connection, host, used).await;
        self.session.transaction("forget a name", forget).await
    }

    async fn put_root(&mut self, extent: &Extent, path: &Path, settings: &ScanSettings) -> Result<RootId> {
        let worker = self.worker;
        let put = async |connection: &mut PgConnection| {
            if convert::is_known(&catalog::roots(connection).await?, extent, settings) {
                return catalog::put_root(connection, extent, path, settings).await;
            }
            // With another policy, files count as pending that did not before, or do not any more.
            changes::note(connection, worker).await?;
            let id = catalog::put_root(connection, extent, path, settings).await?;
            summary::forget_problems_of_unread(connection).await?;
            Ok(id)
        };
        self.session.transaction("remember a root", put).await
    }

    async fn put_upkeep(&mut self, root: RootId, upkeep: &Upkeep) -> Result<()> {
        let put = async |connection: &mut PgConnection| watches::put_upkeep(connection, root, upkeep).await;
        self.session.transaction("remember a root", put).await
    }

    async fn remove_root(&mut self, root: Option<RootId>, extents: &[Extent]) -> Result<u64> {
        let worker = self.worker;
        let remove = async |connection: &mut PgConnection| {
            changes::note(connection, worker).await?;
            let files = catalog::remove_root(connection, root, worker, extents).await?;
            // What is left of it goes by the root around it.
            summary::forget_problems_of_unread(connection).await?;
            Ok(files)
        };
        self.when_free("forget a root", remove).await
    }

    async fn begin_scan(
        &mut self,
        root: Option<RootId>,
        kind: ScanKind,
        within: Option<&VolumePath>,
    ) -> Result<ScanId> {
        let worker = self.worker;
        let begin = async |connection: &mut PgConnection| {
            catalog::begin_scan(connection, root, kind, within, worker).await
        };
        self.when_free("begin a scan", begin).await
    }

    async fn continue_scan(&mut self, scan: ScanId) -> Result<ScanId> {
        let worker = self.worker;
        let go_on =
            async |connection: &mut PgConnection| catalog::continue_scan(connection, scan, worker).await;
        self.when_free("go on with a scan", go_on).await
    }

    async fn write_moves(&mut self, scan: ScanId, moves: &[Move]) -> Result<()> {
        let (volumes, worker) = (&self.volumes, self.worker);
        let write = async |connection: &mut PgConnection| {
            discovery::write_moves(connection, volumes, scan, moves).await?;
            // Something may have been replaced, or be where files are not read.
            changes::note(connection, worker).await
        };
        self.session.transaction("write moves", write).await
    }

    async fn write_listings(&mut self, scan: ScanId, listings: &[Listing]) -> Result<Written> {
        loop {
            let (volumes, most, worker) = (&self.volumes, self.most_rows.get(), self.worker);
            let write = async |connection: &mut PgConnection| {
                let written = discovery::write_listings(connection, volumes, most, scan, listings).await?;
                if written.counts.have_changes() || listings.iter().any(Listing::is_unreadable) {
                    changes::note(connection, worker).await?;
                }
                Ok(written)
            };
            match self.session.transaction("write files", write).await {
                Err(error) if self.most_rows.can_be_fewer(&error) => {}
                result => return result,
            }
        }
    }

    async fn finish_discovery(
        &mut self,
        scan: ScanId,
        root: Option<RootId>,
        extents: &[Extent],
        linked: &[Extent],
    ) -> Result<u64> {
        let worker = self.worker;
        let finish = async |connection: &mut PgConnection| {
            let finished = discovery::finish(connection, scan, root, extents, linked).await?;
            if finished.has_changes() {
                changes::note(connection, worker).await?;
            }
            Ok(finished.removed)
        };
        self.session.transaction("finish discovery", finish).await
    }

    async fn finish_parts(
        &mut self,
        scan: ScanId,
        root: RootId,
        extents: &[Extent],
        linked: &[Extent],
    ) -> Result<u64> {
        let worker = self.worker;
        let finish = async |connection: &mut PgConnection| {
            let finished = discovery::finish_parts(connection, scan, root, extents, linked).await?;
            if finished.has_changes() {
                changes::note(connection, worker).await?;
            }
            Ok(finished.removed)
        };
        self.session.transaction("finish discovery", finish).await
    }

    async fn pending(
        &mut self,
        stage: Stage,
        scope: &Scope,
        mounts: &MountMap,
    ) -> Result<Box<dyn PendingReader>> {
        let (session, held) = (self.session.clone(), self.held.clone());
        Ok(Box::new(LeaseReader::select(session, self.worker, held, stage, scope, mounts).await?))
    }

    async fn write_outcomes(&mut self, outcomes: Vec<Outcome>) -> Result<()> {
        if outcomes.is_empty() {
            return Ok(());
        }
        self.finish_writing().await?;
        let (session, held, worker) = (self.session.clone(), self.held.clone(), self.worker);
        let most_rows = self.most_rows.clone();
        self.writing.spawn_local(async move {
            let in_order = in_order(&outcomes);
            let finished = held.completed_by(&outcomes);
            loop {
                let most = most_rows.get();
                let write = async |connection: &mut PgConnection| {
                    write_back::write_outcomes(connection, &in_order, most).await?;
                    leases::finish(connection, &finished).await?;
                    changes::note(connection, worker).await
                };
                match session.transaction("write hashes", write).await {
                    Err(error) if most_rows.can_be_fewer(&error) => {}
                    result => break result?,
                }
            }
            held.answer(&outcomes);
            Ok(())
        });
        Ok(())
    }

    async fn write_verified(&mut self, outcomes: Vec<Outcome>) -> Result<()> {
        self.finish_writing().await?;
        let (in_order, worker) = (in_order(&outcomes), self.worker);
        loop {
            let most = self.most_rows.get();
            let write = async |connection: &mut PgConnection| {
                rot::write_verified(connection, &in_order, most).await?;
                changes::note(connection, worker).await
            };
            match self.session.transaction("record what is rotten", write).await {
                Err(error) if self.most_rows.can_be_fewer(&error) => {}
                result => return result,
            }
        }
    }

    async fn accept(&mut self, outcomes: Vec<Outcome>) -> Result<u64> {
        self.finish_writing().await?;
        let (in_order, worker, most) = (in_order(&outcomes), self.worker, self.most_rows.get());
        let accept = async |connection: &mut PgConnection| {
            changes::note(connection, worker).await?;
            rot::accept(connection, &in_order, most).await
        };
        self.session.transaction("accept what was found", accept).await
    }

    async fn conclude(&mut self, places: &Places, extents: &[Extent]) -> Result<Vec<Ended>> {
        let worker = self.worker;
        let end = async |connection: &mut PgConnection| {
            if rot::follow(connection).await? {
                changes::note(connection, worker).await?;
                rot::judge(connection).await?;
            }
            rot::conclude(connection, places, extents).await
        };
        self.session.transaction("end what is settled", end).await
    }

    async fn note_sampled(&mut self, extent: &Extent, range: HashRange) -> Result<()> {
        let note = async |connection: &mut PgConnection| rot::note_sampled(connection, extent, range).await;
        self.session.transaction("note what was sampled", note).await
    }

    async fn end_scan(
        &mut self,
        scan: ScanId,
        status: ScanStatus,
        counts: &ScanCounts,
        error: Option<&str>,
    ) -> Result<()> {
        self.finish_writing().await?;
        let end = async |connection: &mut PgConnection| {
            catalog::end_scan(connection, scan, status, counts, error).await
        };
        self.session.transaction("end a scan", end).await
    }

    async fn note_figures(&mut self, scans: &[ScanId], figures: &Summary) -> Result<()> {
        let note =
            async |connection: &mut PgConnection| catalog::note_figures(connection, scans, figures).await;
        self.session.transaction("note the figures", note).await
    }

    async fn expect_small_scopes(&mut self) -> Result<()> {
        match lookups::make(&self.session).await {
            // It is found without, too; the user may not be allowed to make it, or there may be no room for it.
            Err(IndexError::Database { .. }) => Ok(()),
            made => made,
        }
    }

    async fn settle(&mut self, unread: Unread) -> Result<Summary> {
        self.finish_writing().await?;
        summary::keep(&self.session, unread).await
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        let written = self.finish_writing().await;
        let Self { session, worker, heartbeat, .. } = *self;
        heartbeat.end().await;
        let leave = async |connection: &mut PgConnection| workers::leave(connection, worker).await;
        session.transaction("leave the index", leave).await?;
        written
    }
}
