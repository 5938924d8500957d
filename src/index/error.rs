//! Why the index could not be used, and what to do about it.

use std::path::{Path, PathBuf};

use crate::model::path::escape_path;

/// An index operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It could not be opened.
    #[error("open index {}: {source}", escape_path(path))]
    Open {
        /// Its file.
        path: PathBuf,
        /// What the database or the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is none yet.
    #[error("no index at {}: run 'dupfind scan DIR' first", escape_path(.0))]
    Missing(PathBuf),
    /// It is somebody else's database, or no file at all.
    #[error("{} is something else than a dupfind index; it was left as it is: name another file", escape_path(.0))]
    NotAnIndex(PathBuf),
    /// It was made by a newer dupfind, or changed by hand.
    #[error("index {index}: {source}; it was left as it is: use a newer dupfind")]
    Schema {
        /// Where it is.
        index: String,
        /// What does not fit.
        source: Box<sqlx::migrate::MigrateError>,
    },
    /// The disk that holds it is full.
    #[error(
        "{operation}: no space left for the index; what was committed is kept: make room, then run 'dupfind resume'"
    )]
    Full {
        /// What was being done.
        operation: &'static str,
    },
    /// Another process writes to it.
    #[error("the index is in use by {holder}; wait for it to end, or leave out --no-wait")]
    Busy {
        /// Who it is.
        holder: String,
    },
    /// The wait for another process was ended by the user.
    #[error("interrupted while waiting for {holder}")]
    WaitCancelled {
        /// Who was waited for.
        holder: String,
    },
    /// The lock file failed.
    #[error("lock {}: {source}", escape_path(path))]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// This kind of index is not supported.
    #[error("{0} is not supported by this version of dupfind; use sqlite://PATH")]
    Unsupported(&'static str),
    /// This user may not write to it; SQLite has to, even to read.
    #[error("no permission to write to it and its directory, which reading it takes too")]
    ReadOnly,
    /// It holds what dupfind never writes.
    #[error("it is damaged ({0}): restore a copy, or remove it and scan again")]
    Damaged(String),
    /// The database refused a statement.
    #[error("{operation}: {source}")]
    Database {
        /// What was being done.
        operation: &'static str,
        /// What the database said.
        source: sqlx::Error,
    },
}

impl IndexError {
    /// Translates sqlx's error while doing `operation`.
    pub(super) fn during(operation: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| {
            let Some(error) = source.as_database_error() else { return Self::Database { operation, source } };
            let code: u32 = error.code().and_then(|code| code.parse().ok()).unwrap_or_default();
            // The low byte is the primary code, see https://www.sqlite.org/rescode.html
            match code & 0xff {
                8 => Self::ReadOnly,
                11 | 26 => Self::Damaged(error.message().to_owned()),
                13 => Self::Full { operation },
                _ => Self::Database { operation, source },
            }
        }
    }

    pub(super) fn opening(path: &Path) -> impl FnOnce(sqlx::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match Self::during("open")(source) {
            Self::Database { source, .. } => Self::Open { path, source: source.into() },
            known => known,
        }
    }
}
