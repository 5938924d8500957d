//! Roots, volumes, mounts and scans: the small tables.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sqlx::postgres::PgConnection;

use super::scope::{ScopeArrays, with_scope};
use super::workers::IS_ALIVE;
use crate::index::convert::{self, to_integer, to_json};
use crate::index::rows::{Columns as _, RootExtents, read_root};
use crate::index::{IndexError, Result};
use crate::model::group::Summary;
use crate::model::path::VolumePath;
use crate::model::scan::{Root, RootId, ScanCounts, ScanId, ScanKind, ScanStatus};
use crate::model::settings::ScanSettings;
use crate::model::stamp::Nanos;
use crate::model::volume::{Extent, MountMap, MountedVolume, Places, VolumeId, VolumeIdentity};
use crate::model::worker::WorkerId;

const PUT_VOLUME: &str = "
    insert into volumes (identity) values ($1)
    on conflict (identity) do update set identity = excluded.identity
    returning id";

const PUT_MOUNT: &str = "
    insert into mounts (volume_id, host, root, mount_path) values ($1, $2, $3, $4)
    on conflict (volume_id, host, root) do update set mount_path = excluded.mount_path
    where mounts.mount_path <> excluded.mount_path";

/// At one place of a host only one thing is mounted: what was there before is not there any more.
const FORGET_HIDDEN: &str = "
    delete from mounts where host = $1 and mount_path = $2 and not (volume_id = $3 and root = $4)";

