//! The one connection that writes, and its transaction.

use std::time::Duration;

use std::path::Path;

use async_trait::async_trait;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;

use super::lookups::{HASHES, LookUp, SIZES};
use super::spare::OpenSpare;
use super::{SqliteIndex, catalog, discovery, keep_log, pending, rot, summary, watches, workers, write_back};
use crate::index::convert;
use crate::index::lock::WriteLock;
use crate::index::{IndexError, PendingReader, Result, Writer, Written};
use crate::model::group::Summary;
use crate::model::listing::{Listing, Move};
use crate::model::path::VolumePath;
use crate::model::pending::{Outcome, Scope, Stage, Unread};
use crate::model::rot::{Ended, HashRange};
use crate::model::scan::{RootId, ScanCounts, ScanId, ScanKind, ScanStatus};
use crate::model::settings::ScanSettings;
use crate::model::upkeep::Upkeep;
use crate::model::volume::{Extent, MountMap, MountedVolume, Places, VolumeId, VolumeIdentity};
use crate::model::worker::{Pace, Participant, WorkerId};

/// How often the worker's row says that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Writes in transactions that begin with the first statement and end with a commit.
#[derive(Debug)]
pub(super) struct SqliteWriter {
    index: SqliteIndex,
    connection: SqliteConnection,
    worker: WorkerId,
    participant: Participant,
    pace: Pace,
    state: discovery::DiscoveryState,
    hashes: LookUp,
    sizes: LookUp,
    in_transaction: bool,
    spare: OpenSpare,
    // Last, so that it is given back after the connection is closed.
    _lock: WriteLock,
}

impl SqliteWriter {
    /// Takes over a connection and the lock; marks scans whose process died.
    pub(super) async fn begin(
        index: SqliteIndex,
        lock: WriteLock,
        participant: &Participant,
    ) -> Result<Self> {
        let mut connection = index.connect().await?;
        // The file may be another than the one that was opened.
        keep_log(&mut connection).await?;
        let result = sqlx::raw_sql(discovery::TEMPORARY_TABLES).execute(&mut connection).await;
        result.map_err(IndexError::during("prepare to write"))?;
        let spare = index.spare.open();
        let hashes = LookUp::look(&HASHES, &mut connection).await?;
        let sizes = LookUp::look(&SIZES, &mut connection).await?;
        let mut writer = Self {
            index,
            connection,
            worker: WorkerId(0),
            participant: participant.clone(),
            pace: Pace::start(&participant.progress),
            state: discovery::DiscoveryState::default(),
            hashes,
            sizes,
            in_transaction: false,
            spare,
            _lock: lock,
        };
        catalog::mark_dead_scans(writer.transaction().await?).await?;
        writer.worker = workers::join(writer.transaction().await?, participant).await?;
        writer.commit().await?;
        Ok(writer)
    }

    /// The connection, inside a transaction. It begins as a writer's: one that turned from reading
    /// to writing could be refused at once, whatever the timeout.
    async fn transaction(&mut self) -> Result<&mut SqliteConnection> {
        if !self.in_transaction {
            let begun = sqlx::query("begin immediate").execute(&mut self.connection).await;
            begun.map_err(IndexError::during("begin to write"))?;
            self.in_transaction = true;
        }
        Ok(&mut self.connection)
    }

    /// Prepares for hashes to be written.
    async fn expect_hashes(&mut self, hashes: usize) -> Result<()> {
        self.transaction().await?;
        summary::forget_figures(&mut self.connection).await?;
        self.hashes.expect(&mut self.connection, hashes as u64).await
    }
}

#[async_trait(?Send)]
impl Writer for SqliteWriter {
    async fn is_alone(&mut self) -> Result<bool> {
        Ok(true)
    }

    async fn commit(&mut self) -> Result<()> {
        if self.in_transaction {
            if self.pace.elapsed() >= SIGN_OF_LIFE {
                let sign = self.pace.take(&self.participant.progress);
                workers::sign(&mut self.connection, self.worker, &sign).await?;
            }
            let committed = sqlx::query("commit").execute(&mut self.connection).await;
            committed.map_err(IndexError::during("commit"))?;
            self.in_transaction = false;
        }
        Ok(())
    }

    async fn roll_back(&mut self) {
        if std::mem::take(&mut self.in_transaction) {
            // SQLite may have done so itself, as when the disk is full.
            let _ = sqlx::query("rollback").execute(&mut self.connection).await;
        }
    }

    async fn register_volume(&mut self, host: &str, volume: &MountedVolume) -> Result<VolumeId> {
        let id = catalog::put_volume(self.transaction().await?, host, volume).await?;
        self.state.volumes.insert(volume.identity.clone(), id);
        Ok(id)
    }

    async fn forget_names(&mut self, host: &str, used: &[VolumeIdentity]) -> Result<()> {
        catalog::forget_names(self.transaction().await?, host, used).await
    }

    async fn put_root(&mut self, extent: &Extent, path: &Path, settings: &ScanSettings) -> Result<RootId> {
        let connection = self.transaction().await?;
        if convert::is_known(&catalog::roots(connection).await?, extent, settings) {
            return catalog::put_root(connection, extent, path, settings).await;
        }
        // With another policy, files count as pending that did not before, or do not any more.
        summary::forget_figures(connection).await?;
        let id = catalog::put_root(connection, extent, path, settings).await?;
        summary::forget_problems_of_unread(connection).await?;
        Ok(id)
    }

    async fn put_upkeep(&mut self, root: RootId, upkeep: &Upkeep) -> Result<()> {
        watches::put_upkeep(self.transaction().await?, root, upkeep).await
    }

