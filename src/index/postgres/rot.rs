//! What files were found to be that were read again although nothing changed.
//!
//! A file of which a finding stands has no hash: whatever reads it and writes a hash, that hash is compared here with
//! the one it should have, and taken away if it is another. So no scan can take rot for sound.

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::scope::{ScopeArrays, with_scope};
use super::session::expect_whole_tables;
use super::write_back::{self, Rows};
use crate::index::convert::{ending, ring_position};
use crate::index::rows::{Columns as _, RotCopies, read_rot, shown};
use crate::index::{IndexError, Result};
use crate::model::listing::Problem;
use crate::model::pending::{Finding, Outcome};
use crate::model::rot::{Ended, HashRange, MOST_COPIES, ROTTEN, RingPosition, Rot};
use crate::model::stamp::Nanos;
use crate::model::volume::{Extent, Places};

/// Puts on record what hash files should have that had it until now, and have the stamp still. A finding of an
/// earlier file in the same place gives way.
const RECORD: &str = "
    insert into rot (directory_id, name, volume_id, size, mtime_ns, ctime_ns, inode, expected, sample, found_at)
    select f.directory_id, f.name, f.volume_id, f.size, f.mtime_ns, f.ctime_ns, f.inode, f.hash, f.sample, $8
    from unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[])
         v (directory_id, name, size, mtime_ns, ctime_ns, inode, known)
    join files f on f.directory_id = v.directory_id and f.name = v.name
      and f.size = v.size and f.mtime_ns = v.mtime_ns and f.ctime_ns = v.ctime_ns and f.inode = v.inode
      and f.hash = v.known
    on conflict (directory_id, name) do update set
        volume_id = excluded.volume_id, size = excluded.size, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, inode = excluded.inode,
        expected = excluded.expected, sample = excluded.sample, found = null, found_at = excluded.found_at";

/// What is on record and cannot be read any more may be read by a scan: it is compared then.
const FOUND_NOTHING: &str = "
    update rot r set found = null
    from unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
         v (directory_id, name, size, mtime_ns, ctime_ns, inode)
    where r.directory_id = v.directory_id and r.name = v.name and r.size = v.size
      and r.mtime_ns = v.mtime_ns and r.ctime_ns = v.ctime_ns and r.inode = v.inode";

/// Findings that the user takes for what the file is to be: only if it still reads as it was reported.
const ACCEPT: &str = "
    delete from rot r
    using unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[])
          v (directory_id, name, size, mtime_ns, ctime_ns, inode, found)
    where r.directory_id = v.directory_id and r.name = v.name and r.size = v.size
      and r.mtime_ns = v.mtime_ns and r.ctime_ns = v.ctime_ns and r.inode = v.inode and r.found = v.found";

/// Files that may not be read: that says nothing of what they hold.
const NOTE_DENIED: &str = "
    update files f set problem = $7
    from unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
         v (directory_id, name, size, mtime_ns, ctime_ns, inode)
    where f.directory_id = v.directory_id and f.name = v.name and f.size = v.size
      and f.mtime_ns = v.mtime_ns and f.ctime_ns = v.ctime_ns and f.inode = v.inode and f.hash is not null";

