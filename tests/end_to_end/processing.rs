//! What is read, and what becomes of files that cannot be.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::discovery::as_ordinary_user;
use super::support::{Sandbox, let_timestamps_settle};

const MIB: usize = 1024 * 1024;

#[test]
fn large_files_that_differ_in_a_sampled_place_are_not_read_whole() {
    let sandbox = Sandbox::new();
    let mut content = vec![1; 4 * MIB];
    sandbox.write("a", &content);
    sandbox.write("same", &content);
    content[2 * MIB] = 2;
    sandbox.write("differs in the middle", &content);
    let scan = sandbox.scan_json(&["tree"]);
    let samples = 3 * 3 * 16 * 1024;
    assert_eq!(scan["bytes_read"], 2 * 4 * MIB + samples);
    assert_eq!(sandbox.group_names(), [["a", "same"]]);
}

#[test]
fn large_files_that_differ_where_no_sample_looks_are_told_apart() {
    let sandbox = Sandbox::new();
    let mut content = vec![1; 4 * MIB];
    sandbox.write("a", &content);
    content[MIB] = 2;
    sandbox.write("b", &content);
    sandbox.scan();
    assert!(sandbox.groups().is_empty());
}

#[test]
fn new_files_join_old_groups_without_rereading_them() {
    let sandbox = Sandbox::new();
    for name in ["a", "b"] {
        sandbox.write(name, vec![7; MIB]);
        sandbox.write(format!("small-{name}"), "small");
    }
    let_timestamps_settle();
    sandbox.scan();
    sandbox.write("c", vec![7; MIB]);
    sandbox.write("small-c", "small");
    let scan = sandbox.scan_json(&["tree"]);
    assert_eq!(scan["bytes_read"], MIB + 3 * 16 * 1024 + 5);
    assert_eq!(sandbox.group_names(), [["a", "b", "c"], ["small-a", "small-b", "small-c"]]);
}

#[test]
fn a_lone_large_file_that_was_hashed_whole_is_found_by_a_later_copy() {
    let sandbox = Sandbox::new();
    sandbox.write("a", vec![7; MIB]);
    let scan = sandbox.scan_json(&["--hash-all", "tree"]);
    assert_eq!(scan["bytes_read"], MIB);
    sandbox.write("other/b", vec![7; MIB]);
    sandbox.run(["scan", "tree"]).succeeds();
    assert_eq!(sandbox.group_names(), [["a", "other/b"]]);
    assert_eq!(sandbox.sql("select count(*) from file_hashes where hash_value is null"), "0");
}

#[test]
fn duplicates_are_found_across_roots() {
    let sandbox = Sandbox::new();
    sandbox.write("one/a", "same");
    sandbox.write("two/b", "same");
    sandbox.run(["scan", "tree/one"]).succeeds();
    let scan = sandbox.scan_json(&["tree/two"]);
    assert_eq!(scan["hashed"], 2, "the partner in the other root too");
    assert_eq!(sandbox.group_names(), [["one/a", "two/b"]]);
}

#[test]
fn one_thread_gives_the_same_result_as_many() {
    let sandbox = Sandbox::new();
    for index in 0..300 {
        sandbox.write(format!("{}/{index}", index % 13), format!("{}", index % 90).repeat(1 + index % 5));
    }
    let groups = |arguments: &[&str]| {
        sandbox.forget_index();
        sandbox.run(["scan", "tree"].iter().chain(arguments)).succeeds();
        sandbox.groups()
    };
    let sequential = groups(&["--threads", "1"]);
    assert!(sequential.len() > 10);
    assert_eq!(sequential, groups(&["--threads", "4", "--io-threads", "16", "--batch-size", "7"]));
}

#[test]
fn empty_files_match_each_other_only_if_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "");
    sandbox.write("b", "");
    sandbox.scan();
    assert!(sandbox.groups().is_empty());
    sandbox.run(["scan", "--min-size", "0", "tree"]).succeeds();
    assert_eq!(sandbox.group_names(), [["a", "b"]]);
    assert_eq!(sandbox.report()["summary"]["reclaimable_bytes"], 0);
}

