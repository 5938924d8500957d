//! One writer in an index, and the steps of a scan without files.

use std::path::Path;
use std::sync::Arc;

use dupfind::index::{Index, PendingReader, Writer};
use dupfind::model::path::VolumePath;
use dupfind::model::pending::{Outcome, Scope, Stage};
use dupfind::model::scan::{RootId, ScanKind};
use dupfind::model::settings::ScanSettings;
use dupfind::model::volume::{Extent, Mount, MountMap, MountedVolume, VolumeIdentity};
use dupfind::model::worker::Participant;
use dupfind::progress::Progress;

use crate::content;

pub(crate) const HOST: &str = "bench";

/// Rows written at once, as a scan does by default.
pub(crate) const BATCH: usize = 8192;

/// A root with so many files.
pub(crate) struct World {
    pub(crate) writer: Box<dyn Writer>,
    files: u64,
    volume: Arc<MountedVolume>,
    extent: Extent,
    root: RootId,
    mounts: MountMap,
}

impl World {
    pub(crate) async fn new(index: &dyn Index, files: u64) -> Self {
        let participant =
            Participant { host: HOST.into(), task: "bench", progress: Arc::new(Progress::default()) };
        let mut writer = index.writer(&participant).await.unwrap();
        let mount = Mount { root: VolumePath::new(b""), at: b"".as_slice().into() };
        let volume = Arc::new(MountedVolume { identity: VolumeIdentity("bench".into()), mount });
        let id = writer.register_volume(HOST, &volume).await.unwrap();
        let extent = Extent { volume: id, path: VolumePath::new(b"/r") };
        let root = writer.put_root(&extent, Path::new("/r"), &ScanSettings::default()).await.unwrap();
        writer.commit().await.unwrap();
        let mounts = index.mounts(HOST).await.unwrap();
        Self { writer, files, volume, extent, root, mounts }
    }

    /// A whole walk; with `changed`, one file in each directory is not what it was.
    pub(crate) async fn list(&mut self, changed: bool) {
        let scan = self.writer.begin_scan(Some(self.root), ScanKind::Scan, None).await.unwrap();
        for batch in content::listings(&self.volume, self.files, BATCH, changed) {
            self.writer.write_listings(scan, &batch).await.unwrap();
            self.writer.commit().await.unwrap();
        }
        let walked = std::slice::from_ref(&self.extent);
        self.writer.finish_discovery(scan, Some(self.root), walked, &[]).await.unwrap();
        self.writer.commit().await.unwrap();
    }

    /// Writes the first directory alone, one file of which is not what it was; returns where it is.
    pub(crate) async fn change_one(&mut self, changed: bool) -> Extent {
        let scan = self.writer.begin_scan(Some(self.root), ScanKind::Watch, None).await.unwrap();
        let first = content::listings(&self.volume, self.files, 1, changed).next().unwrap();
        assert_eq!(self.writer.write_listings(scan, &first).await.unwrap().counts.updated, 1);
        self.writer.commit().await.unwrap();
        Extent { volume: self.extent.volume, path: first[0].directory.clone() }
    }

    /// Chooses what is to be read in a stage.
    pub(crate) async fn choose(&mut self, stage: Stage) -> Chosen {
        self.choose_in(stage, self.extent.clone()).await
    }

    /// The same for a part.
    pub(crate) async fn choose_in(&mut self, stage: Stage, extent: Extent) -> Chosen {
        let scope = Scope {
            extents: vec![extent],
            directories: Vec::new(),
            reachable: vec![self.extent.volume],
            helps: false,
        };
        Chosen { pending: self.writer.pending(stage, &scope, &self.mounts).await.unwrap(), files: self.files }
    }

    /// Answers all that was chosen, and writes that back; returns how many files these were.
    pub(crate) async fn answer(&mut self, chosen: &mut Chosen) -> u64 {
        let mut written = 0;
        loop {
            let outcomes = chosen.answer().await;
            if outcomes.is_empty() {
                return written;
            }
            written += outcomes.len() as u64;
            self.write_back(outcomes).await;
        }
    }

    pub(crate) async fn write_back(&mut self, outcomes: Vec<Outcome>) {
        self.writer.write_outcomes(outcomes).await.unwrap();
        self.writer.commit().await.unwrap();
    }
}

/// What is to be read in a stage.
pub(crate) struct Chosen {
    pending: Box<dyn PendingReader>,
    files: u64,
}

impl Chosen {
    /// What reading at least `BATCH` files would have found; fewer at the end, then none.
    pub(crate) async fn answer(&mut self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while outcomes.len() < BATCH {
            let jobs = self.pending.next().await.unwrap();
            if jobs.is_empty() {
                break;
            }
            outcomes.extend(jobs.iter().flat_map(|job| content::outcomes(job, self.files)));
        }
        outcomes
    }
}
