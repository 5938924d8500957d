//! What a watcher was told of: names that are gone, and what was moved.

use sqlx::postgres::PgConnection;

use super::discovery::forget_unseen;
use super::rot;
use super::session::expect_whole_tables;
use crate::index::convert::{below, inode_to_integer, to_integer};
use crate::index::rows::{Columns as _, read_known_name};
use crate::index::touched::{KnownMove, NEVER, OPERATION, Thinned};
use crate::index::{IndexError, Result};
use crate::model::listing::KnownName;
use crate::model::scan::{RootId, ScanId};
use crate::model::stamp::Stamp;
use crate::model::volume::{Extent, VolumeId};

const DELETE_FILES: &str = "
    delete from files f using unnest($1::bigint[], $2::bytea[]) v (directory_id, name)
    where f.directory_id = v.directory_id and f.name = v.name";

const KNOWN_DIRECTORIES: &str = "
    select d.volume_id, d.path from unnest($1::bigint[], $2::bytea[]) v (volume_id, path)
    join directories d on d.volume_id = v.volume_id and d.path = v.path";

const ROOT_OF_SCAN: &str = "select coalesce((select root_id from scans where id = $1), 0)";

/// Removes names that are no files any more, and what was below those that are no directories; returns the number of
/// files.
pub(super) async fn remove_absent(
    connection: &mut PgConnection,
    scan: ScanId,
    thinned: &[Thinned<'_>],
) -> Result<u64> {
    let failed = || IndexError::during(OPERATION);
    let files = thinned.iter().flat_map(|it| it.absent.files.iter().map(|name| (it.id.0, &**name)));
    let (directories, names): (Vec<i64>, Vec<&[u8]>) = files.unzip();
    let deleted = sqlx::query(DELETE_FILES).bind(directories).bind(names).execute(&mut *connection).await;
    let mut removed = deleted.map_err(failed())?.rows_affected();
    let places = thinned.iter().flat_map(|Thinned { place, absent, .. }| {
        absent.directories.iter().map(|name| (place.volume.0, place.path.join(name).as_bytes().to_vec()))
    });
    let (volumes, paths): (Vec<i64>, Vec<Vec<u8>>) = places.unzip();
    let known = sqlx::query(KNOWN_DIRECTORIES).bind(volumes).bind(paths).fetch_all(&mut *connection).await;
    let known = known.map_err(failed())?;
    if known.is_empty() {
        return Ok(removed);
    }
    let root = sqlx::query_scalar(ROOT_OF_SCAN).bind(scan.0).fetch_one(&mut *connection).await;
    let root = RootId(root.map_err(failed())?);
    for row in &known {
        let extent = row.extent(0)?;
        removed += forget_unseen(connection, &extent, NEVER, root).await?;
    }
    Ok(removed)
}

const KNOWS_DIRECTORY: &str = "select exists (select 1 from directories where volume_id = $1 and path = $2)";

/// $2: the old path, $3 and $4: the range of what is below it, $5: the new path.
const MOVE_DIRECTORIES: &str = "
    update directories set path = $5::bytea || substring(path from length($2::bytea) + 1)
    where volume_id = $1 and (path = $2 or (path >= $3 and path < $4))";

/// Also whether a finding of rot stands of it.
const FIND_FILE: &str = "
    select d.id, exists (select 1 from standing s where s.directory_id = d.id and s.name = f.name)
    from directories d join files f on f.directory_id = d.id and f.name = $3
    where d.volume_id = $1 and d.path = $2 and f.size = $4 and f.mtime_ns = $5 and f.inode = $6";

/// Of both directories, what is known is not what was listed any more.
const PUT_DIRECTORY: &str = "
    insert into directories (volume_id, path, generation) values ($1, $2, 0)
    on conflict (volume_id, path) do update set fingerprint = null
    returning id";

const REPLACE_FILE: &str = "delete from files where directory_id = $1 and name = $2";

const MOVE_FILE: &str = "
    update files set directory_id = $1, name = $2, ctime_ns = $3 where directory_id = $4 and name = $5";

pub(super) async fn write_move(
    connection: &mut PgConnection,
    scan: ScanId,
    moved: &KnownMove<'_>,
) -> Result<()> {
    match moved.stamp {
        None => move_directory(connection, scan, moved).await,
        Some(stamp) => move_file(connection, moved, stamp).await,
    }
}

async fn move_directory(connection: &mut PgConnection, scan: ScanId, moved: &KnownMove<'_>) -> Result<()> {
    let failed = || IndexError::during(OPERATION);
    let KnownMove { volume, from, to, .. } = *moved;
    let known = sqlx::query_scalar(KNOWS_DIRECTORY).bind(volume.0).bind(from.as_bytes());
    let is_known: bool = known.fetch_one(&mut *connection).await.map_err(failed())?;
    if !is_known {
        return Ok(());
    }
    let root = sqlx::query_scalar(ROOT_OF_SCAN).bind(scan.0).fetch_one(&mut *connection).await;
    let replaced = Extent { volume, path: to.clone() };
    forget_unseen(connection, &replaced, NEVER, RootId(root.map_err(failed())?)).await?;
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

async fn move_file(connection: &mut PgConnection, moved: &KnownMove<'_>, stamp: Stamp) -> Result<()> {
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
    let Some((old, has_finding)) = found else { return Ok(()) };
    let mut new = old;
    for directory in [&from, &to] {
        let put = sqlx::query_scalar(PUT_DIRECTORY).bind(volume.0).bind(directory.as_bytes());
        new = put.fetch_one(&mut *connection).await.map_err(failed())?;
    }
    if (old, old_name) == (new, new_name) {
        return Ok(());
    }
    if has_finding {
        rot::move_finding(connection, (old, old_name), (new, new_name), stamp.ctime).await?;
    }
    let replaced = sqlx::query(REPLACE_FILE).bind(new).bind(new_name);
    replaced.execute(&mut *connection).await.map_err(failed())?;
    let moved = sqlx::query(MOVE_FILE).bind(new).bind(new_name).bind(stamp.ctime.0).bind(old).bind(old_name);
    moved.execute(connection).await.map(drop).map_err(failed())
}

const KNOWN_NAMES: &str = "
    select d.volume_id, d.path, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode
    from unnest($1::bigint[], $2::bytea[], $3::bytea[]) v (volume_id, path, name)
    join directories d on d.volume_id = v.volume_id and d.path = v.path
    join files f on f.directory_id = d.id and f.name = v.name";

/// Those of these names that are known.
pub(super) async fn known_names(
    connection: &mut PgConnection,
    names: &[(Extent, Box<[u8]>)],
) -> Result<Vec<KnownName>> {
    let known = sqlx::query(KNOWN_NAMES)
        .bind(names.iter().map(|(directory, _)| directory.volume.0).collect::<Vec<i64>>())
        .bind(names.iter().map(|(directory, _)| directory.path.as_bytes()).collect::<Vec<&[u8]>>())
        .bind(names.iter().map(|(_, name)| &**name).collect::<Vec<&[u8]>>())
        .fetch_all(connection)
        .await;
    known.map_err(IndexError::during(OPERATION))?.iter().map(read_known_name).collect()
}

const NAMES_OF: &str = "
    select d.volume_id, d.path, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode
    from files f join directories d on d.id = f.directory_id
    where (f.volume_id, f.inode) in (select * from unnest($1::bigint[], $2::bigint[]))";

/// The names of physical files.
pub(super) async fn names_of(
    connection: &mut PgConnection,
    files: &[(VolumeId, u64)],
) -> Result<Vec<KnownName>> {
    let operation = "look for hard links";
    expect_whole_tables(connection, operation).await?;
    let (volumes, inodes): (Vec<i64>, Vec<i64>) =
        files.iter().map(|(volume, inode)| (volume.0, inode_to_integer(*inode))).unzip();
    let rows = sqlx::query(NAMES_OF).bind(volumes).bind(inodes).fetch_all(connection).await;
    rows.map_err(IndexError::during(operation))?.iter().map(read_known_name).collect()
}
