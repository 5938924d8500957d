//! A `dupfind watch` at work, and what is expected of its index.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::support::{Sandbox, names_of_groups, path_of};
use super::tree::groups_of_equal_files;

/// Nothing takes longer than this, on a busy machine either.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A watcher at work; it is killed when it is dropped.
pub(crate) struct Watching {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Watching {
    pub(crate) fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        Self::spawn(
            sandbox,
            sandbox.command(["watch", "--json", "--debounce", "50ms"].iter().chain(arguments)),
        )
    }

    pub(crate) fn spawn(sandbox: &Sandbox, mut command: Command) -> Self {
        let logs = (0..).map(|number| sandbox.path().join(format!("watch-{number}.log")));
        let log = logs.into_iter().find(|log| !log.exists()).unwrap();
        let output = File::create(&log).unwrap();
        let child = command.stdout(output).stderr(Stdio::inherit()).spawn().unwrap();
        let watching = Self { child, log };
        watching.until("ready", |told| told["event"] == "ready");
        watching
    }

    pub(crate) fn told(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until something is told.
    pub(crate) fn until(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            if let Some(told) = self.told().into_iter().find(&is_it) {
                return told;
            }
            assert!(began.elapsed() < PATIENCE, "{what} was not told: {:#?}", self.told());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it as a user does.
    pub(crate) fn stop(mut self) {
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
pub(crate) fn difference(sandbox: &Sandbox) -> Option<String> {
    let (report, expected) = (sandbox.report(), groups_of_equal_files(&sandbox.tree(), 0));
    let groups = names_of_groups(&report, &sandbox.tree());
    if groups != expected {
        return Some(format!("groups: {groups:#?}\nexpected: {expected:#?}"));
    }
    if report["complete"] != true {
        return Some(format!("not complete: {}", report["summary"]));
    }
    let (known, files) = (known_files(sandbox), files_below(&sandbox.tree()));
    (known != files).then(|| format!("files: {known:#?}\nexpected: {files:#?}"))
}

/// Names with sizes and inodes.
type Files = BTreeMap<PathBuf, (u64, u64)>;

/// What the index knows below the tree.
fn known_files(sandbox: &Sandbox) -> Files {
    let run = sandbox.run(["files", "--json", "tree"]);
    // Of a tree without files there is nothing to say.
    let Ok(known) = serde_json::from_str::<Value>(&run.stdout()) else { return Files::new() };
    let number = |file: &Value, key: &str| file[key].as_u64().unwrap();
    let files = known["files"].as_array().unwrap().iter();
    files.map(|file| (path_of(file), (number(file, "size"), number(file, "inode")))).collect()
}

/// What there is below a directory.
fn files_below(directory: &Path) -> Files {
    let mut files = Files::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            files.extend(files_below(&path));
        } else if metadata.is_file() {
            files.insert(path, (metadata.len(), metadata.ino()));
        }
    }
    files
}

/// Waits until the index is right.
pub(crate) fn assert_right_soon(sandbox: &Sandbox, context: impl FnOnce() -> String) {
    let began = Instant::now();
    while let Some(difference) = difference(sandbox) {
        assert!(began.elapsed() < PATIENCE, "{difference}\n{}", context());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A scan finds nothing that the watcher has missed. Of a file with several names, the others have a new ctime when one
/// comes or goes, of which nobody is told.
pub(crate) fn assert_nothing_was_missed(sandbox: &Sandbox) {
    let scan = sandbox.scan_json(&["tree"]);
    assert_eq!((&scan["added"], &scan["removed"]), (&0.into(), &0.into()), "{scan}");
}

/// Waits until the index holds what is expected.
pub(crate) fn until_groups(sandbox: &Sandbox, expected: &[&[&str]]) {
    let began = Instant::now();
    loop {
        let groups = sandbox.group_names();
        if groups == expected {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{groups:?} instead of {expected:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the index knows of so many files.
pub(crate) fn until_files(sandbox: &Sandbox, expected: u64) {
    let began = Instant::now();
    while sandbox.report()["summary"]["files"] != expected {
        assert!(began.elapsed() < PATIENCE, "{}", sandbox.report()["summary"]);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What was read since the watcher began, but for its first walk: what it follows.
pub(crate) fn hashed(watching: &Watching) -> u64 {
    let told = watching.told();
    told.iter().filter(|it| it["event"] == "followed").map(|it| it["hashed"].as_u64().unwrap()).sum()
}

pub(crate) fn root_status(sandbox: &Sandbox) -> Value {
    let run = sandbox.run(["status", "--json"]).succeeds();
    let status: Value = serde_json::from_str(&run.stdout()).unwrap();
    status["roots"][0].clone()
}
