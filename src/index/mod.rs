//! The durable index: everything dupfind knows, and the only state it has.
//!
//! Owns sqlx, SQL and the migrations. Refuses to know how files are walked, read or shown.
//!
//! [`Index`] is the contract that each database fulfils in its own dialect, and that the contract
//! tests hold it to. A report is of one consistent moment. All writing goes through a [`Writer`]: in
//! SQLite there is one at a time; in PostgreSQL there are many, which share the work by leases.
//!
//! Reports and PostgreSQL's writers have tasks of their own, which need not be `Send`: all of it runs on tokio's
//! [`LocalRuntime`](tokio::runtime::LocalRuntime), and panics on another.

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

mod convert;
pub mod error;
pub mod lock;
mod members;
mod migrations;
pub mod postgres;
mod rows;
pub mod sqlite;
mod touched;

pub use error::IndexError;

use crate::model::file::{FileItem, FilesFilter};
use crate::model::group::{ProblemRow, ReportFilter, ReportItem, Summary};
use crate::model::history::{FiguresAt, HistoryFilter, Run};
use crate::model::listing::{DirectoryId, KnownName, Listing, Move};
use crate::model::path::VolumePath;
use crate::model::pending::{
    ExtentTotals, FileId, Job, Moment, Outcome, PendingTotals, Scope, Stage, Unread,
};
use crate::model::rot::{Ended, HashRange, Rereading, RingPosition, Rot};
use crate::model::scan::{Root, RootId, ScanCounts, ScanId, ScanKind, ScanStatus};
use crate::model::settings::ScanSettings;
use crate::model::upkeep::{Upkeep, Watch, WatchSign};
use crate::model::volume::{Extent, MountMap, MountedVolume, Places, VolumeId, VolumeIdentity};
use crate::model::worker::{Participant, Worker};

/// The result of an index method.
pub type Result<T, E = IndexError> = std::result::Result<T, E>;

/// What [`Index::check`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The database and its version, for people.
    pub server: String,
    /// The newest migration that was applied.
    pub schema_version: i64,
    /// How long the smallest question takes.
    pub round_trip: Duration,
}

/// Tells whether there may be new work: if it differs from an earlier one, it is worth looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkMark {
    /// Walks that reached their end.
    pub discoveries: u64,
    /// Pieces of work on reachable volumes that nobody holds.
    pub waiting: u64,
}

/// An index in a database.
#[async_trait(?Send)]
pub trait Index: Send + Sync + Debug {
    /// Where it is, for people; never a password.
    fn location(&self) -> String;

    /// The files it consists of, if it is one on this host: a scan passes them over.
    fn own_files(&self) -> Vec<PathBuf>;

    /// True if several processes may write at the same time.
    fn is_shared(&self) -> bool;

    /// What answers, in which version, and how fast.
    async fn check(&self) -> Result<Check>;

    /// Joins those who write. Scans whose process died are marked interrupted. Ends when the writer
    /// is dropped; what it did not commit may be undone.
    async fn writer(&self, participant: &Participant) -> Result<Box<dyn Writer>>;

    /// Those who write at this moment, and those who died of late.
    async fn workers(&self) -> Result<Vec<Worker>>;

    /// What a worker that waits for work looks at: see [`WorkMark`].
    async fn work_mark(&self, reachable: &[VolumeId]) -> Result<WorkMark>;

    /// The roots that are watched, and those whose watchers died of late.
    async fn watches(&self) -> Result<Vec<Watch>>;

    /// Says that this process, on this host, watches these roots. Needs no right to write: it is seen while another
    /// process holds that, too.
    async fn sign_watches(&self, host: &str, signs: &[WatchSign]) -> Result<()>;

    /// Says that this process, on this host, does not watch these roots any more.
    async fn end_watches(&self, host: &str, roots: &[RootId]) -> Result<()>;

    /// The roots, in the order of their paths.
    async fn roots(&self) -> Result<Vec<Root>>;

    /// The volumes that have been seen.
    async fn volumes(&self) -> Result<Vec<(VolumeId, VolumeIdentity)>>;

    /// Where this host mounts them.
    async fn mounts(&self, host: &str) -> Result<MountMap>;

    /// Where all hosts mount them, as seen from this one.
    async fn places(&self, host: &str) -> Result<Places>;

    /// The figures, over all files or those of the filter.
    async fn summary(&self, filter: &ReportFilter) -> Result<Summary>;

    /// Groups of duplicates in the order of the filter. Memory does not grow with their number or
    /// size.
    async fn report(&self, filter: &ReportFilter, places: &Places) -> Result<Box<dyn ReportReader>>;

    /// What is known of single files: directory by directory in the order of their paths, and in each by name. Memory
    /// does not grow with their number, nor with that of their copies. Where it says so, each window is of another
    /// moment: what changes meanwhile may or may not be seen, and nothing is seen twice.
    async fn files(&self, filter: &FilesFilter, places: &Places) -> Result<Box<dyn FilesReader>>;

