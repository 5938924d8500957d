//! `dupfind watch`: whatever happens, at quiet the index is what a scan would make of the tree.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::support::Sandbox;
use super::tree::{apply, brute_force, event};

/// Nothing takes longer than this, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(15);

/// A watcher at work; it is killed when it is dropped.
struct Watching {
    child: Child,
    log: PathBuf,
}

impl Watching {
    fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        Self::spawn(
            sandbox,
            sandbox.command(["watch", "--json", "--debounce", "50ms"].iter().chain(arguments)),
        )
    }

    fn spawn(sandbox: &Sandbox, mut command: std::process::Command) -> Self {
        let log = sandbox.path().join("watch.log");
        let output = File::create(&log).unwrap();
        let child = command.stdout(output).stderr(Stdio::inherit()).spawn().unwrap();
        let watching = Self { child, log };
        watching.until("ready", |told| told["event"] == "ready");
        watching
    }

    fn told(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until something is told.
    fn until(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            if let Some(told) = self.told().into_iter().find(&is_it) {
                return told;
            }
            assert!(began.elapsed() < PATIENCE, "{what} was not told: {:#?}", self.told());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it as a user does.
    fn stop(mut self) {
        self.send(Signal::TERM);
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is wrong with the index, if anything is.
fn difference(sandbox: &Sandbox) -> Option<String> {
    let (report, expected) = (sandbox.report(), brute_force(&sandbox.tree()));
    let groups = super::support::names_of_groups(&report, &sandbox.tree());
    if groups != expected {
        return Some(format!("groups: {groups:#?}\nexpected: {expected:#?}"));
    }
    if report["complete"] != true {
        return Some(format!("not complete: {}", report["summary"]));
    }
    let files = count_files(&sandbox.tree());
    (report["summary"]["files"] != files)
        .then(|| format!("{} instead of {files} files", report["summary"]["files"]))
}

/// Files that are not empty.
fn count_files(directory: &Path) -> u64 {
    let mut files = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        files += if metadata.is_dir() {
            count_files(&path)
        } else {
            u64::from(metadata.is_file() && metadata.len() > 0)
        };
    }
    files
}

/// Waits until the index is right.
fn assert_right_soon(sandbox: &Sandbox, context: impl FnOnce() -> String) {
    let began = Instant::now();
    while let Some(difference) = difference(sandbox) {
        assert!(began.elapsed() < PATIENCE, "{difference}\n{}", context());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A scan finds nothing that the watcher has missed. Of a file with several names, the others have a new ctime when one
/// comes or goes, of which nobody is told.
fn assert_nothing_was_missed(sandbox: &Sandbox) {
    let scan = sandbox.scan_json(&["tree"]);
    assert_eq!((&scan["added"], &scan["removed"]), (&0.into(), &0.into()), "{scan}");
}

#[test]
fn whatever_happens_while_it_is_watched_the_index_is_right_at_quiet() {
    let seed: u64 =
        std::env::var("DUPFIND_TEST_SEED").map_or_else(|_| rand_seed(), |seed| seed.parse().unwrap());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut any = |most: u64| (0..most).new_tree(&mut runner).unwrap().current();
    let mut events = {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        move || event().new_tree(&mut runner).unwrap().current()
    };

    let sandbox = Sandbox::new();
    let mut watching = Some(Watching::start(&sandbox, &["tree"]));
    for round in 0..40 {
        let mut done = Vec::new();
        for _ in 0..60 {
            let event = events();
            apply(&sandbox.tree(), &event);
            done.push(event);
            // Now it is looked at in the middle of things, now it is not.
            if any(4) == 0 {
                std::thread::sleep(Duration::from_millis(any(80)));
            }
            if any(150) == 0
                && let Some(watching) = watching.take()
            {
                watching.send(Signal::KILL);
            }
        }
        let running = watching.get_or_insert_with(|| Watching::start(&sandbox, &["tree"]));
        assert_right_soon(&sandbox, || {
            format!("DUPFIND_TEST_SEED={seed}, round {round}: {done:?}\n{:#?}", running.told())
        });
    }
    watching.unwrap().stop();
    assert_nothing_was_missed(&sandbox);
    sandbox.assert_sound();
}

fn rand_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos() % 1_000_000_007).unwrap()
}
