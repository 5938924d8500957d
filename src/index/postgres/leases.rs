//! What is still to be read, shared among workers.
//!
//! A selection finds the files of a stage with one pass over the table and cuts them into leases: ranges
//! of a volume in physical order, a row each with the keys of its files. A worker takes the first free
//! one on a volume that it can reach; when its files are answered, the row goes in the transaction that
//! writes the answers. So the row of a file is written once, a disk is read in order by all workers together,
//! and no transaction is open while files are read.
//!
//! A lease is free if nobody holds it, or one who is dead. Whoever takes over a dead one's lease reads only what
//! was not answered, because the files themselves say what is left.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnection, PgRow};
use tokio::sync::Notify;

use super::changes::kept_figures;
use super::convert::array;
use super::scope::{RuleArrays, ScopeArrays};
use super::session::{Session, expect_whole_tables};
use super::workers::IS_ALIVE;
use super::{catalog, selection};
use crate::index::convert::{Jobs, PendingRow, Search, stamp, to_integer};
use crate::index::rows::Columns as _;
use crate::index::{IndexError, PendingReader, Result, WorkMark};
use crate::model::pending::{Job, Outcome, PendingTotals, SAMPLE_BYTES, SMALL_FILE, Scope, Stage};
use crate::model::rules::HashRules;
use crate::model::settings::HashPolicy;
use crate::model::volume::{MountMap, VolumeId};
use crate::model::worker::{LeaseId, WorkerId};

/// Small files in a lease: enough that taking one costs little a file, few enough that the last ones are
/// shared out.
const LEASE_FILES: f64 = 2048.0;

/// Bytes that count as much as opening another file, so that a lease is at most 1 GiB, ten seconds of a
/// disk, unless a single file is larger.
const BYTES_LIKE_A_FILE: f64 = 512.0 * 1024.0;

/// What a worker holds at once, names and bytes: the pool must not run dry while answers are written and the
/// next lease is asked for, and the others want their share.
const HELD_NAMES: u64 = 24 * 1024;
const HELD_BYTES: u64 = 4 << 30;

/// How often a worker looks whether others have finished, or died.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A wait for others that lasts longer is worth a word.
const SAY_AFTER: Duration = Duration::from_secs(3);

/// Selections take turns: two would queue the same files.
const ONE_SELECTION: &str =
    "select pg_advisory_xact_lock(hashtext('dupfind selection'), hashtext(current_schema()))";

/// Free leases of which no file is left to be read: their files are gone, or were answered when the lease was
/// taken for lost.
fn forget_empty() -> String {
    let is_free = is_free();
    format!(
        "delete from leases l where {is_free} and not exists (
             select 1 from unnest(l.directories, l.names) u (directory_id, name)
             join files f on f.directory_id = u.directory_id and f.name = u.name where f.hash is null
               and case l.stage when 'size' then f.sample is null when 'sample' then f.sample is not null else true end)"
    )
}

/// True of a lease `l` that nobody alive holds.
fn is_free() -> String {
    format!(
        "(l.worker_id is null or not exists (select 1 from workers w where w.id = l.worker_id and {IS_ALIVE}))"
    )
}

/// $1: the leases that are wanted; $2: the volumes that can be reached; $3: who takes it; $4: what it knows that it
/// holds. Says whether somebody held it before, and what it held when it was made. What is the taker's without its
/// knowledge was taken when the line was cut before the answer came.
fn take_lease() -> String {
    let is_free = is_free();
    format!(
        "with next as materialized (
            select l.id, l.worker_id is not null as was_held from leases l
            where l.id = any($1) and l.volume_id = any($2) and l.id <> all($4) and ({is_free} or l.worker_id = $3)
            order by l.id limit 1 for update of l skip locked)
         update leases l set worker_id = $3 from next where l.id = next.id
         returning l.id, l.stage, next.was_held, l.volume_id,
                   l.directories, l.names, l.sizes, l.mtimes, l.ctimes, l.inodes"
    )
}

