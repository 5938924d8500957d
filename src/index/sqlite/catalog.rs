//! Roots, volumes, mounts and scans: the small tables.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sqlx::sqlite::SqliteConnection;

use crate::index::convert::{self, below, to_integer, to_json};
use crate::index::rows::{RootExtents, read_root};
use crate::index::{IndexError, Result};
use crate::model::group::Summary;
use crate::model::path::VolumePath;
use crate::model::scan::{Root, RootId, ScanCounts, ScanId, ScanKind, ScanStatus};
use crate::model::settings::ScanSettings;
use crate::model::stamp::Nanos;
use crate::model::volume::{Extent, MountMap, MountedVolume, Places, VolumeId, VolumeIdentity};
use crate::model::worker::WorkerId;
use crate::os;

const PUT_VOLUME: &str = "
    insert into volumes (identity) values (?) on conflict (identity) do update set identity = excluded.identity
    returning id";

const PUT_MOUNT: &str = "
    insert into mounts (volume_id, host, root, mount_path) values (?, ?, ?, ?)
    on conflict (volume_id, host, root) do update set mount_path = excluded.mount_path
    where mounts.mount_path <> excluded.mount_path";

/// At one place of a host only one thing is mounted: what was there before is not there any more.
const FORGET_HIDDEN: &str = "
    delete from mounts where host = ?1 and mount_path = ?2 and not (volume_id = ?3 and root = ?4)";

pub(super) async fn put_volume(
    connection: &mut SqliteConnection,
    host: &str,
    volume: &MountedVolume,
) -> Result<VolumeId> {
    let failed = || IndexError::during("remember a volume");
    let id: i64 = sqlx::query_scalar(PUT_VOLUME)
        .bind(&*volume.identity.0)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed())?;
    sqlx::query(PUT_MOUNT)
        .bind(id)
        .bind(host)
        .bind(volume.mount.root.as_bytes())
        .bind(&*volume.mount.at)
        .execute(&mut *connection)
        .await
        .map_err(failed())?;
    sqlx::query(FORGET_HIDDEN)
        .bind(host)
        .bind(&*volume.mount.at)
        .bind(id)
        .bind(volume.mount.root.as_bytes())
        .execute(connection)
        .await
        .map_err(failed())?;
    Ok(VolumeId(id))
}

/// ?2: the names that are used.
const FORGET_NAMES: &str = "
    delete from mounts where host = ?1 and volume_id in (
        select id from volumes where identity like 'name:%' and identity not in (select value from json_each(?2)))";

/// Forgets where a host mounted volumes whose names it does not use any more.
pub(super) async fn forget_names(
    connection: &mut SqliteConnection,
    host: &str,
    used: &[VolumeIdentity],
) -> Result<()> {
    let used: Vec<&str> = used.iter().map(|identity| &*identity.0).collect();
    let forgotten = sqlx::query(FORGET_NAMES).bind(host).bind(to_json(&used)?).execute(connection).await;
    forgotten.map(drop).map_err(IndexError::during("forget a name"))
}

pub(super) async fn volumes(connection: &mut SqliteConnection) -> Result<Vec<(VolumeId, VolumeIdentity)>> {
    let rows: Vec<(i64, String)> = sqlx::query_as("select id, identity from volumes order by id")
        .fetch_all(connection)
        .await
        .map_err(IndexError::during("read the volumes"))?;
    Ok(convert::volumes(rows))
}

pub(super) async fn mounts(connection: &mut SqliteConnection, host: &str) -> Result<MountMap> {
    let rows: Vec<(i64, Vec<u8>, Vec<u8>)> =
        sqlx::query_as("select volume_id, root, mount_path from mounts where host = ?")
            .bind(host)
            .fetch_all(connection)
            .await
            .map_err(IndexError::during("read the mounts"))?;
    Ok(MountMap::new(rows.into_iter().map(convert::mount).collect()))
}

