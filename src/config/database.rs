//! Where the index is, as a section of the file or as a URL.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, Environment};
use crate::model::path::escape_path;

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
pub enum PostgresSettings {
    /// By a URL. It may hold a password, so it is only shown without.
    Url(Password),
    /// By its parts.
    Parts(PostgresParts),
}

/// The parts of a PostgreSQL connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresParts {
    /// Host name, address or socket directory.
    #[serde(default = "default_host")]
    pub host: String,
    /// TCP port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Role.
    pub user: String,
    /// Its password; better left to `PGPASSWORD` or `.pgpass`.
    pub password: Option<Password>,
    /// Name of the database.
    #[serde(default = "default_database")]
    pub database: String,
    /// Connections at most.
    #[serde(default = "default_pool_size")]
    pub pool_size: u32,
}

fn default_host() -> String {
    "localhost".to_owned()
}

fn default_port() -> u16 {
    5432
}

fn default_database() -> String {
    "dupfind".to_owned()
}

fn default_pool_size() -> u32 {
    8
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
    Postgresql(PostgresParts),
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
            Self::Postgresql(parts) => Ok(Database::Postgres(PostgresSettings::Parts(parts))),
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
    pub(super) fn from_url(url: &str, origin: &'static str) -> Result<Self, ConfigError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(ConfigError::Url { origin, reason: "names no file" });
            }
            return Ok(Self::Sqlite { path: Path::new(path).to_path_buf() });
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(PostgresSettings::Url(Password(url.to_owned()))));
        }
        Err(ConfigError::Url { origin, reason: "begins with neither sqlite:// nor postgres://" })
    }
}

impl fmt::Display for Database {
    /// For people; without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => f.write_str(&escape_path(path)),
            Self::Postgres(PostgresSettings::Url(_)) => f.write_str("PostgreSQL"),
            Self::Postgres(PostgresSettings::Parts(parts)) => {
                write!(f, "PostgreSQL {}:{}/{}", parts.host, parts.port, parts.database)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let by_url = Database::from_url("postgres://ann:hunter2@nas/dupfind", "--db-url").unwrap();
        let section = r#"{"type": "postgresql", "user": "ann", "password": "hunter2"}"#;
        let section: DatabaseSection = serde_json::from_str(section).unwrap();
        assert!(!format!("{section:?}").contains("hunter2"));
        let by_parts = section.into_database(&Environment::default(), Path::new("/")).unwrap();
        for database in [by_url, by_parts] {
            assert!(!format!("{database:?} {database}").contains("hunter2"));
        }
        let refused = Database::from_url("mysql://ann:hunter2@nas", "--db-url").unwrap_err();
        assert!(!refused.to_string().contains("hunter2"));
    }
}
