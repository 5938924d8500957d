//! The index in a PostgreSQL database that several hosts share.
//!
//! Many processes write at once. Each call is a transaction of its own, short, and sent again if the
//! connection is lost; none is open while files are read. Who walks a root, and who reads which files,
//! is settled by rows that belong to a worker (modules `workers` and `leases`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::migrate::{Migrate as _, MigrateError};
use sqlx::postgres::PgConnection;

use super::lock::OnBusy;
use super::{
    Check, FilesReader, Index, IndexError, PendingReader, ReportReader, Result, WorkMark, Writer, migrations,
};
use crate::cancel::Cancel;
use crate::index::convert::to_count;
use crate::model::file::FilesFilter;
use crate::model::group::{ProblemRow, ReportFilter, Summary};
use crate::model::history::{FiguresAt, HistoryFilter, Run};
use crate::model::listing::KnownName;
use crate::model::pending::{ExtentTotals, Moment, Scope};
use crate::model::rot::{Rereading, RingPosition, Rot};
use crate::model::scan::{Root, RootId, ScanId};
use crate::model::upkeep::{Watch, WatchSign};
use crate::model::volume::{Extent, MountMap, Places, VolumeId, VolumeIdentity};
use crate::model::worker::{Participant, Worker};

mod catalog;
mod changes;
mod convert;
mod discovery;
mod files;
mod history;
mod leases;
mod lookups;
mod report;
mod rereading;
mod rot;
mod scope;
mod selection;
mod session;
mod summary;
mod touched;
mod watches;
mod workers;
mod write_back;
mod writer;

use session::Session;
pub use session::location;

/// The oldest release that its makers still mend (14 ended on 2026-11-12), see
/// <https://www.postgresql.org/support/versioning/>.
const OLDEST_SERVER: i32 = 150_000;

/// How an index in PostgreSQL is reached, and how patient to be with it.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://...`; may hold a password. What it leaves out, libpq's environment variables and
    /// `.pgpass` say.
    pub url: String,
    /// Connections at most; at least three.
    pub pool_size: u32,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to try again after a connection was lost.
    pub retry_for: Duration,
    /// How long this process may be silent before the others take it for dead.
    pub patience: Duration,
    /// What to do when another process walks the same root.
    pub on_busy: OnBusy,
    /// Ends every wait.
    pub cancel: Cancel,
    /// Is told when the connection is lost, and when it is back.
    pub tell: Arc<dyn Fn(&str) + Send + Sync>,
}

impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOptions").finish_non_exhaustive()
    }
}

/// An index in a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresIndex {
    session: Session,
}

impl PostgresIndex {
    /// Opens an index, and makes it first if the database holds none.
    pub async fn create(options: PostgresOptions) -> Result<Self> {
        let index = Self { session: Session::new(options)? };
        match index.schema_state().await? {
            SchemaState::Current => {}
            SchemaState::Missing | SchemaState::Other => index.migrate().await?,
        }
        Ok(index)
    }

    /// Opens an index that is there.
    ///
    /// # Errors
    /// [`IndexError::Missing`] if the database holds none.
    pub async fn open(options: PostgresOptions) -> Result<Self> {
        let index = Self { session: Session::new(options)? };
        match index.schema_state().await? {
            SchemaState::Current => Ok(index),
            SchemaState::Missing => Err(IndexError::Missing(index.location())),
            SchemaState::Other => {
                index.migrate().await?;
                Ok(index)
            }
        }
    }

    async fn schema_state(&self) -> Result<SchemaState> {
        self.session.greet().await?;
        let location = self.location();
        self.session
            .transaction("open the index", async |connection| schema_state(connection, &location).await)
            .await
    }

    /// Brings the schema up to date. sqlx holds an advisory lock meanwhile, so hosts that start at the
    /// same time take turns; each migration is a transaction, so what fails leaves nothing behind.
    async fn migrate(&self) -> Result<()> {
        let attempt = async || {
            let mut connection = self.session.acquire("open the index").await?;
            match migrations::POSTGRES.run(&mut *connection).await {
                Ok(()) => Ok(()),
                Err(MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)) => {
                    // It may still hold the lock; the connection ends, and the lock with it.
                    drop(connection.detach());
                    Err(IndexError::during("make the index")(source))
                }
                Err(source) => Err(IndexError::Schema { index: self.location(), source: source.into() }),
            }
        };
        self.session.patiently(attempt).await
    }
}

