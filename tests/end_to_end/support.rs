//! A place to run dupfind in: its own home, index and tree, and nothing of the outside.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use sqlx::{Connection as _, Row as _};
use tempfile::TempDir;
use tokio::runtime::{Builder, LocalOptions};

use super::server::TestDatabase;

/// A directory that is removed with everything in it. The index is a SQLite file in it, or, with
/// `DUPFIND_TEST_DATABASE=postgres`, a database of its own on the test server.
pub(crate) struct Sandbox {
    directory: TempDir,
    database: Option<TestDatabase>,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let on_postgres = std::env::var("DUPFIND_TEST_DATABASE").is_ok_and(|name| name == "postgres");
        Self::with(on_postgres.then(|| on_a_runtime(TestDatabase::create)))
    }

    /// One whose index is in PostgreSQL, whatever the others use.
    pub(crate) fn on_postgres() -> Self {
        Self::with(Some(on_a_runtime(TestDatabase::create)))
    }

    /// One whose index is in this database.
    pub(crate) fn with(database: Option<TestDatabase>) -> Self {
        let directory = tempfile::Builder::new().prefix("dupfind-test-").tempdir().unwrap();
        for name in ["home", "tree"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { directory, database }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap()
    }

    /// The tree that is scanned.
    pub(crate) fn tree(&self) -> PathBuf {
        self.path().join("tree")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.path().join("home/.local/share/dupfind/index.db")
    }

    /// Writes a file of the tree, last changed long ago.
    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.tree().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A command that sees nothing of the outside.
    pub(crate) fn command<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new(binary());
        command.args(arguments).env_clear().env("HOME", self.path().join("home"));
        command.current_dir(self.path()).stdin(Stdio::null());
        if let Some(database) = &self.database {
            // The dead are taken for dead soon.
            command.env("DUPFIND_DB_URL", database.url()).env("DUPFIND_LEASE_SECONDS", "2");
        }
        command
    }

    pub(crate) fn run<I, S>(&self, arguments: I) -> Run
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        Run::of(self.command(arguments).output().unwrap())
    }

    /// Scans the tree, which must go well.
    pub(crate) fn scan(&self) -> Run {
        self.run(["scan", "tree"]).succeeds()
    }

    /// What a scan said, as JSON.
    pub(crate) fn scan_json(&self, arguments: &[&str]) -> Value {
        let run = self.run(["scan", "--json", "-q"].iter().chain(arguments));
        serde_json::from_slice(&run.output.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
    }

    pub(crate) fn report(&self) -> Value {
        self.report_with(&[])
    }

    pub(crate) fn report_with(&self, arguments: &[&str]) -> Value {
        let run = self.run(["report", "--json", "-"].iter().chain(arguments)).succeeds();
        serde_json::from_slice(&run.output.stdout).unwrap()
    }

    /// The groups as sorted names below the tree; hard links as further names of their file.
    pub(crate) fn groups(&self) -> Vec<Vec<OsString>> {
        names_of_groups(&self.report(), &self.tree())
    }

    /// The groups as text.
    pub(crate) fn group_names(&self) -> Vec<Vec<String>> {
        let text = |name: OsString| name.to_string_lossy().into_owned();
        self.groups().into_iter().map(|group| group.into_iter().map(text).collect()).collect()
    }

    /// The names of all files in the index, in order.
    pub(crate) fn file_names(&self) -> String {
        self.sql("select filename from file_hashes order by filename").replace('\n', " ")
    }

    /// Where the index is, if it is in PostgreSQL.
    pub(crate) fn database_url(&self) -> &str {
        self.database.as_ref().unwrap().url()
    }

    /// The same surroundings for a shell.
    pub(crate) fn shell_environment(&self) -> String {
        let home = self.path().join("home");
        match &self.database {
            Some(database) => format!(
                "env -i HOME={} DUPFIND_DB_URL={} DUPFIND_LEASE_SECONDS=2",
                home.display(),
                database.url()
            ),
            None => format!("env -i HOME={}", home.display()),
        }
    }

    /// Takes the index away.
    pub(crate) fn forget_index(&self) {
        match &self.database {
            Some(database) => on_a_runtime(async || {
                drop(database.say("drop schema public cascade; create schema public").await);
            }),
            None => drop(std::fs::remove_dir_all(self.index().parent().unwrap())),
        }
    }

    /// The database finds no fault with itself.
    pub(crate) fn assert_sound(&self) {
        if self.database.is_none() {
            assert_eq!(self.sql("pragma integrity_check"), "ok");
        }
    }

    /// What SQL says of the index: a line for each row, columns with bars between them.
    pub(crate) fn sql(&self, query: &str) -> String {
        on_a_runtime(async || {
            if let Some(database) = &self.database {
                return database.say(query).await;
            }
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.index());
            let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
            let query = sqlx::AssertSqlSafe(query.to_owned());
            let rows = sqlx::query(query).fetch_all(&mut connection).await.unwrap();
            let text = |row: &sqlx::sqlite::SqliteRow| {
                let column = |index| row.try_get_unchecked::<Option<String>, _>(index).unwrap();
                let values = (0..row.len()).map(|index| column(index).unwrap_or_else(|| "NULL".to_owned()));
                values.collect::<Vec<_>>().join("|")
            };
            let text = rows.iter().map(text).collect::<Vec<_>>().join("\n");
            connection.close().await.unwrap();
            text
        })
    }
}

