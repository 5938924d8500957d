//! Writing what the walk found.
//!
//! The comparison happens in the upsert, so that an unchanged file costs no write. What is gone is
//! found by counting: only if a directory has more rows than names were listed are the names
//! themselves compared.

use std::collections::{HashMap, HashSet};

use sqlx::sqlite::SqliteConnection;

use super::bulk::Bulk;
use super::catalog::{
    TAKE_LINKED, TAKE_NAMELESS, delete_collected, forget_uncovered, put_extents, take_extents,
};
use super::convert::{column, to_json, volume_path};
use crate::index::convert::{below, inode_to_integer, to_count, to_integer};
use crate::index::{IndexError, Result};
use crate::model::listing::{Coverage, DirectoryId, Entry, Listing};
use crate::model::path::VolumePath;
use crate::model::scan::{RootId, ScanCounts, ScanId};
use crate::model::volume::{Extent, VolumeId, VolumeIdentity};

/// Work space of the writing connection. listed: names of directories in which some row is gone;
/// gone: directories to be removed; unreadable: where nothing may be removed.
pub(super) const TEMPORARY_TABLES: &str = "
    create temp table listed (directory_id integer not null, name blob not null, primary key (directory_id, name)) without rowid;
    create temp table gone (id integer primary key);
    create temp table unreadable (volume_id integer not null, path blob not null)";

/// A directory that was only looked into keeps the generation of the scan that listed it.
const UPSERT_DIRECTORIES: Bulk = Bulk {
    operation: "write directories",
    head: "insert into directories (volume_id, path, generation, problem) values ",
    row: "(?,?,?,?)",
    tail: " on conflict (volume_id, path) do update set
        problem = case when excluded.generation = 0 then directories.problem else excluded.problem end,
        generation = max(directories.generation, excluded.generation)
        returning id, volume_id, path",
};

const UPSERT_FILES: Bulk = Bulk {
    operation: "write files",
    head: "insert into files (directory_id, name, volume_id, size, mtime_ns, ctime_ns, inode) values ",
    row: "(?,?,?,?,?,?,?)",
    tail: " on conflict (directory_id, name) do update set
        size = excluded.size, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, inode = excluded.inode,
        sample = null, hash = null, recheck = 0, problem = null
        where files.size <> excluded.size or files.mtime_ns <> excluded.mtime_ns
           or files.ctime_ns <> excluded.ctime_ns or files.inode <> excluded.inode or files.recheck <> 0",
};

const COUNT_FILES: &str = "
    select coalesce(sum((select count(*) from files f where f.directory_id = j.value)), 0) from json_each(?) j";

/// Directories whose number of rows is not the number listed, of a JSON object {id: number}.
const MISCOUNTED: &str = "
    select id, rows from (
        select cast(j.key as integer) id, j.value listed,
               (select count(*) from files f where f.directory_id = cast(j.key as integer)) rows
        from json_each(?) j)
    where rows <> listed";

const NOTE_LISTED: Bulk = Bulk {
    operation: "compare a directory",
    head: "insert or ignore into temp.listed (directory_id, name) values ",
    row: "(?,?)",
    tail: "",
};

const DELETE_UNLISTED: &str = "
    delete from files where directory_id = ?1
    and name not in (select name from temp.listed where directory_id = ?1)";

const FORGET_LISTED: &str = "delete from temp.listed where directory_id = ?";

/// What has to be known from one batch of listings to the next.
#[derive(Debug, Default)]
pub(super) struct DiscoveryState {
    /// Volumes that have a row.
    pub(super) volumes: HashMap<VolumeIdentity, VolumeId>,
    /// Directories of which some pieces were written, and not yet the last.
    pub(super) in_pieces: HashMap<DirectoryId, OpenDirectory>,
}

/// A directory whose listing comes in pieces, between the first and the last.
#[derive(Debug, Default)]
pub(super) struct OpenDirectory {
    /// Rows it had before.
    before: u64,
    /// Rows inserted or changed since.
    written: u64,
}

/// A listing whose directory has a row.
#[derive(Clone, Copy)]
struct Known<'a> {
    id: DirectoryId,
    volume: VolumeId,
    listing: &'a Listing,
}

pub(super) async fn write_listings(
    connection: &mut SqliteConnection,
    state: &mut DiscoveryState,
    scan: ScanId,
    listings: &[Listing],
) -> Result<ScanCounts> {
    let known = write_directories(connection, &state.volumes, scan, listings).await?;
    let is_piece = |known: &Known<'_>| {
        matches!(known.listing.coverage, Coverage::Piece { .. }) || state.in_pieces.contains_key(&known.id)
    };
    let (pieces, whole): (Vec<_>, Vec<_>) = known.into_iter().partition(is_piece);
    // A selection adds to what a whole listing of the same directory may just have removed.
    let is_selection = |known: &Known<'_>| known.listing.coverage == Coverage::Selected;
    let (selected, whole): (Vec<_>, Vec<_>) = whole.into_iter().partition(is_selection);

    let mut counts = write_together(connection, &whole).await?;
    for piece in pieces {
        counts += write_piece(connection, &mut state.in_pieces, piece).await?;
    }
    if !selected.is_empty() {
        counts += write_together(connection, &selected).await?;
    }
    Ok(counts)
}

