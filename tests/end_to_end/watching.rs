//! `dupfind watch`: whatever happens, at quiet the index is what a scan would make of the tree.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rustix::process::Signal;
use serde_json::Value;

use super::support::Sandbox;
use super::tree::{Event, apply, event};
use super::watcher::{
    PATIENCE, Watching, assert_nothing_was_missed, assert_right_soon, hashed, root_status, until_files,
    until_groups,
};

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
    // Empty files, too: of those that are not of interest nobody knows which names they have.
    sandbox.run(["roots", "add", "-q", "--min-size", "0", "tree"]).succeeds();
    let mut watching = Some(Watching::start(&sandbox, &["tree"]));
    // More, when it is worth the time: hundreds of rounds were run.
    let rounds = std::env::var("DUPFIND_TEST_ROUNDS").map_or(8, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let mut done = Vec::new();
        for _ in 0..60 {
            let event = events();
            apply(&sandbox.tree(), &event);
            // Of a link that is made, written through and removed before it was looked at, nobody tells the other names.
            let is_link = matches!(event, Event::HardLink { .. });
            done.push(event);
            if is_link && let Some(running) = &watching {
                assert_right_soon(&sandbox, || {
                    format!("DUPFIND_TEST_SEED={seed}: {done:?}\n{:#?}", running.told())
                });
            }
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

#[test]
fn a_change_is_in_the_report_soon_and_our_own_reading_is_none() {
    let sandbox = Sandbox::new();
    for name in ["a", "b", "c"] {
        sandbox.write(name, "the same");
    }
    let watching = Watching::start(&sandbox, &["tree"]);
    assert_eq!(sandbox.group_names(), [["a", "b", "c"]]);
    sandbox.write("d/e/f", "the same");
    until_groups(&sandbox, &[&["a", "b", "c", "d/e/f"]]);
    sandbox.write("b", "different");
    until_groups(&sandbox, &[&["a", "c", "d/e/f"]]);
    std::fs::remove_dir_all(sandbox.tree().join("d")).unwrap();
    until_groups(&sandbox, &[&["a", "c"]]);

    // Everybody may read as much as they like.
    std::thread::sleep(Duration::from_millis(500));
    let before = watching.told().len();
    for name in ["a", "b", "c"] {
        std::fs::read(sandbox.tree().join(name)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(watching.told().len(), before);
    watching.stop();
    assert_nothing_was_missed(&sandbox);
}

#[test]
fn what_is_renamed_is_not_read_again() {
    let sandbox = Sandbox::new();
    for directory in ["a", "b/c"] {
        for number in 0..20 {
            sandbox.write(format!("{directory}/{number}"), format!("content {number:03}"));
        }
    }
    // So that no hash is racily clean.
    std::thread::sleep(Duration::from_millis(200));
    let watching = Watching::start(&sandbox, &["tree"]);
    let at = |name: &str| sandbox.tree().join(name);
    // What is new is followed a moment later: what happens in it before is not seen.
    sandbox.write("new/x", "in a directory that is followed by now");
    std::fs::rename(at("b"), at("elsewhere")).unwrap();
    let began = Instant::now();
    let is_followed = || {
        let groups = sandbox.group_names();
        let is_moved = groups.iter().any(|group| group[..] == ["a/7", "elsewhere/c/7"]);
        is_moved && sandbox.report()["summary"]["files"] == 41
    };
    while !is_followed() {
        assert!(began.elapsed() < PATIENCE, "{:?}", sandbox.group_names());
        std::thread::sleep(Duration::from_millis(20));
    }
    // Its rows have moved, but it may not be followed at its new place yet: where this is found, it is.
    sandbox.write("elsewhere/c/found", "by its walk, and of a size of its own");
    until_files(&sandbox, 42);
    std::fs::rename(at("a/7"), at("a/seven")).unwrap();
    std::fs::rename(at("a/8"), at("new/eight")).unwrap();
    std::fs::rename(at("elsewhere/c"), at("elsewhere/d")).unwrap();
    let began = Instant::now();
    let is_there = || {
        let groups = sandbox.group_names();
        let has = |pair: [&str; 2]| groups.iter().any(|group| group[..] == pair);
        has(["a/seven", "elsewhere/d/7"])
            && has(["elsewhere/d/8", "new/eight"])
            && has(["a/9", "elsewhere/d/9"])
    };
    while !is_there() {
        assert!(began.elapsed() < PATIENCE, "{:?}", sandbox.group_names());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(hashed(&watching), 0, "{:#?}", watching.told());

    // But for one that was written to: what it was is not what it is.
    let written = at("a/9");
    let modified = std::fs::metadata(&written).unwrap().modified().unwrap();
    std::fs::write(&written, "CONTENT 009").unwrap();
    File::options().write(true).open(&written).unwrap().set_modified(modified).unwrap();
    std::fs::rename(&written, at("a/nine")).unwrap();
    assert_right_soon(&sandbox, || format!("{:#?}", watching.told()));
    assert_eq!(sandbox.group_names().len(), 19);
    watching.stop();
    assert_nothing_was_missed(&sandbox);
}

#[test]
fn a_saved_file_is_a_change_and_a_name_beyond_the_limits_takes_its_links_with_it() {
    let sandbox = Sandbox::new();
    for name in ["a", "b"] {
        sandbox.write(name, "the same");
    }
    let tree = sandbox.tree();
    std::fs::hard_link(tree.join("b"), tree.join("link")).unwrap();
    let watching = Watching::start(&sandbox, &["tree"]);
    until_groups(&sandbox, &[&["a", "b", "link"]]);
    sandbox.write("new~", "the same");
    std::fs::rename(tree.join("new~"), tree.join("a")).unwrap();
    watching.until("saved", |it| it["event"] == "followed" && it["updated"] == 1);
    until_groups(&sandbox, &[&["a", "b", "link"]]);
    // Empty files are of no interest: only one name tells, and both are gone.
    File::options().write(true).open(tree.join("b")).unwrap().set_len(0).unwrap();
    until_groups(&sandbox, &[]);
    assert_right_but_for_empty(&sandbox);
    watching.stop();
}

fn assert_right_but_for_empty(sandbox: &Sandbox) {
    let began = Instant::now();
    while sandbox.report()["summary"]["files"] != 1 {
        assert!(began.elapsed() < PATIENCE, "{}", sandbox.report()["summary"]);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn bursts_of_files_and_of_directories_are_followed() {
    let sandbox = Sandbox::new();
    let watching = Watching::start(&sandbox, &["tree"]);
    for number in 0..10_000 {
        sandbox.write(format!("burst/{}/{number}", number % 7), format!("{}", number % 5000));
    }
    let mut nested = sandbox.tree();
    for level in 0..1000 {
        nested.push(if level % 2 == 0 { "a" } else { "b" });
        // A path of this length has to be made piece by piece.
        if nested.as_os_str().len() > 3900 {
            break;
        }
        std::fs::create_dir(&nested).unwrap();
    }
    for number in 0..1000 {
        std::fs::create_dir_all(sandbox.tree().join(format!("many/{}/{}", number / 100, number))).unwrap();
    }
    sandbox.write("many/9/999/deep", "the same");
    std::fs::write(nested.parent().unwrap().join("deepest"), "the same").unwrap();
    let began = Instant::now();
    loop {
        let report = sandbox.report();
        let summary = &report["summary"];
        if summary["files"] == 10_002 && summary["groups"] == 5001 && report["complete"] == true {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{summary}");
        std::thread::sleep(Duration::from_millis(100));
    }
    watching.stop();
    assert_nothing_was_missed(&sandbox);
}

#[test]
fn when_the_queue_overflows_the_root_is_walked_again_and_the_log_says_so() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "the same");
    let watching = Watching::start(&sandbox, &["tree"]);
    // While it is stopped, more happens than the system remembers (fs.inotify.max_queued_events).
    let most: usize =
        std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    watching.send(Signal::STOP);
    sandbox.write("early", "the same");
    for number in 0..=most / 2 {
        let path = sandbox.write("x", "x");
        std::fs::rename(&path, path.with_file_name(if number % 2 == 0 { "y" } else { "z" })).unwrap();
    }
    for name in ["x", "y", "z"] {
        let _ = std::fs::remove_file(sandbox.tree().join(name));
    }
    sandbox.write("late/and/deep", "the same");
    watching.send(Signal::CONT);
    until_groups(&sandbox, &[&["a", "early", "late/and/deep"]]);
    let lost = watching.until("lost", |told| told["event"] == "lost");
    assert!(lost["reason"].as_str().unwrap().contains("overflowed"), "{lost}");
    watching.until("reconciled", |told| told["event"] == "reconciled" && told["kind"] == "reconcile");
    sandbox.write("later", "the same");
    until_groups(&sandbox, &[&["a", "early", "late/and/deep", "later"]]);
    watching.stop();
    assert_nothing_was_missed(&sandbox);
}

#[test]
fn where_no_events_come_it_is_not_live_and_says_why() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "the same");
    sandbox.run(["roots", "add", "-q", "--watch", "--poll", "1s", "tree"]).succeeds();
    assert!(sandbox.run(["status"]).stdout().contains("run 'dupfind watch'"));
    let watching = Watching::start(&sandbox, &[]);
    let polled = watching.until("polled", |told| told["event"] == "polled");
    assert_eq!(polled["every_seconds"], 1.0);
    let watch = &root_status(&sandbox)["watches"][0];
    assert_eq!((&watch["mode"], &watch["alive"]), (&"polled".into(), &true.into()), "{watch}");
    sandbox.write("b", "the same");
    until_groups(&sandbox, &[&["a", "b"]]);
    watching.stop();
    assert_eq!(root_status(&sandbox)["watches"], Value::Array(Vec::new()));
}

#[test]
fn a_limit_of_watches_is_told_with_what_to_do() {
    let sandbox = Sandbox::new();
    for number in 0..20 {
        sandbox.write(format!("{number}/a"), "the same");
    }
    let inner = sandbox.command(["watch", "--json", "--debounce", "50ms", "--poll", "1s", "tree"]);
    // In a namespace of its own, so that the limit is nobody else's.
    let mut outer = std::process::Command::new("unshare");
    outer.args(["--user", "--map-root-user", "sh", "-c"]);
    outer.arg("echo 5 > /proc/sys/user/max_inotify_watches || exit 77; exec \"$0\" \"$@\"");
    outer.arg(inner.get_program()).args(inner.get_args()).current_dir(sandbox.path()).env_clear();
    outer
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("PATH", "/usr/bin:/bin:/usr/sbin");
    let watching = Watching::spawn(&sandbox, outer);
    let polled = watching.until("polled", |told| told["event"] == "polled");
    let reason = polled["reason"].as_str().unwrap();
    assert!(reason.contains("sysctl fs.inotify.max_user_watches="), "{reason}");
    assert_eq!(root_status(&sandbox)["watches"][0]["mode"], "polled");
    sandbox.write("0/b", "and another");
    sandbox.write("19/b", "and another");
    let began = Instant::now();
    while sandbox.groups().len() != 2 {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_root_that_goes_is_offline_and_nothing_of_it_is_removed_until_it_comes_back() {
    let sandbox = Sandbox::new();
    for name in ["a", "b"] {
        sandbox.write(name, "the same");
    }
    let watching = Watching::start(&sandbox, &["tree"]);
    let away = sandbox.path().join("away");
    std::fs::rename(sandbox.tree(), &away).unwrap();
    watching.until("offline", |told| told["event"] == "offline");
    assert_eq!(root_status(&sandbox)["watches"][0]["mode"], "offline");
    assert_eq!(sandbox.report()["summary"]["files"], 2);
    let history = sandbox.run(["history", "--json"]).succeeds().stdout();
    let history: Value = serde_json::from_str(&history).unwrap();
    assert_eq!(history["runs"][0]["status"], "failed", "{history}");
    std::fs::write(away.join("c"), "the same").unwrap();
    std::fs::rename(&away, sandbox.tree()).unwrap();
    until_groups(&sandbox, &[&["a", "b", "c"]]);
    sandbox.write("d", "the same");
    until_groups(&sandbox, &[&["a", "b", "c", "d"]]);
    watching.stop();
}

#[test]
fn one_that_is_killed_is_not_taken_for_a_watcher() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "the same");
    let mut watching = Watching::start(&sandbox, &["tree"]);
    assert_eq!(root_status(&sandbox)["watches"][0]["mode"], "live");
    watching.child.kill().unwrap();
    watching.child.wait().unwrap();
    if std::env::var("DUPFIND_TEST_DATABASE").is_err() {
        // On one host it is seen at once; a server waits for a minute.
        assert_eq!(root_status(&sandbox)["watches"][0]["mode"], "dead");
        assert!(sandbox.run(["status"]).stdout().contains("not watched any more"));
    }
    let history = sandbox.run(["history"]).succeeds().stdout();
    assert!(!history.contains("running"), "{history}");
}

#[test]
fn of_two_watchers_the_one_that_stays_is_known() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "the same");
    let first = Watching::start(&sandbox, &["tree"]);
    let second = Watching::start(&sandbox, &["tree"]);
    let watch = || root_status(&sandbox)["watches"][0].clone();
    let began = Instant::now();
    while watch()["process"] != second.child.id() {
        assert!(began.elapsed() < PATIENCE, "{}", watch());
        std::thread::sleep(Duration::from_millis(20));
    }
    first.stop();
    assert_eq!(watch()["mode"], "live");
    second.stop();
}

#[test]
fn it_says_when_it_is_ready_and_ends_in_good_order() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "the same");
    let socket = sandbox.path().join("notify");
    let systemd = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = sandbox.command(["watch", "--json", "tree"]);
    command.env("NOTIFY_SOCKET", &socket);
    let watching = Watching::spawn(&sandbox, command);
    let mut heard = String::new();
    let mut hear = |until: &str| {
        while !heard.contains(until) {
            let mut buffer = [0; 4096];
            let length = systemd.recv(&mut buffer).unwrap();
            heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    };
    hear("READY=1");
    watching.stop();
    hear("STOPPING=1");
}

#[test]
fn an_index_inside_of_what_is_watched_does_not_keep_it_busy() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "the same");
    let url = format!("sqlite://{}", sandbox.tree().join("index.db").display());
    let watching = Watching::start(&sandbox, &["--db-url", &url, "tree"]);
    sandbox.write("b", "the same");
    watching.until("followed", |told| told["event"] == "followed");
    std::thread::sleep(Duration::from_secs(1));
    let followed = watching.told().iter().filter(|told| told["event"] == "followed").count();
    assert_eq!(followed, 1, "{:#?}", watching.told());
    watching.stop();
}

