//! Writing what the walk found.
//!
//! The comparison happens in the upsert, so that an unchanged file costs no write. What is gone is
//! found by counting: only if a directory has more rows than names were listed are the names
//! themselves compared.

use std::collections::{HashMap, HashSet};

use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;

use super::catalog::{
    EXTENTS_OF_ROOT, TAKE_LINKED, TAKE_NAMELESS, confirm_scan, forget_uncovered, put_extents, query_extents,
};
use super::scope::{ScopeArrays, with_scope};
use super::touched::{remove_absent, write_move};
use crate::index::convert::{Finished, RowState, inode_to_integer, to_integer, uncovered};
use crate::index::rows::Columns as _;
use crate::index::touched::{KnownMove, Thinned, known_volume};
use crate::index::{IndexError, Result, Written};
use crate::model::digest::Fingerprint;
use crate::model::listing::{Coverage, DirectoryId, Entry, Listing, Move};
use crate::model::path::VolumePath;
use crate::model::pending::FileId;
use crate::model::scan::{RootId, ScanCounts, ScanId};
use crate::model::stamp::Nanos;
use crate::model::volume::{Extent, VolumeId, VolumeIdentity};

/// A directory that was only looked into keeps the generation of the scan that listed it. Of a directory that was
/// there, only a fingerprint that is still the same stays.
const UPSERT_DIRECTORIES: &str = "
    insert into directories (volume_id, path, generation, problem, fingerprint)
    select * from unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::text[], $5::bytea[])
    on conflict (volume_id, path) do update set
        problem = case when excluded.generation = 0 then directories.problem else excluded.problem end,
        generation = greatest(directories.generation, excluded.generation),
        fingerprint = case when directories.fingerprint = excluded.fingerprint then directories.fingerprint end
    returning id, volume_id, path, xmax = 0, fingerprint is not null";

const WRITE_FINGERPRINTS: &str = "
    update directories d set fingerprint = v.fingerprint from unnest($1::bigint[], $2::bytea[]) v (id, fingerprint)
    where d.id = v.id";

/// xmax is 0 in a row that was inserted.
const UPSERT_FILES: &str = "
    with written as (
        insert into files (directory_id, name, volume_id, size, mtime_ns, ctime_ns, inode)
        select * from unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
        on conflict (directory_id, name) do update set
            size = excluded.size, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, inode = excluded.inode,
            sample = null, hash = null, recheck = false, problem = null
            where files.size <> excluded.size or files.mtime_ns <> excluded.mtime_ns
               or files.ctime_ns <> excluded.ctime_ns or files.inode <> excluded.inode or files.recheck
        returning xmax = 0 as added)
    select count(*) filter (where added), count(*) filter (where not added) from written";

/// For directories that were not there a moment ago. `copy` would take two thirds of the server's time, but sqlx 0.9.0 does
/// not set `TCP_NODELAY`, and its end would wait 40 ms for the acknowledgement of what came before
/// ([sqlx #4335](https://github.com/launchbadge/sqlx/issues/4335)).
const INSERT_FILES: &str = "
    insert into files (directory_id, name, volume_id, size, mtime_ns, ctime_ns, inode)
    select * from unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])";

/// Directories whose number of rows is not the number listed.
const MISCOUNTED: &str = "
    select l.id from unnest($1::bigint[], $2::bigint[]) l (id, listed)
    where l.listed <> (select count(*) from files f where f.directory_id = l.id)";

const DELETE_UNLISTED: &str = "delete from files where directory_id = $1 and name <> all($2::bytea[])";

const NOTE_LISTED: &str = "
    insert into listed (scan_id, directory_id, name)
    select $1, $2, name from unnest($3::bytea[]) u (name)
    on conflict do nothing";

/// Each name is looked up: `not exists` becomes a join, and the planner, who takes the names noted for very few, compares
/// every name with every other (3.4 s for 17,000).
const DELETE_NOT_NOTED: &str = "
    delete from files f where f.directory_id = $2
    and (select true from listed l where l.scan_id = $1 and l.directory_id = $2 and l.name = f.name) is null";

