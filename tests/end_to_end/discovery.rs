//! Which files are found, remembered and forgotten.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::support::{Sandbox, let_timestamps_settle};

#[test]
fn a_first_scan_finds_duplicates_and_a_second_finds_what_changed() {
    let sandbox = Sandbox::new();
    sandbox.write("a/one", "same");
    sandbox.write("b/two", "same");
    sandbox.write("b/other", "else");
    sandbox.write("b/unique", "of its own length");
    let first = sandbox.scan_json(&["tree"]);
    assert_eq!((&first["added"], &first["updated"], &first["removed"]), (&4.into(), &0.into(), &0.into()));
    assert_eq!(first["hashed"], 3, "a file of its own length is not read");
    assert_eq!(sandbox.group_names(), [["a/one", "b/two"]]);

    sandbox.write("c/three", "same");
    sandbox.write("b/two", "differs");
    std::fs::remove_file(sandbox.tree().join("b/other")).unwrap();
    let second = sandbox.scan_json(&["tree"]);
    assert_eq!((&second["added"], &second["removed"]), (&1.into(), &1.into()));
    assert_eq!(sandbox.group_names(), [["a/one", "c/three"]]);

    std::fs::remove_dir_all(sandbox.tree().join("c")).unwrap();
    let third = sandbox.scan_json(&["tree"]);
    assert_eq!(third["removed"], 1);
    assert!(sandbox.group_names().is_empty());
}

#[test]
fn a_file_read_within_a_tick_of_its_last_change_is_read_again() {
    let sandbox = Sandbox::new();
    // A tick may be as short as 100 ms, and the first scan takes its time: whenever it reads, some were just changed.
    let began = SystemTime::now();
    let files = 40;
    for number in 0..files {
        let path = sandbox.write(number.to_string(), "same");
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_modified(began + number * Duration::from_millis(50)).unwrap();
    }
    sandbox.scan();
    for _ in 0..2 {
        let_timestamps_settle();
    }
    let again = sandbox.scan_json(&["tree"])["hashed"].as_u64().unwrap();
    assert!(
        (1..=files.into()).contains(&again),
        "{again}: those that were just changed when they were read first"
    );
    assert_eq!(sandbox.scan_json(&["tree"])["hashed"], 0);
}

#[test]
fn names_of_any_bytes_are_found_and_told_apart() {
    let sandbox = Sandbox::new();
    let names: [&[u8]; 8] =
        [b"new\nline", b"\xff\xfe", b"\xff", "\u{202e}gpj".as_bytes(), b" lead", b"tab\t", b"\\", b"'\"`$"];
    for name in names {
        sandbox.write(Path::new("d").join(OsStr::from_bytes(name)), "same content");
    }
    sandbox.write(Path::new(OsStr::from_bytes(b"dir\xff")).join("f"), "same content");
    sandbox.scan();
    let groups = sandbox.groups();
    assert_eq!(groups.len(), 1);
    let mut expected: Vec<PathBuf> =
        names.iter().map(|name| Path::new("d").join(OsStr::from_bytes(name))).collect();
    expected.push(Path::new(OsStr::from_bytes(b"dir\xff")).join("f"));
    expected.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    assert_eq!(groups[0], expected);
    let text = sandbox.run(["report"]).succeeds().stdout();
    assert!(
        text.contains("new\\nline") && text.contains("\\u{202e}gpj") && text.contains("\\xff\\xfe"),
        "{text}"
    );
}

#[test]
fn a_path_longer_than_the_system_takes_is_walked_read_and_reported() {
    let sandbox = Sandbox::new();
    let component = "d".repeat(200);
    // Made from the inside, as no call takes the whole path.
    let script = format!(
        "cd tree && for i in $(seq 30); do mkdir {component} && cd -P {component} || exit 1; done; printf same > deep"
    );
    let made = std::process::Command::new("bash").arg("-c").arg(script).current_dir(sandbox.path()).status();
    assert!(made.unwrap().success());
    sandbox.write("shallow", "same");
    sandbox.scan();
    let groups = sandbox.groups();
    assert_eq!(groups.len(), 1);
    assert!(groups[0].iter().any(|name| name.len() > 6000), "{groups:?}");
    let removed = std::process::Command::new("rm").arg("-rf").arg(sandbox.tree()).status().unwrap();
    assert!(removed.success());
}

