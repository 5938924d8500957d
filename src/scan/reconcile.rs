//! Roots that the index knows, or parts of them, are walked again and brought up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::roots::{real_path, why_offline};
use super::{Pending, Processing, RootRequest, Run, ScanError, ScanReport, Scanner, wholly};
use crate::discovery::filter::Filter;
use crate::discovery::walk::{Follower, Part};
use crate::model::group::ProblemRow;
use crate::model::path::escape_path;
use crate::model::scan::{Root, RootId, ScanCounts, ScanKind, ScanStatus};
use crate::model::settings::ScanSettings;
use crate::volume::Volumes;

/// How the reconciliation of a root ended.
#[derive(Debug)]
pub enum Reconciled {
    /// It was done, or stopped: then the status says so.
    Done(ScanReport),
    /// The root could not be read, for this reason; nothing of it was removed.
    Unreachable(String),
    /// The index does not know the root any more.
    Forgotten,
}

impl Scanner {
    /// Walks all roots again, or these directories: roots, what lies around roots, or parts of them.
    pub async fn reconcile(&self, directories: &[PathBuf]) -> Result<ScanReport, ScanError> {
        let mut run = self.begin("reconcile").await?;
        let result = async {
            let parts = run.parts_of(directories).await?;
            run.reconcile_parts(ScanKind::Reconcile, parts).await
        };
        let result = result.await;
        run.end(result, Pending::Nothing).await
    }

    /// Remembers directories as roots, without walking them. Returns them and the roots inside them.
    pub async fn take_on(
        &self,
        requests: &[RootRequest],
        defaults: &ScanSettings,
    ) -> Result<Vec<RootId>, ScanError> {
        let mut run = self.begin("watch").await?;
        let roots = run.put_roots(requests, defaults).await;
        run.writer.close().await?;
        Ok(roots?.into_iter().map(|root| root.id).collect())
    }

    /// True if a root is where it was, and may be read.
    pub fn is_reachable(&self, root: &Root) -> bool {
        why_unreadable(&self.volumes, root).is_none()
    }

    /// Walks one root again, for a watcher that follows what happens in it from then on.
    pub async fn reconcile_root(
        &self,
        root: RootId,
        kind: ScanKind,
        follower: Option<Arc<dyn Follower>>,
    ) -> Result<Reconciled, ScanError> {
        let mut run = self.begin("watch").await?;
        run.follower = follower;
        let mounts = self.index.mounts(&self.host.name).await?;
        let Some(root) = self.index.roots().await?.into_iter().find(|known| known.id == root) else {
            run.writer.close().await?;
            return Ok(Reconciled::Forgotten);
        };
        let root = run.as_seen_here(root, &mounts);
        let result = run.reconcile_parts(kind, wholly(vec![root])).await;
        let mut report = run.end(result, Pending::Nothing).await?;
        Ok(match report.skipped_roots.pop() {
            Some(ProblemRow { problem, .. }) => Reconciled::Unreachable(problem),
            None => Reconciled::Done(report),
        })
    }
}

impl Run<'_> {
    async fn reconcile_parts(&mut self, kind: ScanKind, parts: Vec<(Root, Part)>) -> Result<(), ScanError> {
        let mut readable = Vec::new();
        for (root, part) in parts {
            match why_unreadable(&self.scanner.volumes, &root) {
                None => readable.push((root, part)),
                Some(problem) => {
                    let within = self.within(&part);
                    let scan = self.writer.begin_scan(Some(root.id), kind, within.as_ref()).await?;
                    let nothing = ScanCounts::default();
                    self.writer.end_scan(scan, ScanStatus::Failed, &nothing, Some(&problem)).await?;
                    self.report.skipped_roots.push(ProblemRow { host: None, path: root.path, problem });
                }
            }
        }
        self.writer.commit().await?;
        let walked = self.discover_roots(kind, readable, true).await?;
        self.process(Processing::Of(walked)).await
    }

    /// The roots, and the parts of roots, that directories stand for; all roots if none is named.
    async fn parts_of(&self, directories: &[PathBuf]) -> Result<Vec<(Root, Part)>, ScanError> {
        let index = &self.scanner.index;
        let mounts = index.mounts(&self.scanner.host.name).await?;
        let roots: Vec<Root> =
            index.roots().await?.into_iter().map(|root| self.as_seen_here(root, &mounts)).collect();
        if directories.is_empty() {
            return Ok(wholly(roots));
        }
        let mut parts: BTreeMap<(RootId, PathBuf), (Root, Part)> = BTreeMap::new();
        for named in directories {
            let directory = real_path(named);
            let inside = roots.iter().filter(|root| root.path.starts_with(&directory));
            let around = roots.iter().filter(|root| directory.starts_with(&root.path));
            let nearest = around.max_by_key(|root| root.path.as_os_str().len());
            let nearest = nearest.filter(|root| root.path != directory);
            let before = parts.len();
            for root in inside {
                parts.insert((root.id, root.path.clone()), (root.clone(), Part::Whole));
            }
            if let Some(root) = nearest {
                if is_passed_over(root, &directory)? {
                    return Err(ScanError::PassedOver(named.clone()));
                }
                let is_gone = std::fs::symlink_metadata(&directory).is_err();
                if is_gone && !self.scanner.knows_name(&directory, &mounts).await? {
                    return Err(ScanError::Unknown(named.clone()));
                }
                parts.insert((root.id, directory.clone()), (root.clone(), part_below(root, &directory)));
            } else if parts.len() == before && !parts.values().any(|(root, _)| root.path == directory) {
                return Err(ScanError::Unknown(named.clone()));
            }
        }
        // What lies in another part is walked with it.
        let is_within = |(id, directory): &(RootId, PathBuf)| {
            parts
                .keys()
                .any(|(other, around)| other == id && around != directory && directory.starts_with(around))
        };
        let inner: Vec<_> = parts.keys().filter(|key| is_within(key)).cloned().collect();
        for key in inner {
            parts.remove(&key);
        }
        Ok(parts.into_values().collect())
    }
}

/// A root that is offline, or may not be read by this user: that it lists nothing says nothing.
fn why_unreadable(volumes: &Volumes, root: &Root) -> Option<String> {
    let refused = || {
        let error = std::fs::read_dir(&root.path).err()?;
        Some(format!("{}: {error}; nothing of it was removed", escape_path(&root.path)))
    };
    why_offline(volumes, root).or_else(refused)
}

/// True if the options of a root keep its walks out of a directory below it.
fn is_passed_over(root: &Root, directory: &Path) -> Result<bool, ScanError> {
    let relative = directory.strip_prefix(&root.path).unwrap_or(directory);
    Ok(Filter::new(&root.settings)?.passes_over_path(relative.as_os_str().as_bytes()))
}

/// A directory below a root; if it is not there any more, its name in the next that is.
fn part_below(root: &Root, directory: &Path) -> Part {
    let mut directory = directory;
    while directory != root.path && !std::fs::symlink_metadata(directory).is_ok_and(|it| it.is_dir()) {
        let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else { break };
        if parent.is_dir() {
            let names = BTreeSet::from([name.as_bytes().into()]);
            return Part::Names(BTreeMap::from([(parent.to_path_buf(), names)]));
        }
        directory = parent;
    }
    if directory == root.path { Part::Whole } else { Part::Below(directory.to_path_buf()) }
}