/// The files of a lease, as columns of equal length.
struct LeaseColumns {
    volume: i64,
    directories: Vec<i64>,
    names: Vec<Vec<u8>>,
    sizes: Vec<i64>,
    mtimes: Vec<i64>,
    ctimes: Vec<i64>,
    inodes: Vec<i64>,
}

impl LeaseColumns {
    /// Reads the columns from position `first` on.
    fn read(row: &PgRow, first: usize) -> Result<Self> {
        Ok(Self {
            volume: row.value(first)?,
            directories: array(row, first + 1)?,
            names: array(row, first + 2)?,
            sizes: array(row, first + 3)?,
            mtimes: array(row, first + 4)?,
            ctimes: array(row, first + 5)?,
            inodes: array(row, first + 6)?,
        })
    }

    fn into_rows(self) -> impl Iterator<Item = PendingRow> {
        let Self { volume, directories, names, sizes, mtimes, ctimes, inodes } = self;
        let stamps = sizes.into_iter().zip(mtimes).zip(ctimes).zip(inodes);
        directories.into_iter().zip(names).zip(stamps).map(
            move |((directory, name), (((size, mtime), ctime), inode))| PendingRow {
                id: 0,
                volume,
                directory,
                name,
                stamp: stamp(size, mtime, ctime, inode),
                known: None,
                sample: None,
            },
        )
    }
}

/// The leases of stage $2 on the volumes $1.
const SELECTED: &str = "
    select id, volume_id, files, bytes, false from leases where volume_id = any($1) and stage = $2 order by id";

const STAGES: [Stage; 3] = [Stage::Everything, Stage::Size, Stage::Sample];

/// A stage's word in the table.
fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Everything => "everything",
        Stage::Size => "size",
        Stage::Sample => "sample",
    }
}

const DIRECTORIES: &str = "select id, volume_id, path from directories where id = any($1)";

/// Of the leases $1 on volumes $2, those that are not among $3, which this process knows that it holds; and when
/// the server began.
const OTHERS_AT_WORK: &str = "
    select (select count(*) from leases l where l.id = any($1) and l.volume_id = any($2)
            and l.id <> all($3)),
           extract(epoch from pg_postmaster_start_time())::float8";

const FINISH: &str = "delete from leases where id = any($1)";

/// The leases that this process holds. The reader takes them, the writer ends them.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<HeldLeases>);

#[derive(Debug, Default)]
struct HeldLeases {
    unanswered: Mutex<HashMap<LeaseId, Unanswered>>,
    changed: Notify,
}

/// What was not answered yet of a lease.
#[derive(Debug, Clone, Copy)]
struct Unanswered {
    names: u64,
    /// Of all its files: they count until the last is answered.
    bytes: u64,
}