#[test]
fn hard_links_are_one_file() {
    let sandbox = Sandbox::new();
    let original = sandbox.write("one", "linked content");
    for name in ["two", "three"] {
        std::fs::hard_link(&original, sandbox.tree().join(name)).unwrap();
    }
    let scan = sandbox.scan_json(&["tree"]);
    assert_eq!(scan["hashed"], 0, "nothing to compare it with");
    assert!(sandbox.groups().is_empty());

    sandbox.write("copy", "linked content");
    let scan = sandbox.scan_json(&["tree"]);
    assert_eq!(scan["bytes_read"], 28, "each physical file is read once");
    let report = sandbox.report();
    assert_eq!(report["summary"]["redundant_files"], 1);
    assert_eq!(report["summary"]["reclaimable_bytes"], 14);
    assert_eq!(sandbox.group_names(), [["copy", "one", "three", "two"]]);
}

#[test]
fn default_ignores_can_be_turned_off() {
    let sandbox = Sandbox::new();
    for name in ["plain", ".hidden", ".git/config", "x~", "x.tmp", "x.temp", ".DS_Store", "Thumbs.db"] {
        sandbox.write(name, "same");
    }
    let seen = |arguments: &[&str]| sandbox.scan_json(arguments)["files_seen"].as_u64().unwrap();
    assert_eq!(seen(&["tree"]), 1);
    assert_eq!(seen(&["--hidden", "tree"]), 3);
    assert_eq!(seen(&["tree"]), 3, "options are remembered");
    assert_eq!(seen(&["--no-default-ignores", "tree"]), 8);
    assert_eq!(seen(&["--hidden=false", "tree"]), 1, "options that are given replace all");
}

#[test]
fn globs_sizes_and_depth_choose_files() {
    let sandbox = Sandbox::new();
    sandbox.write("a.jpg", "12345");
    sandbox.write("deep/b.jpg", "12345");
    sandbox.write("deep/er/c.txt", "1234567890");
    sandbox.write("node_modules/d.jpg", "12345");
    let seen = |arguments: &[&str]| {
        let _ = sandbox.scan_json(arguments);
        sandbox.file_names()
    };
    assert_eq!(seen(&["--include", "*.jpg", "tree"]), "a.jpg b.jpg d.jpg");
    assert_eq!(seen(&["--include", "*.jpg", "--exclude", "node_modules", "tree"]), "a.jpg b.jpg");
    assert_eq!(seen(&["--exclude", "deep/**", "tree"]), "a.jpg d.jpg");
    assert_eq!(seen(&["--min-size", "6", "tree"]), "c.txt");
    assert_eq!(seen(&["--max-size", "5", "tree"]), "a.jpg b.jpg d.jpg");
    assert_eq!(seen(&["--max-depth", "1", "tree"]), "a.jpg");
    assert_eq!(seen(&["--max-depth", "2", "tree"]), "a.jpg b.jpg d.jpg");
}

#[test]
fn links_are_followed_only_if_asked_for_and_loops_end() {
    let sandbox = Sandbox::new();
    sandbox.write("real/file", "same");
    sandbox.write("copy", "same");
    std::fs::create_dir(sandbox.path().join("outside")).unwrap();
    std::fs::write(sandbox.path().join("outside/far"), "same").unwrap();
    symlink("..", sandbox.tree().join("real/loop")).unwrap();
    symlink("nowhere", sandbox.tree().join("broken")).unwrap();
    symlink(sandbox.tree().join("real/file"), sandbox.tree().join("alias")).unwrap();
    symlink(sandbox.path().join("outside"), sandbox.tree().join("away")).unwrap();
    sandbox.scan();
    assert_eq!(sandbox.group_names(), [["copy", "real/file"]]);
    let scan = sandbox.scan_json(&["--follow-links", "tree"]);
    assert_eq!((&scan["files_seen"], &scan["directories"]), (&3.into(), &3.into()), "each is counted once");
    let far = sandbox.path().join("outside/far").to_string_lossy().into_owned();
    assert_eq!(sandbox.group_names(), [[far.as_str(), "copy", "real/file"]]);
    sandbox.run(["roots", "remove", "tree"]).succeeds();
    assert_eq!(sandbox.sql("select count(*) from files"), "0", "also what was reached through links");
}

