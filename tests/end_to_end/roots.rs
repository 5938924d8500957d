//! What is remembered with a directory, and how it is changed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::support::Sandbox;

/// The roots as `dupfind roots --json` lists them.
fn roots(sandbox: &Sandbox) -> Vec<Value> {
    let run = sandbox.run(["roots", "--json"]).succeeds();
    let listed: Value = serde_json::from_slice(&run.output.stdout).unwrap();
    assert_eq!(listed["version"], 1);
    listed["roots"].as_array().unwrap().clone()
}

#[test]
fn a_directory_is_remembered_without_being_scanned_and_scanned_by_resume() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "same");
    sandbox.write("b", "same");
    let added = sandbox.run(["roots", "add", "--watch", "tree"]).succeeds();
    assert_eq!(added.stdout(), "");
    assert!(added.stderr().contains("tree: watched"), "{added:?}");
    assert!(added.stderr().contains("dupfind resume"), "{added:?}");
    let listed = sandbox.run(["roots"]).succeeds().stdout();
    assert!(listed.contains("tree  never scanned\n  watched\n"), "{listed}");
    assert!(sandbox.run(["status"]).succeeds().stdout().contains("never scanned, 0 files"));
    let report = sandbox.report();
    assert_eq!((&report["complete"], &report["summary"]["files"]), (&false.into(), &0.into()));

    sandbox.run(["resume"]).succeeds();
    assert_eq!(sandbox.group_names(), [["a", "b"]]);
    assert_eq!(sandbox.report()["complete"], true);
    assert_eq!(roots(&sandbox)[0]["upkeep"]["watch"], true, "a scan keeps it");
    assert!(sandbox.run(["resume"]).succeeds().stderr().contains("nothing to resume"));
}

#[test]
fn of_a_root_that_is_there_only_what_is_given_changes() {
    let sandbox = Sandbox::new();
    sandbox.write("photos/2026/a", "same");
    sandbox.run(["scan", "--hidden", "--min-size", "2", "tree"]).succeeds();
    let added = sandbox.run([
        "roots",
        "add",
        "tree",
        "--interval",
        "12h",
        "--longest-interval",
        "3d",
        "--poll",
        "10m",
        "--batch-size",
        "100",
        "--threads",
        "2",
        "--io-threads",
        "3",
        "--first",
        "photos/2026",
        "--first",
        "photos",
        "--first",
        "photos/../photos",
        "--recent-first",
        "--json",
    ]);
    let added: Value = serde_json::from_slice(&added.succeeds().output.stdout).unwrap();
    let upkeep = json!({
        "watch": false, "interval_seconds": 12 * 3600, "shortest_interval_seconds": null,
        "longest_interval_seconds": 3 * 86400, "poll_seconds": 600, "batch_size": 100, "threads": 2,
        "io_threads": 3, "first": ["photos/2026", "photos"], "recent_first": true,
    });
    assert_eq!(added["roots"][0]["upkeep"], upkeep);
    assert_eq!(roots(&sandbox), added["roots"].as_array().unwrap().clone());
    let settings = |name: &str| roots(&sandbox)[0]["settings"][name].clone();
    assert_eq!((settings("hidden"), settings("min_size")), (true.into(), 2.into()));

    sandbox.run(["roots", "add", "tree", "--watch", "--recent-first=false", "--hash", "all"]).succeeds();
    let mut changed = upkeep;
    changed["watch"] = true.into();
    changed["recent_first"] = false.into();
    assert_eq!(roots(&sandbox)[0]["upkeep"], changed);
    assert_eq!((settings("hidden"), settings("hash")), (true.into(), "all".into()));
    let listed = sandbox.run(["roots"]).succeeds().stdout();
    for words in
        ["watched; every 12h", "at the longest 3d", "polled every 10m", "hash all", "first: photos/2026"]
    {
        assert!(listed.contains(words), "{words}: {listed}");
    }

    sandbox.run(["roots", "add", "tree", "--reset", "--interval", "1h"]).succeeds();
    assert_eq!((settings("hidden"), settings("hash")), (false.into(), "candidates".into()));
    let upkeep = &roots(&sandbox)[0]["upkeep"];
    assert_eq!((&upkeep["interval_seconds"], &upkeep["watch"]), (&3600.into(), &false.into()));
    assert_eq!((&upkeep["poll_seconds"], &upkeep["first"]), (&Value::Null, &json!([])));
}

#[test]
fn a_preset_sets_several_options_and_one_beside_it_wins() {
    let sandbox = Sandbox::new();
    let with = |arguments: &[&str]| {
        sandbox.run(["roots", "add", "tree"].iter().chain(arguments)).succeeds();
        let root = &roots(&sandbox)[0];
        let upkeep = &root["upkeep"];
        let seconds = |name: &str| upkeep[format!("{name}interval_seconds")].as_u64().unwrap();
        let minutes = ["shortest_", "", "longest_"].map(|name| seconds(name) / 60);
        (minutes, root["settings"]["hash"].as_str().unwrap().to_owned(), upkeep.clone())
    };
    let (minutes, hash, _) = with(&["--preset", "small", "--watch"]);
    assert_eq!((minutes, hash.as_str()), ([10, 60, 24 * 60], "all"));
    let (minutes, hash, upkeep) = with(&["--preset", "large", "--hash", "none"]);
    assert_eq!((minutes, hash.as_str()), ([24 * 60, 7 * 24 * 60, 30 * 24 * 60], "none"));
    assert_eq!((&upkeep["batch_size"], &upkeep["recent_first"]), (&32768.into(), &true.into()));
    let (minutes, hash, upkeep) = with(&["--preset", "busy", "--interval", "2h"]);
    assert_eq!((minutes, hash.as_str()), ([30, 120, 24 * 60], "candidates"));
    assert_eq!((&upkeep["threads"], &upkeep["io_threads"]), (&2.into(), &2.into()));
    assert_eq!((&upkeep["batch_size"], &upkeep["watch"]), (&Value::Null, &true.into()));
    sandbox
        .run(["roots", "add", "tree", "--preset", "small", "--interval", "2d"])
        .refused(2, &["tree", "interval (2d) is more than longest_interval (24h)"]);
}

