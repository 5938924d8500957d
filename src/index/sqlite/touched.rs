//! What a watcher was told of: names that are gone, and what was moved.

use std::collections::HashSet;

use sqlx::sqlite::SqliteConnection;

use super::bulk::Bulk;
use super::catalog::delete_collected;
use super::discovery::collect_gone;
use super::rot;
use crate::index::convert::{below, inode_to_integer, to_integer, to_json};
use crate::index::rows::{Columns as _, read_known_name};
use crate::index::touched::{KnownMove, NEVER, OPERATION, Thinned};
use crate::index::{IndexError, Result};
use crate::model::listing::KnownName;
use crate::model::path::VolumePath;
use crate::model::scan::{RootId, ScanId};
use crate::model::stamp::Stamp;
use crate::model::volume::{Extent, VolumeId};

const DELETE_FILES: Bulk = Bulk {
    operation: OPERATION,
    head: "delete from files where id in (
        select f.id from (values ",
    row: "(?,?)",
    tail: ") v join files f on f.directory_id = v.column1 and f.name = v.column2)",
};

const KNOWN_DIRECTORIES: Bulk = Bulk {
    operation: OPERATION,
    head: "select d.volume_id, d.path from (values ",
    row: "(?,?)",
    tail: ") v join directories d on d.volume_id = v.column1 and d.path = v.column2",
};

const ROOT_OF_SCAN: &str = "select coalesce((select root_id from scans where id = ?), 0)";

/// Removes names that are no files any more, and what was below those that are no directories; returns the number of
/// files.
pub(super) async fn remove_absent(
    connection: &mut SqliteConnection,
    scan: ScanId,
    thinned: &[Thinned<'_>],
) -> Result<u64> {
    let files: Vec<(i64, &[u8])> = thinned
        .iter()
        .flat_map(|thinned| thinned.absent.files.iter().map(|name| (thinned.id.0, &**name)))
        .collect();
    let mut removed = DELETE_FILES
        .execute(connection, &files, |binder, (directory, name)| {
            binder.push(*directory).push(*name);
        })
        .await?;
    let places: Vec<(i64, VolumePath)> = thinned
        .iter()
        .flat_map(|Thinned { place, absent, .. }| {
            absent.directories.iter().map(|name| (place.volume.0, place.path.join(name)))
        })
        .collect();
    let known = KNOWN_DIRECTORIES
        .fetch(connection, &places, |binder, (volume, path)| {
            binder.push(*volume).push(path.as_bytes());
        })
        .await?;
    if known.is_empty() {
        return Ok(removed);
    }
    let root = sqlx::query_scalar(ROOT_OF_SCAN).bind(scan.0).fetch_one(&mut *connection).await;
    let root = RootId(root.map_err(IndexError::during(OPERATION))?);
    for row in known {
        let extent = row.extent(0)?;
        collect_gone(connection, &extent, NEVER, root).await?;
    }
    removed += delete_collected(connection).await?;
    Ok(removed)
}

const KNOWS_DIRECTORY: &str = "select exists (select 1 from directories where volume_id = ? and path = ?)";

/// ?2: the old path, ?3 and ?4: the range of what is below it, ?5: the new path.
const MOVE_DIRECTORIES: &str = "
    update directories set path = cast(?5 || substr(path, length(?2) + 1) as blob)
    where volume_id = ?1 and (path = ?2 or (path >= ?3 and path < ?4))";

/// Also whether a finding of rot stands of it.
const FIND_FILE: &str = "
    select f.id, exists (select 1 from standing s where s.directory_id = d.id and s.name = f.name)
    from directories d join files f on f.directory_id = d.id and f.name = ?3
    where d.volume_id = ?1 and d.path = ?2 and f.size = ?4 and f.mtime_ns = ?5 and f.inode = ?6";

/// Of both directories, what is known is not what was listed any more.
const PUT_DIRECTORY: &str = "
    insert into directories (volume_id, path, generation) values (?, ?, 0)
    on conflict (volume_id, path) do update set fingerprint = null
    returning id";

const REPLACE_FILE: &str = "delete from files where directory_id = ? and name = ? and id <> ?";

const MOVE_FILE: &str = "update files set directory_id = ?, name = ?, ctime_ns = ? where id = ?";

pub(super) async fn write_move(
    connection: &mut SqliteConnection,
    scan: ScanId,
    moved: &KnownMove<'_>,
) -> Result<()> {
    match moved.stamp {
        None => move_directory(connection, scan, moved).await,
        Some(stamp) => move_file(connection, moved, stamp).await,
    }
}

async fn move_directory(
    connection: &mut SqliteConnection,
    scan: ScanId,
    moved: &KnownMove<'_>,
) -> Result<()> {
    let failed = || IndexError::during(OPERATION);
    let KnownMove { volume, from, to, .. } = *moved;
    let known = sqlx::query_scalar(KNOWS_DIRECTORY).bind(volume.0).bind(from.as_bytes());
    if !known.fetch_one(&mut *connection).await.map_err(failed())? {
        return Ok(());
    }
    let root = sqlx::query_scalar(ROOT_OF_SCAN).bind(scan.0).fetch_one(&mut *connection).await;
    let replaced = Extent { volume, path: to.clone() };
    collect_gone(connection, &replaced, NEVER, RootId(root.map_err(failed())?)).await?;
    delete_collected(connection).await?;
    let (low, high) = below(from);
    sqlx::query(MOVE_DIRECTORIES)
        .bind(volume.0)
        .bind(from.as_bytes())
        .bind(low)
        .bind(high)
        .bind(to.as_bytes())
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed())
}

async fn move_file(connection: &mut SqliteConnection, moved: &KnownMove<'_>, stamp: Stamp) -> Result<()> {
    let failed = || IndexError::during(OPERATION);
    let KnownMove { volume, from, to, .. } = *moved;
    let (Some((from, old_name)), Some((to, new_name))) = (from.split(), to.split()) else { return Ok(()) };
    let found: Option<(i64, bool)> = sqlx::query_as(FIND_FILE)
        .bind(volume.0)
        .bind(from.as_bytes())
        .bind(old_name)
        .bind(to_integer(stamp.size))
        .bind(stamp.mtime.0)
        .bind(inode_to_integer(stamp.inode))
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed())?;
    let Some((file, has_finding)) = found else { return Ok(()) };
    let mut ids = Vec::new();
    for directory in [&from, &to] {
        let put = sqlx::query_scalar(PUT_DIRECTORY).bind(volume.0).bind(directory.as_bytes());
        let id: i64 = put.fetch_one(&mut *connection).await.map_err(failed())?;
        ids.push(id);
    }
    if has_finding {
        rot::move_finding(connection, (ids[0], old_name), (ids[1], new_name), stamp.ctime).await?;
    }
    let replaced = sqlx::query(REPLACE_FILE).bind(ids[1]).bind(new_name).bind(file);
    replaced.execute(&mut *connection).await.map_err(failed())?;
    let moved = sqlx::query(MOVE_FILE).bind(ids[1]).bind(new_name).bind(stamp.ctime.0).bind(file);
    moved.execute(connection).await.map(drop).map_err(failed())
}

