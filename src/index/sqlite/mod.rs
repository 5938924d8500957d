//! The index in a SQLite file.
//!
//! Write-ahead log with `synchronous = normal`: a killed process loses nothing that was committed,
//! a power cut at most the last commits, and neither the consistency. Each reader and the one
//! writer have a connection of their own, so that temporary tables belong to one task and vanish
//! with it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::migrate::Migrate as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use self::spare::Spare;
use super::lock::{OnBusy, WriteLock, lock_path};
use super::{
    Check, FilesReader, Index, IndexError, PendingReader, ReportReader, Result, WorkMark, Writer, migrations,
};
use crate::index::convert::to_count;
use crate::model::file::FilesFilter;
use crate::model::group::{ProblemRow, ReportFilter, Summary};
use crate::model::history::{FiguresAt, HistoryFilter, Run};
use crate::model::listing::KnownName;
use crate::model::path::escape_path;
use crate::model::pending::{ExtentTotals, Moment, Scope, Unread};
use crate::model::rot::{Rereading, RingPosition, Rot};
use crate::model::scan::{Root, RootId, ScanId};
use crate::model::upkeep::{Watch, WatchSign};
use crate::model::volume::{Extent, MountMap, Places, VolumeId, VolumeIdentity};
use crate::model::worker::{Participant, Worker};

mod bulk;
mod catalog;
mod convert;
mod discovery;
mod files;
mod history;
mod lookups;
mod pending;
mod report;
mod rot;
mod scope;
mod selection;
mod spare;
mod summary;
mod touched;
mod watches;
mod workers;
mod write_back;
mod writer;

/// How long a statement waits for another connection's lock. Writers are kept apart by
/// [`WriteLock`]; this covers the moments in which SQLite itself tidies up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Page cache of a connection in KiB (negative, as the pragma wants it), and the size of the pieces in which it sorts, which
/// are then merged: flat, whatever the index holds. Pieces that fit a processor's own cache are sorted faster than larger
/// ones, and smaller ones than of 250 pages (`SQLITE_SORTER_PMASZ`) SQLite does not make.
const CACHE_KIB: &str = "-1024";

/// Pages of write-ahead log before a commit moves them into the file: 128 MiB, so that a commit a
/// second seldom pays for it. The end of a run moves the rest.
const CHECKPOINT_PAGES: &str = "32768";

/// Statement texts kept prepared on a connection: every length of every bulk statement.
const STATEMENTS: usize = 128;

/// Rows that SQLite's thread may be ahead of ours: all that a bulk statement returns, so that neither waits for
/// the other halfway.
const ROWS_AHEAD: usize = bulk::MOST_ROWS;

/// Older ones can corrupt a write-ahead log while it is reset, see
/// <https://www.sqlite.org/wal.html#walresetbug>.
const _: () = assert!(libsqlite3_sys::SQLITE_VERSION_NUMBER >= 3_051_003);

/// An index in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteIndex {
    path: PathBuf,
    on_busy: OnBusy,
    spare: Spare,
}

