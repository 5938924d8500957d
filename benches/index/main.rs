//! How fast the index itself is: what it takes to write, choose, answer and report rows, without files.
//!
//! The files are made up as they are written, so that five million need no more memory than five
//! thousand. Each step is timed as a whole, because each begins where the one before ended and lasts for
//! seconds; the table gives medians over rounds that begin with an empty database.
//!
//! ```sh
//! cargo bench --bench index -- --files 300000 --rounds 5
//! cargo bench --bench index -- --database postgres --postgres postgres://me@localhost/postgres
//! ```

#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on says so by ending")]

mod content;
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use dupfind::cancel::Cancel;
use dupfind::index::Index;
use dupfind::index::lock::OnBusy;
use dupfind::index::postgres::{PostgresIndex, PostgresOptions};
use dupfind::index::sqlite::SqliteIndex;
use dupfind::model::group::ReportFilter;
use dupfind::model::pending::{Stage, Unread};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::runtime::{Builder, LocalOptions};

use self::world::{HOST, World};

#[derive(Debug, Parser)]
struct Options {
    /// Which databases
    #[arg(long, value_enum, default_value_t = Databases::Both)]
    database: Databases,
    /// A server; each round makes a database of its own there, and drops it
    #[arg(long, env = "DUPFIND_TEST_POSTGRES")]
    postgres: Option<String>,
    /// How many files
    #[arg(long, default_value_t = 300_000)]
    files: u64,
    /// How often everything is done
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Databases {
    Sqlite,
    Postgres,
    Both,
}

/// What a step took: name, rows, time, and the most memory that this process used until its end (KiB).
struct Step {
    name: &'static str,
    rows: u64,
    took: Duration,
    peak: u64,
}

fn main() {
    let options = Options::parse();
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    println!("| {} files | rows | seconds | rows/s | peak MiB |\n|---|--:|--:|--:|--:|", options.files);
    for (database, name) in [(Databases::Sqlite, "SQLite"), (Databases::Postgres, "PostgreSQL")] {
        if options.database != Databases::Both && options.database != database {
            continue;
        }
        let rounds: Vec<Vec<Step>> =
            (0..options.rounds).map(|_| runtime.block_on(round(database, &options))).collect();
        for (index, step) in rounds[0].iter().enumerate() {
            let mut times: Vec<Duration> = rounds.iter().map(|round| round[index].took).collect();
            times.sort();
            let seconds = times[times.len() / 2].as_secs_f64();
            let peak = rounds.iter().map(|round| round[index].peak).max().unwrap_or_default();
            #[expect(clippy::cast_precision_loss, reason = "a rate is shown with a few digits")]
            let rate = step.rows as f64 / seconds;
            println!(
                "| {name}: {} | {} | {seconds:.3} | {rate:.0} | {} |",
                step.name,
                step.rows,
                peak / 1024
            );
        }
    }
}

/// Everything once, in an empty database.
async fn round(database: Databases, options: &Options) -> Vec<Step> {
    if database == Databases::Sqlite {
        let directory = tempfile::tempdir().unwrap();
        let index = SqliteIndex::create(&directory.path().join("index.db"), OnBusy::Fail).await.unwrap();
        return steps(&index, options.files).await;
    }
    let server = options.postgres.as_deref().expect("--postgres URL, or DUPFIND_TEST_POSTGRES");
    let name = format!("dupfind_bench_{}", std::process::id());
    say(server, &format!("create database {name}")).await;
    let (base, _) = server.rsplit_once('/').unwrap();
    let index = PostgresIndex::create(PostgresOptions {
        url: format!("{base}/{name}"),
        pool_size: 8,
        connect_timeout: Duration::from_secs(10),
        retry_for: Duration::from_secs(10),
        patience: Duration::from_mins(10),
        on_busy: OnBusy::Fail,
        cancel: Cancel::default(),
        tell: Arc::new(|message| println!("{message}")),
    })
    .await
    .unwrap();
    let steps = steps(&index, options.files).await;
    drop(index);
    say(server, &format!("drop database {name} with (force)")).await;
    steps
}

async fn say(server: &str, statement: &str) {
    let mut connection = PgConnection::connect(server).await.unwrap();
    sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
}

async fn steps(index: &dyn Index, files: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut note = |name, rows, began: Instant| {
        steps.push(Step { name, rows, took: began.elapsed(), peak: take_peak_memory() });
    };
    take_peak_memory();
    let mut world = World::new(index, files).await;
    for (name, changed) in [
        ("ingest", false),
        ("compare (nothing changed)", false),
        ("compare (a file in each directory changed)", true),
    ] {
        let began = Instant::now();
        world.list(changed).await;
        note(name, files, began);
    }

    for (stage, choose, process) in [
        (Stage::Size, "choose by size", "hand out and write back"),
        (Stage::Sample, "choose by sample", "hand out and write back samples"),
    ] {
        let began = Instant::now();
        let mut chosen = world.choose(stage).await;
        note(choose, files, began);
        let began = Instant::now();
        let written = world.answer(&mut chosen).await;
        note(process, written, began);
    }
    let began = Instant::now();
    world.writer.settle(Unread::Perhaps).await.unwrap();
    note("settle", files, began);
    for (name, is_expected) in
        [("choose for one change", false), ("choose for one change, by the index over sizes", true)]
    {
        if is_expected {
            let began = Instant::now();
            world.writer.expect_small_scopes().await.unwrap();
            note("make the index over sizes", files, began);
        }
        let directory = world.change_one(is_expected).await;
        let began = Instant::now();
        let mut chosen = world.choose_in(Stage::Size, directory.clone()).await;
        note(name, 1, began);
        world.answer(&mut chosen).await;
        // As a scan does: what is left to be read would keep the groups from being kept.
        let mut chosen = world.choose_in(Stage::Sample, directory).await;
        world.answer(&mut chosen).await;
    }
    let began = Instant::now();
    world.writer.settle(Unread::Perhaps).await.unwrap();
    note("settle after one change", files, began);
    world.writer.close().await.unwrap();

    let began = Instant::now();
    let summary = index.summary(&ReportFilter::default()).await.unwrap();
    note("summary", files, began);
    let began = Instant::now();
    let places = index.places(HOST).await.unwrap();
    let mut report = index.report(&ReportFilter::default(), &places).await.unwrap();
    let mut items = 0;
    loop {
        let window = report.next().await.unwrap();
        if window.is_empty() {
            break;
        }
        items += window.len() as u64;
    }
    assert!(items > summary.groups * 3 - 1, "{items} items, {summary:?}");
    note("report", items, began);
    steps
}

/// The most memory used since the last call, in KiB (`proc(5)`: `VmHWM`, and 5 to `clear_refs`); 0 where the
/// system does not tell.
fn take_peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
