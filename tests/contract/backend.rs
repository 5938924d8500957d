//! Fresh indexes, and short ways to fill them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dupfind::cancel::Cancel;
use dupfind::index::lock::OnBusy;
use dupfind::index::postgres::{PostgresIndex, PostgresOptions};
use dupfind::index::sqlite::SqliteIndex;
use dupfind::index::{Index, Writer};
use dupfind::model::digest::{Digest, Sample};
use dupfind::model::group::{ReportFilter, ReportItem};
use dupfind::model::listing::{Coverage, Entry, Listing};
use dupfind::model::path::VolumePath;
use dupfind::model::pending::{Finding, Job, Outcome, Scope, Stage};
use dupfind::model::scan::{RootId, ScanId, ScanKind};
use dupfind::model::settings::{HashPolicy, ScanSettings};
use dupfind::model::stamp::{Nanos, Stamp};
use dupfind::model::volume::{Extent, Mount, MountedVolume, VolumeId, VolumeIdentity};
use dupfind::model::worker::Participant;
use dupfind::progress::Progress;
use tempfile::TempDir;

use super::server::TestDatabase;

/// A kind of database.
pub(crate) trait Backend {
    /// Where others write, a directory may hold rows before its second piece is written.
    const ONLY_ONE_WRITES: bool;

    /// Where an empty index is, and what it needs to live.
    async fn place() -> Self;

    /// Waits until a process that ended without a word is taken for dead.
    async fn outwait_the_dead();

    /// Opens it; may be done several times.
    async fn open(&self) -> Box<dyn Index>;
}

pub(crate) struct Sqlite(TempDir);

impl Backend for Sqlite {
    const ONLY_ONE_WRITES: bool = true;

    async fn outwait_the_dead() {}

    async fn place() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> Box<dyn Index> {
        Box::new(SqliteIndex::create(&self.0.path().join("index.db"), OnBusy::Fail).await.unwrap())
    }
}

/// A database of its own on the test server.
pub(crate) struct Postgres(TestDatabase);

impl Backend for Postgres {
    const ONLY_ONE_WRITES: bool = false;

    async fn outwait_the_dead() {
        tokio::time::sleep(PATIENCE + Duration::from_millis(100)).await;
    }

    async fn place() -> Self {
        Self(TestDatabase::create().await)
    }

    async fn open(&self) -> Box<dyn Index> {
        Box::new(PostgresIndex::create(options(self.0.url())).await.unwrap())
    }
}

const PATIENCE: Duration = Duration::from_secs(2);

/// Impatient: nobody waits for another process, and the dead are dead at once.
pub(crate) fn options(url: &str) -> PostgresOptions {
    PostgresOptions {
        url: url.to_owned(),
        pool_size: 4,
        connect_timeout: Duration::from_secs(10),
        retry_for: Duration::from_secs(20),
        patience: PATIENCE,
        on_busy: OnBusy::Fail,
        cancel: Cancel::default(),
        tell: Arc::new(|_| ()),
    }
}

pub(crate) const HOST: &str = "here";

pub(crate) fn participant() -> Participant {
    Participant { host: HOST.into(), task: "test", progress: Arc::new(Progress::default()) }
}

/// An index with one volume, `/`, and one root, `/r`.
pub(crate) struct World {
    pub(crate) index: Box<dyn Index>,
    pub(crate) volume: Arc<MountedVolume>,
    pub(crate) volume_id: VolumeId,
    pub(crate) root: RootId,
    /// Keeps the database while the world is there.
    _place: Box<dyn std::any::Any>,
}