impl SqliteIndex {
    /// Opens an index, and makes it first if it is not there.
    pub async fn create(path: &Path, on_busy: OnBusy) -> Result<Self> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)
                .map_err(|source| IndexError::Open { path: path.to_path_buf(), source: source.into() })?;
        }
        Self::prepare(path, on_busy).await
    }

    /// Opens an index that is there.
    ///
    /// # Errors
    /// [`IndexError::Missing`] if it is not.
    pub async fn open(path: &Path, on_busy: OnBusy) -> Result<Self> {
        match path.try_exists() {
            Ok(true) => Self::prepare(path, on_busy).await,
            Ok(false) => Err(IndexError::Missing(escape_path(path))),
            Err(source) => Err(IndexError::Open { path: path.to_path_buf(), source: source.into() }),
        }
    }

    fn at(path: PathBuf, on_busy: OnBusy) -> Self {
        Self { path, on_busy, spare: Spare::default() }
    }

    /// Brings the schema up to date. sqlx does not lock SQLite while migrating, so the writers'
    /// lock is held; an index that is up to date is opened without it.
    async fn prepare(path: &Path, on_busy: OnBusy) -> Result<Self> {
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(IndexError::NotAnIndex(escape_path(path)));
        }
        let index = Self::at(std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()), on_busy);
        let connection = match index.open_current().await? {
            Some(connection) => connection,
            None => index.migrate().await?,
        };
        index.spare.leave_first(connection);
        Ok(index)
    }

    /// A connection, if the index is there and its schema is up to date.
    async fn open_current(&self) -> Result<Option<SqliteConnection>> {
        let failed = || IndexError::opening(&self.path);
        if !self.path.try_exists().is_ok_and(|exists| exists) {
            return Ok(None);
        }
        let mut connection = self.connect().await?;
        let state = schema_state(&mut connection).await.map_err(failed())?;
        if state == SchemaState::Current {
            return Ok(Some(connection));
        }
        connection.close().await.map_err(failed())?;
        if state == SchemaState::Foreign { Err(IndexError::NotAnIndex(self.location())) } else { Ok(None) }
    }

    /// Makes the schema, or brings it up to date.
    async fn migrate(&self) -> Result<SqliteConnection> {
        let _lock = WriteLock::acquire(&self.path, &self.on_busy).await?;
        let mut connection = self.connect().await?;
        keep_log(&mut connection).await?;
        if let Err(source) = migrations::SQLITE.run(&mut connection).await {
            let _ = connection.close().await;
            return Err(IndexError::migrating(self.location())(source));
        }
        Ok(connection)
    }

    async fn connect(&self) -> Result<SqliteConnection> {
        if let Some(connection) = self.spare.take_first() {
            return Ok(connection);
        }
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(true)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .pragma("cache_size", CACHE_KIB)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .statement_cache_capacity(STATEMENTS)
            .row_buffer_size(ROWS_AHEAD)
            .disable_statement_logging();
        options.connect().await.map_err(IndexError::opening(&self.path))
    }

    /// Asks something that leaves nothing behind, neither a transaction nor a temporary table.
    async fn ask<T>(&self, question: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T>) -> Result<T> {
        let mut connection = match self.spare.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let answer = question(&mut connection).await?;
        if let Some(not_kept) = self.spare.give_back(connection) {
            not_kept.close().await.map_err(IndexError::during("close"))?;
        }
        Ok(answer)
    }

    /// The same, if it takes several statements: they see one moment.
    async fn ask_of_one_moment<T>(
        &self,
        question: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T>,
    ) -> Result<T> {
        self.ask(async move |connection| {
            let failed = || IndexError::opening(&self.path);
            let mut moment = connection.begin().await.map_err(failed())?;
            let answer = question(&mut moment).await?;
            moment.commit().await.map_err(failed())?;
            Ok(answer)
        })
        .await
    }

    /// Moves what is committed from the write-ahead log into the file. Others read and write meanwhile.
    async fn empty_log(&self) -> Result<()> {
        self.ask(async |connection| {
            let moved = sqlx::query("pragma wal_checkpoint(passive)").execute(connection).await;
            moved.map(drop).map_err(IndexError::during("move the log into the index"))
        })
        .await
    }

    /// A connection that sees one moment of the index until it is closed.
    async fn snapshot(&self) -> Result<SqliteConnection> {
        let mut connection = self.connect().await?;
        let begun = sqlx::query("begin").execute(&mut connection).await;
        begun.map_err(IndexError::opening(&self.path))?;
        Ok(connection)
    }
}

/// Has an index written with a write-ahead log, as it then stays. Only for whoever holds the writers' lock: of two
/// connections that do this to a file without one, SQLite refuses the second at once.
async fn keep_log(connection: &mut SqliteConnection) -> Result<()> {
    let told = sqlx::query("pragma journal_mode = wal").execute(connection).await;
    told.map(drop).map_err(IndexError::during("prepare to write"))
}

#[derive(Debug, PartialEq, Eq)]
enum SchemaState {
    /// It has exactly the migrations that this program knows.
    Current,
    /// It is empty, or older, or newer: the migrator decides.
    Other,
    /// It holds somebody else's tables.
    Foreign,
}

async fn schema_state(connection: &mut SqliteConnection) -> sqlx::Result<SchemaState> {
    let tables = "select count(*), count(*) filter (where name = '_sqlx_migrations') from sqlite_schema";
    let (tables, recorded): (i64, i64) = sqlx::query_as(tables).fetch_one(&mut *connection).await?;
    if recorded == 0 {
        return Ok(if tables == 0 { SchemaState::Other } else { SchemaState::Foreign });
    }
    let applied = connection.list_applied_migrations("_sqlx_migrations").await;
    let applied = applied.map_err(|error| sqlx::Error::Migrate(error.into()))?;
    let known = migrations::SQLITE.iter().map(|migration| (migration.version, &migration.checksum));
    let applied = applied.iter().map(|migration| (migration.version, &migration.checksum));
    Ok(if applied.eq(known) { SchemaState::Current } else { SchemaState::Other })
}

