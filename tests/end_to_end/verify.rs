//! Bit rot, as far as a test can make it: other content behind the stamp that the index knows.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::discovery::as_ordinary_user;
use super::support::{Run, Sandbox, let_timestamps_settle};
use super::survival::in_own_mounts;

/// Three files of one content and one of its own, hashed and trusted.
fn archive() -> Sandbox {
    let sandbox = Sandbox::new();
    for name in ["a", "b", "deep/c"] {
        sandbox.write(name, "the same");
    }
    sandbox.write("other", "different");
    let_timestamps_settle();
    sandbox.run(["scan", "--hash-all", "tree"]).succeeds();
    sandbox
}

/// Changes what a file holds, and makes the index believe that its stamp was always the one it has now: ctime cannot
/// be set back. What was touched a moment ago is no rot, so some time has to pass.
fn rot(sandbox: &Sandbox, changes: &[(&str, &str)]) {
    for (name, content) in changes {
        let path = sandbox.tree().join(name);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), content.len() as u64);
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        drop(file);
        believe_in_stamp(sandbox, name);
    }
    let_timestamps_settle();
}

fn believe_in_stamp(sandbox: &Sandbox, name: &str) {
    let now = std::fs::metadata(sandbox.tree().join(name)).unwrap();
    let nanos = |seconds: i64, nanos: i64| seconds * 1_000_000_000 + nanos;
    let (mtime, ctime) = (nanos(now.mtime(), now.mtime_nsec()), nanos(now.ctime(), now.ctime_nsec()));
    for table in ["files", "rot"] {
        let set =
            format!("update {table} set mtime_ns = {mtime}, ctime_ns = {ctime} where inode = {}", now.ino());
        sandbox.sql(&set);
    }
}

