//! Writing what the walk found.
//!
//! A directory whose fingerprint is still the same is as it was. In the others, SQL finds the rows that are not what
//! was listed, and they are written anew; an unchanged file costs no write. What is gone is found by counting: only
//! if a directory has more rows than names were listed are the names themselves compared.

use std::collections::HashMap;

use sqlx::sqlite::SqliteConnection;

use super::bulk::{Binder, Bulk};
use super::catalog::{
    EXTENTS_OF_ROOT, TAKE_LINKED, TAKE_NAMELESS, delete_collected, forget_uncovered, put_extents,
    query_extents,
};
use super::touched::{remove_absent, write_move};
use crate::index::convert::{Finished, RowState, below, inode_to_integer, to_integer, to_json, uncovered};
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

/// Work space of the writing connection. listed: names of directories in which some row is gone;
/// gone: directories to be removed; unreadable: where nothing may be removed.
pub(super) const TEMPORARY_TABLES: &str = "
    create temp table listed (directory_id integer not null, name blob not null, primary key (directory_id, name)) without rowid;
    create temp table gone (id integer primary key);
    create temp table unreadable (volume_id integer not null, path blob not null)";

/// A directory that was only looked into keeps the generation of the scan that listed it. Only a
/// fingerprint that is still the same stays, and is returned.
const UPSERT_DIRECTORIES: Bulk = Bulk {
    operation: "write directories",
    head: "insert into directories (volume_id, path, generation, problem, fingerprint) values ",
    row: "(?,?,?,?,?)",
    tail: " on conflict (volume_id, path) do update set
        problem = case when excluded.generation = 0 then directories.problem else excluded.problem end,
        generation = max(directories.generation, excluded.generation),
        fingerprint = case when directories.fingerprint = excluded.fingerprint then directories.fingerprint end
        returning id, volume_id, path, fingerprint is not null",
};

/// What is handed back costs more than the insertion: directories that are all new are numbered as they come.
const INSERT_DIRECTORIES: Bulk =
    Bulk { tail: " on conflict (volume_id, path) do nothing", ..UPSERT_DIRECTORIES };

const LAST_DIRECTORY: &str = "select coalesce(max(id), 0) from directories";

const WRITE_FINGERPRINTS: Bulk = Bulk {
    operation: "write directories",
    head: "update directories set fingerprint = v.column2 from (values ",
    row: "(?,?)",
    tail: ") v where directories.id = v.column1",
};

/// Files that are not what they were, or have to be read again.
const DELETE_CHANGED: Bulk = Bulk {
    operation: "write files",
    head: "delete from files where id in (
        select f.id from (values ",
    row: "(?,?,?,?,?,?)",
    tail: ") v join files f on f.directory_id = v.column1 and f.name = v.column2
        where f.size <> v.column3 or f.mtime_ns <> v.column4 or f.ctime_ns <> v.column5 or f.inode <> v.column6
           or exists (select 1 from contents c where c.file_id = f.id and c.recheck))",
};

const INSERT_FILES: Bulk = Bulk {
    operation: "write files",
    head: "insert into files (directory_id, name, size, mtime_ns, ctime_ns, inode, volume_id) values ",
    row: "(?,?,?,?,?,?,?)",
    tail: " on conflict (directory_id, name) do nothing",
};

const LAST_FILE: &str = "select coalesce(max(seq), 0) from sqlite_sequence where name = 'files'";

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
    /// Directories of which some pieces were written, and not yet the last; true of those that held nothing
    /// before the first.
    pub(super) in_pieces: HashMap<DirectoryId, bool>,
    /// True if all directories of the last batch were new, or there were none before: those of the next may be new, too.
    finds_new: bool,
}

/// A listing whose directory has a row.
#[derive(Clone, Copy)]
struct Known<'a> {
    /// The listing's place in its batch.
    position: usize,
    id: DirectoryId,
    volume: VolumeId,
    listing: &'a Listing,
    state: RowState,
    fingerprint: Option<Fingerprint>,
}

/// A directory's row, as it was listed.
struct DirectoryRow<'a> {
    volume: VolumeId,
    listing: &'a Listing,
    fingerprint: Option<Fingerprint>,
}

