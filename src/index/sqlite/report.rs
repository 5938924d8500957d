//! Groups of duplicates, in order.
//!
//! The groups, as they were kept or found anew, and then their members go to temporary tables, sorted by the database,
//! which spills to disk what does not fit in its cache; from there they are read by the window. The index is not held
//! while a report waits for its reader.

use std::collections::VecDeque;

use async_trait::async_trait;
use serde::Deserialize;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::convert::HexBytes;
use super::summary::{SELECT_BY_RECLAIMABLE, kept, select_groups};
use super::{SqliteIndex, scope};
use crate::index::convert::{read_json, stamp, to_integer};
use crate::index::members::{MemberRow, Members};
use crate::index::{IndexError, ReportReader, Result};
use crate::model::group::{ReportFilter, ReportItem, SortBy, Summary};
use crate::model::volume::Places;

/// Rows fetched at once.
const WINDOW: usize = 1024;

/// Windows of a part that wait to be written, each of some hundred kilobytes.
const WAITING_WINDOWS: usize = 8;

/// Groups that one connection collects as fast as two, because a second has to be opened first.
const FEW_GROUPS: u64 = 4096;

/// Groups in the order of the report. Names are as many as files, or more if some are hard links.
const CREATE_RANKED: &str = "
    create temp table ranked (
        rank integer primary key, size integer not null, hash blob not null, files integer not null,
        names integer not null)";

/// The groups that were kept with the figures, from one rank to another.
const COPY_RANKS: &str = "
    insert into temp.ranked (rank, size, hash, files, names)
    select rank, size, hash, files, names from main.groups where rank between ?1 and ?2";

/// A negative limit, ?1, is none.
const RANK: &str = "insert into temp.ranked (size, hash, files, names) ";

const BY_SIZE: &str = "select size, hash, files, names from temp.groups order by size desc, files desc, hash";

const BY_COUNT: &str =
    "select size, hash, files, names from temp.groups order by files desc, size desc, hash";

/// ?2: 1 for all directories, 0 for those in the scope.
const BY_PATH: &str = "
    select g.size, g.hash, g.files, g.names from temp.groups g
    cross join contents c on c.hash = g.hash and c.size = g.size
    cross join files f on f.id = c.file_id
    cross join directories d on d.id = f.directory_id
    where ?2 or f.directory_id in (select directory_id from temp.scope)
    group by g.id order by min(d.path || '/' || f.name), min(d.volume_id)";

/// The files of the groups in the order of the table they lie in: looked up in the order of the groups, each would
/// cost a page read from anywhere.
const CREATE_CHOSEN: &str = "
    create temp table chosen (file_id integer primary key, rank integer not null)";

const CHOOSE: &str = "
    insert into temp.chosen (file_id, rank)
    select c.file_id, r.rank from temp.ranked r
    cross join contents c on c.hash = r.hash and c.size = r.size
    order by c.file_id";

const CREATE_FIRST_NAMES: &str = "
    create temp table first_names (
        rank integer, volume_id integer, inode integer, path blob, primary key (rank, volume_id, inode))
    without rowid";

/// The first name of each physical file, in groups in which one has several.
const SELECT_FIRST_NAMES: &str = "
    insert into temp.first_names (rank, volume_id, inode, path)
    select r.rank, f.volume_id, f.inode, min(d.path || '/' || f.name)
    from temp.ranked r
    cross join contents c on c.hash = r.hash and c.size = r.size
    cross join files f on f.id = c.file_id
    cross join directories d on d.id = f.directory_id
    where r.names > r.files and (?1 or f.directory_id in (select directory_id from temp.scope))
    group by r.rank, f.volume_id, f.inode";

const CREATE_MEMBERS: &str = "
    create temp table members (
        id integer primary key, rank integer, path blob, volume_id integer, mtime_ns integer, ctime_ns integer,
        inode integer)";

