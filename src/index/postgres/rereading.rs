//! Files that are read again although nothing changed, in physical order.
//!
//! One pass over the table finds them; their keys are kept in pieces, a row each, that belong to the run. No
//! transaction and no cursor is open while files are read, so a lost connection costs nothing; and what a file is, is
//! looked up when it is its turn. Other than with leases, nothing is shared: each host verifies what it was asked to.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::scope::{ScopeArrays, with_scope};
use super::session::{Session, expect_whole_tables};
use crate::index::convert::{Jobs, PendingRow, digest, stamp};
use crate::index::rows::Columns as _;
use crate::index::{IndexError, PendingReader, Result};
use crate::model::pending::{Job, PendingTotals, Scope, Stage};
use crate::model::rot::{HashRange, Rereading};
use crate::model::scan::ScanId;
use crate::model::volume::{MountMap, VolumeId};

/// Files in a piece: some hundred kilobytes when their rows are looked up. Two of this number are in the statement.
const PIECE: i64 = 2048;

/// What runs left behind that are not at work, and this run's pieces of an earlier selection.
const FORGET: &str = "
    delete from rereading r
    where r.scan_id = $1 or not exists (select 1 from scans s where s.id = r.scan_id and s.status = 'running')";

/// The ordered aggregates keep the server from grouping in a hash table, which would hold all in memory.
/// $5: the volumes that can be reached; $6: the run; $7: files in a piece.
macro_rules! select_pieces {
    ($chosen:literal) => {
        with_scope!(
            $chosen,
            ", numbered as (
                select c.*, row_number() over (order by volume_id, inode, known, directory_id, name) as position
                from chosen c),
            made as (
                insert into rereading (scan_id, number, directories, names)
                select $6, (position - 1) / $7, array_agg(directory_id order by position), array_agg(name order by position)
                from numbered group by 2
                returning 1)
            select count(*), least(coalesce(sum(size), 0), 9223372036854775807)::bigint, (select count(*) from made)
            from chosen"
        )
    };
}

/// Files of which something is on record: those that should have another hash than they have (also if another file is
/// in their place now), and those that could not be read again, but have their hash.
const ON_RECORD: &str = select_pieces!(
    ", chosen as materialized (
        select f.volume_id, f.inode, r.expected as known, f.directory_id, f.name, f.size
        from rot r join files f on f.directory_id = r.directory_id and f.name = r.name
        where f.hash is null and f.directory_id in (select id from scope) and f.volume_id = any($5::bigint[])
        union all
        select f.volume_id, f.inode, f.hash, f.directory_id, f.name, f.size from files f
        where f.hash is not null and f.problem is not null
          and f.directory_id in (select id from scope) and f.volume_id = any($5::bigint[]))"
);

/// What is wanted of those that have a hash, but for those above: hashes from $8 on, below $9. One that is to be read
/// again by the next scan may have changed unseen.
const HASHED: &str = select_pieces!(
    ", chosen as materialized (
        select f.volume_id, f.inode, f.hash as known, f.directory_id, f.name, f.size from files f
        where f.hash is not null and not f.recheck and f.problem is null
          and ($8::bytea is null or f.hash >= $8) and ($9::bytea is null or f.hash < $9)
          and f.directory_id in (select id from scope) and f.volume_id = any($5::bigint[]))"
);

/// The files of a piece as they are now. What lost its hash meanwhile is left to a scan, unless it is on record.
const NEXT: &str = "
    select f.volume_id, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode, coalesce(f.hash, r.expected), d.path
    from rereading p cross join unnest(p.directories, p.names) with ordinality k (directory_id, name, position)
    join files f on f.directory_id = k.directory_id and f.name = k.name
    join directories d on d.id = f.directory_id
    left join rot r on r.directory_id = f.directory_id and r.name = f.name
    where p.scan_id = $1 and p.number = $2 and not f.recheck and coalesce(f.hash, r.expected) is not null
    order by k.position";

