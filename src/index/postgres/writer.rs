//! A process that writes: each call a transaction, said again if the connection is lost.

use std::collections::HashMap;
use std::path::Path;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::leases::{Held, LeaseReader};
use super::session::Session;
use super::workers::Heartbeat;
use super::{catalog, discovery, leases, workers, write_back};
use crate::index::{IndexError, PendingReader, Result, Writer};
use crate::model::listing::Listing;
use crate::model::pending::{Outcome, Scope, Stage};
use crate::model::scan::{RootId, ScanCounts, ScanId, ScanKind, ScanStatus};
use crate::model::settings::ScanSettings;
use crate::model::volume::{Extent, MountMap, MountedVolume, VolumeId, VolumeIdentity};
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
    /// Rows in a statement: fewer once the server refused one for its size.
    most_rows: usize,
    _heartbeat: Heartbeat,
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
            most_rows: MOST_ROWS,
            _heartbeat: heartbeat,
        })
    }

    /// True if the error is one of size, and half as many rows may be worth a try.
    fn can_take_smaller(&mut self, error: &IndexError) -> bool {
        let can = error.is_too_large() && self.most_rows > FEWEST_ROWS;
        if can {
            self.most_rows /= 2;
        }
        can
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

#[async_trait(?Send)]
impl Writer for PostgresWriter {
    async fn commit(&mut self) -> Result<()> {
        Ok(())
    }

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
        let put =
            async |connection: &mut PgConnection| catalog::put_root(connection, extent, path, settings).await;
        self.session.transaction("remember a root", put).await
    }

    async fn remove_root(&mut self, root: Option<RootId>, extents: &[Extent]) -> Result<u64> {
        let worker = self.worker;
        let remove = async |connection: &mut PgConnection| {
            catalog::remove_root(connection, root, worker, extents).await
        };
        self.when_free("forget a root", remove).await
    }

    async fn begin_scan(&mut self, root: Option<RootId>, kind: ScanKind) -> Result<ScanId> {
        let worker = self.worker;
        let begin =
            async |connection: &mut PgConnection| catalog::begin_scan(connection, root, kind, worker).await;
        self.when_free("begin a scan", begin).await
    }

    async fn write_listings(&mut self, scan: ScanId, listings: &[Listing]) -> Result<ScanCounts> {
        loop {
            let (volumes, most) = (&self.volumes, self.most_rows);
            let write = async |connection: &mut PgConnection| {
                discovery::write_listings(connection, volumes, most, scan, listings).await
            };
            match self.session.transaction("write files", write).await {
                Err(error) if self.can_take_smaller(&error) => {}
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
        let finish = async |connection: &mut PgConnection| {
            discovery::finish(connection, scan, root, extents, linked).await
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

    async fn write_outcomes(&mut self, outcomes: &[Outcome]) -> Result<u64> {
        if outcomes.is_empty() {
            return Ok(0);
        }
        let mut in_order: Vec<&Outcome> = outcomes.iter().collect();
        in_order.sort_unstable_by(|a, b| (a.key.directory, &a.key.name).cmp(&(b.key.directory, &b.key.name)));
        let finished = self.held.completed_by(outcomes);
        let written = loop {
            let most = self.most_rows;
            let write = async |connection: &mut PgConnection| {
                let written = write_back::write_outcomes(connection, &in_order, most).await?;
                leases::finish(connection, &finished).await?;
                Ok(written)
            };
            match self.session.transaction("write hashes", write).await {
                Err(error) if self.can_take_smaller(&error) => {}
                result => break result?,
            }
        };
        self.held.answer(outcomes);
        Ok(written)
    }

    async fn end_scan(
        &mut self,
        scan: ScanId,
        status: ScanStatus,
        counts: &ScanCounts,
        error: Option<&str>,
    ) -> Result<()> {
        let end = async |connection: &mut PgConnection| {
            catalog::end_scan(connection, scan, status, counts, error).await
        };
        self.session.transaction("end a scan", end).await
    }

    async fn close(self: Box<Self>) -> Result<()> {
        let worker = self.worker;
        let leave = async |connection: &mut PgConnection| workers::leave(connection, worker).await;
        self.session.transaction("leave the index", leave).await
    }
}