const FORGET_NOTED: &str = "delete from listed where scan_id = $1 and directory_id = $2";

/// A listing whose directory has a row.
#[derive(Clone, Copy)]
struct Known<'a> {
    id: DirectoryId,
    volume: VolumeId,
    state: RowState,
    fingerprint: Option<Fingerprint>,
    listing: &'a Listing,
}

/// Writes listings, `most` rows to a statement.
pub(super) async fn write_listings(
    connection: &mut PgConnection,
    volumes: &HashMap<VolumeIdentity, VolumeId>,
    most: usize,
    scan: ScanId,
    listings: &[Listing],
) -> Result<Written> {
    confirm_scan(connection, scan).await?;
    let mut written = Written::default();
    for wave in waves(listings) {
        let (counts, directories) = write_wave(connection, volumes, most, scan, &wave).await?;
        written.counts += counts;
        written.directories.extend(directories);
    }
    Ok(written)
}

/// Moves what is known to where it was moved to.
pub(super) async fn write_moves(
    connection: &mut PgConnection,
    volumes: &HashMap<VolumeIdentity, VolumeId>,
    scan: ScanId,
    moves: &[Move],
) -> Result<()> {
    confirm_scan(connection, scan).await?;
    for moved in moves {
        write_move(connection, scan, &KnownMove::of(moved, volumes)?).await?;
    }
    Ok(())
}

/// Cuts listings into waves in which each directory stands once: one statement must not write a row
/// twice. Only directories in pieces, or named one by one, come again.
fn waves(listings: &[Listing]) -> Vec<Vec<&Listing>> {
    let mut waves = Vec::new();
    let mut wave: Vec<&Listing> = Vec::new();
    let mut met = HashSet::new();
    for listing in listings {
        if !met.insert((&listing.volume.identity, &listing.directory)) {
            waves.push(std::mem::take(&mut wave));
            met.clear();
            met.insert((&listing.volume.identity, &listing.directory));
        }
        wave.push(listing);
    }
    waves.push(wave);
    waves
}

async fn write_wave(
    connection: &mut PgConnection,
    volumes: &HashMap<VolumeIdentity, VolumeId>,
    most: usize,
    scan: ScanId,
    wave: &[&Listing],
) -> Result<(ScanCounts, Vec<(DirectoryId, Option<FileId>)>)> {
    let mut known = Vec::with_capacity(wave.len());
    for chunk in wave.chunks(most) {
        known.extend(write_directories(connection, volumes, scan, chunk).await?);
    }
    // Directory and name are a file's key: there is no number to be told.
    let new_files = |known: &Known<'_>| (known.state == RowState::New).then_some(FileId(0));
    let directories = known.iter().map(|known| (known.id, new_files(known))).collect();
    known.retain(|known| known.state != RowState::Same);
    let (added, updated) = write_files(connection, most, &known).await?;
    let mut removed = 0;
    let is_whole =
        |known: &&Known<'_>| known.listing.coverage == Coverage::Whole && known.state == RowState::Unknown;
    let whole: Vec<&Known<'_>> = known.iter().filter(is_whole).collect();
    for chunk in whole.chunks(most) {
        removed += remove_unlisted(connection, chunk).await?;
        write_fingerprints(connection, chunk).await?;
    }
    let thinned: Vec<Thinned<'_>> =
        known.iter().filter_map(|it| Thinned::of(it.listing, it.id, it.volume)).collect();
    if !thinned.is_empty() {
        removed += remove_absent(connection, scan, &thinned).await?;
    }
    for known in &known {
        if let Coverage::Piece { first, last } = known.listing.coverage {
            removed += note_piece(connection, scan, known, first, last).await?;
        }
    }
    Ok((ScanCounts { added, updated, removed, ..ScanCounts::default() }, directories))
}

