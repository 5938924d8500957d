//! The command line, the configuration, and what is refused.

use super::support::{Run, Sandbox};

#[test]
fn a_server_that_is_not_there_is_named_without_its_password() {
    let sandbox = Sandbox::new();
    let url = "postgres://ann:hunter2@127.0.0.1:1/photos?sslmode=disable";
    let run = sandbox
        .run(["scan", "--db-url", url, "tree"])
        .refused(3, &["PostgreSQL 127.0.0.1:1/photos", "refused"]);
    assert!(!run.stderr().contains("hunter2"));

    let mut command = sandbox.command(["db", "check", "--db-url", "postgres:///photos"]);
    let by_variable = Run::of(command.env("PGHOST", "/no/such/directory").output().unwrap());
    by_variable.refused(3, &["PostgreSQL /no/such/directory/photos", "No such file"]);
}

#[test]
fn help_teaches_and_documents_the_exit_codes() {
    let sandbox = Sandbox::new();
    let help = sandbox.run(["--help"]).succeeds().stdout();
    for words in
        ["scan", "resume", "report", "status", "roots", "worker", "db", "Exit codes", "130", "DUPFIND_CONFIG"]
    {
        assert!(help.contains(words), "{words}");
    }
    for command in ["scan", "resume", "report", "status", "roots", "worker", "db"] {
        assert!(sandbox.run([command, "--help"]).succeeds().stdout().contains("Usage"));
    }
    assert!(sandbox.run(["--version"]).succeeds().stdout().starts_with("dupfind "));
}

#[test]
fn quiet_says_nothing_and_colour_is_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "same");
    sandbox.write("b", "same");
    let run = sandbox.run(["-q", "scan", "tree"]).succeeds();
    assert_eq!((run.stdout(), run.stderr()), (String::new(), String::new()));
    assert!(!sandbox.run(["report"]).stdout().contains('\x1b'));
    assert!(sandbox.run(["report", "--color", "always"]).stdout().contains("\x1b[1m"));
}

/// What is so in SQLite only; left out by name where the tests run on PostgreSQL.
mod sqlite_only {
    use super::*;