#[test]
fn a_link_leads_into_a_directory_that_may_not_be_listed() {
    if rustix::process::geteuid().is_root() {
        return as_ordinary_user("discovery::a_link_leads_into_a_directory_that_may_not_be_listed");
    }
    let sandbox = Sandbox::new();
    sandbox.write("copy", "same");
    let file = sandbox.write("closed/file", "same");
    symlink("closed/file", sandbox.tree().join("link")).unwrap();
    let closed = file.parent().unwrap();
    std::fs::set_permissions(closed, std::fs::Permissions::from_mode(0o100)).unwrap();
    sandbox.run(["scan", "--follow-links", "tree"]).ends_with(1);
    assert_eq!(sandbox.group_names(), [["closed/file", "copy"]]);
    std::fs::set_permissions(closed, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_index_is_no_file_of_its_own_even_if_links_lead_to_it() {
    let sandbox = Sandbox::new();
    let real = sandbox.tree().join("real");
    std::fs::create_dir(&real).unwrap();
    symlink(&real, sandbox.path().join("data")).unwrap();
    let index = format!("sqlite://{}", sandbox.path().join("data/own.db").display());
    symlink("real/own.db", sandbox.tree().join("link")).unwrap();
    for _ in 0..2 {
        let arguments = ["scan", "--follow-links", "--hash-all", "--db-url", &index, "tree"];
        let said = sandbox.run(arguments).succeeds().stdout();
        assert!(said.starts_with("0 files"), "{said}");
    }
}

#[test]
fn what_is_no_regular_file_is_passed_over() {
    let sandbox = Sandbox::new();
    sandbox.write("file", "x");
    let fifo = sandbox.tree().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(sandbox.tree().join("socket")).unwrap();
    assert_eq!(sandbox.scan_json(&["--hash-all", "tree"])["files_seen"], 1);
}

#[test]
fn overlapping_and_repeated_roots_make_no_duplicates() {
    let sandbox = Sandbox::new();
    sandbox.write("sub/file", "only one");
    sandbox.write("top", "another one");
    let scan = sandbox.scan_json(&["tree", "tree/sub", "tree/", "tree/../tree/sub"]);
    assert_eq!(scan["files_seen"], 2);
    assert!(sandbox.groups().is_empty());
    assert_eq!(sandbox.run(["roots"]).succeeds().stdout().lines().count(), 2);
    // The inner root keeps its rows when the outer one is forgotten, and the other way round.
    sandbox.run(["roots", "remove", "tree"]).succeeds();
    assert_eq!(sandbox.file_names(), "file");
    sandbox.scan();
    sandbox.run(["roots", "remove", "tree/sub"]).succeeds();
    assert_eq!(sandbox.sql("select count(*) from files"), "2");
}

#[test]
fn an_inner_root_keeps_its_own_options() {
    let sandbox = Sandbox::new();
    sandbox.write("photos/a.jpg", "same");
    sandbox.write("photos/b.jpg", "same");
    sandbox.write("b.txt", "text");
    sandbox.run(["scan", "tree/photos"]).succeeds();
    sandbox.run(["scan", "--exclude", "*.jpg", "tree"]).succeeds();
    assert_eq!(sandbox.group_names(), [["photos/a.jpg", "photos/b.jpg"]]);
    assert_eq!(sandbox.sql("select count(*) from files"), "3");
}

#[test]
fn a_large_directory_comes_in_pieces_and_forgets_what_is_gone() {
    let sandbox = Sandbox::new();
    for index in 0..10_000 {
        sandbox.write(format!("big/{index}"), "x");
    }
    let first = sandbox.scan_json(&["--discover-only", "tree"]);
    assert_eq!((&first["added"], &first["files_seen"]), (&10_000.into(), &10_000.into()));
    for index in (0..10_000).step_by(100) {
        std::fs::remove_file(sandbox.tree().join(format!("big/{index}"))).unwrap();
    }
    sandbox.write("big/new", "x");
    let second = sandbox.scan_json(&["--discover-only", "tree"]);
    assert_eq!(
        (&second["added"], &second["updated"], &second["removed"]),
        (&1.into(), &0.into(), &100.into())
    );
    assert_eq!(sandbox.sql("select count(*) from files"), "9901");
}

#[test]
fn files_from_adds_and_updates_and_never_removes() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "same");
    sandbox.write("new\nline", "same");
    sandbox.write("c", "same");
    std::fs::write(sandbox.path().join("list"), "tree/a\ntree/missing\ntree\n\ntree/c\n").unwrap();
    let run = sandbox.run(["scan", "--files-from", "list"]).ends_with(1);
    assert!(run.stderr().contains("tree/missing"), "{}", run.stderr());
    assert_eq!(sandbox.group_names(), [["a", "c"]]);
    std::fs::write(sandbox.path().join("list0"), "tree/new\nline\0").unwrap();
    sandbox.run(["scan", "--files-from", "list0", "--null"]).succeeds();
    assert_eq!(sandbox.group_names(), [["a", "c", "new\nline"]]);
    std::fs::remove_file(sandbox.tree().join("c")).unwrap();
    sandbox.run(["scan", "--files-from", "list0", "--null"]).succeeds();
    assert_eq!(sandbox.sql("select count(*) from files"), "3");
    sandbox.run(["roots", "remove", "tree"]).succeeds();
    assert_eq!(sandbox.sql("select count(*) from files"), "0");
}