pub(super) async fn put_volume(
    connection: &mut PgConnection,
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

/// $2: the names that are used.
const FORGET_NAMES: &str = "
    delete from mounts where host = $1 and volume_id in (
        select id from volumes where identity like 'name:%' and identity <> all($2))";

/// Forgets where a host mounted volumes whose names it does not use any more.
pub(super) async fn forget_names(
    connection: &mut PgConnection,
    host: &str,
    used: &[VolumeIdentity],
) -> Result<()> {
    let used: Vec<&str> = used.iter().map(|identity| &*identity.0).collect();
    let forgotten = sqlx::query(FORGET_NAMES).bind(host).bind(used).execute(connection).await;
    forgotten.map(drop).map_err(IndexError::during("forget a name"))
}

pub(super) async fn volumes(connection: &mut PgConnection) -> Result<Vec<(VolumeId, VolumeIdentity)>> {
    let rows: Vec<(i64, String)> = sqlx::query_as("select id, identity from volumes order by id")
        .fetch_all(connection)
        .await
        .map_err(IndexError::during("read the volumes"))?;
    Ok(convert::volumes(rows))
}

pub(super) async fn mounts(connection: &mut PgConnection, host: &str) -> Result<MountMap> {
    let rows: Vec<(i64, Vec<u8>, Vec<u8>)> =
        sqlx::query_as("select volume_id, root, mount_path from mounts where host = $1")
            .bind(host)
            .fetch_all(connection)
            .await
            .map_err(IndexError::during("read the mounts"))?;
    Ok(MountMap::new(rows.into_iter().map(convert::mount).collect()))
}

pub(super) async fn places(connection: &mut PgConnection, here: &str) -> Result<Places> {
    let rows: Vec<(String, i64, Vec<u8>, Vec<u8>)> =
        sqlx::query_as("select host, volume_id, root, mount_path from mounts")
            .fetch_all(&mut *connection)
            .await
            .map_err(IndexError::during("read the mounts"))?;
    Ok(convert::places(here, rows, volumes(connection).await?))
}

const PUT_ROOT: &str = "
    insert into roots (volume_id, path, settings, added_at, shown_path) values ($1, $2, $3, $4, $5)
    on conflict (volume_id, path) do update set settings = excluded.settings, shown_path = excluded.shown_path
    returning id";

pub(super) async fn put_root(
    connection: &mut PgConnection,
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
    insert into extents (root_id, volume_id, path, linked) values ($1, $2, $3, $4)
    on conflict (root_id, volume_id, path) do update set linked = extents.linked and excluded.linked";

/// The subtrees of a root.
pub(super) const EXTENTS_OF_ROOT: &str =
    "select volume_id, path from extents where root_id = $1 order by volume_id, path";

/// The subtrees of a root that only links lead to, which are taken from it.
pub(super) const TAKE_LINKED: &str =
    "delete from extents where root_id = $1 and linked returning volume_id, path";

/// The same of those under names that no host uses any more: a name is no disk that may come back, and what is
/// there was listed under another.
pub(super) const TAKE_NAMELESS: &str = "
    delete from extents where root_id = $1 and volume_id in (
        select v.id from volumes v
        where v.identity like 'name:%' and not exists (select 1 from mounts m where m.volume_id = v.id))
    returning volume_id, path";

/// Subtrees of a root, by one of the statements above; what they hold is not touched.
pub(super) async fn query_extents(
    connection: &mut PgConnection,
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
    connection: &mut PgConnection,
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
    order by r.shown_path, r.id";

pub(super) async fn roots(connection: &mut PgConnection) -> Result<Vec<Root>> {
    let failed = || IndexError::during("read the roots");
    let rows = sqlx::query(ROOTS).fetch_all(&mut *connection).await.map_err(failed())?;
    let mut extents = RootExtents::new();
    let extent_rows: Vec<(i64, i64, Vec<u8>, bool)> = sqlx::query_as(
        "select root_id, volume_id, path, linked from extents order by root_id, volume_id, path",
    )
    .fetch_all(connection)
    .await
    .map_err(failed())?;
    for (root, volume, path, linked) in extent_rows {
        let extent = Extent { volume: VolumeId(volume), path: VolumePath::new(&path) };
        extents.entry(root).or_default().push((extent, linked));
    }
    rows.iter().map(|row| read_root(row, &mut extents)).collect()
}

/// Whoever walks a root at this moment, but for the worker $2.
fn walker() -> String {
    format!(
        "select w.host, w.process, w.task from scans s join workers w on w.id = s.worker_id
         where s.root_id = $1 and s.status = 'running' and s.discovered_at is null and s.kind <> 'verify'
           and w.id <> $2 and {IS_ALIVE} limit 1"
    )
}

/// Makes sure that nobody else walks a root, until this transaction ends.
pub(super) async fn hold_root(connection: &mut PgConnection, root: RootId, worker: WorkerId) -> Result<()> {
    let failed = || IndexError::during("begin a scan");
    let locked = sqlx::query("select 1 from roots where id = $1 for update").bind(root.0);
    locked.execute(&mut *connection).await.map_err(failed())?;
    let walker: Option<(String, i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(walker()))
        .bind(root.0)
        .bind(worker.0)
        .fetch_optional(connection)
        .await
        .map_err(failed())?;
    match walker {
        None => Ok(()),
        Some((host, process, task)) => {
            Err(IndexError::Busy { holder: format!("process {process} on {host} ({task})") })
        }
    }
}

const FORGET_ROOT: &str = "delete from roots where id = $1";

pub(super) async fn remove_root(
    connection: &mut PgConnection,
    root: Option<RootId>,
    worker: WorkerId,
    extents: &[Extent],
) -> Result<u64> {
    if let Some(root) = root {
        hold_root(connection, root, worker).await?;
        let forgotten = sqlx::query(FORGET_ROOT).bind(root.0).execute(&mut *connection).await;
        forgotten.map_err(IndexError::during("forget a root"))?;
    }
    forget_uncovered(connection, extents).await
}

/// Directories of these subtrees that lie in no subtree of any remaining root, and their files.
const FORGET_UNCOVERED: &str = with_scope!(
    ", gone (id) as materialized (
        select d.id from directories d
        where d.id in (select id from scope)
          and not exists (
            select 1 from extents e
            where e.volume_id = d.volume_id
              and (e.path = d.path or e.path = ''::bytea
                   or (d.path >= e.path || '/'::bytea and d.path < e.path || '0'::bytea)))),
    files_gone as (delete from files where directory_id in (select id from gone) returning 1),
    directories_gone as (delete from directories where id in (select id from gone))
    select count(*) from files_gone"
);

/// Removes what these subtrees hold and no root covers; returns the number of files.
pub(super) async fn forget_uncovered(connection: &mut PgConnection, extents: &[Extent]) -> Result<u64> {
    if extents.is_empty() {
        return Ok(0);
    }
    let scope = ScopeArrays::new(extents);
    let row = scope.query(FORGET_UNCOVERED).fetch_one(connection).await;
    let row = row.map_err(IndexError::during("remove what is gone"))?;
    row.count(0)
}

const BEGIN_SCAN: &str = "
    insert into scans (root_id, kind, path, status, started_at, worker_id) values ($1, $2, $3, $4, $5, $6)
    returning id";

pub(super) async fn begin_scan(
    connection: &mut PgConnection,
    root: Option<RootId>,
    kind: ScanKind,
    within: Option<&VolumePath>,
    worker: WorkerId,
) -> Result<ScanId> {
    if let Some(root) = root.filter(|_| kind != ScanKind::Verify) {
        hold_root(connection, root, worker).await?;
    }
    let id: i64 = sqlx::query_scalar(BEGIN_SCAN)
        .bind(root.map(|root| root.0))
        .bind(kind.as_str())
        .bind(within.map(VolumePath::as_bytes))
        .bind(ScanStatus::Running.as_str())
        .bind(Nanos::now().0)
        .bind(worker.0)
        .fetch_one(connection)
        .await
        .map_err(IndexError::during("begin a scan"))?;
    Ok(ScanId(id))
}

const CONTINUE_SCAN: &str = "
    update scans set id = default, status = 'running', discovered_at = null, ended_at = null, worker_id = $2
    where id = $1
    returning id, root_id";

/// Goes on with a scan that was ended, as if it had just begun.
pub(super) async fn continue_scan(
    connection: &mut PgConnection,
    scan: ScanId,
    worker: WorkerId,
) -> Result<ScanId> {
    let continued: Option<(i64, Option<i64>)> = sqlx::query_as(CONTINUE_SCAN)
        .bind(scan.0)
        .bind(worker.0)
        .fetch_optional(&mut *connection)
        .await
        .map_err(IndexError::during("go on with a scan"))?;
    let (id, root) = continued.ok_or(IndexError::TakenForDead)?;
    if let Some(root) = root {
        hold_root(connection, RootId(root), worker).await?;
    }
    Ok(ScanId(id))
}

/// Makes sure that a scan is still its worker's: one that was silent for too long may have lost it.
pub(super) async fn confirm_scan(connection: &mut PgConnection, scan: ScanId) -> Result<()> {
    let running = "select status = 'running' from scans where id = $1";
    let running = sqlx::query_scalar(running).bind(scan.0).fetch_optional(connection).await;
    match running.map_err(IndexError::during("confirm a scan"))? {
        Some(true) => Ok(()),
        _ => Err(IndexError::TakenForDead),
    }
}

const END_SCAN: &str = "
    update scans set status = $2, ended_at = $3, directories = $4, files_seen = $5, bytes_seen = $6, added = $7,
        updated = $8, removed = $9, hashed = $10, bytes_read = $11, problems = $12, events = $13, error = $14
    where id = $1";

const ROOT_SCANNED: &str = "
    update roots set last_scan_at = $1, generation = $2
    where id = (select root_id from scans where id = $2 and kind <> 'verify')";

pub(super) async fn end_scan(
    connection: &mut PgConnection,
    scan: ScanId,
    status: ScanStatus,
    counts: &ScanCounts,
    error: Option<&str>,
) -> Result<()> {
    let failed = || IndexError::during("end a scan");
    let now = Nanos::now().0;
    let mut update = sqlx::query(END_SCAN).bind(scan.0).bind(status.as_str()).bind(now);
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
    update.bind(error).execute(&mut *connection).await.map_err(failed())?;
    if matches!(status, ScanStatus::Completed | ScanStatus::Discovered) {
        let scanned = sqlx::query(ROOT_SCANNED).bind(now).bind(scan.0);
        scanned.execute(connection).await.map_err(failed())?;
    }
    Ok(())
}

const NOTE_FIGURES: &str = "
    update scans set index_files = $1, index_bytes = $2, groups = $3, redundant_files = $4, reclaimable_bytes = $5
    where id = any($6)";

pub(super) async fn note_figures(
    connection: &mut PgConnection,
    scans: &[ScanId],
    figures: &Summary,
) -> Result<()> {
    let scans: Vec<i64> = scans.iter().map(|scan| scan.0).collect();
    let mut note = sqlx::query(NOTE_FIGURES);
    for figure in convert::history_figures(figures) {
        note = note.bind(figure);
    }
    let noted = note.bind(scans).execute(connection).await;
    noted.map(drop).map_err(IndexError::during("note the figures"))
}
