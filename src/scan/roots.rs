//! Which roots a run concerns, and whether they can be reached.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{OpenScan, Run, ScanError, Scanner, Walked};
use crate::index::Index;
use crate::model::path::{escape_path, shell_quote, shown_path};
use crate::model::scan::{Root, RootId, ScanKind};
use crate::model::settings::ScanSettings;
use crate::model::upkeep::Upkeep;
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

/// A directory that is to be remembered as a root, or is one.
#[derive(Debug, Clone)]
pub struct RootCandidate {
    /// Where it is on this host; of a root that cannot be reached, where it was.
    pub path: PathBuf,
    /// The root that it is.
    pub known: Option<Root>,
    /// What it would be scanned with if it were new.
    pub inherited: ScanSettings,
    /// Where it lies; none if it cannot be reached.
    place: Option<Place>,
}

impl Scanner {
    /// Looks for directories that are to be remembered; nothing is written. One that is a root may be out of reach,
    /// and of another host: then it is named as it is listed.
    pub async fn find_roots(
        &self,
        directories: &[PathBuf],
        defaults: &ScanSettings,
    ) -> Result<Vec<RootCandidate>, ScanError> {
        let mut found: Vec<RootCandidate> = Vec::new();
        for directory in directories {
            let candidate = self.find_root(directory, defaults).await?;
            if found.iter().all(|other| other.path != candidate.path) {
                found.push(candidate);
            }
        }
        Ok(found)
    }

    async fn find_root(&self, directory: &Path, defaults: &ScanSettings) -> Result<RootCandidate, ScanError> {
        let roots = self.index.roots().await?;
        let out_of_reach = |root: &Root| RootCandidate {
            path: root.path.clone(),
            known: Some(root.clone()),
            inherited: defaults.clone(),
            place: None,
        };
        let path = match check_root(directory) {
            Ok(path) => path,
            Err(error) => {
                let places = self.index.places(&self.host.name).await?;
                let is_meant = |root: &&Root| match places.elsewhere(root.extent.volume, &root.extent.path) {
                    Some((host, path)) => shown_path(Some(&host), &path) == escape_path(directory),
                    None => root.path == real_path(directory),
                };
                return roots.iter().find(is_meant).map(out_of_reach).ok_or(error);
            }
        };
        let place = locate(&self.volumes, &path)?;
        if let Some(root) = offline_at(self.index.as_ref(), &self.host.name, &roots, &path, &place).await? {
            return Ok(out_of_reach(root));
        }
        let volumes = self.index.volumes().await?;
        let volume = volumes.iter().find(|(_, identity)| *identity == place.volume.identity);
        let extent = volume.map(|(volume, _)| Extent { volume: *volume, path: place.path.clone() });
        let is_it = |root: &&Root| Some(&root.extent) == extent.as_ref();
        let known = roots.iter().find(is_it).cloned();
        let around = extent.as_ref().and_then(|extent| {
            let others = roots.iter().filter(|root| !is_it(root));
            nearest_root(others, extent)
        });
        let inherited = around.map_or_else(|| defaults.clone(), |root| root.settings.clone());
        Ok(RootCandidate { path, known, inherited, place: Some(place) })
    }

    /// Remembers roots with these options; nothing of them is walked. Returns their rows, in order.
    pub async fn put_roots(
        &self,
        roots: &[(RootCandidate, ScanSettings, Upkeep)],
    ) -> Result<Vec<RootId>, ScanError> {
        let mut run = self.begin("roots").await?;
        let mut ids = Vec::new();
        for (candidate, settings, upkeep) in roots {
            let extent = match (&candidate.place, &candidate.known) {
                (Some(Place { volume, path }), _) => {
                    let volume = run.writer.register_volume(&self.host.name, volume).await?;
                    Extent { volume, path: path.clone() }
                }
                (None, Some(known)) => known.extent.clone(),
                (None, None) => continue,
            };
            let id = run.writer.put_root(&extent, &candidate.path, settings).await?;
            run.writer.put_upkeep(id, upkeep).await?;
            ids.push(id);
        }
        run.writer.commit().await?;
        run.writer.close().await?;
        Ok(ids)
    }
}

/// The root that is usually at a path of this host, if its volume is not mounted now.
async fn offline_at<'a>(
    index: &dyn Index,
    host: &str,
    roots: &'a [Root],
    path: &Path,
    place: &Place,
) -> Result<Option<&'a Root>, ScanError> {
    // On another host, the same path is another place.
    let mounts = index.mounts(host).await?;
    let is_ours = |root: &Root| {
        mounts.absolute(root.extent.volume, &root.extent.path).is_some_and(|usual| usual == path)
    };
    Ok(roots.iter().find(|root| root.identity != place.volume.identity && is_ours(root)))
}

/// The innermost root that a place lies in.
pub(super) fn nearest_root<'a>(
    roots: impl IntoIterator<Item = &'a Root>,
    extent: &Extent,
) -> Option<&'a Root> {
    let around = roots.into_iter().filter(|root| root.extent.covers(extent));
    around.max_by_key(|root| root.extent.path.as_bytes().len())
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
        let (index, host) = (&self.scanner.index, &self.scanner.host.name);
        let known = index.roots().await?;
        // It stays what it is, and will be skipped.
        if let Some(root) = offline_at(index.as_ref(), host, &known, &request.path, &place).await? {
            return Ok(root.id);
        }
        let volume = self.writer.register_volume(host, &place.volume).await?;
        let extent = Extent { volume, path: place.path };
        let remembered = nearest_root(&known, &extent).map(|root| root.settings.clone());
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
            let walked = Walked { extents: root.extents, directories: Vec::new() };
            self.scans.push(OpenScan { walked, discovered: true, ..OpenScan::new(id) });
        }
        Ok(self.writer.commit().await?)
    }

    /// The subtrees of directories that the index knows; everything if none is named.
    pub(super) async fn extents_of(&self, directories: &[PathBuf]) -> Result<Vec<Extent>, ScanError> {
        self.scanner.extents_of(directories).await
    }
}

/// An unplugged disk is offline, not empty: a root whose path leads to another volume, or
/// nowhere, is left as it is.
pub(super) fn why_offline(volumes: &Volumes, root: &Root) -> Option<String> {
    if let Err(error) = check_root(&root.path) {
        return Some(format!("{error}; nothing of it was removed"));
    }
    let place = locate(volumes, &root.path).ok()?;
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

    /// True if the index knows a file or a directory of this name.
    pub(super) async fn knows_name(&self, path: &Path, mounts: &MountMap) -> Result<bool, ScanError> {
        if self.index.knows(&mounts.extents_below(path)).await? {
            return Ok(true);
        }
        let directory = path.parent().and_then(|parent| mounts.locate(parent));
        let (Some(directory), Some(name)) = (directory, path.file_name()) else { return Ok(false) };
        Ok(!self.index.known_names(&[(directory, name.as_bytes().into())]).await?.is_empty())
    }
}

/// The path without links; as it stands if it does not exist any more.
pub(super) fn real_path(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_path_buf())
}

pub(super) fn locate(volumes: &Volumes, path: &Path) -> Result<Place, ScanError> {
    let failed = |source| ScanError::Root { path: path.to_path_buf(), source };
    Ok(volumes.locate(path, std::fs::metadata(path).map_err(failed)?.dev()))
}