impl World {
    pub(crate) async fn new<B: Backend + 'static>() -> Self {
        let place = B::place().await;
        Self::in_index(place.open().await, place).await
    }

    pub(crate) async fn in_index<B: Backend + 'static>(index: Box<dyn Index>, place: B) -> Self {
        let volume = mounted("uuid:main", "", "");
        let mut writer = index.writer(&participant()).await.unwrap();
        let volume_id = writer.register_volume(HOST, &volume).await.unwrap();
        let root = writer
            .put_root(&extent(volume_id, "/r"), Path::new("/r"), &ScanSettings::default())
            .await
            .unwrap();
        writer.close().await.unwrap();
        Self { index, volume, volume_id, root, _place: Box::new(place) }
    }

    /// One whose database was told something before.
    pub(crate) async fn after(statements: &str) -> Self {
        let place = Postgres::place().await;
        let index = place.open().await;
        place.0.say(statements).await;
        Self::in_index(index, place).await
    }

    pub(crate) async fn writer(&self) -> Box<dyn Writer> {
        let mut writer = self.index.writer(&participant()).await.unwrap();
        writer.register_volume(HOST, &self.volume).await.unwrap();
        writer
    }

    /// Adds a root, or changes the one that is there.
    pub(crate) async fn put_root(&self, path: &str, hash: HashPolicy) -> RootId {
        let settings = ScanSettings { hash, ..ScanSettings::default() };
        let mut writer = self.writer().await;
        let root = extent(self.volume_id, path);
        let root = writer.put_root(&root, Path::new(path), &settings).await.unwrap();
        writer.close().await.unwrap();
        root
    }

    pub(crate) fn listing(&self, directory: &str, coverage: Coverage, entries: Vec<Entry>) -> Listing {
        let volume = Arc::clone(&self.volume);
        Listing { volume, directory: VolumePath::new(directory.as_bytes()), coverage, entries }
    }

    pub(crate) fn whole(&self, directory: &str, entries: Vec<Entry>) -> Listing {
        self.listing(directory, Coverage::Whole, entries)
    }

    /// One scan of the root: these listings, to its end.
    pub(crate) async fn scan(&self, listings: &[Listing]) -> (ScanId, dupfind::model::scan::ScanCounts) {
        let mut writer = self.writer().await;
        let scan = writer.begin_scan(Some(self.root), ScanKind::Scan, None).await.unwrap();
        let mut counts = writer.write_listings(scan, listings).await.unwrap().counts;
        let extents = [extent(self.volume_id, "/r")];
        counts.removed += writer.finish_discovery(scan, Some(self.root), &extents, &[]).await.unwrap();
        writer.close().await.unwrap();
        (scan, counts)
    }

    pub(crate) fn everywhere(&self) -> Scope {
        Scope {
            extents: vec![extent(self.volume_id, "")],
            directories: Vec::new(),
            reachable: vec![self.volume_id],
            helps: false,
        }
    }

    pub(crate) async fn jobs_in(&self, stage: Stage, scope: &Scope) -> Vec<Job> {
        let mounts = self.index.mounts(HOST).await.unwrap();
        let mut writer = self.writer().await;
        writer.commit().await.unwrap();
        let mut reader = writer.pending(stage, scope, &mounts).await.unwrap();
        let mut jobs = Vec::new();
        loop {
            let window = reader.next().await.unwrap();
            if window.is_empty() {
                break;
            }
            jobs.extend(window);
        }
        let names: usize = jobs.iter().map(|job| job.names.len()).sum();
        assert_eq!(reader.totals().files, names as u64);
        drop(reader);
        writer.close().await.unwrap();
        jobs
    }

    pub(crate) async fn jobs(&self, stage: Stage) -> Vec<Job> {
        self.jobs_in(stage, &self.everywhere()).await
    }

    /// The paths of each job in a stage.
    pub(crate) async fn pending(&self, stage: Stage) -> Vec<Vec<String>> {
        self.jobs(stage).await.iter().map(paths).collect()
    }

    /// Answers every pending job of a stage; returns how many rows took the answer.
    pub(crate) async fn answer(&self, stage: Stage, finding: impl Fn(&Job) -> Finding) {
        let outcomes: Vec<Outcome> =
            self.jobs(stage).await.iter().flat_map(|job| outcomes(job, &finding(job))).collect();
        let mut writer = self.writer().await;
        writer.write_outcomes(outcomes).await.unwrap();
        writer.commit().await.unwrap();
        writer.close().await.unwrap();
    }

    /// Groups as `size: path path=link`.
    pub(crate) async fn groups(&self, filter: &ReportFilter) -> Vec<String> {
        let places = self.index.places(HOST).await.unwrap();
        let mut reader = self.index.report(filter, &places).await.unwrap();
        let mut groups: Vec<String> = Vec::new();
        loop {
            let items = reader.next().await.unwrap();
            if items.is_empty() {
                return groups;
            }
            for item in items {
                match item {
                    ReportItem::Group(group) => groups.push(format!("{}:", group.size)),
                    ReportItem::Member(member) => {
                        let joint = if member.first_name { ' ' } else { '=' };
                        let group = groups.last_mut().unwrap();
                        group.push(joint);
                        group.push_str(&member.path.display().to_string());
                    }
                }
            }
        }
    }
}

pub(crate) fn mounted(identity: &str, root: &str, at: &str) -> Arc<MountedVolume> {
    let mount = Mount { root: VolumePath::new(root.as_bytes()), at: at.as_bytes().into() };
    Arc::new(MountedVolume { identity: VolumeIdentity(identity.into()), mount })
}

pub(crate) fn extent(volume: VolumeId, path: &str) -> Extent {
    Extent { volume, path: VolumePath::new(path.as_bytes()) }
}

pub(crate) fn entry(name: &str, size: u64, inode: u64) -> Entry {
    let stamp = Stamp { size, mtime: Nanos(1_000), ctime: Nanos(2_000), inode };
    Entry { name: name.as_bytes().into(), stamp, has_other_names: false }
}

pub(crate) fn paths(job: &Job) -> Vec<String> {
    job.names.iter().map(|name| name.path().display().to_string()).collect()
}

pub(crate) fn outcomes(job: &Job, finding: &Finding) -> Vec<Outcome> {
    job.outcomes(finding).collect()
}

pub(crate) fn hashed(content: u8) -> Finding {
    Finding::Hashed { digest: Digest([content; 32]), sample: None, ctime: Nanos(2_000), racy: false }
}

pub(crate) fn sampled(content: u8) -> Finding {
    Finding::Sampled { sample: Sample([content; 16]), ctime: Nanos(2_000), racy: false }
}