    async fn remove_root(&mut self, root: Option<RootId>, extents: &[Extent]) -> Result<u64> {
        let connection = self.transaction().await?;
        summary::forget_figures(connection).await?;
        let files = catalog::remove_root(connection, root, extents).await?;
        // What is left of it goes by the root around it.
        summary::forget_problems_of_unread(connection).await?;
        Ok(files)
    }

    async fn begin_scan(
        &mut self,
        root: Option<RootId>,
        kind: ScanKind,
        within: Option<&VolumePath>,
    ) -> Result<ScanId> {
        let worker = self.worker;
        catalog::begin_scan(self.transaction().await?, root, kind, within, worker).await
    }

    async fn continue_scan(&mut self, scan: ScanId) -> Result<ScanId> {
        let worker = self.worker;
        catalog::continue_scan(self.transaction().await?, scan, worker).await
    }

    async fn write_moves(&mut self, scan: ScanId, moves: &[Move]) -> Result<()> {
        self.transaction().await?;
        // Something may have been replaced, or be where files are not read.
        summary::forget_figures(&mut self.connection).await?;
        discovery::write_moves(&mut self.connection, &self.state, scan, moves).await
    }

    async fn write_listings(&mut self, scan: ScanId, listings: &[Listing]) -> Result<Written> {
        self.transaction().await?;
        let written =
            discovery::write_listings(&mut self.connection, &mut self.state, scan, listings).await?;
        if written.counts.have_changes() || listings.iter().any(Listing::is_unreadable) {
            summary::forget_figures(&mut self.connection).await?;
            let ScanCounts { added, updated, removed, .. } = written.counts;
            self.sizes.expect(&mut self.connection, added + updated + removed).await?;
        }
        Ok(written)
    }

    async fn finish_discovery(
        &mut self,
        scan: ScanId,
        root: Option<RootId>,
        extents: &[Extent],
        linked: &[Extent],
    ) -> Result<u64> {
        self.state.in_pieces.clear();
        let finished = discovery::finish(self.transaction().await?, scan, root, extents, linked).await?;
        if finished.has_changes() {
            summary::forget_figures(&mut self.connection).await?;
        }
        Ok(finished.removed)
    }

    async fn finish_parts(
        &mut self,
        scan: ScanId,
        root: RootId,
        extents: &[Extent],
        linked: &[Extent],
    ) -> Result<u64> {
        self.state.in_pieces.clear();
        let finished =
            discovery::finish_parts(self.transaction().await?, scan, root, extents, linked).await?;
        if finished.has_changes() {
            summary::forget_figures(&mut self.connection).await?;
        }
        Ok(finished.removed)
    }

    async fn pending(
        &mut self,
        stage: Stage,
        scope: &Scope,
        mounts: &MountMap,
    ) -> Result<Box<dyn PendingReader>> {
        if summary::kept(&mut self.connection).await?.is_some() {
            return Ok(Box::new(pending::NothingPending));
        }
        let connection = self.index.connect().await?;
        Ok(Box::new(pending::SqlitePending::select(connection, stage, scope, mounts).await?))
    }

    async fn write_outcomes(&mut self, outcomes: Vec<Outcome>) -> Result<()> {
        if outcomes.is_empty() {
            return Ok(());
        }
        self.expect_hashes(outcomes.len()).await?;
        write_back::write_outcomes(&mut self.connection, &outcomes).await
    }

    async fn write_verified(&mut self, outcomes: Vec<Outcome>) -> Result<()> {
        self.expect_hashes(outcomes.len()).await?;
        rot::write_verified(&mut self.connection, &outcomes).await
    }

    async fn accept(&mut self, outcomes: Vec<Outcome>) -> Result<u64> {
        self.expect_hashes(outcomes.len()).await?;
        rot::accept(&mut self.connection, &outcomes).await
    }

    async fn conclude(&mut self, places: &Places, extents: &[Extent]) -> Result<Vec<Ended>> {
        if rot::follow(self.transaction().await?).await? {
            summary::forget_figures(&mut self.connection).await?;
            rot::judge(&mut self.connection).await?;
        }
        rot::conclude(&mut self.connection, places, extents).await
    }

    async fn note_sampled(&mut self, extent: &Extent, range: HashRange) -> Result<()> {
        rot::note_sampled(self.transaction().await?, extent, range).await
    }

    async fn end_scan(
        &mut self,
        scan: ScanId,
        status: ScanStatus,
        counts: &ScanCounts,
        error: Option<&str>,
    ) -> Result<()> {
        catalog::end_scan(self.transaction().await?, scan, status, counts, error).await
    }

    async fn note_figures(&mut self, scans: &[ScanId], figures: &Summary) -> Result<()> {
        catalog::note_figures(self.transaction().await?, scans, figures).await
    }

    async fn expect_small_scopes(&mut self) -> Result<()> {
        self.transaction().await?;
        self.sizes.make(&mut self.connection).await?;
        self.commit().await
    }

    async fn settle(&mut self, unread: Unread) -> Result<Summary> {
        self.commit().await?;
        if !self.hashes.is_there() {
            self.transaction().await?;
            // They do not wait for each other, and one alone leaves a core idle.
            let (made, moved) = tokio::join!(self.hashes.make(&mut self.connection), self.index.empty_log());
            made.and(moved)?;
            self.commit().await?;
        }
        if let Some((_, kept)) = summary::kept(&mut self.connection).await? {
            return Ok(kept);
        }
        let (summary, moved) = tokio::join!(summary::keep(&self.index, unread), self.index.empty_log());
        moved.and(summary)
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        let worker = self.worker;
        workers::leave(self.transaction().await?, worker).await?;
        self.commit().await?;
        for connection in self.spare.close().into_iter().chain([self.connection]) {
            connection.close().await.map_err(IndexError::during("close"))?;
        }
        Ok(())
    }
}