pub(super) async fn places(connection: &mut SqliteConnection, here: &str) -> Result<Places> {
    let rows: Vec<(String, i64, Vec<u8>, Vec<u8>)> =
        sqlx::query_as("select host, volume_id, root, mount_path from mounts")
            .fetch_all(&mut *connection)
            .await
            .map_err(IndexError::during("read the mounts"))?;
    Ok(convert::places(here, rows, volumes(connection).await?))
}

const PUT_ROOT: &str = "
    insert into roots (volume_id, path, settings, added_at, shown_path) values (?, ?, ?, ?, ?)
    on conflict (volume_id, path) do update set settings = excluded.settings, shown_path = excluded.shown_path
    returning id";

pub(super) async fn put_root(
    connection: &mut SqliteConnection,
    extent: &Extent,
    path: &Path,
    settings: &ScanSettings,
) -> Result<RootId> {
    let failed = || IndexError::during("remember a root");
    let settings = to_json(settings)?;
    let id: i64 = sqlx::query_scalar(PUT_ROOT)
        .bind(extent.volume.0)
        .bind(extent.path.as_bytes())
        .bind(settings)
        .bind(Nanos::now().0)
        .bind(path.as_os_str().as_bytes())
        .fetch_one(&mut *connection)
        .await
        .map_err(failed())?;
    put_extents(connection, RootId(id), std::slice::from_ref(extent), false).await?;
    Ok(RootId(id))
}

/// A place that is not only linked stays so.
const PUT_EXTENT: &str = "
    insert into extents (root_id, volume_id, path, linked) values (?, ?, ?, ?)
    on conflict do update set linked = min(linked, excluded.linked)";

/// The subtrees of a root.
pub(super) const EXTENTS_OF_ROOT: &str =
    "select volume_id, path from extents where root_id = ?1 order by volume_id, path";

/// The subtrees of a root that only links lead to, which are taken from it.
pub(super) const TAKE_LINKED: &str =
    "delete from extents where root_id = ?1 and linked = 1 returning volume_id, path";

/// The same of those under names that no host uses any more: a name is no disk that may come back, and what is
/// there was listed under another.
pub(super) const TAKE_NAMELESS: &str = "
    delete from extents where root_id = ?1 and volume_id in (
        select v.id from volumes v
        where v.identity like 'name:%' and not exists (select 1 from mounts m where m.volume_id = v.id))
    returning volume_id, path";

/// Subtrees of a root, by one of the statements above; what they hold is not touched.
pub(super) async fn query_extents(
    connection: &mut SqliteConnection,
    root: RootId,
    statement: &'static str,
) -> Result<Vec<Extent>> {
    let taken: Vec<(i64, Vec<u8>)> = sqlx::query_as(statement)
        .bind(root.0)
        .fetch_all(connection)
        .await
        .map_err(IndexError::during("remember a root"))?;
    let extent =
        |(volume, path): (i64, Vec<u8>)| Extent { volume: VolumeId(volume), path: VolumePath::new(&path) };
    Ok(taken.into_iter().map(extent).collect())
}

/// Adds subtrees to those of a root.
pub(super) async fn put_extents(
    connection: &mut SqliteConnection,
    root: RootId,
    extents: &[Extent],
    linked: bool,
) -> Result<()> {
    for extent in extents {
        sqlx::query(PUT_EXTENT)
            .bind(root.0)
            .bind(extent.volume.0)
            .bind(extent.path.as_bytes())
            .bind(linked)
            .execute(&mut *connection)
            .await
            .map_err(IndexError::during("remember a root"))?;
    }
    Ok(())
}

const ROOTS: &str = "
    select r.id, r.volume_id, r.path, r.shown_path, r.settings, s.id, s.status, s.started_at, s.ended_at,
           s.discovered_at, v.identity, r.upkeep
    from roots r join volumes v on v.id = r.volume_id
    left join scans s on s.id = (
        select max(id) from scans
        where root_id = r.id and path is null and kind not in ('watch', 'verify'))
    order by r.shown_path";

