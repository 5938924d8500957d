//! What two hosts have found, seen from each.

use serde_json::Value;

use super::support::Sandbox;
use super::survival::in_own_mounts;

/// Two hosts with a disk of their own each, mounted at the same path, and one index.
fn two_hosts() -> Sandbox {
    let sandbox = Sandbox::new();
    // Twice each: the second scan must not take what the other host found for gone. What is mounted is new
    // each time, and what has a partner on the other host by then is read.
    let hosts = [("alpha", "echo same >a; echo only-alpha >x"), ("beta", "echo same >b; echo other >x")];
    for (host, files) in hosts.repeat(2) {
        let script = format!(
            "mount -t tmpfs tmpfs {tree} || exit 77; cd {tree}; {files}; cd ..
             {environment} DUPFIND_HOST={host} {dupfind} scan -q tree; echo $?",
            tree = sandbox.tree().display(),
            environment = sandbox.shell_environment(),
            dupfind = env!("CARGO_BIN_EXE_dupfind"),
        );
        assert_eq!(in_own_mounts(&script).trim(), "0", "{host}");
    }
    sandbox
}

fn report_on(sandbox: &Sandbox, host: &str, arguments: &[&str]) -> Value {
    let mut command = sandbox.command(["report", "--json", "-"].iter().chain(arguments));
    let output = command.env("DUPFIND_HOST", host).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn local_disks_at_the_same_path_are_apart_and_duplicates_are_found_across_hosts() {
    let sandbox = two_hosts();
    assert_eq!(sandbox.file_names(), "a b x x");
    let report = report_on(&sandbox, "alpha", &[]);
    assert_eq!(report["summary"]["groups"], 1);
    let files = report["groups"][0]["files"].as_array().unwrap();
    let mut named: Vec<String> = files
        .iter()
        .map(|file| format!("{}:{}", file["host"].as_str().unwrap(), file["path"].as_str().unwrap()))
        .collect();
    named.sort();
    let tree = sandbox.tree().display().to_string();
    assert_eq!(named, [format!("alpha:{tree}/a"), format!("beta:{tree}/b")]);

    let text = sandbox.run(["report"]).succeeds().stdout();
    assert!(text.contains(&format!("beta:{tree}/b")), "{text}");
    let lines = sandbox.run(["report", "--format", "fdupes"]).succeeds().stdout();
    assert!(lines.contains(&format!("alpha:{tree}/a\n")), "{lines}");
    let csv = sandbox.run(["report", "--csv", "-"]).succeeds().stdout();
    assert!(csv.lines().next().unwrap().ends_with(",host") && csv.contains(",alpha\r\n"), "{csv}");
    let status = sandbox.run(["status"]).succeeds().stdout();
    for words in ["alpha", "beta", "host:beta:"] {
        assert!(status.contains(words), "{words}: {status}");
    }
}

#[test]
fn files_of_another_host_are_known_by_its_paths() {
    let sandbox = two_hosts();
    let tree = sandbox.tree().display().to_string();
    let on_alpha = |arguments: &[&str]| {
        let output = sandbox.command(arguments).env("DUPFIND_HOST", "alpha").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for file in [vec![format!("beta:{tree}/b")], vec![format!("{tree}/b"), "--host".into(), "beta".into()]] {
        let arguments = ["files"].into_iter().chain(file.iter().map(String::as_str));
        let (code, text) = on_alpha(&arguments.collect::<Vec<_>>());
        assert_eq!(code, Some(0), "{text}");
        assert!(
            text.starts_with(&format!("beta:{tree}/b\n")) && text.contains(&format!("alpha:{tree}/a")),
            "{text}"
        );
    }
    let (code, text) = on_alpha(&["files", &tree]);
    assert!(
        code == Some(0) && text.contains(&format!("alpha:{tree}/x")) && !text.contains("beta:"),
        "{text}"
    );
    assert_eq!(on_alpha(&["files", &format!("{tree}/b")]).0, Some(2), "here is no such file");

    let (_, history) = on_alpha(&["history"]);
    assert!(
        history.contains(&format!("beta:{tree}\n")) && history.contains(&format!(" {tree}\n")),
        "{history}"
    );
    let (code, of_beta) = on_alpha(&["history", "--root", &format!("beta:{tree}")]);
    assert!(code == Some(0) && of_beta.contains(&format!("beta:{tree}\n")), "{of_beta}");
    assert!(!of_beta.contains(&format!(" {tree}\n")), "{of_beta}");
}

#[test]
fn a_report_can_be_limited_to_a_host_or_a_volume() {
    let sandbox = two_hosts();
    let tree = sandbox.tree().display().to_string();
    let files = |arguments: &[&str]| report_on(&sandbox, "alpha", arguments)["summary"]["files"].clone();
    assert_eq!(files(&["--host", "beta"]), 2);
    assert_eq!(files(&["--host", "beta", "--host", "alpha"]), 4);
    assert_eq!(files(&["--volume", "host:alpha:"]), 2);
    assert_eq!(files(&["--host", "beta", "--under", &tree]), 2);
    assert_eq!(files(&["--host", "beta", "--volume", "host:alpha:"]), 0, "they narrow each other");
    assert_eq!(report_on(&sandbox, "alpha", &["--host", "beta"])["summary"]["groups"], 0);
    sandbox.run(["report", "--host", "gamma"]).refused(2, &["gamma", "alpha, beta"]);
    sandbox.run(["report", "--volume", "host:"]).refused(2, &["host:alpha:", "host:beta:"]);
}

#[test]
fn a_name_that_is_changed_or_taken_away_never_shows_a_file_twice() {
    let sandbox = Sandbox::new();
    for name in ["named/1", "other/1"] {
        sandbox.write(name, "same");
    }
    sandbox.write("named/alone", "xx");
    let name_it = |volumes: &Value| {
        let config = serde_json::json!({ "volumes": volumes });
        std::fs::write(sandbox.path().join("config.json"), config.to_string()).unwrap();
        sandbox.run(["scan", "-q", "tree"]).succeeds();
        let paths = sandbox.run(["report", "--format", "fdupes"]).succeeds().stdout();
        let mut local: Vec<String> =
            paths.lines().filter(|line| line.starts_with('/')).map(str::to_owned).collect();
        local.sort();
        local
    };
    let named = sandbox.tree().join("named");
    let expected: Vec<String> =
        ["named/1", "other/1"].map(|name| sandbox.tree().join(name).display().to_string()).into();
    for volumes in [
        serde_json::json!({ named.to_str().unwrap(): "one" }),
        serde_json::json!({ named.to_str().unwrap(): "two" }),
        serde_json::json!({}),
    ] {
        assert_eq!(name_it(&volumes), expected, "{volumes}");
    }
    assert_eq!(sandbox.report()["summary"]["files"], 3, "nothing is left of the old names");
    sandbox.run(["report", "--volume", "three"]).refused(2, &["name:one, name:two"]);
    sandbox.run(["report", "--volume", "two"]).succeeds();
    sandbox.run(["roots", "remove", "tree"]).succeeds();
    assert_eq!(sandbox.file_names(), "");
}

#[test]
fn a_directory_that_gets_a_name_later_is_left_alone_and_the_user_is_told() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "x");
    sandbox.scan();
    let config = serde_json::json!({ "volumes": { sandbox.tree().to_str().unwrap(): "photos" } });
    std::fs::write(sandbox.path().join("config.json"), config.to_string()).unwrap();
    let run = sandbox.run(["scan", "tree"]).ends_with(1);
    assert!(
        run.stderr().contains("another name") && run.stderr().contains("roots remove"),
        "{}",
        run.stderr()
    );
}