/// Many directories at once.
async fn write_together(connection: &mut SqliteConnection, known: &[Known<'_>]) -> Result<ScanCounts> {
    let ids: HashSet<i64> = known.iter().map(|known| known.id.0).collect();
    let before = count_files(connection, &ids).await?;
    let written = write_files(connection, known).await?;
    let added = count_files(connection, &ids).await?.saturating_sub(before);

    let whole = known.iter().filter(|known| known.listing.coverage == Coverage::Whole);
    let listed: HashMap<i64, usize> =
        whole.clone().map(|known| (known.id.0, known.listing.entries.len())).collect();
    let mut removed = 0;
    for miscounted in miscounted(connection, &listed).await? {
        let Some(known) = whole.clone().find(|known| known.id == miscounted) else { continue };
        note_listed(connection, std::slice::from_ref(known)).await?;
        removed += remove_unlisted(connection, miscounted).await?;
    }
    Ok(ScanCounts { added, updated: written.saturating_sub(added), removed, ..ScanCounts::default() })
}

/// One piece of a large directory: its names are noted, and compared when the last has come.
async fn write_piece(
    connection: &mut SqliteConnection,
    in_pieces: &mut HashMap<DirectoryId, OpenDirectory>,
    piece: Known<'_>,
) -> Result<ScanCounts> {
    let Known { id, listing, .. } = piece;
    if matches!(listing.coverage, Coverage::Piece { first: true, .. }) {
        forget_listed(connection, id).await?;
        let before = count_files(connection, &HashSet::from([id.0])).await?;
        in_pieces.insert(id, OpenDirectory { before, written: 0 });
    }
    let written = write_files(connection, &[piece]).await?;
    note_listed(connection, &[piece]).await?;
    let Some(open) = in_pieces.get_mut(&id) else { return Ok(ScanCounts::default()) };
    open.written += written;
    if matches!(listing.coverage, Coverage::Piece { last: false, .. }) {
        return Ok(ScanCounts::default());
    }
    let added = count_files(connection, &HashSet::from([id.0])).await?.saturating_sub(open.before);
    let updated = open.written.saturating_sub(added);
    in_pieces.remove(&id);
    let complete = matches!(listing.coverage, Coverage::Piece { last: true, .. });
    let removed = if complete { remove_unlisted(connection, id).await? } else { 0 };
    forget_listed(connection, id).await?;
    Ok(ScanCounts { added, updated, removed, ..ScanCounts::default() })
}

/// Writes the directories and returns the listings with their ids, in the same order.
async fn write_directories<'a>(
    connection: &mut SqliteConnection,
    volumes: &HashMap<VolumeIdentity, VolumeId>,
    scan: ScanId,
    listings: &'a [Listing],
) -> Result<Vec<Known<'a>>> {
    let mut rows: Vec<(VolumeId, &Listing)> = Vec::with_capacity(listings.len());
    for listing in listings {
        let volume = volumes.get(&listing.volume.identity);
        let volume = volume.ok_or_else(|| IndexError::Damaged("a volume was not registered".to_owned()))?;
        rows.push((*volume, listing));
    }
    let returned = UPSERT_DIRECTORIES
        .fetch(connection, &rows, |binder, (volume, listing)| {
            let (generation, problem) = match &listing.coverage {
                Coverage::Selected => (0, None),
                Coverage::Unreadable(problem) => (scan.0, Some(problem.to_text())),
                Coverage::Whole | Coverage::Piece { .. } => (scan.0, None),
            };
            binder.push(volume.0).push(listing.directory.as_bytes()).push(generation).push(problem);
        })
        .await?;
    let mut ids: HashMap<(VolumeId, VolumePath), DirectoryId> = HashMap::with_capacity(returned.len());
    for row in &returned {
        ids.insert((VolumeId(column(row, 1)?), volume_path(row, 2)?), DirectoryId(column(row, 0)?));
    }
    let known = |(volume, listing): (VolumeId, &'a Listing)| {
        let id = ids.get(&(volume, listing.directory.clone())).copied();
        let id = id.ok_or_else(|| IndexError::Damaged("a directory got no id".to_owned()))?;
        Ok(Known { id, volume, listing })
    };
    rows.into_iter().map(known).collect()
}

