//! The parts that every file passes, one by one: listing, comparing, choosing, writing back, hashing.
//!
//! `cargo bench --bench parts`; the index is SQLite, in a temporary directory.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on says so by ending")]

#[path = "../index/content.rs"]
mod content;
#[path = "../index/world.rs"]
#[expect(dead_code, reason = "the benchmark of the index does more with it")]
mod world;

use std::path::Path;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use dupfind::cancel::Cancel;
use dupfind::concurrency::{Concurrency, Threads};
use dupfind::index::lock::OnBusy;
use dupfind::index::sqlite::SqliteIndex;
use dupfind::model::listing::DirectoryId;
use dupfind::model::pending::{FileId, FileKey, Job, Outcome, PendingName, Stage};
use dupfind::model::stamp::{FileStat, Stamp};
use dupfind::processing::read::FileReader;
use tempfile::TempDir;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use self::world::World;

const FILES: u64 = 30_000;

fn main() {
    divan::main();
}

/// An index and what drives it; dropped in this order.
struct Bench {
    world: World,
    outcomes: Vec<Outcome>,
    _directory: TempDir,
    runtime: LocalRuntime,
}

impl Bench {
    /// In an empty index.
    fn empty() -> Self {
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index.db");
        let world = runtime.block_on(async {
            let index = SqliteIndex::create(&path, OnBusy::Fail).await.unwrap();
            World::new(&index, FILES).await
        });
        Self { world, outcomes: Vec::new(), _directory: directory, runtime }
    }

    /// After a first walk.
    fn listed() -> Self {
        Self::empty().list(false)
    }

    /// When a batch was read.
    fn read() -> Self {
        let mut bench = Self::listed();
        let world = &mut bench.world;
        bench.outcomes = bench.runtime.block_on(async { world.choose(Stage::Size).await.answer().await });
        bench
    }

    fn list(mut self, changed: bool) -> Self {
        self.runtime.block_on(self.world.list(changed));
        self
    }

    fn choose(mut self) -> Self {
        self.runtime.block_on(async { drop(self.world.choose(Stage::Size).await) });
        self
    }

    fn write_back(mut self) -> Self {
        let outcomes = std::mem::take(&mut self.outcomes);
        self.runtime.block_on(self.world.write_back(outcomes));
        self
    }
}

#[divan::bench(sample_count = 20)]
fn ingest(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(FILES)).with_inputs(Bench::empty).bench_values(|bench| bench.list(false));
}

#[divan::bench(sample_count = 20, args = [false, true])]
fn compare(bencher: Bencher<'_, '_>, changed: bool) {
    bencher
        .counter(ItemsCount::new(FILES))
        .with_inputs(Bench::listed)
        .bench_values(|bench| bench.list(changed));
}

#[divan::bench(sample_count = 20)]
fn candidates(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(FILES)).with_inputs(Bench::listed).bench_values(Bench::choose);
}

#[divan::bench(sample_count = 20)]
fn write_back(bencher: Bencher<'_, '_>) {
    bencher
        .with_inputs(Bench::read)
        .input_counter(|bench| ItemsCount::new(bench.outcomes.len()))
        .bench_values(Bench::write_back);
}

/// A whole read of a cached file of so many bytes, with both looks at its stamp.
#[divan::bench(args = [4096, 65_536, 1 << 20, 64 << 20])]
fn hash(bencher: Bencher<'_, '_>, size: usize) {
    read(bencher, size, size, Stage::Everything);
}

/// The three places of a large file.
#[divan::bench]
fn sample(bencher: Bencher<'_, '_>) {
    read(bencher, 1 << 20, 48 * 1024, Stage::Size);
}

fn read(bencher: Bencher<'_, '_>, size: usize, bytes_read: usize, stage: Stage) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let content: Vec<u8> = (0..=250).cycle().take(size).collect();
    std::fs::write(&path, content).unwrap();
    let job = job(&path, stage);
    let concurrency = Concurrency::new(Threads::exactly(1));
    let (mut meter, mut reader) = (concurrency.meter(), FileReader::new(Cancel::default()));
    bencher.counter(BytesCount::new(bytes_read)).bench_local(|| {
        let mut outcomes = Vec::with_capacity(1);
        reader.process(job.clone(), &mut meter, &mut outcomes).unwrap();
        outcomes
    });
}

fn job(path: &Path, stage: Stage) -> Job {
    let stat = FileStat::from(&std::fs::metadata(path).unwrap());
    let key = FileKey { id: FileId(1), directory: DirectoryId(1), name: b"f".as_slice().into() };
    let names = vec![PendingName { key, directory: path.parent().unwrap().into() }];
    Job { stamp: Stamp::of(&stat, stat.device), names, stage, lease: None, known: None, sample: None }
}