#[derive(Debug, PartialEq, Eq)]
enum SchemaState {
    /// It has exactly the migrations that this program knows.
    Current,
    /// There is none.
    Missing,
    /// It is older, or newer: the migrator decides.
    Other,
}

const SERVER_VERSION: &str = "
    select current_setting('server_version_num')::int, current_setting('server_version')";

/// Of the schema that new tables would go to: whether it holds migrations, and tables of our names.
const FOUND_TABLES: &str = "
    select to_regclass(quote_ident(current_schema()) || '._sqlx_migrations') is not null,
           exists (select 1 from pg_class c where c.relnamespace = current_schema()::regnamespace
                   and c.relname in ('files', 'directories', 'roots', 'scans', 'volumes', 'mounts', 'extents', 'file_hashes'))";

async fn schema_state(connection: &mut PgConnection, location: &str) -> Result<SchemaState> {
    let failed = || IndexError::during("open the index");
    let (number, name): (i32, String) =
        sqlx::query_as(SERVER_VERSION).fetch_one(&mut *connection).await.map_err(failed())?;
    if number < OLDEST_SERVER {
        return Err(IndexError::TooOld { found: name, oldest: OLDEST_SERVER / 10_000 });
    }
    let found = sqlx::query_as(FOUND_TABLES).fetch_one(&mut *connection).await;
    let (has_migrations, has_tables): (bool, bool) = found.map_err(failed())?;
    if !has_migrations {
        return if has_tables {
            Err(IndexError::NotAnIndex(location.to_owned()))
        } else {
            Ok(SchemaState::Missing)
        };
    }
    let applied = connection.list_applied_migrations("_sqlx_migrations").await;
    let applied = applied.map_err(|error| failed()(sqlx::Error::Migrate(error.into())))?;
    if applied.is_empty() {
        return Ok(SchemaState::Missing);
    }
    let known = migrations::POSTGRES.iter().map(|migration| (migration.version, &migration.checksum));
    let applied = applied.iter().map(|migration| (migration.version, &migration.checksum));
    Ok(if applied.eq(known) { SchemaState::Current } else { SchemaState::Other })
}

#[async_trait(?Send)]
impl Index for PostgresIndex {
    fn location(&self) -> String {
        self.session.location().to_owned()
    }

    fn own_files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn check(&self) -> Result<Check> {
        let mut connection = self.session.acquire("check the index").await?;
        let failed = || IndexError::during("check the index");
        let (_, version): (i32, String) =
            sqlx::query_as(SERVER_VERSION).fetch_one(&mut *connection).await.map_err(failed())?;
        let schema_version: i64 =
            sqlx::query_scalar("select max(version) from _sqlx_migrations where success")
                .fetch_one(&mut *connection)
                .await
                .map_err(failed())?;
        let asked = Instant::now();
        sqlx::query("select 1").execute(&mut *connection).await.map_err(failed())?;
        Ok(Check { server: format!("PostgreSQL {version}"), schema_version, round_trip: asked.elapsed() })
    }

    async fn writer(&self, participant: &Participant) -> Result<Box<dyn Writer>> {
        Ok(Box::new(writer::PostgresWriter::join(self.session.clone(), participant).await?))
    }

    async fn workers(&self) -> Result<Vec<Worker>> {
        self.session
            .transaction("read the workers", async |connection| workers::workers(connection).await)
            .await
    }

    async fn work_mark(&self, reachable: &[VolumeId]) -> Result<WorkMark> {
        let look = async |connection: &mut PgConnection| leases::work_mark(connection, reachable).await;
        self.session.transaction("look for work", look).await
    }

    async fn watches(&self) -> Result<Vec<Watch>> {
        self.session
            .transaction("read what is watched", async |connection| watches::watches(connection).await)
            .await
    }

    async fn sign_watches(&self, host: &str, signs: &[WatchSign]) -> Result<()> {
        let sign = async |connection: &mut PgConnection| watches::sign(connection, host, signs).await;
        self.session.transaction("say what is watched", sign).await
    }

    async fn end_watches(&self, host: &str, roots: &[RootId]) -> Result<()> {
        let end = async |connection: &mut PgConnection| watches::end(connection, host, roots).await;
        self.session.transaction("say what is watched", end).await
    }

    async fn roots(&self) -> Result<Vec<Root>> {
        self.session.transaction("read the roots", async |connection| catalog::roots(connection).await).await
    }

