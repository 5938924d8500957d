//! `config.json`: where it is looked for, and what may stand in it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer};

use super::database::DatabaseSection;
use super::watch::WatchSettings;
use super::{Environment, Flags};
use crate::model::path::escape_path;
use crate::model::settings::{HashPolicy, ScanSettings};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read configuration {}: {source}", escape_path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file does not hold what it should.
    #[error("{}:{line}:{column}: {key}{reason}", escape_path(path))]
    Content {
        /// The file.
        path: PathBuf,
        /// Where the reader stopped, from 1.
        line: usize,
        /// Where the reader stopped, from 1.
        column: usize,
        /// The key and `: `, or nothing outside all keys.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// An environment variable cannot be used.
    #[error("environment variable {name} {reason}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A database URL cannot be used. It is not repeated: it may hold a password.
    #[error("{origin} {reason}: expected sqlite://PATH or postgres://USER@HOST/DATABASE")]
    Url {
        /// The flag or variable.
        origin: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// An unknown way to use TLS.
    #[error("{origin}: sslmode is none of disable, allow, prefer, require, verify-ca, verify-full")]
    SslMode {
        /// Where it was given.
        origin: &'static str,
    },
    /// Names of volumes that cannot be used.
    #[error("{}: volumes: {reason}", escape_path(path))]
    Volumes {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no home directory to keep the index in.
    #[error(
        "no home directory to keep the index in: set HOME or XDG_DATA_HOME, or name an index with --db-url"
    )]
    NoDataDirectory,
}

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ConfigFile {
    pub(super) database: Option<DatabaseSection>,
    pub(super) scan: ScanSection,
    pub(super) processing: ProcessingSection,
    pub(super) watch: WatchSettings,
    /// The name this host goes by in the index.
    pub(super) host: Option<String>,
    /// Names of volumes, by their directories on this host.
    pub(super) volumes: BTreeMap<String, String>,
}

/// The section `processing`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ProcessingSection {
    #[serde(deserialize_with = "positive")]
    pub(super) threads: Option<usize>,
    #[serde(deserialize_with = "positive")]
    pub(super) io_threads: Option<usize>,
    #[serde(deserialize_with = "positive")]
    pub(super) batch_size: Option<usize>,
}

/// The section `scan`: [`ScanSettings`] with sizes as people write them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ScanSection {
    #[serde(deserialize_with = "size")]
    min_size: Option<u64>,
    #[serde(deserialize_with = "size")]
    max_size: Option<u64>,
    include: Vec<String>,
    exclude: Vec<String>,
    hidden: Option<bool>,
    default_ignores: Option<bool>,
    one_file_system: Option<bool>,
    follow_links: Option<bool>,
    max_depth: Option<usize>,
    /// Before there was a choice, it was a flag.
    #[serde(alias = "hash_all")]
    hash: Option<HashPolicy>,
}

impl ScanSection {
    pub(super) fn into_settings(self) -> ScanSettings {
        let default = ScanSettings::default();
        ScanSettings {
            min_size: self.min_size.unwrap_or(default.min_size),
            max_size: self.max_size.or(default.max_size),
            include: self.include,
            exclude: self.exclude,
            hidden: self.hidden.unwrap_or(default.hidden),
            default_ignores: self.default_ignores.unwrap_or(default.default_ignores),
            one_file_system: self.one_file_system.unwrap_or(default.one_file_system),
            follow_links: self.follow_links.unwrap_or(default.follow_links),
            max_depth: self.max_depth.or(default.max_depth),
            hash: self.hash.unwrap_or(default.hash),
        }
    }
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "expected a size: a number of bytes, or text such as \"10K\" or \"1.5GiB\""
    )]
    enum Size {
        Bytes(u64),
        Text(String),
    }
    match Option::<Size>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Size::Bytes(bytes)) => Ok(Some(bytes)),
        Some(Size::Text(text)) => match text.parse::<ByteSize>() {
            Ok(size) => Ok(Some(size.as_u64())),
            Err(_) => {
                Err(serde::de::Error::custom(format!("{text:?} is no size such as \"10K\" or \"1.5GiB\"")))
            }
        },
    }
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let number = Option::<usize>::deserialize(deserializer)?;
    if number == Some(0) {
        return Err(serde::de::Error::custom("expected a number from 1"));
    }
    Ok(number)
}

/// The first file there is: `--config`, `DUPFIND_CONFIG`, `./config.json`, the XDG config directory.
/// One that was named has to be there. With the directory it lies in.
pub(super) fn find(
    flags: &Flags,
    environment: &Environment,
) -> Result<Option<(ConfigFile, PathBuf)>, ConfigError> {
    if let Some(named) = flags.config.clone().or_else(|| environment.path("DUPFIND_CONFIG")) {
        return read(named).map(Some);
    }
    let here = environment.current_directory.join("config.json");
    let in_home = environment.config_directory.as_ref().map(|directory| directory.join("config.json"));
    for path in [Some(here), in_home].into_iter().flatten() {
        match read(path) {
            Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            found => return found.map(Some),
        }
    }
    Ok(None)
}

fn read(path: PathBuf) -> Result<(ConfigFile, PathBuf), ConfigError> {
    let directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(source) => return Err(ConfigError::Read { path, source }),
    };
    // A list would pass for the values of the keys in order.
    if let Some(place) = text.iter().position(|byte| !byte.is_ascii_whitespace())
        && text[place] != b'{'
    {
        let (line, column, key) = (1, 1, String::new());
        let reason = "expected an object: { ... }".to_owned();
        return Err(ConfigError::Content { path, line, column, key, reason });
    }
    let mut json = serde_json::Deserializer::from_slice(&text);
    let parsed = serde_path_to_error::deserialize(&mut json);
    let ended =
        |file: ConfigFile| json.end().map(|()| (file, directory)).map_err(|error| (String::new(), error));
    let parsed = parsed.map_err(|error| (error.path().to_string(), error.into_inner())).and_then(ended);
    let (file, directory) = parsed.map_err(|(key, error)| {
        // serde_json appends the place, which stands in front here.
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
        let key = if key.is_empty() || key == "." { String::new() } else { format!("{key}: ") };
        ConfigError::Content { path: path.clone(), line: error.line(), column: error.column(), key, reason }
    })?;
    match wrong_volumes(&file.volumes) {
        Some(reason) => Err(ConfigError::Volumes { path, reason }),
        None => Ok((file, directory)),
    }
}

/// Why names of volumes cannot be used: each stands for one directory of this host, and each directory has one
/// name.
fn wrong_volumes(volumes: &BTreeMap<String, String>) -> Option<String> {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut directories: HashMap<&str, &str> = HashMap::new();
    for (directory, name) in volumes {
        if name.is_empty() {
            return Some(format!("{directory:?} has an empty name"));
        }
        if !directory.starts_with(['/', '~']) {
            return Some(format!("{directory:?} is no absolute path"));
        }
        if let Some(other) = names.insert(name, directory) {
            return Some(format!("{other:?} and {directory:?} have the same name {name:?}"));
        }
        if let Some(other) = directories.insert(directory.trim_end_matches('/'), directory) {
            return Some(format!("{other:?} and {directory:?} are the same directory"));
        }
    }
    None
}