#[test]
fn a_directory_that_cannot_be_read_is_reported_and_keeps_its_rows() {
    if rustix::process::geteuid().is_root() {
        return as_ordinary_user("discovery::a_directory_that_cannot_be_read_is_reported_and_keeps_its_rows");
    }
    let sandbox = Sandbox::new();
    sandbox.write("open/a", "same");
    sandbox.write("closed/b", "same");
    sandbox.write("closed/deep/c", "same");
    sandbox.scan();
    let closed = sandbox.tree().join("closed");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    let run = sandbox.run(["scan", "tree"]).ends_with(1);
    assert!(run.stdout().contains("problem"), "{}", run.stdout());
    assert_eq!(sandbox.sql("select count(*) from files"), "3", "known rows are kept");
    sandbox.run(["resume"]).ends_with(1);
    let problems = sandbox.run(["status", "--problems"]).succeeds().stdout();
    assert!(problems.contains("tree/closed: permission denied"), "{problems}");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.scan();
    assert_eq!(sandbox.sql("select count(*) from directories where problem is not null"), "0");
}

/// Runs one test of this binary again as a user who is refused things: root never is.
pub(crate) fn as_ordinary_user(test: &str) {
    let binary = std::env::current_exe().unwrap();
    // The build directory may be closed to others; a copy in a place of its own is not.
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = |from: &Path, to: &str| {
        std::fs::copy(from, place.path().join(to)).unwrap();
    };
    copy(&binary, "test");
    copy(Path::new(env!("CARGO_BIN_EXE_dupfind")), "dupfind");
    let nobody = 65534;
    let output = {
        use std::os::unix::process::CommandExt as _;
        let mut command = std::process::Command::new(place.path().join("test"));
        command.args(["--exact", test]).uid(nobody).gid(nobody);
        command.env("DUPFIND_TEST_BINARY", place.path().join("dupfind")).env("TMPDIR", "/tmp");
        command.current_dir(place.path()).output().unwrap()
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn an_unplugged_disk_is_offline_and_not_empty() {
    let sandbox = Sandbox::new();
    sandbox.write("usb/a", "same");
    sandbox.write("usb/b", "same");
    sandbox.run(["scan", "tree/usb"]).succeeds();
    // Another filesystem at the same place: the index says the rows belong to some other volume.
    let _ = sandbox.sql("update volumes set identity = 'uuid:the-usb-stick'");
    std::fs::remove_file(sandbox.tree().join("usb/a")).unwrap();
    let run = sandbox.run(["scan", "tree/usb"]).ends_with(1);
    assert!(run.stderr().contains("not mounted") && run.stderr().contains("tree/usb"), "{}", run.stderr());
    assert_eq!(sandbox.sql("select count(*) from files"), "2");
    // A root that is gone altogether is not empty either.
    std::fs::remove_dir_all(sandbox.tree().join("usb")).unwrap();
    sandbox.run(["scan", "tree/usb"]).refused(2, &["tree/usb"]);
    assert_eq!(sandbox.sql("select count(*) from files"), "2");
    sandbox.run(["roots", "remove", "tree/usb"]).succeeds();
    assert_eq!(sandbox.sql("select count(*) from files"), "0");
}

#[test]
fn files_that_only_links_lead_to_come_and_go_with_the_links() {
    let sandbox = Sandbox::new();
    let outside = sandbox.path().join("outside");
    std::fs::create_dir_all(outside.join("deeper")).unwrap();
    for name in ["one", "two", "unlinked", "deeper/three"] {
        std::fs::write(outside.join(name), "same").unwrap();
    }
    sandbox.write(".hidden", "same");
    for (link, target) in [
        ("l1", "../outside/one"),
        ("l2", "../outside/two"),
        ("l3", "../outside/deeper/three"),
        ("l4", ".hidden"),
    ] {
        symlink(target, sandbox.tree().join(link)).unwrap();
    }
    for _ in 0..2 {
        sandbox.run(["scan", "--follow-links", "tree"]).succeeds();
        assert_eq!(sandbox.groups()[0].len(), 4, "{:?}", sandbox.groups());
    }
    std::fs::remove_file(sandbox.tree().join("l2")).unwrap();
    std::fs::remove_file(sandbox.tree().join("l3")).unwrap();
    sandbox.run(["scan", "tree"]).succeeds();
    assert_eq!(sandbox.file_names(), ".hidden one");
    sandbox.run(["scan", "--hidden", "tree"]).succeeds();
    assert_eq!(sandbox.file_names(), ".hidden", "links are not followed any more");
}

#[test]
fn a_link_to_a_hidden_neighbour_goes_with_both() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "same");
    sandbox.write(".hidden", "same");
    symlink(".hidden", sandbox.tree().join("link")).unwrap();
    let_timestamps_settle();
    for _ in 0..2 {
        sandbox.run(["scan", "--follow-links", "tree"]).succeeds();
        assert_eq!(sandbox.file_names(), ".hidden a");
    }
    std::fs::remove_file(sandbox.tree().join("link")).unwrap();
    std::fs::remove_file(sandbox.tree().join(".hidden")).unwrap();
    sandbox.run(["scan", "tree"]).succeeds();
    assert_eq!(sandbox.file_names(), "a");
}

