//! Being killed, interrupted, out of disk, and not alone.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::support::{Run, Sandbox};

/// A tree that takes long enough to be interrupted at many places.
fn large_tree() -> Sandbox {
    let sandbox = Sandbox::new();
    for index in 0..6000_usize {
        let content = format!("{}", index % 2000).repeat(50 + index % 2000 % 7);
        sandbox.write(format!("{}/{}/{index}", index % 11, index % 5), content);
    }
    for name in ["x", "y", "z"] {
        sandbox.write(format!("large/{name}"), vec![b'l'; 3_000_000]);
    }
    sandbox
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_scan_killed_at_any_moment_is_resumed_to_the_same_report() {
    let sandbox = large_tree();
    let began = Instant::now();
    sandbox.run(["scan", "-q", "tree"]).succeeds();
    let whole_run = began.elapsed();
    let expected = sandbox.groups();
    assert!(expected.len() > 1000);

    let mut killed = 0;
    for round in 0..12_u32 {
        sandbox.forget_index();
        let mut child = sandbox.command(["scan", "-q", "--threads", "1", "tree"]).spawn().unwrap();
        std::thread::sleep(whole_run * (round + 1) / 12);
        send(&child, Signal::KILL);
        killed += u32::from(!child.wait().unwrap().success());
        // Too early, and there is no index or no root in it yet: that is said, and a scan begins anew.
        let resumed = sandbox.run(["resume", "-q"]);
        let has_root = resumed.output.status.success() && sandbox.sql("select count(*) from roots") == "1";
        if !has_root {
            sandbox.run(["scan", "-q", "tree"]).succeeds();
        }
        assert_eq!(sandbox.groups(), expected, "killed in round {round}");
        assert_eq!(sandbox.report()["complete"], true);
        sandbox.assert_sound();
    }
    assert!(killed > 0, "no round was quick enough to kill");
}

#[test]
fn an_interrupted_scan_says_how_to_go_on() {
    let sandbox = large_tree();
    let mut codes = Vec::new();
    for (signal, delay) in [(Signal::INT, 0), (Signal::TERM, 20), (Signal::INT, 80)] {
        sandbox.forget_index();
        sandbox.run(["roots", "add", "-q", "tree"]).succeeds();
        let child = sandbox
            .command(["scan", "--threads", "1", "tree"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Before there is a row of it, a signal just ends it.
        while sandbox.sql("select count(*) from scans") == "0" {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(delay));
        send(&child, signal);
        let run = Run::of(child.wait_with_output().unwrap());
        let code = run.output.status.code();
        codes.push(code);
        if code == Some(130) {
            assert!(run.stderr().contains("dupfind resume"), "{}", run.stderr());
            sandbox.run(["resume"]).succeeds();
        }
        assert_eq!(sandbox.report()["complete"], true);
        assert_eq!(sandbox.report()["summary"]["groups"], 2001);
    }
    assert!(codes.contains(&Some(130)), "{codes:?}");
}

#[test]
fn roots_that_a_stopped_scan_did_not_reach_are_resumed_too() {
    let sandbox = large_tree();
    std::fs::rename(sandbox.tree(), sandbox.path().join("first")).unwrap();
    for name in ["x", "y"] {
        sandbox.write(name, "same");
    }
    sandbox.run(["scan", "-q", "first", "tree"]).succeeds();
    std::fs::remove_file(sandbox.tree().join("x")).unwrap();
    sandbox.write("z", "same");
    let mut child = sandbox.command(["scan", "-q", "--threads", "1", "first", "tree"]).spawn().unwrap();
    // The rows of both scans are there before the first walk begins; the second has not.
    while sandbox.sql("select count(*) from scans") != "4" {
        std::thread::yield_now();
    }
    send(&child, Signal::KILL);
    child.wait().unwrap();
    sandbox.run(["resume", "-q"]).succeeds();
    let names = "select filename from file_hashes where absolute_path like '%/tree/%' order by filename";
    assert_eq!(sandbox.sql(names), "y\nz");
    assert_eq!(sandbox.report()["complete"], true);
}

#[test]
fn two_at_once_take_turns() {
    let sandbox = large_tree();
    let scan = |arguments: &[&str]| {
        let mut command = sandbox.command(["scan", "tree"].iter().chain(arguments));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children = [scan(&[]), scan(&[]), scan(&["--threads", "1"])];
    for child in children {
        Run::of(child.wait_with_output().unwrap()).succeeds();
    }
    assert_eq!(sandbox.report()["summary"]["groups"], 2001);
    sandbox.assert_sound();
    assert_eq!(sandbox.sql("select count(*) from scans where status = 'completed'"), "3");
}

/// Runs a script that may mount what it likes (in a namespace of its own: as root, or as anyone where
/// the system lets users have one), and returns what it said.
pub(crate) fn in_own_mounts(script: &str) -> String {
    let is_root = rustix::process::geteuid().is_root();
    let user = if is_root { &["--mount"][..] } else { &["--mount", "--map-root-user"] };
    let output = Command::new("unshare").args(user).args(["sh", "-c", script]).output().unwrap();
    assert_ne!(output.status.code(), Some(77), "this test needs the right to mount: root or user namespaces");
    String::from_utf8(output.stdout).unwrap()
}

fn assert_groups(report: &Path, expected: u64) {
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(report["summary"]["groups"], expected);
    assert_eq!(report["complete"], true);
}

/// What is so in SQLite only; left out by name where the tests run on PostgreSQL.
mod sqlite_only {
    use super::*;

    #[test]
    fn the_one_who_waits_says_for_whom() {
        let sandbox = Sandbox::new();
        sandbox.write("a", "x");
        sandbox.scan();
        // A scan that waits for its list of names holds the index.
        let mut holder =
            sandbox.command(["scan", "--files-from", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut name = String::new();
        let lock = sandbox.index().with_extension("db.lock");
        let began = Instant::now();
        while name.is_empty() && began.elapsed() < Duration::from_secs(20) {
            name = std::fs::read_to_string(&lock).unwrap_or_default();
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(name.contains(&holder.id().to_string()), "{name:?}");
        sandbox.run(["scan", "--no-wait", "tree"]).refused(3, &[&name]);
        sandbox.run(["report"]).succeeds();

        let mut waiting = sandbox.command(["scan", "tree"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("waiting for") && line.contains(&name), "{line}");
        send(&waiting, Signal::INT);
        assert_eq!(waiting.wait().unwrap().code(), Some(130));
        drop(holder.stdin.take());
        assert!(holder.wait().unwrap().success());
    }

    #[test]
    fn a_full_disk_is_a_clear_error_and_the_index_opens_again() {
        let sandbox = large_tree();
        let disk = sandbox.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let dupfind = env!("CARGO_BIN_EXE_dupfind");
        let script = format!(
            "mount -t tmpfs -o size=64k tmpfs {disk} || exit 77
             export HOME={home}
             for size in 24k 64k; do
                 mount -o remount,size=$size {disk}
                 {dupfind} scan --db-url sqlite://{disk}/index.db {tree} 2>>{disk}.made; echo made $?
             done
             mount -o remount,size=300k {disk}
             {dupfind} scan --db-url sqlite://{disk}/index.db {tree} 2>{disk}.err; echo scan $?
             {dupfind} status --db-url sqlite://{disk}/index.db >/dev/null; echo status $?
             mount -o remount,size=100m {disk}
             {dupfind} scan -q --db-url sqlite://{disk}/index.db {tree}; echo again $?
             {dupfind} report --json {disk}.json --db-url sqlite://{disk}/index.db; echo report $?",
            disk = disk.display(),
            home = sandbox.path().join("home").display(),
            tree = sandbox.tree().display(),
        );
        let said = in_own_mounts(&script);
        let [made, error] =
            ["made", "err"].map(|of| std::fs::read_to_string(disk.with_extension(of)).unwrap_or_default());
        assert_eq!(
            said.lines().collect::<Vec<_>>(),
            ["made 3", "made 3", "scan 3", "status 0", "again 0", "report 0"],
            "{made}{error}"
        );
        for line in made.lines().chain(error.lines()) {
            assert!(line.contains("no space left for the index"), "{line}");
        }
        assert_eq!((made.lines().count(), error.lines().count()), (2, 1), "{made}{error}");
        assert_groups(&disk.with_extension("json"), 2001);
    }
}