pub(super) async fn roots(connection: &mut SqliteConnection) -> Result<Vec<Root>> {
    let failed = || IndexError::during("read the roots");
    let rows = sqlx::query(ROOTS).fetch_all(&mut *connection).await.map_err(failed())?;
    let mut extents = RootExtents::new();
    let extent_rows: Vec<(i64, i64, Vec<u8>, bool)> =
        sqlx::query_as("select root_id, volume_id, path, linked from extents")
            .fetch_all(connection)
            .await
            .map_err(failed())?;
    for (root, volume, path, linked) in extent_rows {
        let extent = Extent { volume: VolumeId(volume), path: VolumePath::new(&path) };
        extents.entry(root).or_default().push((extent, linked));
    }
    rows.iter().map(|row| read_root(row, &mut extents)).collect()
}

/// Directories of a subtree that lie in no subtree of any remaining root.
const COLLECT_UNCOVERED: &str = "
    insert or ignore into temp.gone (id)
    select d.id from directories d
    where d.volume_id = ?1 and (d.path = ?2 or (d.path >= ?3 and d.path < ?4))
      and not exists (
        select 1 from extents e
        where e.volume_id = d.volume_id
          and (e.path = d.path or e.path = x''
               or substr(d.path, 1, length(e.path) + 1) = cast(e.path || '/' as blob)))";

pub(super) async fn remove_root(
    connection: &mut SqliteConnection,
    root: Option<RootId>,
    extents: &[Extent],
) -> Result<u64> {
    let failed = || IndexError::during("forget a root");
    if let Some(root) = root {
        let forgotten =
            sqlx::query("delete from roots where id = ?").bind(root.0).execute(&mut *connection).await;
        forgotten.map_err(failed())?;
    }
    forget_uncovered(connection, extents).await
}

/// Removes what these subtrees hold and no root covers; returns the number of files.
pub(super) async fn forget_uncovered(connection: &mut SqliteConnection, extents: &[Extent]) -> Result<u64> {
    let failed = || IndexError::during("remove what is gone");
    for extent in extents {
        let (low, high) = below(&extent.path);
        sqlx::query(COLLECT_UNCOVERED)
            .bind(extent.volume.0)
            .bind(extent.path.as_bytes())
            .bind(low)
            .bind(high)
            .execute(&mut *connection)
            .await
            .map_err(failed())?;
    }
    delete_collected(connection).await
}

/// Removes the directories in `temp.gone` and their files; returns the number of files.
pub(super) async fn delete_collected(connection: &mut SqliteConnection) -> Result<u64> {
    let failed = || IndexError::during("remove what is gone");
    let files = sqlx::query("delete from files where directory_id in (select id from temp.gone)");
    let files = files.execute(&mut *connection).await.map_err(failed())?.rows_affected();
    for statement in
        ["delete from directories where id in (select id from temp.gone)", "delete from temp.gone"]
    {
        sqlx::query(statement).execute(&mut *connection).await.map_err(failed())?;
    }
    Ok(files)
}

const BEGIN_SCAN: &str = "
    insert into scans (root_id, kind, path, status, started_at, worker_id, process) values (?, ?, ?, ?, ?, ?, ?)
    returning id";

pub(super) async fn begin_scan(
    connection: &mut SqliteConnection,
    root: Option<RootId>,
    kind: ScanKind,
    within: Option<&VolumePath>,
    worker: WorkerId,
) -> Result<ScanId> {
    let id: i64 = sqlx::query_scalar(BEGIN_SCAN)
        .bind(root.map(|root| root.0))
        .bind(kind.as_str())
        .bind(within.map(VolumePath::as_bytes))
        .bind(ScanStatus::Running.as_str())
        .bind(Nanos::now().0)
        .bind(worker.0)
        .bind(std::process::id())
        .fetch_one(connection)
        .await
        .map_err(IndexError::during("begin a scan"))?;
    Ok(ScanId(id))
}

const NEXT_SCAN: &str = "update sqlite_sequence set seq = seq + 1 where name = 'scans' returning seq";

const CONTINUE_SCAN: &str = "
    update scans set id = ?, status = 'running', discovered_at = null, ended_at = null, worker_id = ? where id = ?";