const IS_THERE: &str = "select exists (select 1 from rereading where scan_id = $1 and number = $2)";

/// Hands out the files of one selection.
pub(super) struct Rereader {
    session: Session,
    run: ScanId,
    mounts: MountMap,
    totals: PendingTotals,
    next: i64,
    pieces: i64,
    jobs: Jobs,
}

impl Rereader {
    pub(super) async fn select(
        session: Session,
        run: ScanId,
        what: Rereading,
        scope: &Scope,
        mounts: &MountMap,
    ) -> Result<Self> {
        let operation = "select what is to be read again";
        let reachable: Vec<i64> = scope.reachable.iter().map(|volume| volume.0).collect();
        let arrays = ScopeArrays::with_directories(&scope.extents, &scope.directories);
        let select = async |connection: &mut PgConnection| {
            let failed = || IndexError::during(operation);
            sqlx::query(FORGET).bind(run.0).execute(&mut *connection).await.map_err(failed())?;
            expect_whole_tables(connection, operation).await?;
            let chosen = match what {
                Rereading::OnRecord => ON_RECORD,
                Rereading::Hashed(_) => HASHED,
            };
            let mut statement = arrays.query(chosen).bind(&reachable).bind(run.0).bind(PIECE);
            if let Rereading::Hashed(range) = what {
                let (from, to) = range.map(HashRange::bounds).unzip();
                statement = statement.bind(from).bind(to);
            }
            let row = statement.fetch_one(connection).await.map_err(failed())?;
            Ok((PendingTotals { files: row.count(0)?, bytes: row.count(1)? }, row.value(2)?))
        };
        let (totals, pieces) = session.transaction(operation, select).await?;
        let jobs = Jobs::new(Stage::Everything, None);
        Ok(Self { session, run, mounts: mounts.clone(), totals, next: 0, pieces, jobs })
    }

    /// The files of the next piece, with the paths of their directories.
    async fn piece(&self) -> Result<(Vec<PendingRow>, HashMap<i64, Arc<Path>>)> {
        let operation = "read what is to be read again";
        let read = async |connection: &mut PgConnection| {
            let rows = sqlx::query(NEXT).bind(self.run.0).bind(self.next).fetch_all(&mut *connection).await;
            let (mut files, mut directories, mut met) = (Vec::new(), HashMap::new(), HashSet::new());
            for row in rows.map_err(IndexError::during(operation))? {
                let (volume, directory): (i64, i64) = (row.value(0)?, row.value(1)?);
                if met.insert(directory)
                    && let Some(path) = self.mounts.absolute(VolumeId(volume), &row.volume_path(8)?)
                {
                    directories.insert(directory, path.into());
                }
                let stamp = stamp(row.value(3)?, row.value(4)?, row.value(5)?, row.value(6)?);
                let known = Some(digest(row.value(7)?)?);
                files.push(PendingRow {
                    id: 0,
                    volume,
                    directory,
                    name: row.value(2)?,
                    stamp,
                    known,
                    sample: None,
                });
            }
            if files.is_empty() {
                // All of them may be gone; or this process was taken for dead, and what it kept was removed.
                let found = sqlx::query_scalar(IS_THERE).bind(self.run.0).bind(self.next);
                let is_there: bool =
                    found.fetch_one(connection).await.map_err(IndexError::during(operation))?;
                if !is_there {
                    return Err(IndexError::TakenForDead);
                }
            }
            Ok((files, directories))
        };
        self.session.transaction(operation, read).await
    }
}

#[async_trait(?Send)]
impl PendingReader for Rereader {
    fn totals(&self) -> PendingTotals {
        self.totals
    }

    async fn next(&mut self) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        while jobs.is_empty() && self.next < self.pieces {
            let (files, directories) = self.piece().await?;
            self.next += 1;
            for row in files {
                jobs.extend(self.jobs.take(row, &directories));
            }
        }
        if self.next >= self.pieces {
            jobs.extend(self.jobs.finish());
        }
        Ok(jobs)
    }
}
