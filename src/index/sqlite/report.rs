//! Groups of duplicates, in order.
//!
//! The groups and then their members go to temporary tables, sorted by the database, which spills
//! to disk what does not fit in its cache; from there they are read by the window. The index is
//! not held while a report waits for its reader.

use async_trait::async_trait;
use serde::Deserialize;
use sqlx::sqlite::SqliteConnection;

use super::convert::{HexBytes, column, read_json};
use super::summary::select_groups;
use crate::index::convert::{stamp, to_integer};
use crate::index::members::{MemberRow, Members};
use crate::index::{IndexError, ReportReader, Result};
use crate::model::group::{ReportFilter, ReportItem, SortBy, Summary};
use crate::model::volume::Places;

/// Rows fetched at once.
const WINDOW: i64 = 1024;

const CREATE_RANKING: &str = "
    create temp table ranking (rank integer primary key, group_id integer not null)";

const RANK_BY_RECLAIMABLE: &str = "
    insert into temp.ranking (group_id)
    select id from temp.groups order by size * (files - 1) desc, size desc, hash limit ?1";

const RANK_BY_SIZE: &str = "
    insert into temp.ranking (group_id) select id from temp.groups order by size desc, files desc, hash limit ?1";

const RANK_BY_COUNT: &str = "
    insert into temp.ranking (group_id) select id from temp.groups order by files desc, size desc, hash limit ?1";

/// ?2: 1 for all directories, 0 for those in the scope.
const RANK_BY_PATH: &str = "
    insert into temp.ranking (group_id)
    select g.id from files f
    cross join temp.groups g on g.hash = f.hash and g.size = f.size
    join directories d on d.id = f.directory_id
    where ?2 or f.directory_id in (select directory_id from temp.scope)
    group by g.id order by min(d.path || '/' || f.name), min(d.volume_id) limit ?1";

const INDEX_GROUPS: &str = "create index temp.groups_by_hash on groups (hash, size)";

const INDEX_RANKING: &str = "create unique index temp.ranking_by_group on ranking (group_id)";

const CREATE_MEMBERS: &str = "
    create temp table members (
        id integer primary key, group_id integer, volume_id integer, directory blob, name blob,
        size integer, mtime_ns integer, ctime_ns integer, inode integer)";

/// Members by group; in a group, physical files by their first name, and the names of each together.
const SELECT_MEMBERS: &str = "
    insert into temp.members (group_id, volume_id, directory, name, size, mtime_ns, ctime_ns, inode)
    select group_id, volume_id, path, name, size, mtime_ns, ctime_ns, inode from (
        select r.rank, g.id group_id, d.volume_id, d.path, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode,
               min(d.path || '/' || f.name) over (partition by g.id, f.volume_id, f.inode) first_name
        from files f
        cross join temp.groups g on g.hash = f.hash and g.size = f.size
        join temp.ranking r on r.group_id = g.id
        join directories d on d.id = f.directory_id
        where ?1 or f.directory_id in (select directory_id from temp.scope))
    order by rank, first_name, volume_id, inode, path || '/' || name";

/// A window as one JSON text, see the one of pending files.
const NEXT: &str = "
    select json_group_array(json_array(
        group_id, volume_id, hex(directory), hex(name), size, mtime_ns, ctime_ns, inode, hex(hash), files))
    from (select m.*, g.hash, g.files from temp.members m join temp.groups g on g.id = m.group_id
          where m.id > ?1 and m.id <= ?2 order by m.id)";

/// An element of a window.
#[derive(Deserialize)]
struct Row(i64, i64, HexBytes, HexBytes, i64, i64, i64, i64, HexBytes, u64);

/// Reads a report.
pub(super) struct SqliteReport {
    connection: SqliteConnection,
    members: Members,
    summary: Summary,
    position: i64,
    last: i64,
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
        for statement in [INDEX_GROUPS, CREATE_RANKING, CREATE_MEMBERS] {
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
        sqlx::query(INDEX_RANKING).execute(&mut connection).await.map_err(failed())?;
        let members = sqlx::query(SELECT_MEMBERS).bind(everywhere).execute(&mut connection).await;
        let last = members.map_err(failed())?.rows_affected();
        sqlx::query("commit").execute(&mut connection).await.map_err(failed())?;
        Ok(Self { connection, members: Members::new(places), summary, position: 0, last: to_integer(last) })
    }
}

#[async_trait(?Send)]
impl ReportReader for SqliteReport {
    fn summary(&self) -> Summary {
        self.summary
    }

    async fn next(&mut self) -> Result<Vec<ReportItem>> {
        let mut items = Vec::new();
        if self.position < self.last {
            let until = self.position + WINDOW;
            let window =
                sqlx::query(NEXT).bind(self.position).bind(until).fetch_one(&mut self.connection).await;
            let window = window.map_err(IndexError::during("read the report"))?;
            for row in read_json::<Vec<Row>>(column(&window, 0)?)? {
                let Row(group, volume, directory, name, size, mtime, ctime, inode, hash, files) = row;
                let stamp = stamp(size, mtime, ctime, inode);
                let (directory, name, hash) = (&*directory.0, &*name.0, &*hash.0);
                let row = MemberRow { group, volume, directory, name, stamp, hash, files };
                self.members.take(&row, &mut items)?;
            }
            self.position = until;
        }
        Ok(items)
    }
}