#[test]
fn discovery_alone_can_be_looked_at_and_folders_completed_one_by_one() {
    let sandbox = Sandbox::new();
    for directory in ["first", "second"] {
        sandbox.write(Path::new(directory).join("a"), format!("{directory} content"));
        sandbox.write(Path::new(directory).join("b"), format!("{directory} content"));
    }
    let scan = sandbox.scan_json(&["--discover-only", "tree"]);
    assert_eq!(scan["status"], "discovered");
    assert_eq!(sandbox.sql("select status from scans"), "discovered");
    let report = sandbox.report();
    assert_eq!((&report["complete"], &report["summary"]["pending_files"]), (&false.into(), &4.into()));
    assert_eq!(sandbox.sql("select count(*) from file_hashes"), "4");

    sandbox.run(["resume", "tree/first"]).succeeds();
    let report = sandbox.report();
    assert_eq!((&report["complete"], &report["summary"]["pending_files"]), (&false.into(), &2.into()));
    assert_eq!(sandbox.group_names(), [["first/a", "first/b"]]);
    assert!(sandbox.run(["status"]).succeeds().stdout().contains("pending: 2 files"));

    sandbox.run(["resume"]).succeeds();
    assert_eq!(sandbox.sql("select status from scans order by id"), "discovered\ndiscovered\ncompleted");
    let report = sandbox.report();
    assert_eq!((&report["complete"], &report["summary"]["pending_files"]), (&true.into(), &0.into()));
    assert_eq!(report["summary"]["groups"], 2);
    let idle = sandbox.run(["resume"]).succeeds();
    assert!(idle.stderr().contains("nothing to resume"), "{}", idle.stderr());
    sandbox.run(["resume", "home"]).refused(2, &["home", "dupfind scan"]);
}

#[test]
fn what_vanished_or_changed_before_it_was_read_is_a_problem_that_the_next_scan_solves() {
    let sandbox = Sandbox::new();
    for name in ["stays", "changes", "vanishes", "becomes a fifo"] {
        sandbox.write(name, "same");
    }
    sandbox.run(["scan", "--discover-only", "tree"]).succeeds();
    std::fs::remove_file(sandbox.tree().join("vanishes")).unwrap();
    sandbox.write("changes", "grown longer");
    let fifo = sandbox.tree().join("becomes a fifo");
    std::fs::remove_file(&fifo).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());

    let run = sandbox.run(["resume"]).ends_with(1);
    assert!(run.stdout().contains("3 problems"), "{}", run.stdout());
    let problems = sandbox.run(["status", "--problems"]).succeeds().stdout();
    for words in ["vanishes: vanished", "changes: changed while read", "fifo: not a regular file"] {
        assert!(problems.contains(words), "{words}: {problems}");
    }
    assert!(sandbox.groups().is_empty());
    sandbox.write("copy", "same");
    sandbox.scan();
    assert_eq!(sandbox.group_names(), [["copy", "stays"]]);
    assert_eq!(sandbox.report()["summary"]["problems"], 0);
}

#[test]
fn a_file_that_may_not_be_read_is_reported_and_tried_again() {
    if rustix::process::geteuid().is_root() {
        return as_ordinary_user("processing::a_file_that_may_not_be_read_is_reported_and_tried_again");
    }
    let sandbox = Sandbox::new();
    let closed = sandbox.write("closed", "same");
    sandbox.write("open", "same");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    let scan = sandbox.scan_json(&["tree"]);
    assert_eq!((&scan["hashed"], &scan["bytes_read"]), (&1.into(), &4.into()));
    sandbox.run(["scan", "tree"]).ends_with(1);
    sandbox.run(["resume"]).ends_with(1);
    assert!(sandbox.groups().is_empty());
    let problems = sandbox.run(["status", "--problems"]).succeeds().stdout();
    assert!(problems.contains("tree/closed: permission denied"), "{problems}");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o644)).unwrap();
    sandbox.run(["resume"]).succeeds();
    assert_eq!(sandbox.group_names(), [["closed", "open"]]);
}

/// Names of the files whose content is known, in order.
fn hashed_names(sandbox: &Sandbox) -> String {
    let hashed = "select filename from file_hashes where hash_value is not null order by filename";
    sandbox.sql(hashed).replace('\n', " ")
}

#[test]
fn an_archive_is_listed_and_never_read_until_it_is_to_be() {
    let sandbox = Sandbox::new();
    for name in ["archive/a", "archive/deep/b", "photos/c"] {
        sandbox.write(name, "same");
        sandbox.write(format!("{name}-large"), vec![7; MIB]);
    }
    let_timestamps_settle();
    let scan = sandbox.scan_json(&["--hash", "none", "tree/archive"]);
    assert_eq!(
        (&scan["files_seen"], &scan["hashed"], &scan["bytes_read"]),
        (&4.into(), &0.into(), &0.into())
    );
    let scan = sandbox.scan_json(&["tree/photos"]);
    assert_eq!(
        (&scan["hashed"], &scan["bytes_read"]),
        (&0.into(), &0.into()),
        "it has no partner that counts"
    );
    let report = sandbox.report();
    assert_eq!((&report["complete"], &report["summary"]["pending_files"]), (&true.into(), &0.into()));
    assert_eq!(report["summary"]["files"], 6);
    assert!(sandbox.run(["resume"]).succeeds().stderr().contains("everything is complete"));
    assert_eq!(sandbox.scan_json(&["tree/archive"])["hashed"], 0, "it is remembered");
    sandbox.write("archive/new", "another");
    let scan = sandbox.scan_json(&["tree/archive"]);
    assert_eq!((&scan["added"], &scan["hashed"]), (&1.into(), &0.into()), "it is kept up to date");

    let changed = sandbox.run(["roots", "add", "--hash", "candidates", "tree/archive"]).succeeds();
    assert!(changed.stderr().contains("'dupfind resume' reads"), "{changed:?}");
    assert_eq!(sandbox.report()["summary"]["pending_files"], 6);
    sandbox.run(["resume"]).succeeds();
    let groups = [
        ["archive/a", "archive/deep/b", "photos/c"],
        ["archive/a-large", "archive/deep/b-large", "photos/c-large"],
    ];
    assert_eq!(sandbox.group_names(), groups);

    sandbox.run(["scan", "--hash", "none", "tree/archive"]).succeeds();
    assert_eq!(sandbox.group_names(), groups, "what is known stays");
    sandbox.write("archive/a", "SAME");
    sandbox.write("archive/d", "same");
    let scan = sandbox.scan_json(&["tree/archive"]);
    assert_eq!((&scan["updated"], &scan["hashed"]), (&1.into(), &0.into()));
    assert_eq!(sandbox.group_names()[1], ["archive/deep/b", "photos/c"]);
    assert_eq!(sandbox.report()["summary"]["pending_files"], 0);
    let scan = sandbox.scan_json(&["--hash-all", "tree/archive"]);
    assert_eq!(scan["hashed"], 3, "the new, the changed, the added");
    assert_eq!(sandbox.group_names()[1], ["archive/d", "archive/deep/b", "photos/c"]);
}