#[test]
fn what_a_new_link_leads_to_is_hashed_wholly_if_its_root_is() {
    let sandbox = Sandbox::new();
    let outside = sandbox.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("alone"), "nobody else has this size").unwrap();
    sandbox.write("plain/x", "x");
    sandbox.write("whole/y", "yy");
    symlink("../../outside", sandbox.tree().join("plain/link")).unwrap();
    let_timestamps_settle();
    sandbox.run(["scan", "--follow-links", "tree/plain"]).succeeds();
    sandbox.run(["scan", "--follow-links", "--hash-all", "tree/whole"]).succeeds();
    sandbox.run(["status"]).succeeds();
    let hashed = "select count(*) from file_hashes where filename = 'alone' and hash_value is not null";
    assert_eq!(sandbox.sql(hashed), "0");
    symlink("../../outside", sandbox.tree().join("whole/link")).unwrap();
    sandbox.run(["scan", "tree/whole"]).succeeds();
    assert_eq!(sandbox.sql(hashed), "1");
}

#[test]
fn one_filesystem_mounted_at_two_places_is_one() {
    let sandbox = Sandbox::new();
    let script = format!(
        "cd {tree} && mkdir a b && mount -t tmpfs tmpfs a || exit 77
         mkdir a/d && echo same > a/one && echo same > a/d/two && mount --bind a b && mkdir c && mount --bind a/d c
         HOME={home} {dupfind} scan -q {tree}; echo $?
         HOME={home} {dupfind} report -q --json {home}/report.json; echo $?",
        tree = sandbox.tree().display(),
        home = sandbox.path().join("home").display(),
        dupfind = env!("CARGO_BIN_EXE_dupfind"),
    );
    let said = super::survival::in_own_mounts(&script);
    assert_eq!(said, "0\n0\n");
    let report = std::fs::read(sandbox.path().join("home/report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["summary"]["files"], 2, "{report}");
    assert_eq!(report["groups"][0]["files"].as_array().unwrap().len(), 2, "{report}");
}

#[test]
fn a_part_of_a_root_is_not_forgotten_by_itself() {
    let sandbox = Sandbox::new();
    sandbox.write("sub/file", "x");
    sandbox.scan();
    sandbox.run(["roots", "remove", "tree/sub"]).refused(2, &["tree/sub", "part of"]);
    sandbox.run(["roots", "remove", "home"]).refused(2, &["home", "not a scanned directory"]);
    assert_eq!(sandbox.sql("select count(*) from files"), "1");
}

/// What is so in SQLite only; left out by name where the tests run on PostgreSQL.
mod sqlite_only {
    use super::*;

    #[test]
    fn an_unchanged_tree_is_not_read_and_no_row_of_it_is_written() {
        let sandbox = Sandbox::new();
        for index in 0..50 {
            sandbox.write(format!("d{}/f{index}", index % 7), format!("{}", index / 2));
        }
        let_timestamps_settle();
        sandbox.scan();
        // A trigger on every kind of write says whether a row is touched, however it is done.
        let _ = sandbox.sql("create table touched (what text)");
        for event in ["insert", "update", "delete"] {
            let _ = sandbox.sql(&format!(
                "create trigger on_{event} after {event} on files begin insert into touched values ('{event}'); end"
            ));
        }
        let again = sandbox.scan_json(&["tree"]);
        assert_eq!(
            (&again["files_seen"], &again["hashed"], &again["bytes_read"]),
            (&50.into(), &0.into(), &0.into())
        );
        assert_eq!(sandbox.sql("select count(*) from touched"), "0");
        sandbox.write("d0/f0", "changed");
        sandbox.scan();
        assert_ne!(sandbox.sql("select count(*) from touched"), "0", "the triggers do fire");
    }
}