/// What `verify` says, as JSON, and its exit code.
fn verify(sandbox: &Sandbox, arguments: &[&str]) -> (Value, i32) {
    let run = sandbox.run(["verify", "-q", "--json"].iter().chain(arguments));
    let json = serde_json::from_slice(&run.output.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    (json, run.output.status.code().unwrap())
}

/// Names below the tree.
fn names(sandbox: &Sandbox, list: &Value) -> Vec<String> {
    let tree = format!("{}/", sandbox.tree().display());
    let name = |value: &Value| value["path"].as_str().unwrap().trim_start_matches(&tree).to_owned();
    list.as_array().unwrap().iter().map(name).collect()
}

#[test]
fn a_rotten_file_is_reported_until_it_reads_as_it_should() {
    let sandbox = archive();
    let (json, code) = verify(&sandbox, &[]);
    assert_eq!(
        (code, &json["intact"], &json["hashed"], &json["bytes_read"]),
        (0, &4.into(), &4.into(), &33.into())
    );
    assert_eq!((&json["problems"], &json["without_hash"]), (&0.into(), &0.into()));

    rot(&sandbox, &[("b", "the samE")]);
    let run = sandbox.run(["verify"]).ends_with(1);
    for words in ["rotten", "tree/b", "tree/a", "tree/deep/c", "hash was", "--accept", "3 as they were"] {
        assert!(run.stdout().contains(words), "{words}: {}", run.stdout());
    }
    assert_eq!(sandbox.group_names(), [["a", "deep/c"]]);
    let since = verify(&sandbox, &["--known"]).0["rotten"][0]["since"].clone();

    // Scans neither bless it nor lose it, even one that hashes everything.
    for arguments in [&["scan", "tree"][..], &["scan", "--hash-all", "tree"], &["resume"]] {
        sandbox.run(arguments).succeeds();
        assert_eq!(sandbox.group_names(), [["a", "deep/c"]], "{arguments:?}");
        assert_eq!(sandbox.report()["complete"], true);
        let status = sandbox.run(["status", "--problems"]).succeeds().stdout();
        assert!(status.contains("tree/b: content is not what it was"), "{status}");
    }
    let told = sandbox.run(["files", "tree/b"]).succeeds().stdout();
    for words in ["none: it is not what it was", "bit rot", "none known"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let told = sandbox.run(["files", "tree"]).succeeds().stdout();
    assert!(told.contains("4 files") && told.contains("2 with copies, 1 with a problem"), "{told}");
    for arguments in [&[][..], &["--known"], &["--sample", "1%"], &["tree"]] {
        let (json, code) = verify(&sandbox, arguments);
        assert_eq!((code, names(&sandbox, &json["rotten"])), (1, vec!["b".to_owned()]), "{arguments:?}");
        let rotten = &json["rotten"][0];
        assert_eq!(names(&sandbox, &rotten["copies"]), ["a", "deep/c"]);
        assert_eq!(rotten["expected"], blake3::hash(b"the same").to_string());
        assert_eq!(rotten["found"], blake3::hash(b"the samE").to_string());
        assert_eq!(rotten["since"], since);
    }
    let (json, code) = verify(&sandbox, &["tree/deep"]);
    assert_eq!((code, json["rotten"].as_array().unwrap().len()), (0, 0), "it is not there");
    let runs = "select case when root_id is null then '-' else 'root' end, case when path is null then '-' else 'path' end,
                       status, files_seen, hashed, problems from scans where kind = 'verify' order by id";
    let runs = sandbox.sql(runs);
    let runs: Vec<&str> = runs.lines().collect();
    assert_eq!(runs[0], "root|-|completed|4|4|0");
    assert_eq!(runs[1], "root|-|completed|4|4|1");
    assert_eq!(runs[2], "root|-|completed|1|1|1", "--known");
    assert_eq!(*runs.last().unwrap(), "root|path|completed|1|1|0", "a part of the root");

    // A flaky cable: the same bytes read well again.
    rot(&sandbox, &[("b", "the same")]);
    let (json, code) = verify(&sandbox, &[]);
    assert_eq!((code, names(&sandbox, &json["withdrawn"])), (0, vec!["b".to_owned()]));
    assert_eq!(
        (&json["intact"], &json["hashed"], &json["not_read"]),
        (&4.into(), &4.into(), &0.into()),
        "once"
    );
    assert_eq!(sandbox.group_names(), [["a", "b", "deep/c"]]);
    assert_eq!(sandbox.report()["summary"]["problems"], 0);
    assert!(verify(&sandbox, &[]).0["withdrawn"].as_array().unwrap().is_empty());
    sandbox.assert_sound();
}

#[test]
fn a_single_file_is_verified_and_copies_that_changed_are_not_named() {
    let sandbox = archive();
    rot(&sandbox, &[("b", "the samE"), ("other", "diffErent")]);
    let (json, code) = verify(&sandbox, &["tree/b"]);
    assert_eq!((code, names(&sandbox, &json["rotten"])), (1, vec!["b".to_owned()]));
    assert_eq!((&json["hashed"], &json["without_hash"]), (&1.into(), &0.into()));
    let (json, code) = verify(&sandbox, &["tree/a"]);
    assert_eq!((code, &json["intact"], &json["hashed"]), (0, &1.into(), &1.into()), "{json}");
    sandbox.run(["verify", "tree/none"]).refused(2, &["tree/none", "dupfind scan"]);
    sandbox.run(["verify", "--sample", "5%", "tree/a"]).refused(2, &["tree/a", "--sample"]);
    assert_eq!(verify(&sandbox, &[]).0["without_hash"], 0, "it should have one");

    sandbox.write("a", "the sAme");
    let (json, _) = verify(&sandbox, &["--known", "tree/b"]);
    assert_eq!(names(&sandbox, &json["rotten"][0]["copies"]), ["deep/c"]);
    let (json, code) = verify(&sandbox, &["--accept", "tree/b"]);
    assert_eq!((code, &json["accepted"]), (0, &1.into()), "the other one was not asked for: {json}");
}

#[test]
fn what_is_restored_or_replaced_is_told_apart_before_a_scan_and_after() {
    let sandbox = archive();
    rot(&sandbox, &[("a", "tHe same"), ("b", "the samE"), ("other", "diffErent")]);
    let (json, _) = verify(&sandbox, &[]);
    assert_eq!(names(&sandbox, &json["rotten"]), ["a", "b", "other"]);
    std::fs::copy(sandbox.tree().join("deep/c"), sandbox.tree().join("a")).unwrap();
    sandbox.write("b", "something else");
    let (json, code) = verify(&sandbox, &["--known"]);
    assert_eq!(code, 1);
    assert_eq!(names(&sandbox, &json["restored"]), ["a"]);
    assert_eq!(names(&sandbox, &json["replaced"]), ["b"]);
    assert_eq!(names(&sandbox, &json["rotten"]), ["other"]);
    assert!(json["rotten"][0]["copies"].as_array().unwrap().is_empty());
    assert_eq!(sandbox.group_names(), [["a", "deep/c"]]);

    sandbox.write("other", "different");
    sandbox.scan();
    assert_eq!(sandbox.report()["summary"]["problems"], 0, "the user saw to it");
    let (json, code) = verify(&sandbox, &["--known"]);
    assert_eq!(
        (code, names(&sandbox, &json["restored"])),
        (0, vec!["other".to_owned()]),
        "without a partner, too"
    );
}

#[test]
fn a_rotten_file_cannot_be_washed_clean_by_renaming() {
    let sandbox = archive();
    rot(&sandbox, &[("b", "the samE"), ("deep/c", "thE same")]);
    verify(&sandbox, &[]);
    std::fs::rename(sandbox.tree().join("b"), sandbox.tree().join("renamed")).unwrap();
    std::fs::rename(sandbox.tree().join("deep"), sandbox.tree().join("elsewhere")).unwrap();
    sandbox.scan();
    for _ in 0..2 {
        let (json, code) = verify(&sandbox, &["--known"]);
        assert_eq!(
            (code, names(&sandbox, &json["rotten"])),
            (1, vec!["renamed".to_owned(), "elsewhere/c".to_owned()])
        );
        assert!(json["gone"].as_array().unwrap().is_empty(), "{json}");
        assert!(sandbox.groups().is_empty());
    }
    std::fs::copy(sandbox.tree().join("a"), sandbox.tree().join("renamed")).unwrap();
    std::fs::remove_file(sandbox.tree().join("elsewhere/c")).unwrap();
    sandbox.scan();
    let (json, code) = verify(&sandbox, &["--known"]);
    assert_eq!((code, names(&sandbox, &json["restored"])), (0, vec!["renamed".to_owned()]));
    assert_eq!(names(&sandbox, &json["gone"]), ["elsewhere/c"]);
    assert_eq!(sandbox.group_names(), [["a", "renamed"]]);
}

#[test]
fn rot_can_be_accepted_file_by_file() {
    let sandbox = archive();
    rot(&sandbox, &[("a", "the samE"), ("b", "the samE"), ("other", "diffErent")]);
    verify(&sandbox, &[]);
    assert!(sandbox.groups().is_empty(), "rotten files match nothing, not even each other");
    let run = sandbox.run(["verify", "--accept", "tree/a"]).succeeds();
    assert!(run.stdout().contains("accepted 1 rotten file"), "{}", run.stdout());
    let (json, code) = verify(&sandbox, &["--accept", "tree"]);
    assert_eq!((code, &json["accepted"]), (0, &2.into()));
    assert_eq!(sandbox.group_names(), [["a", "b"]], "equal as they are");
    let (json, code) = verify(&sandbox, &[]);
    assert_eq!((code, &json["intact"]), (0, &4.into()));
    sandbox.run(["verify", "--accept", "home"]).refused(2, &["home", "dupfind scan"]);
    sandbox.run(["verify", "--accept", "--sample", "5%"]).ends_with(2);
    for share in ["0%", "200%", "some"] {
        assert!(sandbox.run(["verify", "--sample", share]).ends_with(2).stderr().contains("percentage"));
    }
}

#[test]
fn a_file_that_somebody_changed_is_left_to_the_next_scan() {
    let sandbox = archive();
    let path = sandbox.tree().join("b");
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, "the samE").unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_modified(before).unwrap();
    std::fs::remove_file(sandbox.tree().join("other")).unwrap();
    let (json, code) = verify(&sandbox, &[]);
    assert_eq!(
        (code, &json["changed"], &json["intact"], &json["problems"]),
        (0, &2.into(), &2.into(), &0.into())
    );
    sandbox.scan();
    assert_eq!(sandbox.group_names(), [["a", "deep/c"]]);
    assert_eq!(sandbox.report()["summary"]["files"], 3);
}

#[test]
fn a_file_with_several_names_is_read_once_and_rots_as_one() {
    let sandbox = Sandbox::new();
    let path = sandbox.write("a", "the same");
    std::fs::hard_link(&path, sandbox.tree().join("link")).unwrap();
    sandbox.write("copy", "the same");
    let_timestamps_settle();
    sandbox.scan();
    rot(&sandbox, &[("a", "the samE")]);
    let (json, code) = verify(&sandbox, &[]);
    assert_eq!((code, names(&sandbox, &json["rotten"])), (1, vec!["a".to_owned(), "link".to_owned()]));
    assert_eq!(json["bytes_read"], 16);
    assert_eq!(names(&sandbox, &json["rotten"][0]["copies"]), ["copy"], "a link is no copy");
}

#[test]
fn twenty_samples_of_a_twentieth_reach_every_file() {
    let sandbox = Sandbox::new();
    for index in 0..200 {
        sandbox.write(format!("{}/{index}", index % 7), format!("{index:08}"));
    }
    let_timestamps_settle();
    sandbox.run(["scan", "--hash-all", "tree"]).succeeds();
    let rotten = ["1/57", "3/150", "6/6"];
    let changes: Vec<(&str, &str)> = rotten.iter().map(|name| (*name, "bit rot!")).collect();
    rot(&sandbox, &changes);
    let (mut read, mut found) = (0, 0);
    for run in 0..20 {
        // What comes meanwhile has its place on the ring.
        sandbox.write(format!("new/{run}"), format!("new {run:04}"));
        let (json, _) = verify(&sandbox, &["--sample", "5%"]);
        assert_eq!(json["sample"]["samples_in_a_round"], 20);
        let known = std::mem::replace(&mut found, json["rotten"].as_array().unwrap().len());
        // Those on record are read each time.
        read += json["hashed"].as_u64().unwrap() - known as u64;
        assert!(json["hashed"].as_u64().unwrap() < 40, "{json}");
    }
    assert_eq!((read, found), (200, 3));
}

#[test]
fn a_stopped_verification_keeps_the_index_and_others_may_write_meanwhile() {
    let sandbox = Sandbox::new();
    let large = sandbox.write("large", "");
    // Without blocks on the disk, so that only reading takes time.
    OpenOptions::new().write(true).open(&large).unwrap().set_len(3 << 30).unwrap();
    let_timestamps_settle();
    sandbox.run(["scan", "--hash-all", "tree"]).succeeds();
    std::fs::create_dir(sandbox.path().join("more")).unwrap();
    std::fs::write(sandbox.path().join("more/x"), "x").unwrap();
    let status = "select status from scans where kind = 'verify' order by id desc limit 1";
    let told = || {
        let run = sandbox.run(["history", "--json"]).succeeds();
        let history: Value = serde_json::from_slice(&run.output.stdout).unwrap();
        let runs = history["runs"].as_array().unwrap();
        let newest = runs.iter().find(|run| run["kind"] == "verify").unwrap();
        (newest["status"].as_str().unwrap().to_owned(), newest["error"].clone())
    };
    let first_bits = sandbox.sql("select substr(hash_value, 1, 8) from file_hashes where filename = 'large'");
    let place_on_the_ring = (u64::from_str_radix(&first_bits, 16).unwrap() * 1_000_000) >> 32;
    for (number, signal) in [Signal::INT, Signal::TERM, Signal::KILL].into_iter().enumerate() {
        let mut command = sandbox.command(["verify", "--sample", "100%"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        let running = (number + 1).to_string();
        while sandbox.sql("select count(*) from scans where kind = 'verify'") != running {
            assert!(began.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(5));
        }
        if signal == Signal::INT {
            sandbox.run(["scan", "-q", "more"]).succeeds();
            assert_eq!(sandbox.sql(status), "running", "nobody waits for it, or takes it for dead");
            assert_eq!(told(), ("running".to_owned(), Value::Null));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let run = Run::of(child.wait_with_output().unwrap());
        if signal == Signal::KILL {
            assert_eq!(run.output.status.code(), None);
            // Where others share the index, it is taken for dead when it was silent for long enough.
            std::thread::sleep(Duration::from_millis(2500));
            let died = ("interrupted".to_owned(), "the process that ran it died".into());
            assert_eq!((told(), sandbox.sql(status)), (died, "running".to_owned()), "nobody marked it yet");
            sandbox.run(["scan", "-q", "more"]).succeeds();
        } else {
            run.ends_with(130);
        }
        assert_eq!(sandbox.sql(status), "interrupted", "{signal:?}");
        // The slices before that of the one file are empty, and may be finished; its own is not.
        let position = sandbox.sql("select coalesce(max(position), 0) from sampled");
        assert!(position.parse::<u64>().unwrap() <= place_on_the_ring, "{position} of {place_on_the_ring}");
        sandbox.assert_sound();
    }
    let (json, code) = verify(&sandbox, &[]);
    assert_eq!((code, &json["intact"]), (0, &1.into()));
}

#[test]
fn volumes_that_are_not_mounted_are_said_and_left_out() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "the same");
    let script = format!(
        "cd {tree} && mkdir disk && mount -t tmpfs tmpfs disk || exit 77
         echo -n 'the same' >disk/b; sleep 2.1; cd ..; export RUST_BACKTRACE=0
         dupfind='{environment} {dupfind}'
         $dupfind scan -q tree; echo scan $?
         $dupfind verify -q; echo all $?
         umount tree/disk
         $dupfind verify 2>said; echo without $?
         $dupfind verify -q tree/disk; echo disk $?
         cat said",
        tree = sandbox.tree().display(),
        environment = sandbox.shell_environment(),
        dupfind = env!("CARGO_BIN_EXE_dupfind"),
    );
    let said = in_own_mounts(&script);
    for line in ["scan 0", "all 0", "without 0", "disk 1"] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    assert!(said.contains("not mounted here; left out"), "{said}");
    assert!(said.contains("1 file in"), "the other one was verified: {said}");
}

#[test]
fn what_may_not_be_read_keeps_its_hash_and_is_a_problem_until_it_may() {
    if rustix::process::geteuid().is_root() {
        return as_ordinary_user("verify::what_may_not_be_read_keeps_its_hash_and_is_a_problem_until_it_may");
    }
    let sandbox = archive();
    let path = sandbox.tree().join("b");
    let allow = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        believe_in_stamp(&sandbox, "b");
    };
    allow(0o000);
    let (json, code) = verify(&sandbox, &[]);
    assert_eq!((code, &json["denied"], &json["intact"]), (1, &1.into(), &3.into()));
    assert_eq!(sandbox.group_names(), [["a", "b", "deep/c"]], "that says nothing of its content");
    let status = sandbox.run(["status", "--problems"]).succeeds().stdout();
    assert!(status.contains("tree/b: permission denied"), "{status}");
    allow(0o644);
    let (json, code) = verify(&sandbox, &[]);
    assert_eq!((code, &json["intact"], &json["problems"]), (0, &4.into(), &0.into()));
    assert_eq!(sandbox.report()["summary"]["problems"], 0);
}