impl DirectoryRow<'_> {
    fn push(&self, binder: &mut Binder, scan: ScanId) {
        let (generation, problem) = match &self.listing.coverage {
            Coverage::Selected(_) => (0, None),
            Coverage::Unreadable(problem) => (scan.0, Some(problem.to_text())),
            Coverage::Whole | Coverage::Piece { .. } => (scan.0, None),
        };
        binder.push(self.volume.0).push(self.listing.directory.as_bytes()).push(generation).push(problem);
        binder.push(self.fingerprint.map(|fingerprint| fingerprint.0.to_vec()));
    }
}

/// What was found of a directory, which a batch may list several times.
struct Found {
    id: DirectoryId,
    state: RowState,
    is_listed_again: bool,
}

pub(super) async fn write_listings(
    connection: &mut SqliteConnection,
    state: &mut DiscoveryState,
    scan: ScanId,
    listings: &[Listing],
) -> Result<Written> {
    let known = write_directories(connection, state, scan, listings).await?;
    let listed: Vec<DirectoryId> = known.iter().map(|known| known.id).collect();
    let is_piece = |known: &Known<'_>| {
        matches!(known.listing.coverage, Coverage::Piece { .. }) || state.in_pieces.contains_key(&known.id)
    };
    let (pieces, whole): (Vec<_>, Vec<_>) = known.into_iter().partition(is_piece);
    // A selection adds to what a whole listing of the same directory may just have removed.
    let is_selection = |known: &Known<'_>| known.listing.absent().is_some();
    let (selected, mut whole): (Vec<_>, Vec<_>) = whole.into_iter().partition(is_selection);
    whole.retain(|known| known.state != RowState::Same);

    let mut firsts = vec![None; listings.len()];
    let mut counts = write_together(connection, &whole, &mut firsts).await?;
    for piece in pieces {
        counts += write_piece(connection, &mut state.in_pieces, piece, &mut firsts).await?;
    }
    if !selected.is_empty() {
        counts += write_together(connection, &selected, &mut firsts).await?;
        let thinned = selected.iter().filter_map(|it| Thinned::of(it.listing, it.id, it.volume));
        let thinned: Vec<_> = thinned.collect();
        counts.removed += remove_absent(connection, scan, &thinned).await?;
    }
    Ok(Written { counts, directories: listed.into_iter().zip(firsts).collect() })
}

/// Moves what is known to where it was moved to.
pub(super) async fn write_moves(
    connection: &mut SqliteConnection,
    state: &DiscoveryState,
    scan: ScanId,
    moves: &[Move],
) -> Result<()> {
    for moved in moves {
        write_move(connection, scan, &KnownMove::of(moved, &state.volumes)?).await?;
    }
    Ok(())
}