    #[test]
    fn a_configuration_that_makes_no_sense_is_refused_with_its_reason() {
        let sandbox = Sandbox::new();
        let refused = |config: &str, words: &[&str]| {
            let path = sandbox.path().join("odd.json");
            std::fs::write(&path, config).unwrap();
            let arguments = ["--config".as_ref(), path.as_os_str(), "status".as_ref()];
            sandbox.run(arguments).refused(2, words);
        };
        refused("[]", &["odd.json:1:1", "object"]);
        refused(r#"{"volumes": {"/a": "same", "/b": "same"}}"#, &["/a", "/b", "same name"]);
        refused(r#"{"volumes": {"/a": "one", "/a/": "two"}}"#, &["/a/", "same directory"]);
        refused(r#"{"volumes": {"a": "one"}}"#, &["no absolute path"]);
        refused(r#"{"volumes": {"/a": ""}}"#, &["empty name"]);
        refused(r#"{"database": {"type": "postgresql", "sslmode": "maybe"}}"#, &["sslmode", "verify-full"]);
        refused(r#"{"database": {"type": "postgresql", "pool_size": 2}}"#, &["pool_size", "from 3"]);
        sandbox
            .run(["status", "--db-url", "postgres://nas/x?sslmode=foo"])
            .refused(2, &["--db-url", "sslmode"]);
    }

    #[test]
    fn what_cannot_be_scanned_refused_and_leaves_no_trace() {
        let sandbox = Sandbox::new();
        let file = sandbox.write("file", "x");
        sandbox.run(["scan", "missing"]).refused(2, &["missing", "No such file"]);
        sandbox.run(["scan", "tree", "missing"]).refused(2, &["missing"]);
        sandbox
            .run(["scan".as_ref(), file.as_os_str()])
            .refused(2, &["file", "not a directory", "--files-from"]);
        sandbox.run(["scan", "--include", "a[\x1b", "tree"]).refused(2, &["a[\\u{1b}"]);
        sandbox.run(["scan", "--exclude", "", "tree"]).refused(2, &["names nothing"]);
        sandbox.run(["scan", "--min-size", "2", "--max-size", "1", "tree"]).refused(2, &["smallest size"]);
        sandbox.run(["scan", "--files-from", "missing"]).refused(2, &["missing"]);
        assert!(!sandbox.index().exists(), "no index was made");
        for arguments in [
            &["scan"][..],
            &["scan", "--min-size", "huge", "tree"],
            &["scan", "--threads", "0", "tree"],
            &["frob"],
        ] {
            sandbox.run(arguments).ends_with(2);
        }
    }

    #[test]
    fn without_an_index_there_is_nothing_to_report() {
        let sandbox = Sandbox::new();
        for command in ["report", "status", "resume", "roots"] {
            sandbox.run([command]).refused(3, &["index.db", "dupfind scan"]);
        }
        assert!(!sandbox.index().exists());
    }

    #[test]
    fn what_is_no_index_is_left_alone() {
        let sandbox = Sandbox::new();
        let text = sandbox
            .write("notes.txt", "these are my notes, which are no database at all, and longer than a header");
        let url = format!("sqlite://{}", text.display());
        sandbox.run(["scan", "--db-url", &url, "tree"]).refused(3, &["notes.txt"]);
        assert!(std::fs::read_to_string(&text).unwrap().starts_with("these are my notes"));

        sandbox.scan();
        let foreign = sandbox.path().join("foreign.db");
        std::fs::copy(sandbox.index(), &foreign).unwrap();
        let url = format!("sqlite://{}", foreign.display());
        let _ = sandbox
            .sql(&format!("attach '{}' as other; drop table other._sqlx_migrations", foreign.display()));
        sandbox.run(["scan", "--db-url", &url, "tree"]).refused(3, &["something else than a dupfind index"]);

        // An index of a later version is refused, not altered.
        let _ = sandbox.sql(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
             values (9999, 'of the future', 1, x'00', 0)",
        );
        let before = std::fs::read(sandbox.index()).unwrap();
        sandbox.run(["scan", "tree"]).refused(3, &["index.db", "left as it is"]);
        assert_eq!(std::fs::read(sandbox.index()).unwrap(), before);
    }

    #[test]
    fn the_index_can_be_chosen_by_flag_environment_and_file() {
        let sandbox = Sandbox::new();
        sandbox.write("file", "x");
        sandbox.run(["scan", "--db-url", "sqlite://flag.db", "tree"]).succeeds();
        assert!(sandbox.path().join("flag.db").exists());
        let mut command = sandbox.command(["scan", "tree"]);
        assert!(command.env("DUPFIND_DB_URL", "sqlite://env.db").output().unwrap().status.success());
        assert!(sandbox.path().join("env.db").exists());
        let config = r#"{"database": {"type": "sqlite", "path": "file.db"}, "scan": {"hidden": true}}"#;
        std::fs::write(sandbox.path().join("config.json"), config).unwrap();
        sandbox.write(".hidden", "y");
        let scan = sandbox.scan_json(&["tree"]);
        assert!(sandbox.path().join("file.db").exists());
        assert_eq!(scan["files_seen"], 2, "its defaults count for a new root");
        assert!(!sandbox.index().exists());
    }

    #[test]
    fn a_broken_configuration_is_named_with_its_place() {
        let sandbox = Sandbox::new();
        std::fs::write(sandbox.path().join("config.json"), "{\n  \"scan\": {\"min_syze\": 1}\n}").unwrap();
        sandbox.run(["scan", "tree"]).refused(2, &["config.json:2:", "min_syze"]);
        let mut command = sandbox.command(["scan", "tree"]);
        command.env("DUPFIND_CONFIG", "absent.json");
        Run::of(command.output().unwrap()).refused(2, &["absent.json"]);
    }

    #[test]
    fn a_damaged_index_is_said_to_be_damaged() {
        let sandbox = Sandbox::new();
        for index in 0..2000 {
            sandbox.write(format!("{index}"), "same");
        }
        sandbox.scan();
        let mut bytes = std::fs::read(sandbox.index()).unwrap();
        // The schema stays readable; a report reads some of the rest, not all.
        let rest = bytes.len() / 4 / 4096 * 4096;
        bytes[rest..].fill(0xee);
        std::fs::write(sandbox.index(), bytes).unwrap();
        sandbox.run(["report"]).refused(3, &["index.db", "damaged"]);
    }
}
