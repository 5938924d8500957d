//! Where the index is, as a section of the file or as a URL.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use url::Url;

use super::{ConfigError, Environment};

/// Where the index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// A file on this host.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
    /// A server that several hosts share.
    Postgres(PostgresSettings),
}

/// How to reach a PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// `postgres://...`; it may hold a password. What it does not say, libpq's environment variables
    /// and `.pgpass` do.
    pub url: Password,
    /// Connections at most.
    pub pool_size: u32,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to try again after a connection was lost.
    pub retry_for: Duration,
    /// A process that gave no sign of life for so long is taken for dead, and its work is free.
    pub patience: Duration,
}

/// The section of a PostgreSQL index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PostgresSection {
    /// The whole address at once, instead of the parts that follow.
    url: Option<Password>,
    /// Host name, address or socket directory.
    host: Option<String>,
    /// TCP port.
    port: Option<u16>,
    /// Role.
    user: Option<String>,
    /// Its password; better left to `PGPASSWORD` or `.pgpass`.
    password: Option<Password>,
    /// Name of the database.
    database: Option<String>,
    /// `disable`, `prefer`, `require`, `verify-ca` or `verify-full`.
    sslmode: Option<String>,
    /// The certificate authority that the server's certificate is checked with.
    sslrootcert: Option<String>,
    #[serde(default, deserialize_with = "pool_size")]
    pool_size: Option<u32>,
    connect_timeout_seconds: Option<u64>,
    retry_seconds: Option<u64>,
    lease_seconds: Option<u64>,
}

const DEFAULT_DATABASE: &str = "dupfind";

/// A scan uses three at a time: one writes, one takes on work, one says that the process lives.
const POOL_SIZE: u32 = 8;

/// The writer, the reader of work and the sign of life each hold one at some moment.
const LEAST_POOL_SIZE: u32 = 3;

const CONNECT_TIMEOUT: u64 = 10;

/// A server that is restarted is back within seconds; a router within a minute.
const RETRY_FOR: u64 = 60;

/// Long enough for a host that pauses for a moment, short enough not to wait for a dead one.
const PATIENCE: u64 = 60;

/// Below, a busy host would be taken for dead.
const LEAST_PATIENCE: u64 = 2;

fn pool_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let size = Option::<u32>::deserialize(deserializer)?;
    if size.is_some_and(|size| size < LEAST_POOL_SIZE) {
        return Err(serde::de::Error::custom(format!("pool_size: expected a number from {LEAST_POOL_SIZE}")));
    }
    Ok(size)
}

impl PostgresSection {
    fn into_settings(self, environment: &Environment) -> Result<PostgresSettings, ConfigError> {
        let url = match &self.url {
            Some(url) => checked(url.reveal(), "database.url")?,
            None => checked(self.url_of_parts()?.reveal(), "the section database")?,
        };
        let seconds = |variable, configured: Option<u64>, default| {
            let seconds = environment.number(variable)?.map(|seconds| seconds as u64);
            Ok::<_, ConfigError>(seconds.or(configured).unwrap_or(default))
        };
        let patience = seconds("DUPFIND_LEASE_SECONDS", self.lease_seconds, PATIENCE)?;
        Ok(PostgresSettings {
            url,
            pool_size: self.pool_size.unwrap_or(POOL_SIZE),
            connect_timeout: Duration::from_secs(
                self.connect_timeout_seconds.unwrap_or(CONNECT_TIMEOUT).max(1),
            ),
            retry_for: Duration::from_secs(seconds("DUPFIND_RETRY_SECONDS", self.retry_seconds, RETRY_FOR)?),
            patience: Duration::from_secs(patience.max(LEAST_PATIENCE)),
        })
    }

    fn url_of_parts(&self) -> Result<Password, ConfigError> {
        let invalid = |reason| move || ConfigError::Url { origin: "the section database", reason };
        let database = self.database.as_deref().unwrap_or(DEFAULT_DATABASE);
        let mut url = Url::parse("postgres://localhost").map_err(|_| invalid("is unusable")())?;
        match &self.host {
            // A socket directory is no host name: it travels as a parameter.
            Some(host) if host.starts_with('/') => drop(url.query_pairs_mut().append_pair("host", host)),
            Some(host) => url.set_host(Some(host)).map_err(|_| invalid("names an impossible host")())?,
            None => {}
        }
        let set = url.set_port(self.port);
        set.map_err(|()| invalid("names an impossible port")())?;
        if let Some(user) = &self.user {
            url.set_username(user).map_err(|()| invalid("names an impossible user")())?;
        }
        if let Some(password) = &self.password {
            url.set_password(Some(password.reveal()))
                .map_err(|()| invalid("holds an impossible password")())?;
        }
        url.path_segments_mut().map_err(|()| invalid("names an impossible database")())?.push(database);
        for (name, value) in [("sslmode", &self.sslmode), ("sslrootcert", &self.sslrootcert)] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        Ok(Password(url.into()))
    }
}