/// Many directories at once.
async fn write_together(
    connection: &mut SqliteConnection,
    known: &[Known<'_>],
    firsts: &mut [Option<FileId>],
) -> Result<ScanCounts> {
    let (new, known): (Vec<_>, Vec<_>) =
        known.iter().copied().partition(|known| known.state == RowState::New);
    let added_to_new = insert_into_new(connection, &new, firsts).await?;
    let (added, updated) = write_files(connection, &known).await?;

    let whole = known.iter().filter(|known| known.listing.coverage == Coverage::Whole);
    let listed: HashMap<i64, usize> =
        whole.clone().map(|known| (known.id.0, known.listing.entries.len())).collect();
    let mut removed = 0;
    for miscounted in miscounted(connection, &listed).await? {
        let Some(known) = whole.clone().find(|known| known.id == miscounted) else { continue };
        note_listed(connection, std::slice::from_ref(known)).await?;
        removed += remove_unlisted(connection, miscounted).await?;
    }
    let fingerprints: Vec<_> = whole.filter_map(|known| Some((known.id, known.fingerprint?))).collect();
    WRITE_FINGERPRINTS
        .execute(connection, &fingerprints, |binder, (id, fingerprint)| {
            binder.push(id.0).push(fingerprint.0.to_vec());
        })
        .await?;
    Ok(ScanCounts { added: added + added_to_new, updated, removed, ..ScanCounts::default() })
}

/// One piece of a large directory: its names are noted, and compared when the last has come.
async fn write_piece(
    connection: &mut SqliteConnection,
    in_pieces: &mut HashMap<DirectoryId, bool>,
    piece: Known<'_>,
    firsts: &mut [Option<FileId>],
) -> Result<ScanCounts> {
    let Known { id, listing, .. } = piece;
    if matches!(listing.coverage, Coverage::Piece { first: true, .. }) {
        forget_listed(connection, id).await?;
        in_pieces.insert(id, piece.state == RowState::New);
    }
    let is_new = in_pieces.get(&id) == Some(&true);
    let (added, updated) = if is_new {
        (insert_into_new(connection, &[piece], firsts).await?, 0)
    } else {
        note_listed(connection, &[piece]).await?;
        write_files(connection, &[piece]).await?
    };
    let mut removed = 0;
    if !matches!(listing.coverage, Coverage::Piece { last: false, .. }) {
        // The last piece, or the walk was stopped before it.
        let was_begun = in_pieces.remove(&id).is_some();
        if was_begun && !is_new && listing.coverage == (Coverage::Piece { first: false, last: true }) {
            removed = remove_unlisted(connection, id).await?;
        }
        forget_listed(connection, id).await?;
    }
    Ok(ScanCounts { added, updated, removed, ..ScanCounts::default() })
}

/// Writes the directories and returns the listings with their ids, in the same order.
async fn write_directories<'a>(
    connection: &mut SqliteConnection,
    state: &mut DiscoveryState,
    scan: ScanId,
    listings: &'a [Listing],
) -> Result<Vec<Known<'a>>> {
    let last: i64 = sqlx::query_scalar(LAST_DIRECTORY)
        .fetch_one(&mut *connection)
        .await
        .map_err(IndexError::during("write directories"))?;
    let mut rows: Vec<DirectoryRow<'a>> = Vec::with_capacity(listings.len());
    for listing in listings {
        let volume = known_volume(&state.volumes, &listing.volume)?;
        rows.push(DirectoryRow { volume, listing, fingerprint: listing.fingerprint() });
    }
    state.finds_new |= last == 0;
    if state.finds_new {
        let push = |binder: &mut Binder, row: &DirectoryRow<'_>| row.push(binder, scan);
        let inserted = INSERT_DIRECTORIES.execute(connection, &rows, push).await?;
        if inserted == rows.len() as u64 {
            return Ok(numbered(rows, last));
        }
    }
    // Those that were just inserted are found with the others, and are new by their number.
    let known = upsert_directories(connection, rows, scan, last).await?;
    state.finds_new = known.iter().all(|known| known.state == RowState::New);
    Ok(known)
}

/// New directories, in the order in which they were inserted; `last` is the number before theirs.
fn numbered(rows: Vec<DirectoryRow<'_>>, last: i64) -> Vec<Known<'_>> {
    let known = |(position, (row, id))| {
        let DirectoryRow { volume, listing, fingerprint } = row;
        Known { position, id: DirectoryId(id), volume, listing, state: RowState::New, fingerprint }
    };
    rows.into_iter().zip(last + 1..).enumerate().map(known).collect()
}

/// Writes directories of which some may have rows; those with a number beyond `last` had none.
async fn upsert_directories<'a>(
    connection: &mut SqliteConnection,
    rows: Vec<DirectoryRow<'a>>,
    scan: ScanId,
    last: i64,
) -> Result<Vec<Known<'a>>> {
    let returned = UPSERT_DIRECTORIES.fetch(connection, &rows, |binder, row| row.push(binder, scan)).await?;
    let mut found: HashMap<(VolumeId, VolumePath), Found> = HashMap::with_capacity(returned.len());
    for row in &returned {
        let id: i64 = row.value(0)?;
        let state = RowState::of(id > last, row.value(3)?);
        let place = (VolumeId(row.value(1)?), row.volume_path(2)?);
        let found = found.entry(place).and_modify(|found| found.is_listed_again = true);
        found.or_insert(Found { id: DirectoryId(id), state, is_listed_again: false });
    }
    let known = |(position, row): (usize, DirectoryRow<'a>)| {
        let DirectoryRow { volume, listing, fingerprint } = row;
        let found = found.get(&(volume, listing.directory.clone()));
        let found = found.ok_or_else(|| IndexError::Damaged("a directory got no id".to_owned()))?;
        let is_piece = matches!(listing.coverage, Coverage::Piece { .. });
        // But for pieces, a directory's first listing may have changed its rows before the second, and neither
        // is all that it holds.
        let (state, fingerprint) = if found.is_listed_again && !is_piece {
            (RowState::Unknown, None)
        } else {
            (found.state, fingerprint)
        };
        Ok(Known { position, id: found.id, volume, listing, state, fingerprint })
    };
    rows.into_iter().enumerate().map(known).collect()
}