/// Inserts new files and updates changed ones; returns how many.
async fn write_files(connection: &mut SqliteConnection, known: &[Known<'_>]) -> Result<u64> {
    let rows = entries(known);
    UPSERT_FILES
        .execute(connection, &rows, |binder, (known, entry)| {
            let stamp = entry.stamp;
            binder.push(known.id.0).push(&*entry.name).push(known.volume.0).push(to_integer(stamp.size));
            binder.push(stamp.mtime.0).push(stamp.ctime.0).push(inode_to_integer(stamp.inode));
        })
        .await
}

fn entries<'a, 'k>(known: &'k [Known<'a>]) -> Vec<(&'k Known<'a>, &'a Entry)> {
    known.iter().flat_map(|known| known.listing.entries.iter().map(move |entry| (known, entry))).collect()
}

async fn count_files(connection: &mut SqliteConnection, directories: &HashSet<i64>) -> Result<u64> {
    let ids = to_json(directories)?;
    let count: i64 = sqlx::query_scalar(COUNT_FILES)
        .bind(ids)
        .fetch_one(connection)
        .await
        .map_err(IndexError::during("count files"))?;
    Ok(to_count(count))
}

async fn miscounted(
    connection: &mut SqliteConnection,
    listed: &HashMap<i64, usize>,
) -> Result<Vec<DirectoryId>> {
    let listed = to_json(listed)?;
    let found: Vec<i64> = sqlx::query_scalar(MISCOUNTED)
        .bind(listed)
        .fetch_all(connection)
        .await
        .map_err(IndexError::during("count files"))?;
    Ok(found.into_iter().map(DirectoryId).collect())
}

async fn note_listed(connection: &mut SqliteConnection, known: &[Known<'_>]) -> Result<()> {
    let rows = entries(known);
    let noted = NOTE_LISTED.execute(connection, &rows, |binder, (known, entry)| {
        binder.push(known.id.0).push(&*entry.name);
    });
    noted.await.map(drop)
}

async fn remove_unlisted(connection: &mut SqliteConnection, directory: DirectoryId) -> Result<u64> {
    let removed = sqlx::query(DELETE_UNLISTED).bind(directory.0).execute(&mut *connection).await;
    let removed = removed.map_err(IndexError::during("remove what is gone"))?.rows_affected();
    forget_listed(connection, directory).await?;
    Ok(removed)
}

async fn forget_listed(connection: &mut SqliteConnection, directory: DirectoryId) -> Result<()> {
    let forgotten = sqlx::query(FORGET_LISTED).bind(directory.0).execute(connection).await;
    forgotten.map_err(IndexError::during("compare a directory"))?;
    Ok(())
}

const COLLECT_UNREADABLE: &str = "
    insert into temp.unreadable (volume_id, path)
    select volume_id, path from directories where generation = ? and problem is not null";

/// Directories of a subtree that this scan did not list, except below one that could not be read
/// and those of a root inside the subtree.
const COLLECT_GONE: &str = "
    insert or ignore into temp.gone (id)
    select d.id from directories d
    where d.volume_id = ?1 and (d.path = ?2 or (d.path >= ?3 and d.path < ?4)) and d.generation < ?5
      and not exists (
        select 1 from temp.unreadable u
        where u.volume_id = d.volume_id and substr(d.path, 1, length(u.path) + 1) = cast(u.path || '/' as blob))
      and not exists (
        select 1 from roots r
        where r.id <> ?6 and r.volume_id = d.volume_id
          and (r.path = ?2 or (r.path >= ?3 and r.path < ?4))
          and (r.path = d.path or substr(d.path, 1, length(r.path) + 1) = cast(r.path || '/' as blob)))";

const DISCOVERED: &str = "update scans set discovered_at = ? where id = ?";

pub(super) async fn finish(
    connection: &mut SqliteConnection,
    scan: ScanId,
    root: Option<RootId>,
    extents: &[Extent],
    linked: &[Extent],
) -> Result<u64> {
    let failed = || IndexError::during("finish discovery");
    let mut removed = 0;
    if let Some(root) = root {
        sqlx::query(COLLECT_UNREADABLE).bind(scan.0).execute(&mut *connection).await.map_err(failed())?;
        for extent in extents.iter().chain(linked) {
            let (low, high) = below(&extent.path);
            sqlx::query(COLLECT_GONE)
                .bind(extent.volume.0)
                .bind(extent.path.as_bytes())
                .bind(low)
                .bind(high)
                .bind(scan.0)
                .bind(root.0)
                .execute(&mut *connection)
                .await
                .map_err(failed())?;
        }
        removed = delete_collected(connection).await?;
        sqlx::query("delete from temp.unreadable").execute(&mut *connection).await.map_err(failed())?;
        let mut taken = take_extents(connection, root, TAKE_LINKED).await?;
        put_extents(connection, root, extents, false).await?;
        put_extents(connection, root, linked, true).await?;
        taken.extend(take_extents(connection, root, TAKE_NAMELESS).await?);
        removed += forget_uncovered(connection, &taken).await?;
    }
    let now = crate::model::stamp::Nanos::now().0;
    sqlx::query(DISCOVERED).bind(now).bind(scan.0).execute(connection).await.map_err(failed())?;
    Ok(removed)
}
