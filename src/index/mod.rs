//! The durable index: everything dupfind knows, and the only state it has.
//!
//! Owns sqlx, SQL and the migrations. Refuses to know how files are walked, read or shown.
//!
//! [`Index`] is the contract that each database fulfils in its own dialect, and that the contract
//! tests hold it to. A report is of one consistent moment; all writing goes through a
//! [`Writer`], of which there is one at a time, so that the work of many batches can share a
//! transaction.

use std::fmt::Debug;
use std::path::PathBuf;

use async_trait::async_trait;

pub mod error;
pub mod lock;
pub mod sqlite;

pub use error::IndexError;

use crate::model::group::{ProblemRow, ReportFilter, ReportItem, Summary};
use crate::model::listing::Listing;
use crate::model::pending::{ExtentTotals, Job, Outcome, PendingTotals, Scope, Stage};
use crate::model::scan::{Root, RootId, ScanCounts, ScanId, ScanKind, ScanStatus};
use crate::model::settings::ScanSettings;
use crate::model::volume::{Extent, MountMap, MountedVolume, VolumeId, VolumeIdentity};

/// The result of an index method.
pub type Result<T, E = IndexError> = std::result::Result<T, E>;

/// An index in a database.
#[async_trait]
pub trait Index: Send + Sync + Debug {
    /// Where it is, for people; never a password.
    fn location(&self) -> String;

    /// The files it consists of, if it is one on this host: a scan passes them over.
    fn own_files(&self) -> Vec<PathBuf>;

    /// Takes the right to write. Scans whose process died are marked interrupted. Ends when the
    /// writer is dropped; what it did not commit is undone.
    async fn writer(&self) -> Result<Box<dyn Writer>>;

    /// The roots, in the order of their paths.
    async fn roots(&self) -> Result<Vec<Root>>;

    /// The volumes that have been seen.
    async fn volumes(&self) -> Result<Vec<(VolumeId, VolumeIdentity)>>;

    /// Where this host mounts them.
    async fn mounts(&self, host: &str) -> Result<MountMap>;

    /// The files of a scope that are to be read in a stage, in physical order: by volume and inode.
    /// Names of one physical file that have the same stamp become one job.
    async fn pending(&self, stage: Stage, scope: &Scope, mounts: &MountMap)
    -> Result<Box<dyn PendingReader>>;

    /// The figures, over all files or those of the filter.
    async fn summary(&self, filter: &ReportFilter) -> Result<Summary>;

    /// Groups of duplicates in the order of the filter. Memory does not grow with their number or
    /// size.
    async fn report(&self, filter: &ReportFilter, mounts: &MountMap) -> Result<Box<dyn ReportReader>>;

    /// Files and directories that could not be read, at most `limit`.
    async fn problems(&self, mounts: &MountMap, limit: u64) -> Result<Vec<ProblemRow>>;

    /// What is known in these subtrees.
    async fn extent_totals(&self, extents: &[Extent]) -> Result<ExtentTotals>;

    /// The size of the index in bytes.
    async fn size(&self) -> Result<u64>;
}

/// Files to be read, batch by batch.
#[async_trait]
pub trait PendingReader: Send {
    /// How much there is to do in this stage.
    fn totals(&self) -> PendingTotals;

    /// The next jobs; empty at the end.
    async fn next(&mut self) -> Result<Vec<Job>>;
}

/// A report, step by step; the figures and the groups are of the same moment.
#[async_trait]
pub trait ReportReader: Send {
    /// The figures over all groups of the filter, also those beyond its limit.
    fn summary(&self) -> Summary;

    /// The next groups and their members, in order; empty at the end.
    async fn next(&mut self) -> Result<Vec<ReportItem>>;
}

/// The right to write. Nothing lasts before [`Writer::commit`].
#[async_trait]
pub trait Writer: Send {
    /// Makes everything written so far last.
    async fn commit(&mut self) -> Result<()>;

    /// Remembers where this host mounts a volume.
    async fn register_volume(&mut self, host: &str, volume: &MountedVolume) -> Result<VolumeId>;

    /// Adds a root, or changes the options and the path of the one that is there.
    async fn put_root(
        &mut self,
        extent: &Extent,
        path: &std::path::Path,
        settings: &ScanSettings,
    ) -> Result<RootId>;

    /// Forgets a root, and the rows in these subtrees that no other root's subtrees cover. Returns
    /// the number of files forgotten.
    async fn remove_root(&mut self, root: Option<RootId>, extents: &[Extent]) -> Result<u64>;

    /// Begins a scan; its id is the new generation.
    async fn begin_scan(&mut self, root: Option<RootId>, kind: ScanKind) -> Result<ScanId>;

    /// Writes what was listed: new rows without hash; changed rows lose theirs; unchanged ones are
    /// not touched; rows that a wholly listed directory does not hold any more are removed. The
    /// volumes must have been registered.
    async fn write_listings(&mut self, scan: ScanId, listings: &[Listing]) -> Result<ScanCounts>;

    /// Ends the walk of a scan that reached its end: directories of the root's subtrees that it did
    /// not list are removed, except below those that could not be read and those of other roots.
    /// Adds the subtrees to the root's. `linked` are those that only links lead to: what was one
    /// before, and is not any more, is removed. Without a root nothing is removed. Returns the number
    /// of files removed.
    async fn finish_discovery(
        &mut self,
        scan: ScanId,
        root: Option<RootId>,
        extents: &[Extent],
        linked: &[Extent],
    ) -> Result<u64>;

    /// Writes back what was read, only to rows that still have the stamp they were read with.
    /// Returns the number of rows that had.
    async fn write_outcomes(&mut self, outcomes: &[Outcome]) -> Result<u64>;

    /// Ends a scan.
    async fn end_scan(
        &mut self,
        scan: ScanId,
        status: ScanStatus,
        counts: &ScanCounts,
        error: Option<&str>,
    ) -> Result<()>;

    /// Gives the right back, in good order.
    async fn close(self: Box<Self>) -> Result<()>;
}