    /// The runs, the newest first. One whose process died is shown as interrupted, although nobody marked it yet.
    async fn history(&self, filter: HistoryFilter) -> Result<Vec<Run>>;

    /// How the figures of the whole index developed, the oldest first: at most `points` moments, evenly spread over
    /// the time from the first to the last, and of those that fall together the latest.
    async fn development(&self, points: u32) -> Result<Vec<FiguresAt>>;

    /// Files and directories that could not be read, at most `limit`.
    async fn problems(&self, places: &Places, limit: u64) -> Result<Vec<ProblemRow>>;

    /// How many names it holds, and when.
    async fn count_files(&self) -> Result<(u64, Moment)>;

    /// Those of these names, each with its directory, that are known.
    async fn known_names(&self, names: &[(Extent, Box<[u8]>)]) -> Result<Vec<KnownName>>;

    /// The names of physical files, by volume and inode. Looks at each row.
    async fn names_of(&self, files: &[(VolumeId, u64)]) -> Result<Vec<KnownName>>;

    /// True if a directory in one of these subtrees is known.
    async fn knows(&self, extents: &[Extent]) -> Result<bool>;

    /// What is known in these subtrees. Looks at each row.
    async fn extent_totals(&self, extents: &[Extent]) -> Result<ExtentTotals>;

    /// Files of a scope to be read again, in physical order, each with the hash it should have. Nothing has to be
    /// written for a file that still has it. `run` is at work; what others do to the index meanwhile does no harm.
    async fn rereading(
        &self,
        run: ScanId,
        what: Rereading,
        scope: &Scope,
        mounts: &MountMap,
    ) -> Result<Box<dyn PendingReader>>;

    /// Files in these subtrees whose content is not what it was, or that could not be read again: until the user put
    /// other files in their places or accepted what they hold.
    async fn rot(&self, places: &Places, extents: &[Extent]) -> Result<Vec<Rot>>;

    /// The names in these subtrees that have no hash, and should have none. Looks at each row.
    async fn count_unhashed(&self, extents: &[Extent]) -> Result<u64>;

    /// Up to where the samples of a subtree have come.
    async fn sampled_to(&self, extent: &Extent) -> Result<RingPosition>;

    /// The size of the index in bytes.
    async fn size(&self) -> Result<u64>;
}

/// Files to be read, batch by batch.
#[async_trait(?Send)]
pub trait PendingReader {
    /// How much there is to do in this stage.
    fn totals(&self) -> PendingTotals;

    /// The next jobs; empty at the end.
    async fn next(&mut self) -> Result<Vec<Job>>;
}

/// A report, step by step; the figures and the groups are of the same moment.
#[async_trait(?Send)]
pub trait ReportReader {
    /// The figures over all groups of the filter, also those beyond its limit.
    fn summary(&self) -> Summary;

    /// The next groups and their participants, in order; empty at the end.
    async fn next(&mut self) -> Result<Vec<ReportItem>>;
}

/// What is known of files, step by step.
#[async_trait(?Send)]
pub trait FilesReader {
    /// The next files, each followed by its copies if they are wanted; empty at the end. The copies of the last file
    /// may go on with the next call.
    async fn next(&mut self) -> Result<Vec<FileItem>>;
}

/// What became of some listings.
#[derive(Debug, Default)]
pub struct Written {
    /// What changed.
    pub counts: ScanCounts,
    /// The directories' rows, in the order of the listings; and if all of their files' rows were made for this
    /// listing, the first of them: they are consecutive, in the order of the entries. Where rows have no number,
    /// that is any.
    pub directories: Vec<(DirectoryId, Option<FileId>)>,
}

/// The right to write. Each call is applied whole or not at all, and lasts at the latest when
/// [`Writer::commit`] returns.
#[async_trait(?Send)]
pub trait Writer {
    /// True if nobody else writes at this moment, with whom work could be shared.
    async fn is_alone(&mut self) -> Result<bool>;

    /// Makes everything written so far last.
    async fn commit(&mut self) -> Result<()>;

    /// Takes back what is not committed, as after a call that failed.
    async fn roll_back(&mut self);

    /// Remembers where this host mounts a volume.
    async fn register_volume(&mut self, host: &str, volume: &MountedVolume) -> Result<VolumeId>;

    /// Forgets where a host mounted volumes with names of its own that it does not use any more.
    async fn forget_names(&mut self, host: &str, used: &[VolumeIdentity]) -> Result<()>;

    /// Adds a root, or changes the options and the path of the one that is there.
    async fn put_root(
        &mut self,
        extent: &Extent,
        path: &std::path::Path,
        settings: &ScanSettings,
    ) -> Result<RootId>;

    /// Remembers how a root is kept up to date.
    async fn put_upkeep(&mut self, root: RootId, upkeep: &Upkeep) -> Result<()>;

