//! From flags, environment and `config.json` to [`Settings`]: resolved once, in this order of
//! precedence, then the built-in defaults.
//!
//! Refuses to read the environment itself: the caller hands it over, so that tests are hermetic.

mod database;
mod file;
mod watch;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use database::{Database, Password, PostgresSettings};
pub use file::ConfigError;
pub use watch::{IntervalError, WatchSettings};

use crate::concurrency::Threads;
use crate::model::settings::ScanSettings;
use crate::model::volume::Host;
use crate::scan::Workers;

/// What was given on the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--db-url`
    pub db_url: Option<String>,
    /// `--threads`
    pub threads: Option<usize>,
    /// `--io-threads`
    pub io_threads: Option<usize>,
    /// `--batch-size`
    pub batch_size: Option<usize>,
}

/// The part of the process's surroundings that settings come from.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Environment variables.
    pub variables: HashMap<String, OsString>,
    /// The current directory.
    pub current_directory: PathBuf,
    /// `$XDG_CONFIG_HOME/dupfind`
    pub config_directory: Option<PathBuf>,
    /// `$XDG_DATA_HOME/dupfind`
    pub data_directory: Option<PathBuf>,
    /// The name of this machine.
    pub host: String,
    /// Processors that this process may use.
    pub processors: usize,
}

/// Everything that is not about one root, with no choice left open.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the index is.
    pub database: Database,
    /// The options of a root that has none of its own.
    pub scan: ScanSettings,
    /// How the work is divided.
    pub workers: Workers,
    /// How roots are kept up to date that do not say it themselves.
    pub watch: WatchSettings,
    /// What this host is called in the index, and what is mounted on it.
    pub host: Host,
}

/// Directories listed and files read at once while the disk is waited for and more get done with more.
const MOST_WALKERS: usize = 16;
const MOST_READERS: usize = 32;

/// More threads than any disk or processor has use for: a slip of the keyboard asks for no more.
const MOST_THREADS: usize = 256;

/// Rows written to the index at once: eight statements of 1,024.
const BATCH_SIZE: usize = 8192;

impl Settings {
    /// Resolves all sources.
    pub fn resolve(flags: &Flags, environment: &Environment) -> Result<Self, ConfigError> {
        let file = file::find(flags, environment)?;
        let (file, directory) = file.unwrap_or_default();
        let (database, scan, processing) = (file.database, file.scan, file.processing);
        let from_environment = environment.text("DUPFIND_DB_URL")?;
        let database = match (&flags.db_url, from_environment, database) {
            (Some(url), ..) => Database::from_url(url, "--db-url", environment)?,
            (None, Some(url), _) => Database::from_url(&url, "DUPFIND_DB_URL", environment)?,
            (None, None, Some(section)) => section.into_database(environment, &directory)?,
            (None, None, None) => Database::default_in(environment)?,
        };
        let number = |flag: Option<usize>, variable, configured| -> Result<Option<usize>, ConfigError> {
            Ok(flag.or(environment.number(variable)?).or(configured))
        };
        let threads = number(flags.threads, "DUPFIND_THREADS", processing.threads)?;
        let io_threads = number(flags.io_threads, "DUPFIND_IO_THREADS", processing.io_threads)?;
        let batch = number(flags.batch_size, "DUPFIND_BATCH_SIZE", processing.batch_size)?;
        let threads = threads.map(|number| number.min(MOST_THREADS));
        let least = threads.unwrap_or(environment.processors).clamp(1, MOST_THREADS);
        // What is not said is found out, but one thread means one thing after the other.
        let found_out =
            |most: usize| Threads { least, most: if threads == Some(1) { 1 } else { least.max(most) } };
        let workers = Workers {
            walk: threads.map_or(found_out(MOST_WALKERS), Threads::exactly),
            read: io_threads
                .map_or(found_out(MOST_READERS), |number| Threads::exactly(number.min(MOST_THREADS))),
            batch: batch.unwrap_or(BATCH_SIZE).max(1),
        };
        let host =
            environment.text("DUPFIND_HOST")?.or(file.host).unwrap_or_else(|| environment.host.clone());
        let named =
            file.volumes.iter().map(|(path, name)| (environment.expand(path, &directory), name.clone()));
        let host = Host { name: host.into(), named_volumes: Arc::new(named.collect()) };
        Ok(Self { database, scan: scan.into_settings(), workers, watch: file.watch, host })
    }
}

