//! What is read again although nothing changed, and what it was found to be.
//!
//! A file of which a finding stands has no hash: whatever reads it and writes a hash, that hash is compared here with
//! the one it should have, and taken away if it is another. So no scan can take rot for sound.

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

use super::bulk::{Binder, Bulk};
use super::{scope, write_back};
use crate::index::convert::{ending, inode_to_integer, ring_position, to_count, to_integer};
use crate::index::rows::{Columns as _, RotCopies, read_rot, shown};
use crate::index::{IndexError, Result};
use crate::model::listing::Problem;
use crate::model::pending::{Finding, Outcome};
use crate::model::rot::{Ended, HashRange, MOST_COPIES, ROTTEN, RingPosition, Rot};
use crate::model::stamp::Nanos;
use crate::model::volume::{Extent, Places};

/// Puts on record what hash files should have that had it until now, and have the stamp still. A finding of an
/// earlier file in the same place gives way.
const RECORD: Bulk = Bulk {
    operation: "record what is rotten",
    head: "insert into rot (directory_id, name, volume_id, size, mtime_ns, ctime_ns, inode, expected, sample, found_at)
        select f.directory_id, f.name, f.volume_id, f.size, f.mtime_ns, f.ctime_ns, f.inode, c.hash, c.sample, v.column7
        from (values ",
    row: "(?,?,?,?,?,?,?)",
    tail: ") v cross join files f on f.id = v.column1 cross join contents c on c.file_id = f.id
        where f.size = v.column2 and f.mtime_ns = v.column3 and f.ctime_ns = v.column4 and f.inode = v.column5
          and c.hash = v.column6
        on conflict (directory_id, name) do update set
            volume_id = excluded.volume_id, size = excluded.size, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, inode = excluded.inode,
            expected = excluded.expected, sample = excluded.sample, found = null, found_at = excluded.found_at",
};

/// What is on record and cannot be read any more may be read by a scan: it is compared then.
const FOUND_NOTHING: Bulk = Bulk {
    operation: "record what is rotten",
    head: "update rot set found = null where (directory_id, name) in (
        select f.directory_id, f.name from (values ",
    row: "(?)",
    tail: ") v cross join files f on f.id = v.column1)",
};

/// Findings that the user takes for what the file is to be: only if it still reads as it was reported.
const ACCEPT: Bulk = Bulk {
    operation: "accept what was found",
    head: "delete from rot where (directory_id, name) in (
        select s.directory_id, s.name from (values ",
    row: "(?,?)",
    tail: ") v cross join standing s on s.file_id = v.column1 and s.found = v.column2)",
};

/// Files that may not be read: that says nothing of what they hold.
const NOTE_DENIED: Bulk = Bulk {
    operation: "write problems",
    head: "insert into problems (file_id, problem) select f.id, v.column2 from (values ",
    row: "(?,?)",
    tail: ") v cross join files f on f.id = v.column1
        where exists (select 1 from contents c where c.file_id = f.id and c.hash is not null)
        on conflict (file_id) do update set problem = excluded.problem",
};

/// Writes all that verification found of files.
pub(super) async fn write_verified(connection: &mut SqliteConnection, outcomes: &[Outcome]) -> Result<()> {
    let is_denied =
        |outcome: &&Outcome| matches!(outcome.finding, Finding::Failed(Problem::PermissionDenied));
    let (denied, others): (Vec<&Outcome>, Vec<&Outcome>) = outcomes.iter().partition(is_denied);
    let problem = Problem::PermissionDenied.to_text();
    NOTE_DENIED
        .execute(connection, &denied, |binder, outcome| {
            binder.push(outcome.key.id.0).push(problem.as_str());
        })
        .await?;

    let now = Nanos::now();
    let differing: Vec<&Outcome> = others.iter().filter(|outcome| outcome.differs()).copied().collect();
    RECORD.execute(connection, &differing, |binder, outcome| push_known(binder, outcome, now)).await?;
    let failed: Vec<&Outcome> =
        others.iter().filter(|outcome| matches!(outcome.finding, Finding::Failed(_))).copied().collect();
    FOUND_NOTHING
        .execute(connection, &failed, |binder, outcome| {
            binder.push(outcome.key.id.0);
        })
        .await?;
    let others: Vec<Outcome> = others.into_iter().cloned().collect();
    write_back::write_outcomes(connection, &others).await
}

fn push_known(binder: &mut Binder, outcome: &Outcome, now: Nanos) {
    let stamp = outcome.expected;
    binder.push(outcome.key.id.0).push(to_integer(stamp.size)).push(stamp.mtime.0).push(stamp.ctime.0);
    binder.push(inode_to_integer(stamp.inode)).push(outcome.known.map(|known| known.0.to_vec())).push(now.0);
}

/// Takes what was read for what the files are to hold; returns how many findings that ends.
pub(super) async fn accept(connection: &mut SqliteConnection, outcomes: &[Outcome]) -> Result<u64> {
    let read: Vec<(i64, Vec<u8>)> = outcomes
        .iter()
        .filter_map(|outcome| match outcome.finding {
            Finding::Hashed { digest, .. } => Some((outcome.key.id.0, digest.0.to_vec())),
            _ => None,
        })
        .collect();
    let accepted = ACCEPT
        .execute(connection, &read, |binder, (id, found)| {
            binder.push(*id).push(found.as_slice());
        })
        .await?;
    write_verified(connection, outcomes).await?;
    Ok(accepted)
}

const HAS_ROT: &str = "select exists (select 1 from rot)";

/// Hashes that were written for files that should have another.
const WRONG: &str = "
    from standing s cross join contents c on c.file_id = s.file_id where c.hash is not null and c.hash <> s.expected";

/// Takes hashes away from files that should have others. To be called whenever hashes were written.
pub(super) async fn judge(connection: &mut SqliteConnection) -> Result<()> {
    let failed = || IndexError::during("record what is rotten");
    let has_rot: bool = sqlx::query_scalar(HAS_ROT).fetch_one(&mut *connection).await.map_err(failed())?;
    if !has_rot {
        return Ok(());
    }
    let wrong = sqlx::query_as(AssertSqlSafe(format!("select s.file_id, c.hash {WRONG}")));
    let wrong: Vec<(i64, Vec<u8>)> = wrong.fetch_all(&mut *connection).await.map_err(failed())?;
    for (file, found) in wrong {
        for statement in [NOTE_FOUND, TAKE_HASH, NOTE_ROTTEN] {
            let said = sqlx::query(statement).bind(file).bind(&found).bind(ROTTEN);
            said.execute(&mut *connection).await.map_err(failed())?;
        }
    }
    Ok(())
}

/// ?1: the file; ?2: the hash of what was read; ?3: the problem.
const NOTE_FOUND: &str = "
    update rot set found = ?2
    where (directory_id, name) = (select directory_id, name from files where id = ?1)";

/// The sample is that of what it should hold: a copy that comes is still compared, and can be named.
const TAKE_HASH: &str = "
    update contents set hash = null, recheck = 0, sample = (select s.sample from standing s where s.file_id = ?1)
    where file_id = ?1";

const NOTE_ROTTEN: &str = "
    insert into problems (file_id, problem) values (?1, ?3)
    on conflict (file_id) do update set problem = excluded.problem";

/// What stands in a scope.
const STANDING: &str = "
    select s.directory_id, s.name, s.volume_id, d.path, s.size, s.expected, s.found, s.found_at, p.problem
    from standing s cross join directories d on d.id = s.directory_id
    left join contents c on c.file_id = s.file_id left join problems p on p.file_id = s.file_id
    where c.hash is null and s.directory_id in (select directory_id from temp.scope)
    order by s.volume_id, d.path, s.name";

/// Physical files that have the content that others in the scope should have. ?1: at most so many for each.
const COPIES: &str = "
    select directory_id, name, volume_id, path, modified from (
        select s.directory_id, s.name, c.volume_id, min(d.path || '/' || f.name) path, max(f.mtime_ns) modified,
               row_number() over (partition by s.directory_id, s.name order by min(d.path || '/' || f.name)) number
        from standing s
        cross join contents c on c.hash = s.expected and c.size = s.size
        cross join files f on f.id = c.file_id
        cross join directories d on d.id = f.directory_id
        where s.directory_id in (select directory_id from temp.scope)
          and not (c.volume_id = s.volume_id and c.inode = s.inode)
        group by s.directory_id, s.name, c.volume_id, c.inode)
    where number <= ?1 order by directory_id, name, number";

/// The findings that stand in these subtrees.
pub(super) async fn standing(
    connection: &mut SqliteConnection,
    places: &Places,
    extents: &[Extent],
) -> Result<Vec<Rot>> {
    let failed = || IndexError::during("read what is rotten");
    scope::fill(connection, extents).await?;
    let rows = sqlx::query(STANDING).fetch_all(&mut *connection).await.map_err(failed())?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut copies = RotCopies::default();
    for row in sqlx::query(COPIES).bind(MOST_COPIES).fetch_all(connection).await.map_err(failed())? {
        copies.add(&row, places)?;
    }
    rows.iter().map(|row| read_rot(row, places, &mut copies)).collect()
}

/// Findings whose file is not where it was.
const LOST: &str = "
    from rot r
    where not exists (select 1 from files f where f.directory_id = r.directory_id and f.name = r.name)";

/// The same file under other names: nobody who renames it writes to it.
const FOLLOW: &str = "
    insert or ignore into rot
        (directory_id, name, volume_id, size, mtime_ns, ctime_ns, inode, expected, sample, found, found_at)
    select f.directory_id, f.name, f.volume_id, f.size, f.mtime_ns, f.ctime_ns, f.inode,
           l.expected, l.sample, l.found, l.found_at
    from lost l cross join files f
    where f.volume_id = l.volume_id and f.inode = l.inode and f.size = l.size and f.mtime_ns = l.mtime_ns";

/// What is known of them under another name, and what has no place any more.
const FORGET_LOST: &str = "
    delete from rot where (directory_id, name) in (
        select l.directory_id, l.name from lost l
        where exists (
            select 1 from standing s where s.volume_id = l.volume_id and s.inode = l.inode and s.size = l.size
              and s.mtime_ns = l.mtime_ns)
           or not exists (select 1 from directories d where d.id = l.directory_id))";

/// Lets findings follow files that were renamed; returns whether there are any. Their hashes have to be judged then.
pub(super) async fn follow(connection: &mut SqliteConnection) -> Result<bool> {
    let failed = || IndexError::during("follow renamed files");
    let any = format!("select exists (select 1 {LOST})");
    let any: bool =
        sqlx::query_scalar(AssertSqlSafe(any)).fetch_one(&mut *connection).await.map_err(failed())?;
    if any {
        for statement in [FOLLOW, FORGET_LOST] {
            let text = format!("with lost as materialized (select r.* {LOST}) {statement}");
            sqlx::query(AssertSqlSafe(text)).execute(&mut *connection).await.map_err(failed())?;
        }
    }
    Ok(any)
}

const MOVE_FINDING: &str = "
    update or replace rot set directory_id = ?3, name = ?4, ctime_ns = ?5 where directory_id = ?1 and name = ?2";

/// Lets a finding that stands follow its file, which somebody was seen to rename: that changed its ctime. One of a file
/// that was in the new place before gives way.
pub(super) async fn move_finding(
    connection: &mut SqliteConnection,
    from: (i64, &[u8]),
    to: (i64, &[u8]),
    ctime: Nanos,
) -> Result<()> {
    let moved = sqlx::query(MOVE_FINDING).bind(from.0).bind(from.1).bind(to.0).bind(to.1).bind(ctime.0);
    moved.execute(connection).await.map(drop).map_err(IndexError::during("follow renamed files"))
}

/// Findings of files that are gone, that have the hash they should have, or that have another stamp and are read.
const ENDED: &str = "
    select directory_id, name, volume_id, path, ending from (
        select r.directory_id, r.name, d.volume_id, d.path, case
            when f.id is null then 'gone'
            when c.hash = r.expected and s.file_id is not null then 'withdrawn'
            when c.hash = r.expected then 'restored'
            when c.hash is not null and s.file_id is null then 'replaced' end as ending
        from rot r cross join directories d on d.id = r.directory_id
        left join files f on f.directory_id = r.directory_id and f.name = r.name
        left join contents c on c.file_id = f.id
        left join standing s on s.file_id = f.id
        where r.directory_id in (select directory_id from temp.scope))
    where ending is not null order by volume_id, path, name";

/// Takes findings in these subtrees away that do not stand any more; returns how each ended.
pub(super) async fn conclude(
    connection: &mut SqliteConnection,
    places: &Places,
    extents: &[Extent],
) -> Result<Vec<Ended>> {
    let failed = || IndexError::during("end what is settled");
    scope::fill(connection, extents).await?;
    let mut ended = Vec::new();
    for row in sqlx::query(ENDED).fetch_all(&mut *connection).await.map_err(failed())? {
        let (directory, name): (i64, Vec<u8>) = (row.value(0)?, row.value(1)?);
        let forget = sqlx::query("delete from rot where directory_id = ? and name = ?");
        forget.bind(directory).bind(&name).execute(&mut *connection).await.map_err(failed())?;
        let place = shown(places, &row.extent(2)?, &name);
        ended.push(Ended { place, ending: ending(row.value(4)?)? });
    }
    Ok(ended)
}

const COUNT_UNHASHED: &str = "
    select count(*) from files f
    where f.directory_id in (select directory_id from temp.scope)
      and not exists (select 1 from contents c where c.file_id = f.id and c.hash is not null)
      and f.id not in (select file_id from rotten)";

/// Names in these subtrees that have no hash, and should have none.
pub(super) async fn count_unhashed(connection: &mut SqliteConnection, extents: &[Extent]) -> Result<u64> {
    scope::fill(connection, extents).await?;
    let counted: i64 = sqlx::query_scalar(COUNT_UNHASHED)
        .fetch_one(connection)
        .await
        .map_err(IndexError::during("count files"))?;
    Ok(to_count(counted))
}

/// Up to where samples of a subtree have come.
pub(super) async fn sampled_to(connection: &mut SqliteConnection, extent: &Extent) -> Result<RingPosition> {
    let position = sqlx::query_scalar("select position from sampled where volume_id = ? and path = ?")
        .bind(extent.volume.0)
        .bind(extent.path.as_bytes())
        .fetch_optional(connection)
        .await;
    let position: Option<i64> = position.map_err(IndexError::during("read what was sampled"))?;
    Ok(ring_position(position))
}

const NOTE_SAMPLED: &str = "
    insert into sampled (volume_id, path, position) values (?1, ?2, ?4)
    on conflict (volume_id, path) do update set position = ?4 where position = ?3";

/// Notes that a part of the ring was read of a subtree: only if it is the one that was next.
pub(super) async fn note_sampled(
    connection: &mut SqliteConnection,
    extent: &Extent,
    range: HashRange,
) -> Result<()> {
    let noted = sqlx::query(NOTE_SAMPLED)
        .bind(extent.volume.0)
        .bind(extent.path.as_bytes())
        .bind(range.start().in_millionths())
        .bind(range.end().in_millionths())
        .execute(connection)
        .await;
    noted.map(drop).map_err(IndexError::during("note what was sampled"))
}