#[test]
fn without_anything_to_watch_it_says_what_to_do() {
    let sandbox = Sandbox::new();
    sandbox.scan();
    sandbox.run(["watch"]).refused(2, &["roots add DIR --watch"]);
    sandbox.run(["watch", "nowhere"]).refused(2, &["nowhere"]);
}

#[test]
fn a_part_is_reconciled_and_nothing_else_is_touched() {
    let sandbox = Sandbox::new();
    for name in ["x/1", "x/2", "y/1", "y/2", ".hidden/1"] {
        sandbox.write(name, "the same");
    }
    sandbox.scan();
    for name in ["x/1", "y/1"] {
        std::fs::remove_file(sandbox.tree().join(name)).unwrap();
    }
    sandbox.write("x/new/3", "the same");
    sandbox.write("y/3", "the same");
    sandbox.run(["reconcile", "-q", "tree/x"]).succeeds();
    assert_eq!(sandbox.group_names(), [["x/2", "x/new/3", "y/1", "y/2"]]);
    // A part that is gone is looked for where it was.
    std::fs::remove_dir_all(sandbox.tree().join("x/new")).unwrap();
    sandbox.run(["reconcile", "-q", "tree/x/new"]).succeeds();
    assert_eq!(sandbox.group_names(), [["x/2", "y/1", "y/2"]]);
    sandbox.run(["reconcile", "-q"]).succeeds();
    assert_eq!(sandbox.group_names(), [["x/2", "y/2", "y/3"]]);
    sandbox.run(["reconcile", "tree/.hidden"]).refused(2, &["passed over"]);
    sandbox.run(["reconcile", "home"]).refused(2, &["home", "dupfind scan"]);
    sandbox.run(["reconcile", "tree/never"]).refused(2, &["tree/never", "dupfind scan"]);
    let twice = sandbox.run(["reconcile", "--json", "tree/y", "tree", "tree/x"]).succeeds();
    let twice: Value = serde_json::from_str(&twice.stdout()).unwrap();
    assert_eq!(twice["files_seen"], 3);
    // What cannot be reached is a run that failed, and nothing is removed.
    std::fs::rename(sandbox.tree(), sandbox.path().join("away")).unwrap();
    sandbox.run(["reconcile"]).ends_with(1);
    assert_eq!(sandbox.report()["summary"]["files"], 3);
    let history = sandbox.run(["history", "--limit", "1", "--json"]).succeeds().stdout();
    let history: Value = serde_json::from_str(&history).unwrap();
    assert_eq!(
        (&history["runs"][0]["kind"], &history["runs"][0]["status"]),
        (&"reconcile".into(), &"failed".into())
    );
}