/// Inserts the files of directories that have no rows yet; notes the first row of each. Only this process
/// inserts, and rows are numbered as they come.
async fn insert_into_new(
    connection: &mut SqliteConnection,
    known: &[Known<'_>],
    firsts: &mut [Option<FileId>],
) -> Result<u64> {
    let last = sqlx::query_scalar(LAST_FILE).fetch_one(&mut *connection).await;
    let mut next: i64 = last.map_err(IndexError::during("write files"))?;
    next += 1;
    for known in known {
        firsts[known.position] = Some(FileId(next));
        next += to_integer(known.listing.entries.len() as u64);
    }
    let rows = entries(known);
    let added = insert_files(connection, &rows).await?;
    // A name that a directory lists twice would shift the rest.
    if added != rows.len() as u64 {
        firsts.fill(None);
    }
    Ok(added)
}

/// Inserts new files, and changed ones anew; returns how many of each.
async fn write_files(connection: &mut SqliteConnection, known: &[Known<'_>]) -> Result<(u64, u64)> {
    let rows = entries(known);
    let changed = DELETE_CHANGED
        .execute(connection, &rows, |binder, (known, entry)| push_file(binder, known, entry))
        .await?;
    let inserted = insert_files(connection, &rows).await?;
    Ok((inserted.saturating_sub(changed), changed))
}

async fn insert_files(connection: &mut SqliteConnection, rows: &[(&Known<'_>, &Entry)]) -> Result<u64> {
    INSERT_FILES
        .execute(connection, rows, |binder, (known, entry)| {
            push_file(binder, known, entry);
            binder.push(known.volume.0);
        })
        .await
}

fn push_file(binder: &mut Binder, known: &Known<'_>, entry: &Entry) {
    let stamp = entry.stamp;
    binder.push(known.id.0).push(&*entry.name).push(to_integer(stamp.size));
    binder.push(stamp.mtime.0).push(stamp.ctime.0).push(inode_to_integer(stamp.inode));
}

fn entries<'a, 'k>(known: &'k [Known<'a>]) -> Vec<(&'k Known<'a>, &'a Entry)> {
    known.iter().flat_map(|known| known.listing.entries.iter().map(move |entry| (known, entry))).collect()
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
) -> Result<Finished> {
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
    connection: &mut SqliteConnection,
    scan: ScanId,
    root: RootId,
    extents: &[Extent],
    linked: &[Extent],
) -> Result<Finished> {
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
    connection: &mut SqliteConnection,
    scan: ScanId,
    root: RootId,
    extents: &[Extent],
    linked: &[Extent],
) -> Result<u64> {
    let failed = || IndexError::during("finish discovery");
    sqlx::query(COLLECT_UNREADABLE).bind(scan.0).execute(&mut *connection).await.map_err(failed())?;
    for extent in extents.iter().chain(linked) {
        collect_gone(connection, extent, scan, root).await?;
    }
    let removed = delete_collected(connection).await?;
    sqlx::query("delete from temp.unreadable").execute(connection).await.map_err(failed())?;
    Ok(removed)
}

/// Notes the directories of a subtree that a scan did not list, but for those of other roots.
pub(super) async fn collect_gone(
    connection: &mut SqliteConnection,
    extent: &Extent,
    scan: ScanId,
    root: RootId,
) -> Result<()> {
    let (low, high) = below(&extent.path);
    let collected = sqlx::query(COLLECT_GONE)
        .bind(extent.volume.0)
        .bind(extent.path.as_bytes())
        .bind(low)
        .bind(high)
        .bind(scan.0)
        .bind(root.0)
        .execute(connection)
        .await;
    collected.map(drop).map_err(IndexError::during("finish discovery"))
}

async fn note_discovered(connection: &mut SqliteConnection, scan: ScanId) -> Result<()> {
    let discovered = sqlx::query(DISCOVERED).bind(Nanos::now().0).bind(scan.0).execute(connection).await;
    discovered.map(drop).map_err(IndexError::during("finish discovery"))
}