/// Members by group; in a group, physical files by their first name, and the names of each together. What has a
/// first name, has it in its whole group.
const SELECT_MEMBERS: &str = "
    insert into temp.members (rank, path, volume_id, mtime_ns, ctime_ns, inode)
    select s.rank, d.path || '/' || f.name as path, f.volume_id, f.mtime_ns, f.ctime_ns, f.inode
    from temp.chosen s
    cross join files f on f.id = s.file_id
    cross join directories d on d.id = f.directory_id
    left join temp.first_names n on n.rank = s.rank and n.volume_id = f.volume_id and n.inode = f.inode
    where ?1 or f.directory_id in (select directory_id from temp.scope)
    order by s.rank, n.path, n.volume_id, n.inode, path, f.volume_id";

/// A window as one JSON text, see the one of pending files; and one of the groups in it.
const NEXT: &str = "
    select json_group_array(json_array(rank, volume_id, hex(path), mtime_ns, ctime_ns, inode)), (
        select json_group_array(json_array(rank, size, hex(hash), files)) from temp.ranked
        where rank >= (select rank from temp.members where id = ?1 + 1)
          and rank <= (select rank from temp.members where id = ?2))
    from (select * from temp.members where id > ?1 and id <= ?2 order by id)";

/// An element of a window.
#[derive(Deserialize)]
struct Row(i64, i64, HexBytes, i64, i64, i64);

/// A group in it.
#[derive(Deserialize)]
struct GroupRow(i64, i64, HexBytes, u64);

/// The JSON of rows and of groups.
type Window = (String, String);

/// Reads a report, part by part. The next windows are made while one is written.
pub(super) struct SqliteReport {
    parts: VecDeque<Part>,
    members: Members,
    summary: Summary,
}

/// Some groups in a row, and what collects their members.
struct Part {
    windows: mpsc::Receiver<Window>,
    collecting: JoinHandle<Result<()>>,
}

impl SqliteReport {
    pub(super) async fn select(index: &SqliteIndex, filter: &ReportFilter, places: &Places) -> Result<Self> {
        let mut first = index.snapshot().await?;
        let everywhere = filter.under.is_none();
        let is_usual = filter.is_everything() && filter.sort == SortBy::Reclaimable;
        let kept = if is_usual { kept(&mut first).await? } else { None };
        let (summary, connections) = match kept {
            Some((moment, summary)) => {
                let last = filter.limit.unwrap_or(u64::MAX).min(summary.groups);
                (summary, divide(index, first, moment, last).await?)
            }
            None => (rank(&mut first, filter).await?, vec![first]),
        };
        let parts = connections.into_iter().map(|connection| Part::collect(connection, everywhere)).collect();
        Ok(Self { parts, members: Members::new(places), summary })
    }

    fn read_window(&mut self, (rows, groups): &Window) -> Result<Vec<ReportItem>> {
        let damaged = || IndexError::Damaged("a report lacks a group".to_owned());
        let (rows, groups): (Vec<Row>, Vec<GroupRow>) = (read_json(rows)?, read_json(groups)?);
        let mut groups = groups.into_iter().peekable();
        let mut items = Vec::new();
        for Row(rank, volume, path, mtime, ctime, inode) in rows {
            while groups.peek().is_some_and(|group| group.0 < rank) {
                groups.next();
            }
            let group = groups.peek().filter(|group| group.0 == rank);
            let GroupRow(_, size, hash, files) = group.ok_or_else(damaged)?;
            let (directory, name) = split(&path.0).ok_or_else(damaged)?;
            let stamp = stamp(*size, mtime, ctime, inode);
            let row = MemberRow { group: rank, volume, directory, name, stamp, hash: &hash.0, files: *files };
            self.members.take(&row, &mut items)?;
        }
        Ok(items)
    }
}

/// Takes the groups that were kept, up to the last rank. If they are many, a second connection takes its share, as
/// long as it sees the same moment.
async fn divide(
    index: &SqliteIndex,
    mut first: SqliteConnection,
    moment: i64,
    last: u64,
) -> Result<Vec<SqliteConnection>> {
    if last > FEW_GROUPS {
        let mut second = index.snapshot().await?;
        if kept(&mut second).await?.is_some_and(|(other, _)| other == moment) {
            // The first part is ready sooner, and written while the other one is still being collected.
            let middle = last / 5 * 2;
            copy_ranks(&mut first, 1, middle).await?;
            copy_ranks(&mut second, middle + 1, last).await?;
            return Ok(vec![first, second]);
        }
    }
    copy_ranks(&mut first, 1, last).await?;
    Ok(vec![first])
}