#[async_trait(?Send)]
impl Index for SqliteIndex {
    fn location(&self) -> String {
        escape_path(&self.path)
    }

    fn own_files(&self) -> Vec<PathBuf> {
        // SQLite has its log beside the file itself, wherever links to it are.
        let real = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let beside = |suffix: &str| {
            let mut name = real.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let log = ["-wal", "-shm", "-journal"].map(beside);
        [lock_path(&self.path), lock_path(&real), real].into_iter().chain(log).collect()
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn check(&self) -> Result<Check> {
        let mut connection = self.connect().await?;
        let failed = || IndexError::opening(&self.path);
        let applied = connection.list_applied_migrations("_sqlx_migrations").await;
        let applied =
            applied.map_err(|source| IndexError::Schema { index: self.location(), source: source.into() })?;
        let asked = Instant::now();
        let version: String = sqlx::query_scalar("select sqlite_version()")
            .fetch_one(&mut connection)
            .await
            .map_err(failed())?;
        Ok(Check {
            server: format!("SQLite {version}"),
            schema_version: applied.iter().map(|migration| migration.version).max().unwrap_or_default(),
            round_trip: asked.elapsed(),
        })
    }

    async fn writer(&self, participant: &Participant) -> Result<Box<dyn Writer>> {
        let lock = WriteLock::acquire(&self.path, &self.on_busy).await?;
        Ok(Box::new(writer::SqliteWriter::begin(self.clone(), lock, participant).await?))
    }

    async fn workers(&self) -> Result<Vec<Worker>> {
        self.ask(async |connection| workers::workers(connection, WriteLock::is_held(&self.path)).await).await
    }

    async fn work_mark(&self, _reachable: &[VolumeId]) -> Result<WorkMark> {
        self.ask(workers::work_mark).await
    }

    async fn watches(&self) -> Result<Vec<Watch>> {
        self.ask(watches::watches).await
    }

    async fn sign_watches(&self, host: &str, signs: &[WatchSign]) -> Result<()> {
        self.ask(async |connection| watches::sign(connection, host, signs).await).await
    }

    async fn end_watches(&self, host: &str, roots: &[RootId]) -> Result<()> {
        self.ask(async |connection| watches::end(connection, host, roots).await).await
    }

    async fn roots(&self) -> Result<Vec<Root>> {
        self.ask_of_one_moment(catalog::roots).await
    }

    async fn volumes(&self) -> Result<Vec<(VolumeId, VolumeIdentity)>> {
        self.ask(catalog::volumes).await
    }

    async fn mounts(&self, host: &str) -> Result<MountMap> {
        self.ask(async |connection| catalog::mounts(connection, host).await).await
    }

    async fn places(&self, host: &str) -> Result<Places> {
        self.ask(async |connection| catalog::places(connection, host).await).await
    }

    async fn summary(&self, filter: &ReportFilter) -> Result<Summary> {
        if filter.is_everything()
            && let Some((_, kept)) = self.ask(summary::kept).await?
        {
            return Ok(kept);
        }
        let (mut first, mut second) = (self.connect().await?, self.connect().await?);
        let summary = summary::summary(&mut first, &mut second, filter, Unread::Perhaps).await;
        for connection in [first, second] {
            connection.close().await.map_err(IndexError::during("close"))?;
        }
        summary
    }

    async fn report(&self, filter: &ReportFilter, places: &Places) -> Result<Box<dyn ReportReader>> {
        Ok(Box::new(report::SqliteReport::select(self, filter, places).await?))
    }

    async fn files(&self, filter: &FilesFilter, places: &Places) -> Result<Box<dyn FilesReader>> {
        Ok(Box::new(files::SqliteFiles::select(self.connect().await?, filter, places).await?))
    }

    async fn history(&self, filter: HistoryFilter) -> Result<Vec<Run>> {
        let is_held = || WriteLock::is_held(&self.path);
        self.ask(async |connection| history::history(connection, filter, is_held).await).await
    }

    async fn development(&self, points: u32) -> Result<Vec<FiguresAt>> {
        self.ask(async |connection| history::development(connection, points).await).await
    }

    async fn problems(&self, places: &Places, limit: u64) -> Result<Vec<ProblemRow>> {
        self.ask(async |connection| summary::problems(connection, places, limit).await).await
    }

    /// Who counts to know what is left writes, and nobody else does: all of that is one moment.
    async fn count_files(&self) -> Result<(u64, Moment)> {
        self.ask(async |connection| {
            let files = sqlx::query_scalar("select count(*) from files").fetch_one(connection).await;
            Ok((to_count(files.map_err(IndexError::during("count files"))?), Moment(0)))
        })
        .await
    }

    async fn known_names(&self, names: &[(Extent, Box<[u8]>)]) -> Result<Vec<KnownName>> {
        self.ask(async |connection| touched::known_names(connection, names).await).await
    }

    async fn names_of(&self, files: &[(VolumeId, u64)]) -> Result<Vec<KnownName>> {
        self.ask(async |connection| touched::names_of(connection, files).await).await
    }

    async fn knows(&self, extents: &[Extent]) -> Result<bool> {
        self.ask(async |connection| scope::knows(connection, extents).await).await
    }

    async fn extent_totals(&self, extents: &[Extent]) -> Result<ExtentTotals> {
        summary::extent_totals(&mut self.connect().await?, extents).await
    }

    async fn rereading(
        &self,
        _run: ScanId,
        what: Rereading,
        scope: &Scope,
        mounts: &MountMap,
    ) -> Result<Box<dyn PendingReader>> {
        let connection = self.connect().await?;
        Ok(Box::new(pending::SqlitePending::reread(connection, what, scope, mounts).await?))
    }

    async fn rot(&self, places: &Places, extents: &[Extent]) -> Result<Vec<Rot>> {
        self.ask_of_one_moment(async |connection| rot::standing(connection, places, extents).await).await
    }

    async fn count_unhashed(&self, extents: &[Extent]) -> Result<u64> {
        rot::count_unhashed(&mut self.connect().await?, extents).await
    }

    async fn sampled_to(&self, extent: &Extent) -> Result<RingPosition> {
        self.ask(async |connection| rot::sampled_to(connection, extent).await).await
    }

    async fn size(&self) -> Result<u64> {
        let mut total = 0;
        for file in self.own_files() {
            total += std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        }
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sqlx::migrate::{Migration, Migrator};

    use super::*;
    use crate::cancel::Cancel;
    use crate::progress::Progress;

    fn participant() -> Participant {
        Participant { host: "here".into(), task: "test", progress: Arc::new(Progress::default()) }
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_the_next_question_while_somebody_writes() {
        let directory = tempfile::tempdir().unwrap();
        let index = SqliteIndex::create(&directory.path().join("index.db"), OnBusy::Fail).await.unwrap();
        let participant = participant();
        let is_marked = async |connection: &mut SqliteConnection| {
            let cache_size: i64 =
                sqlx::query_scalar("pragma cache_size").fetch_one(&mut *connection).await.unwrap();
            sqlx::query("pragma cache_size = 77").execute(connection).await.unwrap();
            Ok(cache_size == 77)
        };
        assert!(!index.ask(is_marked).await.unwrap());
        assert!(!index.ask(is_marked).await.unwrap(), "nobody writes: the file may be replaced");
        let writer = index.writer(&participant).await.unwrap();
        assert!(!index.ask(is_marked).await.unwrap());
        assert!(index.ask(is_marked).await.unwrap());
        let meanwhile = index.ask(async |_| index.ask(is_marked).await).await;
        assert!(!meanwhile.unwrap(), "two questions do not share a connection");
        let failed = index.ask(async |_| Err::<(), _>(IndexError::NotAnIndex(String::new()))).await;
        assert!(failed.is_err());
        assert!(!index.ask(is_marked).await.unwrap(), "what failed is not used again");
        drop(writer);
        assert!(!index.ask(is_marked).await.unwrap());
        let writer = index.writer(&participant).await.unwrap();
        assert!(!index.ask(is_marked).await.unwrap());
        writer.close().await.unwrap();
        assert!(!index.ask(is_marked).await.unwrap());
    }

    async fn connect_as_others(path: &Path) -> SqliteConnection {
        SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
    }

    #[tokio::test]
    async fn an_index_that_another_process_is_making_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index.db");
        let lock = WriteLock::acquire(&path, &OnBusy::Fail).await.unwrap();
        // As it is while it gets its write-ahead log.
        let mut maker = connect_as_others(&path).await;
        sqlx::query("begin immediate").execute(&mut maker).await.unwrap();

        let was_told = Arc::new(tokio::sync::Notify::new());
        let told = Arc::clone(&was_told);
        let wait = OnBusy::Wait { cancel: Cancel::default(), tell: Arc::new(move |_| told.notify_one()) };
        let made = async {
            was_told.notified().await;
            maker.close().await.unwrap();
            drop(lock);
            Ok(())
        };
        let (index, ()) = tokio::try_join!(SqliteIndex::create(&path, wait), made).unwrap();
        assert_eq!(index.summary(&ReportFilter::default()).await.unwrap(), Summary::default());
    }

    #[tokio::test]
    async fn an_index_gets_its_log_back_and_the_database_of_others_gets_none() {
        let directory = tempfile::tempdir().unwrap();
        let change = async |path: &Path, statement| {
            let mut connection = connect_as_others(path).await;
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        };
        let theirs = directory.path().join("theirs.db");
        change(&theirs, "create table theirs (id)").await;
        let before = std::fs::read(&theirs).unwrap();
        let refused = SqliteIndex::open(&theirs, OnBusy::Fail).await;
        assert!(matches!(refused, Err(IndexError::NotAnIndex(_))));
        assert_eq!(std::fs::read(&theirs).unwrap(), before);

        let ours = directory.path().join("index.db");
        let index = SqliteIndex::create(&ours, OnBusy::Fail).await.unwrap();
        index.connect().await.unwrap().close().await.unwrap();
        change(&ours, "pragma journal_mode = delete").await;
        let index = SqliteIndex::open(&ours, OnBusy::Fail).await.unwrap();
        index.writer(&participant()).await.unwrap().close().await.unwrap();
        let mut connection = connect_as_others(&ours).await;
        let journal: String =
            sqlx::query_scalar("pragma journal_mode").fetch_one(&mut connection).await.unwrap();
        assert_eq!(journal, "wal");
    }

    /// Contents moved to a table of their own in version 4.
    #[tokio::test]
    async fn an_older_index_keeps_what_it_knows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index.db");
        let old = SqliteIndex::at(path.clone(), OnBusy::Fail);
        let before: Vec<Migration> = migrations::SQLITE.iter().filter(|it| it.version < 4).cloned().collect();
        let mut connection = old.connect().await.unwrap();
        Migrator { migrations: before.into(), ..Migrator::DEFAULT }.run(&mut connection).await.unwrap();
        let rows = "
            insert into volumes (id, identity) values (1, 'uuid:main');
            insert into directories (id, volume_id, path, generation) values (7, 1, x'2f72', 0);
            insert into files (directory_id, name, volume_id, size, mtime_ns, ctime_ns, inode, sample, hash, recheck, problem)
            values (7, x'64', 1, 5, 0, 0, 4, null, null, 0, 'i/o error'),
                   (7, x'61', 1, 5, 0, 0, 1, null, zeroblob(32), 0, null),
                   (7, x'62', 1, 5, 0, 0, 2, null, zeroblob(32), 1, null),
                   (7, x'65', 1, 9, 0, 0, 5, null, null, 0, null),
                   (7, x'63', 1, 900000, 0, 0, 3, zeroblob(16), null, 0, null)";
        sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();

        let index = SqliteIndex::open(&path, OnBusy::Fail).await.unwrap();
        let summary = index.summary(&ReportFilter::default()).await.unwrap();
        assert_eq!((summary.files, summary.bytes), (5, 900_024));
        assert_eq!((summary.groups, summary.redundant_files, summary.problems), (1, 1, 1));
        let mut connection = index.connect().await.unwrap();
        let contents: Vec<(Vec<u8>, i64, i64, bool, bool, i64)> = sqlx::query_as(
            "select f.name, c.size, c.inode, c.hash is not null, c.sample is not null, c.recheck
             from contents c join files f on f.id = c.file_id order by f.name",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let expected = [
            (b"a".to_vec(), 5, 1, true, false, 0),
            (b"b".to_vec(), 5, 2, true, false, 1),
            (b"c".to_vec(), 900_000, 3, false, true, 0),
        ];
        assert_eq!(contents, expected);
    }
}
