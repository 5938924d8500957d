//! `dupfind files`: what is known of single files, from outside.

use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;

use serde_json::{Value, json};

use super::support::{Sandbox, let_timestamps_settle};

fn files(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let run = sandbox.run(["files", "--json"].iter().chain(arguments)).succeeds();
    serde_json::from_slice(&run.output.stdout).unwrap()
}

fn tree() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("a/one", "same");
    sandbox.write("b/two", "same");
    sandbox.write("b/alone", "unlike any");
    std::fs::hard_link(sandbox.tree().join("a/one"), sandbox.tree().join("a/one-too")).unwrap();
    let_timestamps_settle();
    sandbox.scan();
    sandbox
}

#[test]
fn one_file_is_told_with_its_copies_even_if_it_is_gone() {
    let sandbox = tree();
    let at = |name: &str| sandbox.tree().join(name).display().to_string();
    std::fs::remove_dir_all(sandbox.tree().join("a")).unwrap();
    let document = files(&sandbox, &["tree/a/one"]);
    assert_eq!((&document["version"], &document["path"]), (&1.into(), &at("a/one").into()));
    let told = document["files"].as_array().unwrap();
    assert_eq!((told.len(), &document["more"]), (1, &false.into()));
    let file = &told[0];
    assert_eq!((&file["path"], &file["size"]), (&at("a/one").into(), &4.into()));
    assert_eq!(file["hash"], blake3::hash(b"same").to_hex().as_str());
    assert_eq!((&file["pending"], &file["problem"]), (&false.into(), &Value::Null));
    assert_eq!((&file["duplicates"], &file["hard_links"]), (&1.into(), &json!([at("a/one-too")])));
    assert_eq!(file["duplicate_files"][0]["path"], at("b/two"));
    let of_two = files(&sandbox, &["tree/b/two"]);
    let copy = &of_two["files"][0]["duplicate_files"][0];
    assert_eq!((&copy["path"], &copy["hard_links"]), (&at("a/one").into(), &json!([at("a/one-too")])));

    let text = sandbox.run(["files", "tree/b/two"]).succeeds().stdout();
    for words in [&at("b/two"), "4 B", "1 file elsewhere", &at("a/one"), "= hard link"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let text = sandbox.run(["files", "tree/b/alone"]).succeeds().stdout();
    assert!(text.contains("no other file has its size") && text.contains("none known"), "{text}");
    sandbox.run(["files", "tree/c"]).refused(2, &["tree/c: not in the index"]);
    sandbox.run(["files", "/"]).succeeds();
    sandbox.run(["files", "tree", "--host", "nas"]).refused(2, &["nas", "no such host"]);
}

#[test]
fn a_directory_is_listed_with_what_is_known_of_each_file() {
    let sandbox = tree();
    sandbox.write(std::ffi::OsStr::from_bytes(b"b/odd\xff\n"), "alike");
    sandbox.write("c/new", "alike");
    sandbox.run(["scan", "-q", "--discover-only", "tree"]).succeeds();
    let document = files(&sandbox, &["tree"]);
    let told = document["files"].as_array().unwrap();
    let short = |file: &Value| {
        let path = file["path"].as_str().unwrap().rsplit_once("tree/").unwrap().1.to_owned();
        (path, file["pending"] == true, file["hash"].is_string(), file["duplicates"].as_u64().unwrap())
    };
    let expected = [
        ("a/one", false, true, 1),
        ("a/one-too", false, true, 1),
        ("b/alone", false, false, 0),
        ("b/odd\u{fffd}\n", true, false, 0),
        ("b/two", false, true, 1),
        ("c/new", true, false, 0),
    ]
    .map(|(path, pending, hashed, copies)| (path.to_owned(), pending, hashed, copies));
    assert_eq!(told.iter().map(short).collect::<Vec<_>>(), expected);
    assert!(told[3]["path_base64"].is_string() && told[0].get("duplicate_files").is_none());

    let below_b = files(&sandbox, &["tree/b", "--duplicates", "--limit", "2"]);
    assert_eq!((below_b["files"].as_array().unwrap().len(), &below_b["more"]), (2, &true.into()));
    let below_a = files(&sandbox, &["tree/a", "--duplicates", "--limit", "2"]);
    assert_eq!(below_a["more"], false);
    let copies = &below_a["files"][0]["duplicate_files"];
    assert!(copies[0]["path"].as_str().unwrap().ends_with("b/two"), "elsewhere: {copies}");

    let text = sandbox.run(["files", "tree", "--duplicates"]).succeeds().stdout();
    assert!(text.contains("b/odd\\xff\\n") && text.contains("= hard link"), "{text}");
    assert!(text.ends_with("6 files with 32 B, 3 with copies, 2 pending\n"), "{text}");
    sandbox.run(["resume", "-q"]).succeeds();
    assert_eq!(files(&sandbox, &["tree/c/new"])["files"][0]["duplicates"], 1);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let sandbox = Sandbox::new();
    for index in 0..6000 {
        sandbox.write(format!("d{}/{index}", index % 2), format!("{}", index / 2));
    }
    sandbox.scan();
    for arguments in [["files", "tree"].as_slice(), &["files", "tree", "--json", "--duplicates"]] {
        let mut command = sandbox.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0; 64]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let whole = files(&sandbox, &["tree", "--duplicates"]);
    assert_eq!(whole["files"].as_array().unwrap().len(), 6000);
}
