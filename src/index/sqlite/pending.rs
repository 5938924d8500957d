//! What is still to be read, in physical order.
//!
//! The selection goes to a temporary table of the reader's own: it is sorted once, its size is
//! known, and it holds no snapshot of the index while files are read for hours, which would keep
//! the write-ahead log from being emptied.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

use super::convert::{HexBytes, column, count, volume_path};
use super::summary::kept;
use super::{catalog, scope};
use crate::index::convert::{Jobs, PendingRow, digest, read_json, stamp, to_integer, to_json};
use crate::index::{IndexError, PendingReader, Result};
use crate::model::pending::{Job, PendingTotals, SAMPLE_BYTES, SMALL_FILE, Scope, Stage};
use crate::model::rot::Rereading;
use crate::model::rules::HashRules;
use crate::model::settings::HashPolicy;
use crate::model::volume::{MountMap, VolumeId};

/// Rows fetched at once: some hundred kilobytes.
const WINDOW: i64 = 2048;

/// known: the hash that a file should have, if it is read again.
const TEMPORARY_TABLES: &str = "
    create temp table reachable (volume_id integer primary key);
    create temp table pending (
        id integer primary key, file_id integer, volume_id integer, directory_id integer, name blob,
        size integer, mtime_ns integer, ctime_ns integer, inode integer, known blob)";