#[test]
fn a_root_inside_another_is_hashed_as_it_says_itself() {
    let sandbox = Sandbox::new();
    for (number, name) in
        ["outer", "some/inner", "some/all/own", "never/same", "never/same-2", "never/all/in"]
            .into_iter()
            .enumerate()
    {
        sandbox.write(name, vec![b'x'; 10 + number.min(3)]);
    }
    sandbox.write("never/all/in", "of a length of its own");
    sandbox.run(["roots", "add", "--hash", "candidates", "tree/some"]).succeeds();
    sandbox.run(["roots", "add", "--hash-all", "tree/some/all", "tree/never/all"]).succeeds();
    sandbox.run(["roots", "add", "--hash", "none", "tree/never"]).succeeds();
    let scan = sandbox.scan_json(&["--hash-all", "tree"]);
    assert_eq!(scan["files_seen"], 6);
    assert_eq!(hashed_names(&sandbox), "in outer own");
    assert_eq!(sandbox.report()["summary"]["pending_files"], 0);
    assert!(sandbox.run(["resume"]).succeeds().stderr().contains("everything is complete"));

    sandbox.run(["roots", "add", "--hash", "all", "tree/never"]).succeeds();
    assert_eq!(sandbox.report()["summary"]["pending_files"], 2);
    sandbox.run(["roots", "remove", "tree/some"]).succeeds();
    assert_eq!(sandbox.report()["summary"]["pending_files"], 3, "it goes by the one around it");
    sandbox.run(["resume"]).succeeds();
    assert_eq!(hashed_names(&sandbox), "in inner outer own same same-2");
}

#[test]
fn what_lies_in_an_archive_is_not_read_where_it_is_mounted_a_second_time() {
    let sandbox = Sandbox::new();
    let script = format!(
        "cd {tree} && mkdir -p archive/sub/deep new/mnt && echo same > archive/sub/a && echo same > archive/sub/deep/b
         echo same > new/c && echo same > new/d && mount --bind archive/sub new/mnt || exit 77
         {environment} {dupfind} roots add -q --hash none archive; echo $?
         {environment} {dupfind} scan -q new; echo $?",
        tree = sandbox.tree().display(),
        environment = sandbox.shell_environment(),
        dupfind = env!("CARGO_BIN_EXE_dupfind"),
    );
    assert_eq!(super::survival::in_own_mounts(&script), "0\n0\n");
    assert_eq!(sandbox.file_names(), "a b c d");
    assert_eq!(hashed_names(&sandbox), "c d");
    assert_eq!(sandbox.report()["summary"]["pending_files"], 0);
}

#[test]
fn options_of_before_there_was_a_choice_are_still_understood() {
    let sandbox = Sandbox::new();
    sandbox.write("alone", "nobody else has this length");
    sandbox.run(["scan", "--hash", "candidates", "tree"]).succeeds();
    assert_eq!(hashed_names(&sandbox), "");
    let _ = sandbox.sql(r#"update roots set settings = '{"min_size": 1, "hash_all": true}'"#);
    let _ = sandbox.sql("delete from figures");
    assert!(sandbox.run(["roots"]).succeeds().stdout().contains("hash all"));
    sandbox.run(["scan", "tree"]).succeeds();
    assert_eq!(hashed_names(&sandbox), "alone");
    sandbox.run(["scan", "--hash-all=false", "tree"]).succeeds();
    assert!(!sandbox.run(["roots"]).succeeds().stdout().contains("hash"));
    sandbox
        .run(["scan", "--files-from", "-", "--hash", "none"])
        .refused(2, &["--hash none", "--discover-only"]);
}