/// Writes the directories and returns the listings with their ids, in the same order.
async fn write_directories<'a>(
    connection: &mut PgConnection,
    volumes: &HashMap<VolumeIdentity, VolumeId>,
    scan: ScanId,
    wave: &[&'a Listing],
) -> Result<Vec<Known<'a>>> {
    let mut rows: Vec<(VolumeId, &Listing, Option<Fingerprint>)> = Vec::with_capacity(wave.len());
    for listing in wave {
        rows.push((known_volume(volumes, &listing.volume)?, listing, listing.fingerprint()));
    }
    // In one order on all hosts, so that they wait for each other and do not lock each other out.
    let in_listed_order = rows.clone();
    rows.sort_unstable_by(|a, b| (a.0, &a.1.directory).cmp(&(b.0, &b.1.directory)));
    let ids: Vec<i64> = rows.iter().map(|(volume, ..)| volume.0).collect();
    let paths: Vec<&[u8]> = rows.iter().map(|(_, listing, _)| listing.directory.as_bytes()).collect();
    let fingerprints: Vec<Option<&[u8]>> =
        rows.iter().map(|(.., fingerprint)| fingerprint.as_ref().map(|bytes| &bytes.0[..])).collect();
    let (generations, problems): (Vec<i64>, Vec<Option<String>>) = rows
        .iter()
        .map(|(_, listing, _)| match &listing.coverage {
            Coverage::Selected(_) => (0, None),
            Coverage::Unreadable(problem) => (scan.0, Some(problem.to_text())),
            Coverage::Whole | Coverage::Piece { .. } => (scan.0, None),
        })
        .unzip();
    let written = sqlx::query(UPSERT_DIRECTORIES)
        .bind(ids)
        .bind(paths)
        .bind(generations)
        .bind(problems)
        .bind(fingerprints)
        .fetch_all(connection)
        .await
        .map_err(IndexError::during("write directories"))?;
    let mut found: HashMap<(VolumeId, VolumePath), (DirectoryId, RowState)> =
        HashMap::with_capacity(written.len());
    for row in &written {
        let place = (VolumeId(row.value(1)?), row.volume_path(2)?);
        let state = RowState::of(row.value(3)?, row.value(4)?);
        found.insert(place, (DirectoryId(row.value(0)?), state));
    }
    let known = |(volume, listing, fingerprint): (VolumeId, &'a Listing, Option<Fingerprint>)| {
        let found = found.get(&(volume, listing.directory.clone())).copied();
        let (id, state) = found.ok_or_else(|| IndexError::Damaged("a directory got no id".to_owned()))?;
        Ok(Known { id, volume, state, fingerprint, listing })
    };
    in_listed_order.into_iter().map(known).collect()
}