const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// A URL that is one.
fn checked(url: &str, origin: &'static str) -> Result<Password, ConfigError> {
    let parsed = Url::parse(url).map_err(|_| ConfigError::Url { origin, reason: "is no URL" })?;
    let is_unknown = |(key, value): (Cow<'_, str>, Cow<'_, str>)| {
        ["sslmode", "ssl-mode"].contains(&&*key) && !SSL_MODES.contains(&&*value)
    };
    if parsed.query_pairs().any(is_unknown) {
        return Err(ConfigError::SslMode { origin });
    }
    match parsed.scheme() {
        "postgres" | "postgresql" => Ok(Password(url.to_owned())),
        _ => Err(ConfigError::Url { origin, reason: "begins with neither sqlite:// nor postgres://" }),
    }
}

/// A secret: never shown, logged or part of Debug.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// The secret itself, to hand to the database.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The section `database` of the file.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum DatabaseSection {
    Sqlite { path: Option<String> },
    Postgresql(Box<PostgresSection>),
}

impl DatabaseSection {
    /// A relative path is below `directory`, the one of the file.
    pub(super) fn into_database(
        self,
        environment: &Environment,
        directory: &Path,
    ) -> Result<Database, ConfigError> {
        match self {
            Self::Sqlite { path: Some(path) } => {
                Ok(Database::Sqlite { path: environment.expand(&path, directory) })
            }
            Self::Sqlite { path: None } => Database::default_in(environment),
            Self::Postgresql(section) => Ok(Database::Postgres(section.into_settings(environment)?)),
        }
    }
}

impl Database {
    /// The default: SQLite in the XDG data directory.
    pub(super) fn default_in(environment: &Environment) -> Result<Self, ConfigError> {
        let directory = environment.data_directory.as_ref().ok_or(ConfigError::NoDataDirectory)?;
        Ok(Self::Sqlite { path: directory.join("index.db") })
    }

    /// Reads `sqlite://PATH` or `postgres://...`; `origin` says where the URL was given.
    /// Whatever a URL does not say, the environment does, or the default.
    pub(super) fn from_url(
        url: &str,
        origin: &'static str,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(ConfigError::Url { origin, reason: "names no file" });
            }
            return Ok(Self::Sqlite { path: Path::new(path).to_path_buf() });
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let section = PostgresSection { url: Some(checked(url, origin)?), ..PostgresSection::default() };
            return Ok(Self::Postgres(section.into_settings(environment)?));
        }
        Err(ConfigError::Url { origin, reason: "begins with neither sqlite:// nor postgres://" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_a_url_whatever_is_in_them() {
        let section = r#"{"type": "postgresql", "host": "/run/pg", "port": 5433, "user": "a@b", "password": "p/w?",
            "database": "my photos", "sslmode": "verify-full", "pool_size": 4, "lease_seconds": 5}"#;
        let section: DatabaseSection = serde_json::from_str(section).unwrap();
        let database = section.into_database(&Environment::default(), Path::new("/")).unwrap();
        let Database::Postgres(settings) = database else { panic!("{database:?}") };
        let expected =
            "postgres://a%40b:p%2Fw%3F@localhost:5433/my%20photos?host=%2Frun%2Fpg&sslmode=verify-full";
        assert_eq!(settings.url.reveal(), expected);
        assert_eq!((settings.pool_size, settings.patience.as_secs()), (4, 5));
    }

    #[test]
    fn a_password_is_never_shown() {
        let by_url =
            Database::from_url("postgres://ann:hunter2@nas/dupfind", "--db-url", &Environment::default())
                .unwrap();
        let section = r#"{"type": "postgresql", "user": "ann", "password": "hunter2"}"#;
        let section: DatabaseSection = serde_json::from_str(section).unwrap();
        assert!(!format!("{section:?}").contains("hunter2"));
        let by_parts = section.into_database(&Environment::default(), Path::new("/")).unwrap();
        for database in [by_url, by_parts] {
            assert!(!format!("{database:?}").contains("hunter2"));
        }
        let refused =
            Database::from_url("mysql://ann:hunter2@nas", "--db-url", &Environment::default()).unwrap_err();
        assert!(!refused.to_string().contains("hunter2"));
    }
}