impl Held {
    fn with<T>(&self, look: impl FnOnce(&mut HashMap<LeaseId, Unanswered>) -> T) -> T {
        look(&mut self.0.unanswered.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ids(&self) -> Vec<i64> {
        self.with(|unanswered| unanswered.keys().map(|lease| lease.0).collect())
    }

    /// The leases that these outcomes complete.
    pub(super) fn completed_by(&self, outcomes: &[Outcome]) -> Vec<i64> {
        let answered = count_by_lease(outcomes);
        self.with(|unanswered| {
            let is_complete = |(lease, count): &(&LeaseId, &u64)| {
                unanswered.get(lease).is_some_and(|unanswered| unanswered.names <= **count)
            };
            answered.iter().filter(is_complete).map(|(lease, _)| lease.0).collect()
        })
    }

    /// Notes that these outcomes are written.
    pub(super) fn answer(&self, outcomes: &[Outcome]) {
        for (lease, count) in count_by_lease(outcomes) {
            self.with(|unanswered| {
                if let Some(left) = unanswered.get_mut(&lease) {
                    left.names = left.names.saturating_sub(count);
                    if left.names == 0 {
                        unanswered.remove(&lease);
                    }
                }
            });
        }
        self.0.changed.notify_one();
    }
}

fn count_by_lease(outcomes: &[Outcome]) -> HashMap<LeaseId, u64> {
    let mut counts = HashMap::new();
    for lease in outcomes.iter().filter_map(|outcome| outcome.lease) {
        *counts.entry(lease).or_default() += 1;
    }
    counts
}

/// Ends leases, in the transaction that writes their last answers.
pub(super) async fn finish(connection: &mut PgConnection, leases: &[i64]) -> Result<()> {
    if !leases.is_empty() {
        let finished = sqlx::query(FINISH).bind(leases).execute(connection).await;
        finished.map_err(IndexError::during("finish a lease"))?;
    }
    Ok(())
}

/// Hands out the leases of one stage.
pub(super) struct LeaseReader {
    session: Session,
    worker: WorkerId,
    held: Held,
    stage: Stage,
    scope: Scope,
    /// What was hashed where when it selected.
    rules: HashRules,
    mounts: MountMap,
    totals: PendingTotals,
    /// The leases that the scope needs, whoever reads them.
    wanted: Vec<i64>,
    /// Those of them that this reader made.
    made: HashSet<i64>,
    /// How long it waited for others, and whether the user knows.
    waited: Duration,
    was_told: bool,
    /// When the server began, as seconds since the epoch: one that crashed since has no leases any more.
    server_began: f64,
}

impl LeaseReader {
    pub(super) async fn select(
        session: Session,
        worker: WorkerId,
        held: Held,
        stage: Stage,
        scope: &Scope,
        mounts: &MountMap,
    ) -> Result<Self> {
        let mut reader = Self {
            session,
            worker,
            held,
            stage,
            scope: scope.clone(),
            rules: HashRules::default(),
            mounts: mounts.clone(),
            totals: PendingTotals::default(),
            wanted: Vec::new(),
            made: HashSet::new(),
            waited: Duration::ZERO,
            was_told: false,
            server_began: 0.0,
        };
        reader.totals = reader.select_again().await?;
        Ok(reader)
    }

    async fn select_again(&mut self) -> Result<PendingTotals> {
        let operation = "select what is to be read";
        let scope = ScopeArrays::with_directories(&self.scope.extents, &self.scope.directories);
        let (reachable, stage) = (self.reachable(), word(self.stage));
        let select = async |connection: &mut PgConnection| {
            let failed = || IndexError::during(operation);
            sqlx::query(ONE_SELECTION).execute(&mut *connection).await.map_err(failed())?;
            let rules = HashRules::of(&catalog::roots(connection).await?);
            if self.scope.helps {
                // Somebody has just selected this stage: to do it once more would find the same. What they
                // have not selected is found when this is done.
                let found =
                    sqlx::query(SELECTED).bind(&reachable).bind(stage).fetch_all(&mut *connection).await;
                let found = found.map_err(failed())?;
                if !found.is_empty() {
                    return Ok((found, rules));
                }
            }
            let forgotten = sqlx::query(AssertSqlSafe(forget_empty())).execute(&mut *connection).await;
            forgotten.map_err(failed())?;
            if kept_figures(connection).await?.is_some() {
                return Ok((Vec::new(), rules));
            }
            let some_are_never_read = rules.have(HashPolicy::None);
            let policy = if self.stage == Stage::Everything { HashPolicy::All } else { HashPolicy::None };
            let arrays = RuleArrays::new(&rules, &[policy]);
            let search = selection::search(connection, self.stage, &scope).await?;
            if search != Search::Near {
                expect_whole_tables(connection, operation).await?;
            }
            let mut statement = scope
                .query(selection::of_stage(self.stage, search, some_are_never_read))
                .bind(stage)
                .bind(LEASE_FILES)
                .bind(BYTES_LIKE_A_FILE)
                .bind(to_integer(SMALL_FILE))
                .bind(to_integer(SAMPLE_BYTES));
            if self.stage == Stage::Everything || some_are_never_read {
                statement = arrays.bind_to(statement);
            }
            let made = statement.fetch_all(connection).await.map_err(failed())?;
            Ok((made, rules))
        };
        let (rows, rules) = self.session.transaction(operation, select).await?;
        self.rules = rules;
        let mut totals = PendingTotals::default();
        self.wanted.clear();
        self.made.clear();
        for row in &rows {
            self.wanted.push(row.value(0)?);
            if row.value(4)? {
                self.made.insert(row.value(0)?);
            }
            if self.scope.reachable.contains(&VolumeId(row.value(1)?)) {
                totals.files += row.count(2)?;
                totals.bytes += row.count(3)?;
            }
        }
        self.server_began = self.look_around().await?.1;
        Ok(totals)
    }

    /// How many of the wanted leases are left that this process does not read, and when the server began.
    async fn look_around(&self) -> Result<(u64, f64)> {
        let (reachable, held) = (self.reachable(), self.held.ids());
        let look = async |connection: &mut PgConnection| {
            let row = sqlx::query(OTHERS_AT_WORK)
                .bind(&self.wanted)
                .bind(&reachable)
                .bind(&held)
                .fetch_one(connection)
                .await
                .map_err(IndexError::during("look for work"))?;
            Ok((row.count(0)?, row.value(1)?))
        };
        self.session.transaction("look for work", look).await
    }

    fn reachable(&self) -> Vec<i64> {
        self.scope.reachable.iter().map(|volume| volume.0).collect()
    }

    /// Takes the next free lease; `None` if there is none.
    async fn take(&self) -> Result<Option<Vec<Job>>> {
        let (reachable, held) = (self.reachable(), self.held.ids());
        let take = async |connection: &mut PgConnection| {
            let failed = || IndexError::during("take a lease");
            let taken = sqlx::query(AssertSqlSafe(take_lease()))
                .bind(&self.wanted)
                .bind(&reachable)
                .bind(self.worker.0)
                .bind(&held)
                .fetch_optional(&mut *connection)
                .await
                .map_err(failed())?;
            let Some(taken) = taken else { return Ok(None) };
            let lease: i64 = taken.value(0)?;
            let stage: &str = taken.value(1)?;
            let stage = STAGES.into_iter().find(|known| word(*known) == stage).unwrap_or(self.stage);
            // What was made a moment ago, and held by nobody, is as it was: nothing has to be looked up.
            let is_untouched = !taken.value::<bool>(2)? && self.made.contains(&lease);
            let files = if is_untouched {
                vec![LeaseColumns::read(&taken, 3)?]
            } else {
                let some_are_never_read = self.rules.have(HashPolicy::None);
                let never = RuleArrays::new(&self.rules, &[HashPolicy::None]);
                let mut left = sqlx::query(selection::left_of_lease(some_are_never_read))
                    .bind(lease)
                    .bind(stage != Stage::Size)
                    .bind(stage != Stage::Sample);
                if some_are_never_read {
                    left = never.bind_to(left);
                }
                let left = left.fetch_all(&mut *connection).await.map_err(failed())?;
                left.iter().map(|row| LeaseColumns::read(row, 0)).collect::<Result<_>>()?
            };
            let jobs = self.jobs(connection, LeaseId(lease), stage, files).await?;
            if jobs.is_empty() {
                finish(connection, &[lease]).await?;
            }
            Ok(Some((LeaseId(lease), jobs)))
        };
        let Some((lease, jobs)) = self.session.transaction("take a lease", take).await? else {
            return Ok(None);
        };
        let names: usize = jobs.iter().map(|job| job.names.len()).sum();
        if names > 0 {
            let bytes = jobs.iter().map(|job| job.stamp.size).sum();
            self.held.with(|unanswered| unanswered.insert(lease, Unanswered { names: names as u64, bytes }));
        }
        Ok(Some(jobs))
    }

    async fn jobs(
        &self,
        connection: &mut PgConnection,
        lease: LeaseId,
        stage: Stage,
        files: Vec<LeaseColumns>,
    ) -> Result<Vec<Job>> {
        let ids: HashSet<i64> = files.iter().flat_map(|files| files.directories.iter().copied()).collect();
        let ids: Vec<i64> = ids.into_iter().collect();
        let found = sqlx::query(DIRECTORIES).bind(&ids).fetch_all(connection).await;
        let mut directories: HashMap<i64, Arc<Path>> = HashMap::with_capacity(ids.len());
        for row in found.map_err(IndexError::during("take a lease"))? {
            if let Some(path) = self.mounts.absolute(VolumeId(row.value(1)?), &row.volume_path(2)?) {
                directories.insert(row.value(0)?, path.into());
            }
        }
        let mut maker = Jobs::new(stage, Some(lease));
        let mut jobs = Vec::new();
        for row in files.into_iter().flat_map(LeaseColumns::into_rows) {
            jobs.extend(maker.take(row, &directories));
        }
        jobs.extend(maker.finish());
        Ok(jobs)
    }

    /// Waits a moment, and says once that it does, if it lasts.
    async fn wait_for_others(&mut self) {
        tokio::time::sleep(LOOK_AGAIN).await;
        self.waited += LOOK_AGAIN;
        if !self.was_told && self.waited >= SAY_AFTER {
            let message = "waiting for files that other workers are reading; 'dupfind status' shows who";
            (self.session.options().tell)(message);
            self.was_told = true;
        }
    }

    /// Waits while what is held is too much, or the user wants to stop: false then.
    async fn wait_while(&self, is_too_much: impl Fn(&HashMap<LeaseId, Unanswered>) -> bool) -> bool {
        let cancel = &self.session.options().cancel;
        while self.held.with(|unanswered| is_too_much(unanswered)) {
            if cancel.is_requested() {
                return false;
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, self.held.0.changed.notified()).await;
        }
        !cancel.is_requested()
    }
}

/// True if a worker that holds this should not take more.
fn is_enough(unanswered: &HashMap<LeaseId, Unanswered>) -> bool {
    let names: u64 = unanswered.values().map(|lease| lease.names).sum();
    let bytes: u64 = unanswered.values().map(|lease| lease.bytes).sum();
    names >= HELD_NAMES || (unanswered.len() > 1 && bytes >= HELD_BYTES)
}

#[async_trait(?Send)]
impl PendingReader for LeaseReader {
    fn totals(&self) -> PendingTotals {
        self.totals
    }

    async fn next(&mut self) -> Result<Vec<Job>> {
        while !self.wanted.is_empty() && self.wait_while(is_enough).await {
            if let Some(jobs) = self.take().await? {
                if jobs.is_empty() {
                    continue;
                }
                return Ok(jobs);
            }
            let (others, server_began) = self.look_around().await?;
            if (server_began - self.server_began).abs() > f64::EPSILON {
                // The leases may be lost, not the answers: what is not answered then is selected again.
                if self.wait_while(|unanswered| !unanswered.is_empty()).await {
                    self.select_again().await?;
                }
            } else if others == 0 {
                break;
            } else {
                self.wait_for_others().await;
            }
        }
        Ok(Vec::new())
    }
}

fn work_mark_query() -> String {
    let is_free = is_free();
    format!(
        "select (select count(*) from scans where discovered_at is not null),
                (select count(*) from leases l where l.volume_id = any($1) and {is_free})"
    )
}

pub(super) async fn work_mark(connection: &mut PgConnection, reachable: &[VolumeId]) -> Result<WorkMark> {
    let reachable: Vec<i64> = reachable.iter().map(|volume| volume.0).collect();
    let row = sqlx::query(AssertSqlSafe(work_mark_query())).bind(&reachable).fetch_one(connection).await;
    let row = row.map_err(IndexError::during("look for work"))?;
    Ok(WorkMark { discoveries: row.count(0)?, waiting: row.count(1)? })
}