async fn copy_ranks(connection: &mut SqliteConnection, first: u64, last: u64) -> Result<()> {
    let failed = || IndexError::during("collect the report");
    scope::fill(connection, &[]).await?;
    sqlx::query(CREATE_RANKED).execute(&mut *connection).await.map_err(failed())?;
    let copy = sqlx::query(COPY_RANKS).bind(to_integer(first)).bind(to_integer(last));
    copy.execute(connection).await.map(drop).map_err(failed())
}

/// Finds the groups of a filter and puts them in order.
async fn rank(connection: &mut SqliteConnection, filter: &ReportFilter) -> Result<Summary> {
    let failed = || IndexError::during("collect the report");
    let summary = select_groups(connection, filter).await?;
    sqlx::query(CREATE_RANKED).execute(&mut *connection).await.map_err(failed())?;
    let select = match filter.sort {
        SortBy::Reclaimable => SELECT_BY_RECLAIMABLE,
        SortBy::Size => BY_SIZE,
        SortBy::Count => BY_COUNT,
        SortBy::Path => BY_PATH,
    };
    // SQLite reads a negative limit as none.
    let limit = filter.limit.map_or(-1, to_integer);
    let text = format!("{RANK} {select} limit ?1");
    let mut rank = sqlx::query(AssertSqlSafe(text)).bind(limit);
    if filter.sort == SortBy::Path {
        rank = rank.bind(filter.under.is_none());
    }
    rank.execute(connection).await.map_err(failed())?;
    Ok(summary)
}

impl Part {
    /// Begins to collect the members of the groups in `temp.ranked`.
    fn collect(connection: SqliteConnection, everywhere: bool) -> Self {
        let (sender, windows) = mpsc::channel(WAITING_WINDOWS);
        Self { windows, collecting: tokio::task::spawn_local(collect(connection, everywhere, sender)) }
    }
}

/// Collects members, in order, and sends them window by window; the index is held only while they are collected.
async fn collect(
    mut connection: SqliteConnection,
    everywhere: bool,
    sender: mpsc::Sender<Window>,
) -> Result<()> {
    let failed = || IndexError::during("collect the report");
    for statement in [CREATE_CHOSEN, CREATE_FIRST_NAMES, CREATE_MEMBERS, CHOOSE] {
        sqlx::query(statement).execute(&mut connection).await.map_err(failed())?;
    }
    let first_names = sqlx::query(SELECT_FIRST_NAMES).bind(everywhere).execute(&mut connection).await;
    first_names.map_err(failed())?;
    let members = sqlx::query(SELECT_MEMBERS).bind(everywhere).execute(&mut connection).await;
    let rows = to_integer(members.map_err(failed())?.rows_affected());
    sqlx::query("commit").execute(&mut connection).await.map_err(failed())?;
    for position in (0..rows).step_by(WINDOW) {
        let until = rows.min(position + to_integer(WINDOW as u64));
        let window = sqlx::query_as(NEXT).bind(position).bind(until).fetch_one(&mut connection).await;
        let window = window.map_err(IndexError::during("read the report"))?;
        if sender.send(window).await.is_err() {
            break;
        }
    }
    Ok(())
}

#[async_trait(?Send)]
impl ReportReader for SqliteReport {
    fn summary(&self) -> Summary {
        self.summary
    }

    async fn next(&mut self) -> Result<Vec<ReportItem>> {
        while let Some(part) = self.parts.front_mut() {
            if let Some(window) = part.windows.recv().await {
                return self.read_window(&window);
            }
            if let Some(Part { collecting, .. }) = self.parts.pop_front() {
                collecting.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
            }
        }
        Ok(Vec::new())
    }
}

/// The directory and the name in it.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    Some((&path[..slash], &path[slash + 1..]))
}