    /// Forgets a root, and the rows in these subtrees that no other root's subtrees cover. Returns
    /// the number of files forgotten.
    async fn remove_root(&mut self, root: Option<RootId>, extents: &[Extent]) -> Result<u64>;

    /// Begins a scan, of the whole root or of one directory of its volume; its id is the new generation. Nobody else
    /// walks the same root until its discovery is finished, or its process is dead.
    async fn begin_scan(
        &mut self,
        root: Option<RootId>,
        kind: ScanKind,
        within: Option<&VolumePath>,
    ) -> Result<ScanId>;

    /// Goes on with a scan that was ended: its row gets a new id, as if it had just begun, which is returned. What was
    /// listed under the old one is older than what will be.
    async fn continue_scan(&mut self, scan: ScanId) -> Result<ScanId>;

    /// Moves what is known to where it was moved to, in this order; what was there before is removed. Of a directory
    /// that is everything below it; of a file only if it still has the size, the mtime and the inode it had, and then
    /// the ctime that the move gave it is noted. The volumes must have been registered.
    async fn write_moves(&mut self, scan: ScanId, moves: &[Move]) -> Result<()>;

    /// Writes what was listed: new rows without hash; changed rows lose theirs; unchanged ones are
    /// not touched; rows that a wholly listed directory does not hold any more are removed. The
    /// volumes must have been registered.
    async fn write_listings(&mut self, scan: ScanId, listings: &[Listing]) -> Result<Written>;

    /// Ends the walk of a scan that reached its end: directories of the root's subtrees that it did
    /// not list are removed, except below those that could not be read and those of other roots.
    /// Adds the subtrees to the root's. `linked` are those that only links lead to: what was one
    /// before, and is not any more, is removed, as is what lay under a name that no host uses any more. Without a
    /// root nothing is removed. Returns the number of files removed.
    async fn finish_discovery(
        &mut self,
        scan: ScanId,
        root: Option<RootId>,
        extents: &[Extent],
        linked: &[Extent],
    ) -> Result<u64>;

    /// Ends the walk of parts of a root that reached its end: the same, in these subtrees alone.
    async fn finish_parts(
        &mut self,
        scan: ScanId,
        root: RootId,
        extents: &[Extent],
        linked: &[Extent],
    ) -> Result<u64>;

    /// Takes on the files of a scope that are to be read in a stage, in physical order: by volume and
    /// inode. Names of one physical file that have the same stamp become one job. Where others write,
    /// too, each job is handed to one of them, and the reader ends when nobody holds one any more.
    /// What was written before must have been committed.
    async fn pending(
        &mut self,
        stage: Stage,
        scope: &Scope,
        mounts: &MountMap,
    ) -> Result<Box<dyn PendingReader>>;

    /// Writes back what was read, only to rows that are still those it was read for. They may still be on
    /// their way to the database when this returns; what fails then is said by the next call.
    async fn write_outcomes(&mut self, outcomes: Vec<Outcome>) -> Result<()>;

    /// Writes what reading files again found. One that has another hash than it should have, though its stamp is the
    /// same, loses its hash and is on record as rotten; so is one that could not be read, unless it just may not be.
    /// What it should have is kept: whoever reads such a file later, a scan or this, a hash is written only if it is
    /// the right one, as long as the stamp is the same.
    async fn write_verified(&mut self, outcomes: Vec<Outcome>) -> Result<()>;

    /// The same, but rotten files that read as they did when they were found are sound from now on; returns how many.
    async fn accept(&mut self, outcomes: Vec<Outcome>) -> Result<u64>;

    /// Takes findings in these subtrees away that do not stand any more. One whose file was renamed follows it.
    async fn conclude(&mut self, places: &Places, extents: &[Extent]) -> Result<Vec<Ended>>;

    /// Notes that a part of the ring was sampled in a subtree: the next sample begins where it ends.
    async fn note_sampled(&mut self, extent: &Extent, range: HashRange) -> Result<()>;

    /// Ends a scan.
    async fn end_scan(
        &mut self,
        scan: ScanId,
        status: ScanStatus,
        counts: &ScanCounts,
        error: Option<&str>,
    ) -> Result<()>;

    /// Notes what the whole index held when these scans ended.
    async fn note_figures(&mut self, scans: &[ScanId], figures: &Summary) -> Result<()>;

    /// Prepares for small scopes, each of a few files among many: what a watcher does when it is quiet. Those who write
    /// much may undo it.
    async fn expect_small_scopes(&mut self) -> Result<()>;

    /// Prepares what was written for reports, and counts it: what a run does once, when it has written its last hash. What is
    /// known to be nothing is not counted, if it is still that moment.
    async fn settle(&mut self, unread: Unread) -> Result<Summary>;

    /// Gives the right back, in good order.
    async fn close(self: Box<Self>) -> Result<()>;
}
