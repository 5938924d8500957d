//! Which roots a run concerns, and whether they can be reached.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{OpenScan, Run, ScanError, Scanner};
use crate::model::path::{escape_path, shell_quote};
use crate::model::scan::{Root, RootId, ScanCounts, ScanKind};
use crate::model::settings::ScanSettings;
use crate::model::volume::{Extent, MountMap};
use crate::volume::{Place, Volumes};

/// A directory to be scanned, checked before anything is written.
#[derive(Debug, Clone)]
pub struct RootRequest {
    /// Its real path, from [`check_root`].
    pub path: PathBuf,
    /// New options; `None` keeps those that are remembered.
    pub settings: Option<ScanSettings>,
}

/// The real path of a directory that is to be scanned.
pub fn check_root(path: &Path) -> Result<PathBuf, ScanError> {
    let failed = |source| ScanError::Root { path: path.to_path_buf(), source };
    let real = std::fs::canonicalize(path).map_err(failed)?;
    if !std::fs::metadata(&real).map_err(failed)?.is_dir() {
        return Err(ScanError::NotADirectory(path.to_path_buf()));
    }
    Ok(real)
}

impl Run<'_> {
    /// Remembers the roots of a scan and returns them with those that lie inside them, outer ones
    /// first.
    pub(super) async fn put_roots(
        &mut self,
        requests: &[RootRequest],
        defaults: &ScanSettings,
    ) -> Result<Vec<Root>, ScanError> {
        let mut named = Vec::new();
        for request in requests {
            named.push(self.put_root(request, defaults).await?);
            self.writer.commit().await?;
        }
        let all = self.scanner.index.roots().await?;
        let mounts = self.scanner.index.mounts(&self.scanner.host.name).await?;
        let outer: Vec<Extent> =
            all.iter().filter(|root| named.contains(&root.id)).map(|root| root.extent.clone()).collect();
        let is_concerned = |root: &Root| outer.iter().any(|extent| extent.covers(&root.extent));
        Ok(all.into_iter().filter(is_concerned).map(|root| self.as_seen_here(root, &mounts)).collect())
    }

    /// A root under its path on this host, if it was last scanned on another.
    pub(super) fn as_seen_here(&self, root: Root, mounts: &MountMap) -> Root {
        let is_here = |path: &Path| {
            locate(&self.scanner.volumes, path).is_ok_and(|place| place.location() == root.location())
        };
        let here = mounts.absolute(root.extent.volume, &root.extent.path);
        match here.filter(|here| !is_here(&root.path) && is_here(here)) {
            Some(path) => Root { path, ..root },
            None => root,
        }
    }

    /// A new root inside a known one begins with that one's options.
    async fn put_root(
        &mut self,
        request: &RootRequest,
        defaults: &ScanSettings,
    ) -> Result<RootId, ScanError> {
        let place = locate(&self.scanner.volumes, &request.path)?;
        let known = self.scanner.index.roots().await?;
        // The path of a root whose volume is not mounted: it stays what it is, and will be skipped. On
        // another host, the same path is another place.
        let mounts = self.scanner.index.mounts(&self.scanner.host.name).await?;
        let is_ours = |root: &Root| {
            mounts.absolute(root.extent.volume, &root.extent.path).is_some_and(|path| path == request.path)
        };
        let offline = known.iter().find(|root| root.identity != place.volume.identity && is_ours(root));
        if let Some(root) = offline {
            return Ok(root.id);
        }
        let volume = self.writer.register_volume(&self.scanner.host.name, &place.volume).await?;
        let extent = Extent { volume, path: place.path };
        let around = known.iter().filter(|root| root.extent.covers(&extent));
        let nearest = around.max_by_key(|root| root.extent.path.as_bytes().len());
        let remembered = nearest.map(|root| root.settings.clone());
        let settings = request.settings.clone().or(remembered).unwrap_or_else(|| defaults.clone());
        Ok(self.writer.put_root(&extent, &request.path, &settings).await?)
    }

    /// Opens a scan for roots that were walked before, and whose processing goes on.
    pub(super) async fn reopen(&mut self, roots: Vec<Root>) -> Result<(), ScanError> {
        use crate::model::scan::ScanStatus::Completed;
        let is_unfinished =
            |root: &Root| root.last_scan.as_ref().is_some_and(|scan| scan.status != Completed);
        for root in roots.into_iter().filter(is_unfinished) {
            let id = self.writer.begin_scan(Some(root.id), ScanKind::Resume, None).await?;
            self.writer.finish_discovery(id, None, &[], &[]).await?;
            let extents = root.extents;
            self.scans.push(OpenScan { id, extents, counts: ScanCounts::default(), discovered: true });
        }
        Ok(self.writer.commit().await?)
    }

    /// The subtrees of directories that the index knows; everything if none is named.
    pub(super) async fn extents_of(&self, directories: &[PathBuf]) -> Result<Vec<Extent>, ScanError> {
        self.scanner.extents_of(directories).await
    }

    /// An unplugged disk is offline, not empty: a root whose path leads to another volume, or
    /// nowhere, is left as it is.
    pub(super) fn why_offline(&self, root: &Root) -> Option<String> {
        if let Err(error) = check_root(&root.path) {
            return Some(format!("{error}; nothing of it was removed"));
        }
        let place = locate(&self.scanner.volumes, &root.path).ok()?;
        if place.location() == root.location() {
            return None;
        }
        let reason = if root.identity.is_users_name() || place.volume.identity.is_users_name() {
            "the index knows it under another name of 'volumes' in config.json"
        } else {
            "its volume is not mounted"
        };
        let path = std::os::unix::ffi::OsStrExt::as_bytes(root.path.as_os_str());
        Some(format!(
            "{}: {reason}; nothing of it was removed (if that is for good, run 'dupfind roots remove {}')",
            escape_path(&root.path),
            shell_quote(path)
        ))
    }
}

impl Scanner {
    /// See [`Run::extents_of`].
    pub(super) async fn extents_of(&self, directories: &[PathBuf]) -> Result<Vec<Extent>, ScanError> {
        let mounts = self.index.mounts(&self.host.name).await?;
        let roots = self.index.roots().await?;
        if directories.is_empty() {
            return Ok(mounts.extents_below(Path::new("/")));
        }
        let mut within = Vec::new();
        for directory in directories {
            let extents = mounts.extents_below(&real_path(directory));
            let is_known =
                roots.iter().any(|root| root.overlaps(&extents)) || self.index.knows(&extents).await?;
            if !is_known {
                return Err(ScanError::Unknown(directory.clone()));
            }
            within.extend(extents);
        }
        Ok(within)
    }
}

/// The path without links; as it stands if it does not exist any more.
pub(super) fn real_path(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_path_buf())
}

fn locate(volumes: &Volumes, path: &Path) -> Result<Place, ScanError> {
    let failed = |source| ScanError::Root { path: path.to_path_buf(), source };
    Ok(volumes.locate(path, std::fs::metadata(path).map_err(failed)?.dev()))
}