/// Sizes that two physical files share, one of them in the scope, and the files of these sizes that
/// nothing is known of; also files that could not be read before.
/// ?1: 1 to compare all sizes, 0 to compare only those of files without hash, which is faster if
/// these are few. `$but`: a condition on each `directory_id`.
macro_rules! select_by_size {
    ($but:literal) => {
        concat!(
            "
    with unread (id, size) as materialized (
        select f.id, f.size from files f left join contents c on c.file_id = f.id
        where c.file_id is null ",
            $but,
            "),
    candidate (size) as materialized (
        select size from files
        where (?1 or size in (select size from unread)) ",
            $but,
            "
        group by size
        having (min(inode) <> max(inode) or min(volume_id) <> max(volume_id))
           and max(directory_id in (select directory_id from temp.scope)))
    insert into temp.pending (file_id, volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode)
    select f.id, f.volume_id, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode
    from unread u cross join files f on f.id = u.id
    where (f.size in (select size from candidate)
           or (f.directory_id in (select directory_id from temp.scope)
               and exists (select 1 from problems p where p.file_id = f.id)))
      and f.volume_id in (select volume_id from temp.reachable)
    order by f.volume_id, f.inode, f.directory_id, f.name"
        )
    };
}

macro_rules! select_by_sample {
    ($but:literal) => {
        concat!(
            "
    with candidate (size, sample) as materialized (
        select c.size, c.sample from contents c cross join files f on f.id = c.file_id
        where c.sample is not null ",
            $but,
            "
        group by c.size, c.sample
        having (min(c.inode) <> max(c.inode) or min(c.volume_id) <> max(c.volume_id))
           and max(f.directory_id in (select directory_id from temp.scope)))
    insert into temp.pending (file_id, volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode)
    select f.id, f.volume_id, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode
    from contents c cross join files f on f.id = c.file_id
    where c.hash is null and c.sample is not null
      and c.file_id not in (select file_id from rotten) ",
            $but,
            "
      and (c.size, c.sample) in (select size, sample from candidate)
      and c.volume_id in (select volume_id from temp.reachable)
    order by f.volume_id, f.inode, f.directory_id, f.name"
        )
    };
}

const SELECT_BY_SIZE: &str = select_by_size!("");
const SELECT_BY_SAMPLE: &str = select_by_sample!("");

/// The same where some directories are never read: what lies in them is no partner, either.
const SELECT_READ_BY_SIZE: &str =
    select_by_size!("and directory_id not in (select directory_id from temp.never_read)");
const SELECT_READ_BY_SAMPLE: &str =
    select_by_sample!("and directory_id not in (select directory_id from temp.never_read)");

const SELECT_EVERYTHING: &str = "
    insert into temp.pending (file_id, volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode)
    select id, volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode from files f
    where directory_id in (select directory_id from temp.scope)
      and directory_id in (select directory_id from temp.hashed_wholly)
      and not exists (select 1 from contents c where c.file_id = f.id and c.hash is not null)
      and id not in (select file_id from rotten)
      and volume_id in (select volume_id from temp.reachable)
    order by volume_id, inode, directory_id, name";

/// Files of which something is on record: those that should have another hash than they have (also if another file is
/// in their place now), and those that could not be read again, but have their hash.
const REREAD_ON_RECORD: &str = "
    insert into temp.pending (file_id, volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode, known)
    select f.id, f.volume_id, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode, o.known
    from (
        select f.id, r.expected as known
        from rot r cross join files f on f.directory_id = r.directory_id and f.name = r.name
        left join contents c on c.file_id = f.id
        where c.hash is null
        union all
        select p.file_id, c.hash from problems p cross join contents c on c.file_id = p.file_id
        where c.hash is not null) o
    cross join files f on f.id = o.id
    where f.directory_id in (select directory_id from temp.scope)
      and f.volume_id in (select volume_id from temp.reachable)
    order by f.volume_id, f.inode, o.known, f.directory_id, f.name";

/// What is wanted of those that have a hash, but for those above. One that is to be read again by the next scan may
/// have changed unseen.
const REREAD_HASHED: &str = "
    insert into temp.pending (file_id, volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode, known)
    select f.id, f.volume_id, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode, c.hash
    from contents c cross join files f on f.id = c.file_id
    where c.hash is not null and not c.recheck
      and c.file_id not in (select file_id from problems)
      and f.directory_id in (select directory_id from temp.scope)
      and f.volume_id in (select volume_id from temp.reachable)";

/// The hashes from ?1 on, below ?2.
const IN_RANGE: &str = " and c.hash >= ?1 and c.hash < ?2";

const IN_PHYSICAL_ORDER: &str = " order by f.volume_id, f.inode, c.hash, f.directory_id, f.name";

/// ?1: files larger than this are sampled; ?2: what a sample reads.
const TOTALS: &str = "
    select count(*), coalesce(sum(size), 0), coalesce(sum(case when size > ?1 then ?2 else size end), 0)
    from temp.pending";

/// A window as one JSON text: sqlx takes 2.5 microseconds for each row it hands over, whatever is in it,
/// so a window is one row. Names are hexadecimal because they are no text.
const NEXT: &str = "
    select json_group_array(json_array(file_id, volume_id, directory_id, hex(name), size, mtime_ns, ctime_ns, inode))
    from (select * from temp.pending where id > ?1 and id <= ?2 order by id)";

/// The same of files to be read again.
const NEXT_KNOWN: &str = "
    select json_group_array(json_array(
        file_id, volume_id, directory_id, hex(name), size, mtime_ns, ctime_ns, inode, hex(known)))
    from (select * from temp.pending where id > ?1 and id <= ?2 order by id)";

/// The paths of directories, of a JSON array of their ids.
const PATHS: &str = "
    select d.id, d.volume_id, d.path from json_each(?) j join directories d on d.id = j.value";

const MOST_HAVE_NO_HASH: &str = "
    select (select count(*) from contents) * 2 < (select count(*) from files)";

async fn most_have_no_hash(connection: &mut SqliteConnection) -> Result<bool> {
    let most = sqlx::query_scalar(MOST_HAVE_NO_HASH).fetch_one(connection).await;
    most.map_err(IndexError::during("select what is to be read"))
}

/// Makes `temp.pending`, empty, and what a selection looks at.
async fn prepare(connection: &mut SqliteConnection, scope: &Scope) -> Result<()> {
    let failed = || IndexError::during("select what is to be read");
    sqlx::raw_sql(TEMPORARY_TABLES).execute(&mut *connection).await.map_err(failed())?;
    for volume in &scope.reachable {
        let insert = sqlx::query("insert or ignore into temp.reachable values (?)").bind(volume.0);
        insert.execute(&mut *connection).await.map_err(failed())?;
    }
    scope::fill(connection, &scope.extents).await?;
    scope::add(connection, &scope.directories).await
}

/// Fills `temp.pending`; returns how many files there are.
async fn fill(connection: &mut SqliteConnection, stage: Stage, scope: &Scope) -> Result<u64> {
    prepare(connection, scope).await?;
    let rules = HashRules::of(&catalog::roots(connection).await?);
    let some_are_never_read = rules.have(HashPolicy::None);
    if stage == Stage::Everything {
        scope::HASHED_WHOLLY.fill(connection, &rules).await?;
    } else if some_are_never_read {
        scope::NEVER_READ.fill(connection, &rules).await?;
    }
    let select = match (stage, some_are_never_read) {
        (Stage::Everything, _) => SELECT_EVERYTHING,
        (Stage::Size, false) => SELECT_BY_SIZE,
        (Stage::Size, true) => SELECT_READ_BY_SIZE,
        (Stage::Sample, false) => SELECT_BY_SAMPLE,
        (Stage::Sample, true) => SELECT_READ_BY_SAMPLE,
    };
    let mut select = sqlx::query(select);
    if stage == Stage::Size {
        select = select.bind(most_have_no_hash(connection).await?);
    }
    let selected = select.execute(connection).await;
    Ok(selected.map_err(IndexError::during("select what is to be read"))?.rows_affected())
}

/// The same of files to be read again.
async fn fill_again(connection: &mut SqliteConnection, what: Rereading, scope: &Scope) -> Result<u64> {
    prepare(connection, scope).await?;
    let selected = match what {
        Rereading::OnRecord => sqlx::query(REREAD_ON_RECORD).execute(connection).await,
        Rereading::Hashed(None) => {
            let text = format!("{REREAD_HASHED}{IN_PHYSICAL_ORDER}");
            sqlx::query(AssertSqlSafe(text)).execute(connection).await
        }
        Rereading::Hashed(Some(range)) => {
            let (from, to) = range.bounds();
            let text = format!("{REREAD_HASHED}{IN_RANGE}{IN_PHYSICAL_ORDER}");
            sqlx::query(AssertSqlSafe(text)).bind(from).bind(to).execute(connection).await
        }
    };
    Ok(selected.map_err(IndexError::during("select what is to be read again"))?.rows_affected())
}

async fn count_pending(connection: &mut SqliteConnection, stage: Stage) -> Result<PendingTotals> {
    let row = sqlx::query(TOTALS)
        .bind(to_integer(SMALL_FILE))
        .bind(to_integer(SAMPLE_BYTES))
        .fetch_one(connection)
        .await
        .map_err(IndexError::during("select what is to be read"))?;
    let bytes = count(&row, if stage == Stage::Size { 2 } else { 1 })?;
    Ok(PendingTotals { files: count(&row, 0)?, bytes })
}

/// An element of a window.
#[derive(Deserialize)]
struct Row(i64, i64, i64, HexBytes, i64, i64, i64, i64, #[serde(default)] Option<HexBytes>);

/// Reads the selection of one stage.
pub(super) struct SqlitePending {
    connection: SqliteConnection,
    mounts: MountMap,
    totals: PendingTotals,
    position: i64,
    last: i64,
    jobs: Jobs,
    next: &'static str,
}

impl SqlitePending {
    pub(super) async fn select(
        mut connection: SqliteConnection,
        stage: Stage,
        scope: &Scope,
        mounts: &MountMap,
    ) -> Result<Self> {
        let mut totals = PendingTotals::default();
        let mut last = 0;
        if kept(&mut connection).await?.is_none() {
            last = fill(&mut connection, stage, scope).await?;
            totals = count_pending(&mut connection, stage).await?;
        }
        let (mounts, jobs) = (mounts.clone(), Jobs::new(stage, None));
        Ok(Self { connection, mounts, totals, position: 0, last: to_integer(last), jobs, next: NEXT })
    }

    /// Files to be read again.
    pub(super) async fn reread(
        mut connection: SqliteConnection,
        what: Rereading,
        scope: &Scope,
        mounts: &MountMap,
    ) -> Result<Self> {
        let last = to_integer(fill_again(&mut connection, what, scope).await?);
        let totals = count_pending(&mut connection, Stage::Everything).await?;
        let (mounts, jobs) = (mounts.clone(), Jobs::new(Stage::Everything, None));
        Ok(Self { connection, mounts, totals, position: 0, last, jobs, next: NEXT_KNOWN })
    }

    async fn window(&mut self) -> Result<Vec<Row>> {
        let until = self.position + WINDOW;
        let window =
            sqlx::query(self.next).bind(self.position).bind(until).fetch_one(&mut self.connection).await;
        let window = window.map_err(IndexError::during("read what is pending"))?;
        self.position = until;
        read_json(column(&window, 0)?)
    }

    /// Where the directories of a window are; those without a mount are left out.
    async fn directories(&mut self, rows: &[Row]) -> Result<HashMap<i64, Arc<Path>>> {
        let ids: HashSet<i64> = rows.iter().map(|row| row.2).collect();
        let found = sqlx::query(PATHS).bind(to_json(&ids)?).fetch_all(&mut self.connection).await;
        let mut paths = HashMap::with_capacity(ids.len());
        for row in found.map_err(IndexError::during("read what is pending"))? {
            if let Some(path) = self.mounts.absolute(VolumeId(column(&row, 1)?), &volume_path(&row, 2)?) {
                paths.insert(column(&row, 0)?, path.into());
            }
        }
        Ok(paths)
    }
}

#[async_trait(?Send)]
impl PendingReader for SqlitePending {
    fn totals(&self) -> PendingTotals {
        self.totals
    }

    async fn next(&mut self) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        while jobs.is_empty() && self.position < self.last {
            let rows = self.window().await?;
            let directories = self.directories(&rows).await?;
            for row in rows {
                let Row(id, volume, directory, HexBytes(name), size, mtime, ctime, inode, known) = row;
                let stamp = stamp(size, mtime, ctime, inode);
                let known = known.map(|HexBytes(hash)| digest(&hash)).transpose()?;
                let row = PendingRow { id, volume, directory, name, stamp, known };
                jobs.extend(self.jobs.take(row, &directories));
            }
        }
        if self.position >= self.last {
            jobs.extend(self.jobs.finish());
        }
        Ok(jobs)
    }
}

#[cfg(test)]
mod tests {
    use super::super::SqliteIndex;
    use super::*;
    use crate::index::lock::OnBusy;
    use crate::index::sqlite::settle::HashIndex;
    use crate::model::rot::{RingPosition, Share};

    /// A small sample of a large index must not look at every file; all of it is better read as it lies.
    #[tokio::test]
    async fn a_sample_is_found_by_its_hashes() {
        let directory = tempfile::tempdir().unwrap();
        let index = SqliteIndex::create(&directory.path().join("index.db"), OnBusy::Fail).await.unwrap();
        let mut connection = index.connect().await.unwrap();
        HashIndex::look(&mut connection).await.unwrap().make(&mut connection).await.unwrap();
        let nothing =
            Scope { extents: Vec::new(), directories: Vec::new(), reachable: Vec::new(), helps: false };
        prepare(&mut connection, &nothing).await.unwrap();
        let share: Share = "5%".parse().unwrap();
        let (from, to) = share.slices_from(RingPosition::default())[0].bounds();
        for (range, by_index) in [(IN_RANGE, true), ("", false)] {
            let text = format!("explain query plan {REREAD_HASHED}{range}{IN_PHYSICAL_ORDER}");
            let mut explain = sqlx::query_as(AssertSqlSafe(text));
            if by_index {
                explain = explain.bind(from.clone()).bind(to.clone());
            }
            let plan: Vec<(i64, i64, i64, String)> = explain.fetch_all(&mut connection).await.unwrap();
            let is_searched = plan.iter().any(|(.., step)| {
                step.starts_with("SEARCH c USING INDEX contents_by_hash (hash>? AND hash<?)")
            });
            assert_eq!(is_searched, by_index, "{plan:?}");
            assert!(
                plan.iter().any(|(.., step)| step.starts_with("SEARCH f USING INTEGER PRIMARY KEY")),
                "{plan:?}"
            );
        }
    }
}