pub(crate) fn on_a_runtime<T>(work: impl AsyncFnOnce() -> T) -> T {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(work())
}

/// A run that ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) output: Output,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self { output }
    }

    pub(crate) fn succeeds(self) -> Self {
        self.ends_with(0)
    }

    pub(crate) fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.output.status.code(), Some(code), "{}\n{}", self.stdout(), self.stderr());
        self
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Refused in one line that holds these words.
    pub(crate) fn refused(self, code: i32, words: &[&str]) -> Self {
        let run = self.ends_with(code);
        let message = run.stderr();
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
        for word in words {
            assert!(message.contains(word), "{word:?} in {message}");
        }
        run
    }
}

/// Groups of a JSON report as sorted names below a directory.
pub(crate) fn names_of_groups(report: &Value, below: &Path) -> Vec<Vec<OsString>> {
    let mut groups: Vec<Vec<OsString>> = Vec::new();
    for group in report["groups"].as_array().unwrap() {
        let mut names = Vec::new();
        for file in group["files"].as_array().unwrap() {
            let mut odd_links = file["hard_links_base64"].as_array().into_iter().flatten();
            names.push(path_of(file));
            for link in file["hard_links"].as_array().unwrap() {
                let is_odd = link.as_str().unwrap().contains('\u{fffd}');
                let encoded = if is_odd { odd_links.next().unwrap_or(&Value::Null) } else { &Value::Null };
                names.push(decoded_path(link, encoded));
            }
        }
        let below = |path: PathBuf| path.strip_prefix(below).unwrap_or(&path).as_os_str().to_owned();
        let mut names: Vec<OsString> = names.into_iter().map(below).collect();
        names.sort();
        groups.push(names);
    }
    groups.sort();
    groups
}

/// The path of a file in a document.
pub(crate) fn path_of(file: &Value) -> PathBuf {
    decoded_path(&file["path"], &file["path_base64"])
}

fn decoded_path(path: &Value, encoded: &Value) -> PathBuf {
    use base64::Engine as _;
    match encoded.as_str() {
        Some(encoded) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
            PathBuf::from(OsStr::from_bytes(&bytes))
        }
        None => PathBuf::from(path.as_str().unwrap()),
    }
}

/// Waits until files written before are no longer racily clean.
pub(crate) fn let_timestamps_settle() {
    std::thread::sleep(Duration::from_millis(2100));
}

/// A report for the browser: more groups than fit on a page, and names that try to do harm.
pub(crate) fn report_for_browser_tests() -> (TempDir, PathBuf) {
    let sandbox = Sandbox::new();
    let pair = |name: &str, size: usize| {
        for directory in ["a", "b"] {
            sandbox.write(Path::new(directory).join(name), vec![b'x'; size]);
        }
    };
    // Scanned as it grows, and once when it has shrunk, so that there is a history.
    for index in 0..130 {
        let extension = ["jpg", "txt", "mp4", "noext"][index % 4];
        pair(&format!("file-{index:03}.{extension}"), 1000 + 10 * index);
        if index % 40 == 5 {
            pair("passing", 77_777);
            sandbox.scan();
        }
    }
    for directory in ["a", "b"] {
        std::fs::remove_file(sandbox.tree().join(directory).join("passing")).unwrap();
    }
    pair("<img src=x onerror=document.title=1>&\"quote'.jpg", 50_001);
    pair("photo\u{202e}gpj.exe", 50_002);
    pair("linked.bin", 50_003);
    std::fs::hard_link(sandbox.tree().join("a/linked.bin"), sandbox.tree().join("a/linked-too.bin")).unwrap();
    sandbox.scan();
    sandbox.run(["report", "-q", "--html", "report.html"]).succeeds();
    let path = sandbox.path().join("report.html");
    (sandbox.directory, path)
}

/// The program; a test that runs as another user brings its own copy.
fn binary() -> OsString {
    std::env::var_os("DUPFIND_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_dupfind").into())
}
