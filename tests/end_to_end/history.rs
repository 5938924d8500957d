//! `dupfind history`: what there was, from outside.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::{Sandbox, let_timestamps_settle};

fn history(sandbox: &Sandbox, arguments: &[&str]) -> Vec<Value> {
    let run = sandbox.run(["history", "--json"].iter().chain(arguments)).succeeds();
    let document: Value = serde_json::from_slice(&run.output.stdout).unwrap();
    assert_eq!(document["version"], 1);
    document["runs"].as_array().unwrap().clone()
}

#[test]
fn every_run_is_listed_with_what_it_did_and_what_there_was_then() {
    let sandbox = Sandbox::new();
    sandbox.write("a/1", "same");
    sandbox.write("b/2", "same");
    sandbox.write("b/alone", "unlike");
    sandbox.run(["scan", "-q", "tree/a", "tree/b"]).succeeds();
    std::fs::remove_file(sandbox.tree().join("a/1")).unwrap();
    sandbox.run(["scan", "-q", "tree/a"]).succeeds();

    let runs = history(&sandbox, &[]);
    assert_eq!(runs.len(), 3);
    let newest = &runs[0];
    let root = sandbox.tree().join("a").display().to_string();
    assert_eq!((&newest["kind"], &newest["status"]), (&"scan".into(), &"completed".into()));
    assert_eq!((newest["root"].as_str(), &newest["within"]), (Some(root.as_str()), &Value::Null));
    assert_eq!((&newest["removed"], &newest["added"]), (&1.into(), &0.into()));
    assert_eq!((&newest["error"], &newest["host"]), (&Value::Null, &Value::Null));
    let figures = &newest["figures"];
    assert_eq!((&figures["files"], &figures["groups"]), (&2.into(), &0.into()));
    let before = &runs[1]["figures"];
    assert_eq!((&before["files"], &before["groups"]), (&3.into(), &1.into()));
    assert_eq!((&before["redundant_files"], &before["reclaimable_bytes"]), (&1.into(), &4.into()));
    assert!(newest["generation"].as_u64() > runs[1]["generation"].as_u64());
    assert!(newest["duration_seconds"].as_f64().unwrap() > 0.0);
    let read: u64 = runs.iter().map(|run| run["bytes_read"].as_u64().unwrap()).sum();
    assert_eq!(read, 8, "the two of a size");

    assert_eq!(history(&sandbox, &["--root", "tree/b"]).len(), 1);
    assert_eq!(history(&sandbox, &["--root", "tree/a", "--limit", "1"]), runs[..1]);
    sandbox.run(["history", "--root", "tree"]).refused(2, &["tree: not a scanned directory"]);
    sandbox.run(["history", "--root", "nowhere"]).refused(2, &["nowhere", "dupfind roots"]);

    let text = sandbox.run(["history"]).succeeds().stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("STARTED (UTC)") && lines[1].contains("-1"), "{text}");
    assert_eq!(lines[2].trim(), root);
    assert_eq!(lines[3].trim(), "then 2 files, 10 B; 0 redundant in 0 groups, 0 B");
    let fits = |line: &&str| line.len() <= 80 || line.contains('/');
    assert!(lines.iter().all(fits), "but for paths, it fits a terminal: {text}");
}

#[test]
fn a_run_that_was_killed_is_interrupted_at_once_and_one_at_work_runs() {
    let sandbox = Sandbox::new();
    sandbox.write("first", "x");
    sandbox.scan();
    let_timestamps_settle();
    for number in 0..20_000 {
        sandbox.write(format!("{}/{number}", number % 500), format!("{}", number % 7));
    }
    let scan = ["scan", "-q", "--threads", "1", "--io-threads", "1", "tree"];
    let mut child = sandbox.command(scan).stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while history(&sandbox, &["--limit", "1"])[0]["status"] != "running" {
        assert!(start.elapsed() < Duration::from_secs(20), "a run at work is seen");
        assert!(child.try_wait().unwrap().is_none(), "it has enough to do");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let killed = Instant::now();
    let newest = loop {
        let newest = history(&sandbox, &["--limit", "1"]).remove(0);
        // Another host's process is only known to be dead when it was silent for long enough.
        if newest["status"] != "running" || killed.elapsed() > Duration::from_secs(10) {
            break newest;
        }
    };
    assert_eq!((&newest["status"], &newest["ended_at"]), (&"interrupted".into(), &Value::Null));
    assert!(newest["error"].as_str().unwrap().contains("died"));
    let text = sandbox.run(["history"]).succeeds().stdout();
    assert!(text.contains("interrupted") && text.contains("the process that ran it died"), "{text}");
    let running = "select cast(count(*) as text) from scans where status = 'running'";
    assert_eq!(sandbox.sql(running), "1", "nobody marked it yet");
}