impl Environment {
    fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        let Some(value) = self.variables.get(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        let text = value.to_str().ok_or(ConfigError::Variable { name, reason: "is not UTF-8".to_owned() })?;
        Ok(Some(text.to_owned()))
    }

    fn number(&self, name: &'static str) -> Result<Option<usize>, ConfigError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => Err(ConfigError::Variable { name, reason: format!("is {text:?}, not a number from 1") }),
        }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// A path from a file or a URL: `~/` is the home directory, what is relative is below `base`.
    fn expand(&self, path: &str, base: &Path) -> PathBuf {
        match (path.strip_prefix("~/"), self.path("HOME")) {
            (Some(below_home), Some(home)) => home.join(below_home),
            _ => base.join(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::settings::HashPolicy;

    fn environment(directory: &Path) -> Environment {
        Environment {
            current_directory: directory.to_path_buf(),
            config_directory: Some(directory.join("xdg-config")),
            data_directory: Some(directory.join("xdg-data")),
            processors: 2,
            ..Environment::default()
        }
    }

    fn sqlite_path(settings: &Settings) -> &Path {
        match &settings.database {
            Database::Sqlite { path } => path,
            Database::Postgres(_) => panic!("expected SQLite"),
        }
    }

    #[test]
    fn a_flag_outranks_the_environment_and_that_the_file_and_that_the_default() {
        let directory = tempfile::tempdir().unwrap();
        let mut environment = environment(directory.path());
        let settings = Settings::resolve(&Flags::default(), &environment).unwrap();
        assert_eq!(sqlite_path(&settings), directory.path().join("xdg-data/index.db"));
        assert_eq!(
            settings.workers,
            Workers {
                walk: Threads { least: 2, most: 16 },
                read: Threads { least: 2, most: 32 },
                batch: BATCH_SIZE
            }
        );

        let text = r#"{"database": {"type": "sqlite", "path": "here.db"}, "processing": {"threads": 3}}"#;
        std::fs::write(directory.path().join("config.json"), text).unwrap();
        let settings = Settings::resolve(&Flags::default(), &environment).unwrap();
        assert_eq!(sqlite_path(&settings), directory.path().join("here.db"));
        assert_eq!(settings.workers.walk, Threads::exactly(3));

        environment.variables.insert("DUPFIND_DB_URL".into(), "sqlite:///tmp/env.db".into());
        environment.variables.insert("DUPFIND_THREADS".into(), "5".into());
        let settings = Settings::resolve(&Flags::default(), &environment).unwrap();
        assert_eq!(sqlite_path(&settings), Path::new("/tmp/env.db"));
        assert_eq!(settings.workers.walk, Threads::exactly(5));

        let flags =
            Flags { db_url: Some("sqlite:///tmp/flag.db".into()), threads: Some(1), ..Flags::default() };
        let settings = Settings::resolve(&flags, &environment).unwrap();
        assert_eq!(sqlite_path(&settings), Path::new("/tmp/flag.db"));
        assert_eq!(
            (settings.workers.walk, settings.workers.read),
            (Threads::exactly(1), Threads::exactly(1)),
            "one thread is strictly sequential"
        );
    }

    #[test]
    fn files_are_looked_for_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let mut environment = environment(directory.path());
        let write = |name: &str, threads: usize| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, format!(r#"{{"processing": {{"threads": {threads}}}}}"#)).unwrap();
            path
        };
        let threads = |flags: &Flags, environment: &Environment| {
            Settings::resolve(flags, environment).unwrap().workers.walk.most
        };
        write("xdg-config/config.json", 11);
        assert_eq!(threads(&Flags::default(), &environment), 11);
        write("config.json", 12);
        assert_eq!(threads(&Flags::default(), &environment), 12);
        let named = write("named.json", 13);
        environment.variables.insert("DUPFIND_CONFIG".into(), named.into());
        assert_eq!(threads(&Flags::default(), &environment), 13);
        let flags = Flags { config: Some(write("flag.json", 14)), ..Flags::default() };
        assert_eq!(threads(&flags, &environment), 14);
        let missing = Flags { config: Some(directory.path().join("none.json")), ..Flags::default() };
        assert!(Settings::resolve(&missing, &environment).unwrap_err().to_string().contains("none.json"));
    }

    #[test]
    fn a_mistake_is_one_line_with_file_line_column_and_key() {
        let directory = tempfile::tempdir().unwrap();
        let environment = environment(directory.path());
        let path = directory.path().join("config.json");
        let mistakes = [
            ("{\n  \"scan\": {\"hiden\": true}\n}", "scan", 2),
            ("{\n\n  \"processing\": {\"threads\": \"many\"}\n}", "processing.threads", 3),
            ("{\"scan\": {\"min_size\": \"1.5 furlongs\"}}", "scan.min_size", 1),
            ("{\"database\": {\"type\": \"oracle\"}}", "database", 1),
            ("{\"scan\": {\"hash\": \"some\"}}", "scan.hash: expected \"candidates\"", 1),
            ("{\"scan\": {\"hash_all\": true, \"hash\": \"all\"}}", "duplicate", 1),
            ("{\"database\": ", "database", 1),
            ("{\n  \"watch\": {\"interval\": 24}\n}", "watch.interval: expected a duration", 2),
            ("{\"watch\": {\"interval\": \"often\"}}", "watch.interval: \"often\"", 1),
            ("{\"watch\": {\"poll\": \"0s\"}}", "watch.poll", 1),
            ("{\"watch\": {\"intervall\": \"1h\"}}", "intervall", 1),
            (
                "{\n  \"watch\": {\"interval\": \"2h\", \"longest_interval\": \"1h\"}}",
                "watch: interval (2h) is more than longest_interval (1h)",
                2,
            ),
            ("{\"scan\": {}} trailing", "", 1),
        ];
        for (text, key, line) in mistakes {
            std::fs::write(&path, text).unwrap();
            let message = Settings::resolve(&Flags::default(), &environment).unwrap_err().to_string();
            assert!(message.contains(&format!("config.json:{line}:")), "{message}");
            assert!(message.contains(key), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn what_is_hashed_may_be_a_word_or_the_flag_of_before() {
        let directory = tempfile::tempdir().unwrap();
        let environment = environment(directory.path());
        for (text, policy) in [
            (r#"{"scan": {"hash": "none"}}"#, HashPolicy::None),
            (r#"{"scan": {"hash_all": true}}"#, HashPolicy::All),
            (r#"{"scan": {"hash_all": false}}"#, HashPolicy::Candidates),
            (r#"{"scan": {"hash": null}}"#, HashPolicy::Candidates),
        ] {
            std::fs::write(directory.path().join("config.json"), text).unwrap();
            let settings = Settings::resolve(&Flags::default(), &environment).unwrap();
            assert_eq!(settings.scan.hash, policy, "{text}");
        }
    }

    #[test]
    fn the_section_watch_says_how_roots_are_kept_up_to_date() {
        let directory = tempfile::tempdir().unwrap();
        let environment = environment(directory.path());
        let watch = || Settings::resolve(&Flags::default(), &environment).unwrap().watch;
        assert_eq!(watch(), WatchSettings::default());
        let text = r#"{"watch": {"interval": "30m", "debounce": "2s", "smart": false, "poll": "1m"}}"#;
        std::fs::write(directory.path().join("config.json"), text).unwrap();
        let expected = WatchSettings {
            debounce: Duration::from_secs(2),
            interval: Duration::from_mins(30),
            shortest_interval: Duration::from_mins(30),
            smart: false,
            poll: Duration::from_mins(1),
            ..WatchSettings::default()
        };
        assert_eq!(watch(), expected);
    }

    #[test]
    fn the_example_is_valid() {
        let directory = tempfile::tempdir().unwrap();
        let example = include_str!("../../config.example.json");
        std::fs::write(directory.path().join("config.json"), example).unwrap();
        Settings::resolve(&Flags::default(), &environment(directory.path())).unwrap();
    }
}
