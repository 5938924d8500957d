//! What reports look like, from outside.

use std::io::Read as _;
use std::process::Stdio;

use super::support::Sandbox;

fn photos() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("a/big", vec![b'b'; 3000]);
    sandbox.write("b/big", vec![b'b'; 3000]);
    for name in ["a/1", "a/2", "a/3", "b/4"] {
        sandbox.write(name, vec![b's'; 900]);
    }
    sandbox.write("b/unique", "u");
    sandbox.scan();
    sandbox
}

#[test]
fn json_has_the_documented_shape() {
    let sandbox = photos();
    let report = sandbox.report();
    assert_eq!(report["version"], 1);
    assert_eq!(report["complete"], true);
    let summary = &report["summary"];
    let figures =
        ["files", "bytes", "groups", "redundant_files", "reclaimable_bytes", "pending_files", "problems"];
    let values: Vec<u64> = figures.iter().map(|name| summary[name].as_u64().unwrap()).collect();
    assert_eq!(values, [7, 9601, 2, 4, 5700, 0, 0]);
    let group = &report["groups"][0];
    assert_eq!((&group["size"], &group["reclaimable_bytes"]), (&3000.into(), &3000.into()));
    let hash = blake3::hash(&[b'b'; 3000]).to_hex().to_string();
    assert_eq!(group["hash"], hash.as_str());
    let file = &group["files"][0];
    assert!(file["path"].as_str().unwrap().ends_with("tree/a/big"));
    assert!(file["modified"].as_str().unwrap().ends_with('Z'));
    let inode =
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(sandbox.tree().join("a/big")).unwrap());
    assert_eq!(file["inode"], inode);
    assert_eq!(file["hard_links"], serde_json::json!([]));
}

#[test]
fn reports_can_be_sorted_limited_and_restricted() {
    let sandbox = photos();
    let sizes = |arguments: &[&str]| -> Vec<u64> {
        let report = sandbox.report_with(arguments);
        report["groups"].as_array().unwrap().iter().map(|group| group["size"].as_u64().unwrap()).collect()
    };
    assert_eq!(sizes(&[]), [3000, 900]);
    assert_eq!(sizes(&["--sort", "count"]), [900, 3000]);
    assert_eq!(sizes(&["--sort", "size"]), [3000, 900]);
    assert_eq!(sizes(&["--sort", "path"]), [900, 3000], "a/1 comes before a/big");
    assert_eq!(sizes(&["--limit", "1"]), [3000]);
    assert_eq!(sizes(&["--min-size", "1K"]), [3000]);
    assert_eq!(sizes(&["--under", "tree/a"]), [900]);
    assert_eq!(sizes(&["--under", "tree/a", "--under", "tree/b"]), [3000, 900]);
    let under = sandbox.report_with(&["--under", "tree/a"]);
    assert_eq!(under["summary"]["files"], 4);
    assert_eq!(under["groups"][0]["files"].as_array().unwrap().len(), 3, "only files below it count");
    assert_eq!(sandbox.report_with(&["--limit", "1"])["summary"]["groups"], 2, "the summary counts all");
}

#[test]
fn fdupes_format_is_what_fdupes_prints() {
    let sandbox = photos();
    let tree = sandbox.tree().display().to_string();
    let expected =
        format!("{tree}/a/big\n{tree}/b/big\n\n{tree}/a/1\n{tree}/a/2\n{tree}/a/3\n{tree}/b/4\n\n");
    let run = sandbox.run(["report", "--format", "fdupes"]).succeeds();
    assert_eq!(run.stdout(), expected);
    let run = sandbox.run(["report", "--format", "fdupes", "-0"]).succeeds();
    assert_eq!(run.stdout(), expected.replace('\n', "\0"));
    sandbox.run(["report", "-0"]).refused(2, &["--format fdupes"]);
}

#[test]
fn a_report_touches_no_file_and_says_when_it_was_scanned() {
    let sandbox = photos();
    std::fs::remove_dir_all(sandbox.tree()).unwrap();
    let text = sandbox.run(["report"]).succeeds().stdout();
    assert!(text.contains("4 redundant files in 2 groups, of 7 files"), "{text}");
    assert!(text.contains("last scanned 20"), "{text}");
    assert_eq!(sandbox.report()["summary"]["groups"], 2);
}

#[test]
fn several_files_are_written_at_once_and_whole() {
    let sandbox = photos();
    let arguments = ["report", "--html", "r.html", "--json", "r.json", "--csv", "r.csv"];
    sandbox.run(arguments).succeeds();
    let read = |name: &str| std::fs::read_to_string(sandbox.path().join(name)).unwrap();
    assert!(read("r.html").contains("</html>"));
    assert!(serde_json::from_str::<serde_json::Value>(&read("r.json")).is_ok());
    assert_eq!(read("r.csv").matches("\r\n").count(), 7);
    sandbox.run(["report", "--html", "no/such/place.html"]).refused(2, &["no/such/place.html"]);
    sandbox.run(["report", "--json", "home"]).refused(2, &["home"]);
    let left: Vec<_> =
        std::fs::read_dir(sandbox.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "no temporary file is left: {left:?}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let sandbox = Sandbox::new();
    for index in 0..4000 {
        sandbox.write(format!("d{}/{index}", index % 2), format!("{}", index / 2));
    }
    sandbox.scan();
    let mut child =
        sandbox.command(["report"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 64];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What is so in SQLite only; left out by name where the tests run on PostgreSQL.
mod sqlite_only {
    use super::*;

    #[test]
    fn status_says_what_the_index_holds() {
        let sandbox = photos();
        let status = sandbox.run(["status", "--json"]).succeeds().stdout();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["index"]["location"], sandbox.index().display().to_string());
        assert!(status["index"]["bytes"].as_u64().unwrap() > 4096);
        let root = &status["roots"][0];
        assert_eq!((&root["files"], &root["last_scan"]["status"]), (&7.into(), &"completed".into()));
        assert_eq!(status["summary"]["reclaimable_bytes"], 5700);
        let text = sandbox.run(["status"]).succeeds().stdout();
        for words in ["index", "tree  completed", "7 files", "nothing pending", "5.6 KiB reclaimable"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn a_report_leaves_what_its_name_stands_for_as_it_was() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let sandbox = photos();
        let at = |name: &str| sandbox.path().join(name);
        std::fs::write(at("private.json"), "old").unwrap();
        std::fs::set_permissions(at("private.json"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("private.json", at("link.json")).unwrap();
        sandbox.run(["report", "-q", "--json", "link.json"]).succeeds();
        assert!(std::fs::symlink_metadata(at("link.json")).unwrap().is_symlink());
        assert_eq!(std::fs::metadata(at("private.json")).unwrap().mode() & 0o777, 0o600);
        assert!(std::fs::read_to_string(at("private.json")).unwrap().contains("\"version\":1"));

        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let reader =
            std::process::Command::new("cat").arg(at("pipe")).stdout(Stdio::piped()).spawn().unwrap();
        sandbox.run(["report", "-q", "--csv", "pipe"]).succeeds();
        assert!(reader.wait_with_output().unwrap().stdout.starts_with(b"group,size"));

        let index = sandbox.index();
        let onto_the_index = ["report".as_ref(), "--json".as_ref(), index.as_os_str()];
        sandbox.run(onto_the_index).refused(2, &["index.db", "this is the index"]);
        sandbox.assert_sound();
        sandbox.run(["report", "--json", "x", "--csv", "x"]).refused(2, &["x", "two reports"]);
    }
}