/// Inserts new files and updates changed ones; returns how many of each.
async fn write_files(connection: &mut PgConnection, most: usize, known: &[Known<'_>]) -> Result<(u64, u64)> {
    let mut rows: Vec<(&Known<'_>, &Entry)> = known
        .iter()
        .flat_map(|known| known.listing.entries.iter().map(move |entry| (known, entry)))
        .collect();
    rows.sort_by(|a, b| (a.0.id, &a.1.name).cmp(&(b.0.id, &b.1.name)));
    // A file that was named twice; the first look at it counts.
    rows.dedup_by(|later, earlier| later.0.id == earlier.0.id && later.1.name == earlier.1.name);
    let (new, known): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|(known, _)| known.state == RowState::New);
    let (mut added, mut updated) = (0, 0);
    for chunk in new.chunks(most) {
        let inserted = files_query(INSERT_FILES, chunk).execute(&mut *connection).await;
        added += inserted.map_err(IndexError::during("write files"))?.rows_affected();
    }
    for chunk in known.chunks(most) {
        let written = files_query(UPSERT_FILES, chunk).fetch_one(&mut *connection).await;
        let written = written.map_err(IndexError::during("write files"))?;
        added += written.count(0)?;
        updated += written.count(1)?;
    }
    Ok((added, updated))
}

/// A statement over the columns of files, of equal length.
fn files_query<'q>(text: &'static str, rows: &[(&Known<'_>, &'q Entry)]) -> Query<'q, Postgres, PgArguments> {
    let integers = |of: fn(&(&Known<'_>, &Entry)) -> i64| rows.iter().map(of).collect::<Vec<i64>>();
    sqlx::query(text)
        .bind(integers(|(known, _)| known.id.0))
        .bind(rows.iter().map(|(_, entry)| &*entry.name).collect::<Vec<&[u8]>>())
        .bind(integers(|(known, _)| known.volume.0))
        .bind(integers(|(_, entry)| to_integer(entry.stamp.size)))
        .bind(integers(|(_, entry)| entry.stamp.mtime.0))
        .bind(integers(|(_, entry)| entry.stamp.ctime.0))
        .bind(integers(|(_, entry)| inode_to_integer(entry.stamp.inode)))
}

/// Removes the rows of wholly listed directories that are not in their listings.
async fn remove_unlisted(connection: &mut PgConnection, known: &[&Known<'_>]) -> Result<u64> {
    let failed = || IndexError::during("remove what is gone");
    let ids: Vec<i64> = known.iter().map(|known| known.id.0).collect();
    let listed: Vec<i64> = known.iter().map(|known| to_integer(known.listing.entries.len() as u64)).collect();
    let miscounted: Vec<i64> = sqlx::query_scalar(MISCOUNTED)
        .bind(ids)
        .bind(listed)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    let miscounted: HashSet<i64> = miscounted.into_iter().collect();
    let mut removed = 0;
    for known in known.iter().filter(|known| miscounted.contains(&known.id.0)) {
        let names: Vec<&[u8]> = known.listing.entries.iter().map(|entry| &*entry.name).collect();
        let deleted =
            sqlx::query(DELETE_UNLISTED).bind(known.id.0).bind(names).execute(&mut *connection).await;
        removed += deleted.map_err(failed())?.rows_affected();
    }
    Ok(removed)
}

/// What these directories hold is in the index now.
async fn write_fingerprints(connection: &mut PgConnection, known: &[&Known<'_>]) -> Result<()> {
    let mut known: Vec<_> =
        known.iter().filter_map(|known| Some((known.id.0, known.fingerprint?.0))).collect();
    known.sort_unstable();
    let (ids, fingerprints): (Vec<i64>, Vec<[u8; 16]>) = known.into_iter().unzip();
    let fingerprints: Vec<&[u8]> = fingerprints.iter().map(<[u8; 16]>::as_slice).collect();
    let written = sqlx::query(WRITE_FINGERPRINTS).bind(ids).bind(fingerprints).execute(connection).await;
    written.map(drop).map_err(IndexError::during("write directories"))
}

/// One piece of a large directory: its names are noted, and compared when the last has come.
async fn note_piece(
    connection: &mut PgConnection,
    scan: ScanId,
    known: &Known<'_>,
    first: bool,
    last: bool,
) -> Result<u64> {
    let failed = || IndexError::during("compare a directory");
    if first {
        let forgotten = sqlx::query(FORGET_NOTED).bind(scan.0).bind(known.id.0);
        forgotten.execute(&mut *connection).await.map_err(failed())?;
    }
    let names: Vec<&[u8]> = known.listing.entries.iter().map(|entry| &*entry.name).collect();
    let noted = sqlx::query(NOTE_LISTED).bind(scan.0).bind(known.id.0).bind(names);
    noted.execute(&mut *connection).await.map_err(failed())?;
    if !last {
        return Ok(0);
    }
    let removed = sqlx::query(DELETE_NOT_NOTED).bind(scan.0).bind(known.id.0);
    let removed = removed.execute(&mut *connection).await.map_err(failed())?.rows_affected();
    let forgotten = sqlx::query(FORGET_NOTED).bind(scan.0).bind(known.id.0);
    forgotten.execute(connection).await.map_err(failed())?;
    Ok(removed)
}

/// Directories of the subtrees that this scan ($5) did not list, except below one that could not be
/// read and those of a root other than $6 inside the subtree; and their files.
const FORGET_UNSEEN: &str = with_scope!(
    ", unreadable (volume_id, path) as materialized (
        select volume_id, path from directories where generation = $5 and problem is not null),
    gone (id) as materialized (
        select d.id from directories d
        where d.id in (select id from scope) and d.generation < $5
          and not exists (
            select 1 from unreadable u
            where u.volume_id = d.volume_id and d.path >= u.path || '/'::bytea and d.path < u.path || '0'::bytea)
          and not exists (
            select 1 from roots r
            join unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bytea[]) e (volume_id, path, low, high)
              on r.volume_id = e.volume_id and (r.path = e.path or (r.path >= e.low and r.path < e.high))
            where r.id <> $6 and r.volume_id = d.volume_id
              and (r.path = d.path or (d.path >= r.path || '/'::bytea and d.path < r.path || '0'::bytea)))),
    files_gone as (delete from files where directory_id in (select id from gone) returning 1),
    directories_gone as (delete from directories where id in (select id from gone))
    select count(*) from files_gone"
);

const DISCOVERED: &str = "update scans set discovered_at = $2 where id = $1";

pub(super) async fn finish(
    connection: &mut PgConnection,
    scan: ScanId,
    root: Option<RootId>,
    extents: &[Extent],
    linked: &[Extent],
) -> Result<Finished> {
    confirm_scan(connection, scan).await?;
    let mut finished = Finished::default();
    if let Some(root) = root {
        let before = query_extents(connection, root, EXTENTS_OF_ROOT).await?;
        finished.removed = remove_unseen(connection, scan, root, extents, linked).await?;
        let mut taken = query_extents(connection, root, TAKE_LINKED).await?;
        put_extents(connection, root, extents, false).await?;
        put_extents(connection, root, linked, true).await?;
        taken.extend(query_extents(connection, root, TAKE_NAMELESS).await?);
        finished.removed += forget_uncovered(connection, &taken).await?;
        finished.has_other_extents = query_extents(connection, root, EXTENTS_OF_ROOT).await? != before;
    }
    note_discovered(connection, scan).await?;
    Ok(finished)
}

pub(super) async fn finish_parts(
    connection: &mut PgConnection,
    scan: ScanId,
    root: RootId,
    extents: &[Extent],
    linked: &[Extent],
) -> Result<Finished> {
    confirm_scan(connection, scan).await?;
    let known = query_extents(connection, root, EXTENTS_OF_ROOT).await?;
    let removed = remove_unseen(connection, scan, root, extents, linked).await?;
    let (new, new_linked) = (uncovered(extents, &known), uncovered(linked, &known));
    put_extents(connection, root, &new, false).await?;
    put_extents(connection, root, &new_linked, true).await?;
    note_discovered(connection, scan).await?;
    Ok(Finished { removed, has_other_extents: !new.is_empty() || !new_linked.is_empty() })
}

/// Removes the directories of these subtrees that a scan did not list; returns the number of files.
async fn remove_unseen(
    connection: &mut PgConnection,
    scan: ScanId,
    root: RootId,
    extents: &[Extent],
    linked: &[Extent],
) -> Result<u64> {
    let mut removed = 0;
    for extent in extents.iter().chain(linked) {
        removed += forget_unseen(connection, extent, scan, root).await?;
    }
    Ok(removed)
}

/// Removes the directories of a subtree that a scan did not list, but for those of other roots; returns the number of
/// files.
pub(super) async fn forget_unseen(
    connection: &mut PgConnection,
    extent: &Extent,
    scan: ScanId,
    root: RootId,
) -> Result<u64> {
    let scope = ScopeArrays::new(std::slice::from_ref(extent));
    let gone = scope.query(FORGET_UNSEEN).bind(scan.0).bind(root.0).fetch_one(connection).await;
    gone.map_err(IndexError::during("finish discovery"))?.count(0)
}

async fn note_discovered(connection: &mut PgConnection, scan: ScanId) -> Result<()> {
    let discovered = sqlx::query(DISCOVERED).bind(scan.0).bind(Nanos::now().0).execute(connection).await;
    discovered.map(drop).map_err(IndexError::during("finish discovery"))
}