/// Writes all that verification found of files, in the order of their rows and at most `most` at once.
pub(super) async fn write_verified(
    connection: &mut PgConnection,
    outcomes: &[&Outcome],
    most: usize,
) -> Result<()> {
    let failed = || IndexError::during("record what is rotten");
    let is_denied =
        |outcome: &&Outcome| matches!(outcome.finding, Finding::Failed(Problem::PermissionDenied));
    let now = Nanos::now();
    for chunk in outcomes.chunks(most) {
        let (denied, others): (Vec<&Outcome>, Vec<&Outcome>) = chunk.iter().partition(|it| is_denied(it));
        if !denied.is_empty() {
            let problem = Problem::PermissionDenied.to_text();
            let noted = Rows::of(&denied).bind_to(sqlx::query(NOTE_DENIED)).bind(problem);
            noted.execute(&mut *connection).await.map_err(failed())?;
        }
        let differing: Vec<&Outcome> = others.iter().filter(|it| it.differs()).copied().collect();
        if !differing.is_empty() {
            let known: Vec<Option<&[u8]>> =
                differing.iter().map(|it| it.known.as_ref().map(|known| &known.0[..])).collect();
            let record = Rows::of(&differing).bind_to(sqlx::query(RECORD)).bind(known).bind(now.0);
            record.execute(&mut *connection).await.map_err(failed())?;
        }
        let unread: Vec<&Outcome> =
            others.iter().filter(|it| matches!(it.finding, Finding::Failed(_))).copied().collect();
        if !unread.is_empty() {
            let forget = Rows::of(&unread).bind_to(sqlx::query(FOUND_NOTHING));
            forget.execute(&mut *connection).await.map_err(failed())?;
        }
        write_back::write_outcomes(connection, &others, most).await?;
    }
    Ok(())
}

/// Takes what was read for what the files are to hold; returns how many findings that ends.
pub(super) async fn accept(connection: &mut PgConnection, outcomes: &[&Outcome], most: usize) -> Result<u64> {
    let mut accepted = 0;
    for chunk in outcomes.chunks(most) {
        let is_read = |it: &&&Outcome| matches!(it.finding, Finding::Hashed { .. });
        let read: Vec<&Outcome> = chunk.iter().filter(is_read).copied().collect();
        let found: Vec<Option<&[u8]>> = read
            .iter()
            .map(|it| match &it.finding {
                Finding::Hashed { digest, .. } => Some(&digest.0[..]),
                _ => None,
            })
            .collect();
        let deleted = Rows::of(&read).bind_to(sqlx::query(ACCEPT)).bind(found).execute(&mut *connection);
        accepted += deleted.await.map_err(IndexError::during("accept what was found"))?.rows_affected();
    }
    write_verified(connection, outcomes, most).await?;
    Ok(accepted)
}

const HAS_ROT: &str = "select exists (select 1 from rot)";

/// The sample becomes that of what a file should hold: a copy that comes is still compared, and can be named.
const TAKE_WRONG_HASHES: &str = "
    with wrong as materialized (
        select f.directory_id, f.name, f.hash, r.sample from rot r join files f
          on f.directory_id = r.directory_id and f.name = r.name and f.size = r.size
          and f.mtime_ns = r.mtime_ns and f.ctime_ns = r.ctime_ns and f.inode = r.inode
        where f.hash is not null and f.hash <> r.expected
        order by f.directory_id, f.name),
    noted as (
        update rot r set found = w.hash from wrong w where r.directory_id = w.directory_id and r.name = w.name)
    update files f set hash = null, sample = w.sample, recheck = false, problem = $1
    from wrong w where f.directory_id = w.directory_id and f.name = w.name";

/// Takes hashes away from files that should have others. To be called whenever hashes were written.
pub(super) async fn judge(connection: &mut PgConnection) -> Result<()> {
    let failed = || IndexError::during("record what is rotten");
    let has_rot: bool = sqlx::query_scalar(HAS_ROT).fetch_one(&mut *connection).await.map_err(failed())?;
    if has_rot {
        let taken = sqlx::query(TAKE_WRONG_HASHES).bind(ROTTEN).execute(connection).await;
        taken.map_err(failed())?;
    }
    Ok(())
}

/// What stands in a scope.
const STANDING: &str = with_scope!(
    " select s.directory_id, s.name, s.volume_id, d.path, s.size, s.expected, s.found, s.found_at, f.problem
      from standing s join files f on f.directory_id = s.directory_id and f.name = s.name
      join directories d on d.id = s.directory_id
      where f.hash is null and s.directory_id in (select id from scope)
      order by s.volume_id, d.path, s.name"
);