#[test]
fn named_directories_are_complete_first() {
    let sandbox = Sandbox::new();
    for name in ["a/1", "a/2", "z/1", "z/2"] {
        sandbox.write(name, "the same");
    }
    sandbox.run(["roots", "add", "-q", "--first", "z", "tree"]).succeeds();
    sandbox.run(["scan", "-q", "tree"]).succeeds();
    assert_eq!(sandbox.group_names(), [["a/1", "a/2", "z/1", "z/2"]]);
    let first = sandbox.sql("select hashed from scans where path is not null");
    assert_eq!(first, "2", "{}", sandbox.run(["history"]).stdout());
}

/// A command that must go well; its output is shown only if it does not.
fn run_in(directory: &Path, program: &str, arguments: &[&str]) {
    let mut command = std::process::Command::new(program);
    command.args(arguments).current_dir(directory).env("CARGO_TARGET_DIR", directory.join("target"));
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn git(repository: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"];
    run_in(repository, "git", &[&identity, arguments].concat());
}

/// A day of real use, compressed.
#[test]
fn after_a_day_of_work_the_index_is_what_a_scan_would_make_of_it() {
    let sandbox = Sandbox::new();
    sandbox
        .run(["roots", "add", "-q", "--min-size", "0", "--hidden", "--no-default-ignores", "tree"])
        .succeeds();
    let watching = Watching::start(&sandbox, &["tree"]);
    let tree = sandbox.tree();

    // A repository whose branches have little in common, and a working copy that goes from one to the other.
    let repository = tree.join("repository");
    std::fs::create_dir(&repository).unwrap();
    git(&repository, &["init", "-q"]);
    for branch in ["one", "two"] {
        git(&repository, &["checkout", "-q", "--orphan", branch]);
        git(&repository, &["rm", "-rqf", "--ignore-unmatch", "."]);
        for number in 0..300 {
            let content = format!("{branch} {} {}\n", number % 40, "x".repeat(number % 9));
            sandbox.write(format!("repository/{branch}/{}/{number}", number % 13), content);
            sandbox.write(format!("repository/shared/{}", number % 50), format!("{branch} {number}\n"));
        }
        git(&repository, &["add", "."]);
        git(&repository, &["commit", "-qm", branch]);
    }
    for _ in 0..3 {
        for branch in ["one", "two"] {
            git(&repository, &["checkout", "-q", branch]);
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    // A package is built, changed and built again.
    let package = tree.join("package");
    std::fs::create_dir(&package).unwrap();
    run_in(&package, env!("CARGO"), &["init", "-q", "--vcs", "none", "--name", "package", "."]);
    run_in(&package, env!("CARGO"), &["build", "-q", "--offline"]);
    sandbox.write("package/src/main.rs", "fn main() { println!(\"changed\"); }\n");
    run_in(&package, env!("CARGO"), &["build", "-q", "--offline"]);

    // An editor saves, in its three ways: in place, by replacing, and with a backup.
    for save in 0..10 {
        sandbox.write("text", format!("in place {save}"));
        sandbox.write(".text.swp", format!("by replacing {save}"));
        std::fs::rename(tree.join(".text.swp"), tree.join("other text")).unwrap();
        let _ = std::fs::rename(tree.join("third text"), tree.join("third text~"));
        sandbox.write("third text", format!("by replacing {save}"));
        std::thread::sleep(Duration::from_millis(20));
    }

    // An archive is made, unpacked twice, and one of the copies removed.
    run_in(&tree, "tar", &["cf", "archive.tar", "repository", "text"]);
    for copy in ["unpacked", "again"] {
        std::fs::create_dir(tree.join(copy)).unwrap();
        run_in(&tree, "tar", &["xf", "archive.tar", "-C", copy]);
    }
    std::fs::remove_dir_all(tree.join("again")).unwrap();

    assert_right_soon(&sandbox, || format!("{:#?}", watching.told()));
    watching.stop();
    assert_nothing_was_missed(&sandbox);
    sandbox.assert_sound();
}