    async fn volumes(&self) -> Result<Vec<(VolumeId, VolumeIdentity)>> {
        self.session
            .transaction("read the volumes", async |connection| catalog::volumes(connection).await)
            .await
    }

    async fn mounts(&self, host: &str) -> Result<MountMap> {
        let read = async |connection: &mut PgConnection| catalog::mounts(connection, host).await;
        self.session.transaction("read the mounts", read).await
    }

    async fn places(&self, host: &str) -> Result<Places> {
        let read = async |connection: &mut PgConnection| catalog::places(connection, host).await;
        self.session.transaction("read the mounts", read).await
    }

    async fn summary(&self, filter: &ReportFilter) -> Result<Summary> {
        summary::summary(&self.session, filter).await
    }

    async fn report(&self, filter: &ReportFilter, places: &Places) -> Result<Box<dyn ReportReader>> {
        let connection = self.session.acquire("collect the report").await?;
        Ok(Box::new(report::PostgresReport::select(connection, filter, places).await?))
    }

    async fn files(&self, filter: &FilesFilter, places: &Places) -> Result<Box<dyn FilesReader>> {
        let connection = self.session.acquire("read what is known of files").await?;
        Ok(Box::new(files::PostgresFiles::select(connection, filter, places).await?))
    }

    async fn history(&self, filter: HistoryFilter) -> Result<Vec<Run>> {
        let read = async |connection: &mut PgConnection| history::history(connection, filter).await;
        self.session.transaction("read the history", read).await
    }

    async fn development(&self, points: u32) -> Result<Vec<FiguresAt>> {
        let read = async |connection: &mut PgConnection| history::development(connection, points).await;
        self.session.transaction("read the history", read).await
    }

    async fn problems(&self, places: &Places, limit: u64) -> Result<Vec<ProblemRow>> {
        let read = async |connection: &mut PgConnection| summary::problems(connection, places, limit).await;
        self.session.transaction("read the problems", read).await
    }

    async fn count_files(&self) -> Result<(u64, Moment)> {
        let count = async |connection: &mut PgConnection| {
            summary::see_one_moment(connection).await?;
            let files = sqlx::query_scalar("select count(*) from files").fetch_one(&mut *connection).await;
            let files = to_count(files.map_err(IndexError::during("count files"))?);
            Ok((files, changes::moment(connection).await?))
        };
        self.session.transaction("count files", count).await
    }

    async fn known_names(&self, names: &[(Extent, Box<[u8]>)]) -> Result<Vec<KnownName>> {
        let look = async |connection: &mut PgConnection| touched::known_names(connection, names).await;
        self.session.transaction("look for names", look).await
    }

    async fn names_of(&self, files: &[(VolumeId, u64)]) -> Result<Vec<KnownName>> {
        let look = async |connection: &mut PgConnection| touched::names_of(connection, files).await;
        self.session.transaction("look for hard links", look).await
    }

    async fn knows(&self, extents: &[Extent]) -> Result<bool> {
        let look = async |connection: &mut PgConnection| scope::knows(connection, extents).await;
        self.session.transaction("look for a directory", look).await
    }

    async fn extent_totals(&self, extents: &[Extent]) -> Result<ExtentTotals> {
        let count = async |connection: &mut PgConnection| summary::extent_totals(connection, extents).await;
        self.session.transaction("count files", count).await
    }

    async fn rereading(
        &self,
        run: ScanId,
        what: Rereading,
        scope: &Scope,
        mounts: &MountMap,
    ) -> Result<Box<dyn PendingReader>> {
        let session = self.session.clone();
        Ok(Box::new(rereading::Rereader::select(session, run, what, scope, mounts).await?))
    }

    async fn rot(&self, places: &Places, extents: &[Extent]) -> Result<Vec<Rot>> {
        let read = async |connection: &mut PgConnection| rot::standing(connection, places, extents).await;
        self.session.transaction("read what is rotten", read).await
    }

    async fn count_unhashed(&self, extents: &[Extent]) -> Result<u64> {
        let count = async |connection: &mut PgConnection| rot::count_unhashed(connection, extents).await;
        self.session.transaction("count files", count).await
    }

    async fn sampled_to(&self, extent: &Extent) -> Result<RingPosition> {
        let read = async |connection: &mut PgConnection| rot::sampled_to(connection, extent).await;
        self.session.transaction("read what was sampled", read).await
    }

    async fn size(&self) -> Result<u64> {
        self.session
            .transaction("measure the index", async |connection| summary::size(connection).await)
            .await
    }
}