const KNOWN_NAMES: Bulk = Bulk {
    operation: OPERATION,
    head: "select d.volume_id, d.path, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode from (values ",
    row: "(?,?,?)",
    tail: ") v join directories d on d.volume_id = v.column1 and d.path = v.column2
        join files f on f.directory_id = d.id and f.name = v.column3",
};

/// Those of these names that are known.
pub(super) async fn known_names(
    connection: &mut SqliteConnection,
    names: &[(Extent, Box<[u8]>)],
) -> Result<Vec<KnownName>> {
    let rows = KNOWN_NAMES
        .fetch(connection, names, |binder, (directory, name)| {
            binder.push(directory.volume.0).push(directory.path.as_bytes()).push(&**name);
        })
        .await?;
    rows.iter().map(read_known_name).collect()
}

/// ?: a JSON array of inodes.
const NAMES_OF: &str = "
    select d.volume_id, d.path, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode
    from files f join directories d on d.id = f.directory_id
    where f.inode in (select value from json_each(?))";

/// The names of physical files.
pub(super) async fn names_of(
    connection: &mut SqliteConnection,
    files: &[(VolumeId, u64)],
) -> Result<Vec<KnownName>> {
    let wanted: HashSet<(VolumeId, u64)> = files.iter().copied().collect();
    let inodes: Vec<i64> = files.iter().map(|(_, inode)| inode_to_integer(*inode)).collect();
    let rows = sqlx::query(NAMES_OF).bind(to_json(&inodes)?).fetch_all(connection).await;
    let mut names = Vec::new();
    for row in rows.map_err(IndexError::during("look for hard links"))? {
        let known = read_known_name(&row)?;
        if wanted.contains(&(known.directory.volume, known.stamp.inode)) {
            names.push(known);
        }
    }
    Ok(names)
}