pub(super) async fn continue_scan(
    connection: &mut SqliteConnection,
    scan: ScanId,
    worker: WorkerId,
) -> Result<ScanId> {
    let failed = || IndexError::during("go on with a scan");
    let next: i64 = sqlx::query_scalar(NEXT_SCAN).fetch_one(&mut *connection).await.map_err(failed())?;
    let continued = sqlx::query(CONTINUE_SCAN).bind(next).bind(worker.0).bind(scan.0);
    continued.execute(connection).await.map_err(failed())?;
    Ok(ScanId(next))
}

const END_SCAN: &str = "
    update scans set status = ?, ended_at = ?, directories = ?, files_seen = ?, bytes_seen = ?, added = ?,
        updated = ?, removed = ?, hashed = ?, bytes_read = ?, problems = ?, events = ?, error = ?
    where id = ?";

const ROOT_SCANNED: &str = "
    update roots set last_scan_at = ?, generation = ?
    where id = (select root_id from scans where id = ? and kind <> 'verify')";

pub(super) async fn end_scan(
    connection: &mut SqliteConnection,
    scan: ScanId,
    status: ScanStatus,
    counts: &ScanCounts,
    error: Option<&str>,
) -> Result<()> {
    let failed = || IndexError::during("end a scan");
    let now = Nanos::now().0;
    let mut update = sqlx::query(END_SCAN).bind(status.as_str()).bind(now);
    for count in [
        counts.directories,
        counts.files_seen,
        counts.bytes_seen,
        counts.added,
        counts.updated,
        counts.removed,
        counts.hashed,
        counts.bytes_read,
        counts.problems,
        counts.events,
    ] {
        update = update.bind(to_integer(count));
    }
    update.bind(error).bind(scan.0).execute(&mut *connection).await.map_err(failed())?;
    if matches!(status, ScanStatus::Completed | ScanStatus::Discovered) {
        let scanned = sqlx::query(ROOT_SCANNED).bind(now).bind(scan.0).bind(scan.0);
        scanned.execute(connection).await.map_err(failed())?;
    }
    Ok(())
}

/// ?6: a JSON array of scans.
const NOTE_FIGURES: &str = "
    update scans set index_files = ?1, index_bytes = ?2, groups = ?3, redundant_files = ?4, reclaimable_bytes = ?5
    where id in (select value from json_each(?6))";

pub(super) async fn note_figures(
    connection: &mut SqliteConnection,
    scans: &[ScanId],
    figures: &Summary,
) -> Result<()> {
    let scans: Vec<i64> = scans.iter().map(|scan| scan.0).collect();
    let mut note = sqlx::query(NOTE_FIGURES);
    for figure in convert::history_figures(figures) {
        note = note.bind(figure);
    }
    let noted = note.bind(to_json(&scans)?).execute(connection).await;
    noted.map(drop).map_err(IndexError::during("note the figures"))
}

/// Those that read without the right to write.
const READING: &str = "select id, process from scans where status = 'running' and kind = 'verify'";

/// ?1: what is said of them; ?2: a JSON array of those that are alive.
const MARK_DEAD_SCANS: &str = "
    update scans set status = 'interrupted', error = ?1
    where status = 'running' and id not in (select value from json_each(?2))";

/// Whether the process of a run that reads without the right to write is alive.
pub(super) fn is_reading(process: Option<u32>) -> bool {
    process.is_some_and(os::is_running)
}

/// There is one writer at a time, so a scan that still runs when another begins has lost its process; but for one that
/// writes only now and then: an index in a file is used on one host, so whether its process is there is seen.
pub(super) async fn mark_dead_scans(connection: &mut SqliteConnection) -> Result<()> {
    let failed = || IndexError::during("mark interrupted scans");
    let reading: Vec<(i64, Option<u32>)> =
        sqlx::query_as(READING).fetch_all(&mut *connection).await.map_err(failed())?;
    let is_alive = |(id, process): (i64, Option<u32>)| is_reading(process).then_some(id);
    let alive: Vec<i64> = reading.into_iter().filter_map(is_alive).collect();
    let mark = sqlx::query(MARK_DEAD_SCANS).bind(convert::DIED).bind(to_json(&alive)?);
    mark.execute(connection).await.map(drop).map_err(failed())
}