/// Physical files that have the content that others in the scope should have. $5: at most so many for each.
const COPIES: &str = with_scope!(
    ", named as (
        select distinct on (s.directory_id, s.name, f.volume_id, f.inode)
               s.directory_id, s.name, f.volume_id, d.path || '/'::bytea || f.name as path, f.mtime_ns as modified
        from standing s join files f on f.hash = s.expected and f.size = s.size
        join directories d on d.id = f.directory_id
        where s.directory_id in (select id from scope) and not (f.volume_id = s.volume_id and f.inode = s.inode)
        order by s.directory_id, s.name, f.volume_id, f.inode, path),
    numbered as (
        select n.*, row_number() over (partition by directory_id, name order by path, volume_id) as number from named n)
    select directory_id, name, volume_id, path, modified from numbered where number <= $5 order by directory_id, name, number"
);

/// The findings that stand in these subtrees.
pub(super) async fn standing(
    connection: &mut PgConnection,
    places: &Places,
    extents: &[Extent],
) -> Result<Vec<Rot>> {
    let operation = "read what is rotten";
    let failed = || IndexError::during(operation);
    let scope = ScopeArrays::new(extents);
    let rows = scope.query(STANDING).fetch_all(&mut *connection).await.map_err(failed())?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    // There is no index on hashes.
    expect_whole_tables(connection, operation).await?;
    let found = scope.query(COPIES).bind(i64::from(MOST_COPIES)).fetch_all(connection).await;
    let mut copies = RotCopies::default();
    for row in found.map_err(failed())? {
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
    insert into rot
        (directory_id, name, volume_id, size, mtime_ns, ctime_ns, inode, expected, sample, found, found_at)
    select f.directory_id, f.name, f.volume_id, f.size, f.mtime_ns, f.ctime_ns, f.inode,
           l.expected, l.sample, l.found, l.found_at
    from lost l join files f on f.volume_id = l.volume_id and f.inode = l.inode
      and f.size = l.size and f.mtime_ns = l.mtime_ns
    on conflict (directory_id, name) do nothing";

/// What is known of them under another name, and what has no place any more.
const FORGET_LOST: &str = "
    delete from rot r using lost l where r.directory_id = l.directory_id and r.name = l.name and (
        exists (
            select 1 from standing s where s.volume_id = l.volume_id and s.inode = l.inode and s.size = l.size
              and s.mtime_ns = l.mtime_ns)
        or not exists (select 1 from directories d where d.id = l.directory_id))";

/// Lets findings follow files that were renamed; returns whether there are any. Their hashes have to be judged then.
pub(super) async fn follow(connection: &mut PgConnection) -> Result<bool> {
    let operation = "follow renamed files";
    let failed = || IndexError::during(operation);
    let any = format!("select exists (select 1 {LOST})");
    let any: bool =
        sqlx::query_scalar(AssertSqlSafe(any)).fetch_one(&mut *connection).await.map_err(failed())?;
    if any {
        expect_whole_tables(connection, operation).await?;
        for statement in [FOLLOW, FORGET_LOST] {
            let text = format!("with lost as materialized (select r.* {LOST}) {statement}");
            sqlx::query(AssertSqlSafe(text)).execute(&mut *connection).await.map_err(failed())?;
        }
    }
    Ok(any)
}

const REPLACE_FINDING: &str = "delete from rot where directory_id = $1 and name = $2";

const MOVE_FINDING: &str = "
    update rot set directory_id = $3, name = $4, ctime_ns = $5 where directory_id = $1 and name = $2";

/// Lets a finding that stands follow its file, which somebody was seen to rename: that changed its ctime. One of a file
/// that was in the new place before gives way. The places differ.
pub(super) async fn move_finding(
    connection: &mut PgConnection,
    from: (i64, &[u8]),
    to: (i64, &[u8]),
    ctime: Nanos,
) -> Result<()> {
    let failed = || IndexError::during("follow renamed files");
    let replaced = sqlx::query(REPLACE_FINDING).bind(to.0).bind(to.1);
    replaced.execute(&mut *connection).await.map_err(failed())?;
    let moved = sqlx::query(MOVE_FINDING).bind(from.0).bind(from.1).bind(to.0).bind(to.1).bind(ctime.0);
    moved.execute(connection).await.map(drop).map_err(failed())
}

/// Findings of files that are gone, that have the hash they should have, or that have another stamp and are read.
const CONCLUDE: &str = with_scope!(
    ", ended as materialized (
        select directory_id, name, volume_id, path, ending from (
            select r.directory_id, r.name, d.volume_id, d.path, case
                when f.name is null then 'gone'
                when f.hash = r.expected and s.name is not null then 'withdrawn'
                when f.hash = r.expected then 'restored'
                when f.hash is not null and s.name is null then 'replaced' end as ending
            from rot r join directories d on d.id = r.directory_id
            left join files f on f.directory_id = r.directory_id and f.name = r.name
            left join standing s on s.directory_id = r.directory_id and s.name = r.name
            where r.directory_id in (select id from scope)) all_of_them
        where ending is not null),
    forgotten as (
        delete from rot r using ended e where r.directory_id = e.directory_id and r.name = e.name)
    select volume_id, path, name, ending from ended order by volume_id, path, name"
);

/// Takes findings in these subtrees away that do not stand any more; returns how each ended.
pub(super) async fn conclude(
    connection: &mut PgConnection,
    places: &Places,
    extents: &[Extent],
) -> Result<Vec<Ended>> {
    let scope = ScopeArrays::new(extents);
    let rows = scope.query(CONCLUDE).fetch_all(connection).await;
    let mut ended = Vec::new();
    for row in rows.map_err(IndexError::during("end what is settled"))? {
        let place = shown(places, &row.extent(0)?, row.value(2)?);
        ended.push(Ended { place, ending: ending(row.value(3)?)? });
    }
    Ok(ended)
}

const COUNT_UNHASHED: &str = with_scope!(
    " select count(*) from files f where hash is null and directory_id in (select id from scope)
            and (problem is null or (directory_id, name) not in (table rotten))"
);

/// Names in these subtrees that have no hash, and should have none.
pub(super) async fn count_unhashed(connection: &mut PgConnection, extents: &[Extent]) -> Result<u64> {
    let operation = "count files";
    expect_whole_tables(connection, operation).await?;
    let scope = ScopeArrays::new(extents);
    let row = scope.query(COUNT_UNHASHED).fetch_one(connection).await;
    row.map_err(IndexError::during(operation))?.count(0)
}

/// Up to where samples of a subtree have come.
pub(super) async fn sampled_to(connection: &mut PgConnection, extent: &Extent) -> Result<RingPosition> {
    let position = sqlx::query_scalar("select position from sampled where volume_id = $1 and path = $2")
        .bind(extent.volume.0)
        .bind(extent.path.as_bytes())
        .fetch_optional(connection)
        .await;
    let position: Option<i64> = position.map_err(IndexError::during("read what was sampled"))?;
    Ok(ring_position(position))
}

const NOTE_SAMPLED: &str = "
    insert into sampled (volume_id, path, position) values ($1, $2, $4)
    on conflict (volume_id, path) do update set position = excluded.position where sampled.position = $3";

/// Notes that a part of the ring was read of a subtree: only if it is the one that was next.
pub(super) async fn note_sampled(
    connection: &mut PgConnection,
    extent: &Extent,
    range: HashRange,
) -> Result<()> {
    let noted = sqlx::query(NOTE_SAMPLED)
        .bind(extent.volume.0)
        .bind(extent.path.as_bytes())
        .bind(i64::from(range.start().in_millionths()))
        .bind(i64::from(range.end().in_millionths()))
        .execute(connection)
        .await;
    noted.map(drop).map_err(IndexError::during("note what was sampled"))
}
