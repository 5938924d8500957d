//! Groups of duplicates, in order.
//!
//! The groups and then their members go to temporary tables, sorted by the database, which spills
//! to disk what does not fit in its cache; from there they are read by the window. The index is
//! not held while a report waits for its reader.

use async_trait::async_trait;
use serde::Deserialize;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::mpsc;

use super::convert::HexBytes;
use super::summary::select_groups;
use crate::index::convert::{read_json, stamp, to_integer};
use crate::index::members::{MemberRow, Members};
use crate::index::{IndexError, ReportReader, Result};
use crate::model::group::{ReportFilter, ReportItem, SortBy, Summary};
use crate::model::volume::Places;

/// Rows fetched at once.
const WINDOW: usize = 1024;

/// Windows that wait to be written: one is enough to keep the database at work.
const WAITING_WINDOWS: usize = 1;

/// Groups in the order of the report. Names are as many as files, or more if some are hard links.
const CREATE_RANKED: &str = "
    create temp table ranked (
        rank integer primary key, size integer not null, hash blob not null, files integer not null,
        names integer not null)";

const RANK_BY_RECLAIMABLE: &str = "
    insert into temp.ranked (size, hash, files, names)
    select size, hash, files, names from temp.groups order by size * (files - 1) desc, size desc, hash limit ?1";

const RANK_BY_SIZE: &str = "
    insert into temp.ranked (size, hash, files, names)
    select size, hash, files, names from temp.groups order by size desc, files desc, hash limit ?1";

const RANK_BY_COUNT: &str = "
    insert into temp.ranked (size, hash, files, names)
    select size, hash, files, names from temp.groups order by files desc, size desc, hash limit ?1";

/// ?2: 1 for all directories, 0 for those in the scope.
const RANK_BY_PATH: &str = "
    insert into temp.ranked (size, hash, files, names)
    select g.size, g.hash, g.files, g.names from temp.groups g
    cross join contents c on c.hash = g.hash and c.size = g.size
    cross join files f on f.id = c.file_id
    cross join directories d on d.id = f.directory_id
    where ?2 or f.directory_id in (select directory_id from temp.scope)
    group by g.id order by min(d.path || '/' || f.name), min(d.volume_id) limit ?1";

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

/// Reads a report. The next window is made while the last is written.
pub(super) struct SqliteReport {
    windows: mpsc::Receiver<Result<Window>>,
    /// Rows that have not come yet.
    left: u64,
    members: Members,
    summary: Summary,
}

impl SqliteReport {
    pub(super) async fn select(
        mut connection: SqliteConnection,
        filter: &ReportFilter,
        places: &Places,
    ) -> Result<Self> {
        let failed = || IndexError::during("collect the report");
        let summary = select_groups(&mut connection, filter).await?;
        let everywhere = filter.under.is_none();
        // SQLite reads a negative limit as none.
        let limit = filter.limit.map_or(-1, to_integer);
        for statement in [CREATE_RANKED, CREATE_CHOSEN, CREATE_FIRST_NAMES, CREATE_MEMBERS] {
            sqlx::query(statement).execute(&mut connection).await.map_err(failed())?;
        }
        let rank = match filter.sort {
            SortBy::Reclaimable => RANK_BY_RECLAIMABLE,
            SortBy::Size => RANK_BY_SIZE,
            SortBy::Count => RANK_BY_COUNT,
            SortBy::Path => RANK_BY_PATH,
        };
        let mut rank_groups = sqlx::query(rank).bind(limit);
        if filter.sort == SortBy::Path {
            rank_groups = rank_groups.bind(everywhere);
        }
        rank_groups.execute(&mut connection).await.map_err(failed())?;
        sqlx::query(CHOOSE).execute(&mut connection).await.map_err(failed())?;
        let first_names = sqlx::query(SELECT_FIRST_NAMES).bind(everywhere).execute(&mut connection).await;
        first_names.map_err(failed())?;
        let members = sqlx::query(SELECT_MEMBERS).bind(everywhere).execute(&mut connection).await;
        let rows = members.map_err(failed())?.rows_affected();
        sqlx::query("commit").execute(&mut connection).await.map_err(failed())?;

        let (sender, windows) = mpsc::channel(WAITING_WINDOWS);
        tokio::task::spawn_local(read_windows(connection, to_integer(rows), sender));
        Ok(Self { windows, left: rows, members: Members::new(places), summary })
    }
}

/// Sends the windows of so many rows, up to the first that cannot be read.
async fn read_windows(mut connection: SqliteConnection, rows: i64, sender: mpsc::Sender<Result<Window>>) {
    for position in (0..rows).step_by(WINDOW) {
        let until = rows.min(position + to_integer(WINDOW as u64));
        let window = sqlx::query_as(NEXT).bind(position).bind(until).fetch_one(&mut connection).await;
        let window = window.map_err(IndexError::during("read the report"));
        let is_last = window.is_err();
        if sender.send(window).await.is_err() || is_last {
            return;
        }
    }
}

#[async_trait(?Send)]
impl ReportReader for SqliteReport {
    fn summary(&self) -> Summary {
        self.summary
    }

    async fn next(&mut self) -> Result<Vec<ReportItem>> {
        if self.left == 0 {
            return Ok(Vec::new());
        }
        let broken_off = || IndexError::Damaged("the report broke off".to_owned());
        let (rows, groups) = self.windows.recv().await.ok_or_else(broken_off)??;
        let (rows, groups): (Vec<Row>, Vec<GroupRow>) = (read_json(&rows)?, read_json(&groups)?);
        let mut groups = groups.into_iter().peekable();
        let mut items = Vec::new();
        for Row(rank, volume, path, mtime, ctime, inode) in rows {
            while groups.peek().is_some_and(|group| group.0 < rank) {
                groups.next();
            }
            let group = groups.peek().filter(|group| group.0 == rank);
            let GroupRow(_, size, hash, files) = group.ok_or_else(broken_off)?;
            let (directory, name) = split(&path.0).ok_or_else(broken_off)?;
            let stamp = stamp(*size, mtime, ctime, inode);
            let row = MemberRow { group: rank, volume, directory, name, stamp, hash: &hash.0, files: *files };
            self.members.take(&row, &mut items)?;
            self.left = self.left.saturating_sub(1);
        }
        Ok(items)
    }
}

/// The directory and the name in it.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    Some((&path[..slash], &path[slash + 1..]))
}