#[test]
fn a_root_inside_another_begins_with_its_options() {
    let sandbox = Sandbox::new();
    sandbox.write("in/.hidden", "same");
    sandbox.run(["scan", "--hidden", "tree"]).succeeds();
    sandbox.run(["roots", "add", "--interval", "1h", "tree/in"]).succeeds();
    let inner = &roots(&sandbox)[1];
    assert_eq!(inner["settings"]["hidden"], true);
    assert_eq!(inner["last_scan"], Value::Null);
    assert_eq!(sandbox.file_names(), ".hidden", "what the outer one found stays");
    sandbox.run(["scan", "tree"]).succeeds();
    assert_eq!(roots(&sandbox)[1]["last_scan"]["status"], "completed", "it is scanned with the outer one");
    sandbox.run(["roots", "add", "--hidden=false", "tree/in"]).succeeds();
    sandbox.run(["roots", "add", "--reset", "tree/in"]).succeeds();
    assert_eq!(roots(&sandbox)[1]["settings"]["hidden"], true, "as a new one would begin");
}

#[test]
fn a_root_whose_directory_is_away_can_still_be_changed() {
    let sandbox = Sandbox::new();
    sandbox.write("away/a", "x");
    sandbox.run(["scan", "tree/away"]).succeeds();
    std::fs::rename(sandbox.tree().join("away"), sandbox.tree().join("elsewhere")).unwrap();
    sandbox.run(["roots", "add", "--interval", "1h", "tree/away"]).succeeds();
    let root = &roots(&sandbox)[0];
    assert_eq!(root["upkeep"]["interval_seconds"], 3600);
    assert!(root["path"].as_str().unwrap().ends_with("tree/away"));
    sandbox
        .run(["roots", "add", "--interval", "1h", "tree/nowhere"])
        .refused(2, &["nowhere", "No such file"]);
    assert_eq!(roots(&sandbox).len(), 1);
}

#[test]
fn options_that_make_no_sense_are_refused_and_nothing_is_remembered() {
    let sandbox = Sandbox::new();
    sandbox.write("sub/a", "x");
    let refused = |arguments: &[&str], words: &[&str]| {
        sandbox.run(["roots", "add", "tree"].iter().chain(arguments)).refused(2, words);
    };
    refused(
        &["--shortest-interval", "2d", "--longest-interval", "1d"],
        &["tree", "2d", "longest_interval (24h)"],
    );
    refused(&["--first", "sub/.."], &["--first", "all of"]);
    refused(&["--first", "../home"], &["--first", "not below"]);
    refused(&["--first", "missing"], &["missing", "No such file"]);
    refused(&["--first", "sub/a"], &["sub/a", "not a directory"]);
    refused(&["--exclude", ""], &["names nothing"]);
    refused(&["missing"], &["missing", "No such file"]);
    for arguments in [
        &["--interval", "0s"][..],
        &["--interval", "24"],
        &["--interval", "10ms"],
        &["--poll", "1h ago"],
        &["--threads", "0"],
        &["--preset", "huge"],
        &["--hash", "all", "--hash-all"],
    ] {
        let run = sandbox.run(["roots", "add", "tree"].iter().chain(arguments)).ends_with(2);
        assert!(run.stderr().contains(arguments[0]), "{run:?}");
    }
    sandbox.run(["roots", "add"]).ends_with(2);
    sandbox.scan();
    sandbox.run(["roots", "add", "tree", "--longest-interval", "1h"]).succeeds();
    refused(&["--interval", "2h"], &["interval (2h) is more than longest_interval (1h)"]);
    assert_eq!(roots(&sandbox)[0]["upkeep"]["interval_seconds"], Value::Null);
}

#[test]
fn a_name_that_is_no_text_is_shown_and_listed_with_its_bytes() {
    let sandbox = Sandbox::new();
    let odd = sandbox.tree().join(OsStr::from_bytes(b"odd\xff"));
    std::fs::create_dir(&odd).unwrap();
    sandbox.run([OsStr::new("roots"), OsStr::new("add"), odd.as_os_str()]).succeeds();
    assert!(sandbox.run(["roots"]).succeeds().stdout().contains("tree/odd\\xff  never scanned"));
    let encoded = roots(&sandbox)[0]["path_base64"].as_str().unwrap().to_owned();
    assert_eq!(STANDARD.decode(encoded).unwrap(), odd.as_os_str().as_bytes());
    let add_first = ["roots", "add", "tree", "--first"].map(OsStr::new);
    let first = sandbox.run(add_first.iter().chain([&OsStr::from_bytes(b"odd\xff")]));
    first.refused(2, &["odd\\xff", "not UTF-8"]);
}

/// What is so in SQLite only; left out by name where the tests run on PostgreSQL.
mod sqlite_only {
    use super::*;

    #[test]
    fn what_is_refused_leaves_no_index() {
        let sandbox = Sandbox::new();
        sandbox.run(["roots", "add", "missing"]).refused(2, &["missing"]);
        sandbox.run(["roots", "add", "tree", "--first", ".."]).refused(2, &["--first"]);
        assert!(!sandbox.index().exists());
        sandbox.run(["roots", "add", "tree"]).succeeds();
        assert!(sandbox.index().exists());
    }
}
