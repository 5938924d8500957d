//! Why the index could not be used, and what to do about it.

use std::path::{Path, PathBuf};

use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

use crate::model::path::escape_path;

/// The byte of SQLite's result code that tells the kind; the others tell more.
const PRIMARY: u32 = 0xff;

/// `SQLITE_IOERR_SHMSIZE`: the index of the write-ahead log could not grow.
const NO_ROOM_FOR_SHARED_MEMORY: u32 = 4874;

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
    #[error("no index at {0}: run 'dupfind scan DIR' first")]
    Missing(String),
    /// It is somebody else's database, or no file at all.
    #[error("{0} is something else than a dupfind index; it was left as it is: name another")]
    NotAnIndex(String),
    /// It was made by a newer dupfind, or changed by hand.
    #[error("index {index}: {source}; it was left as it is{}", is_newer(source))]
    Schema {
        /// Where it is.
        index: String,
        /// What does not fit.
        source: Box<MigrateError>,
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
    /// The server is not there, or does not let us in.
    #[error("cannot reach {location}: {}", words(source))]
    Unreachable {
        /// Where it should be.
        location: String,
        /// What went wrong.
        source: sqlx::Error,
    },
    /// The server takes the connection and does not answer.
    #[error("the server does not answer")]
    CutOff,
    /// The server was away for longer than the user wants to wait.
    #[error(
        "{source}; gave up after {seconds} s. What was committed is kept: when the server is back, run 'dupfind resume'"
    )]
    GaveUp {
        /// How long it was tried.
        seconds: u64,
        /// The last error.
        source: Box<IndexError>,
    },
    /// The others had not heard of this process for too long, and may have taken its work over.
    #[error("this process was silent for so long that it was taken for dead; run 'dupfind resume'")]
    TakenForDead,
    /// The server is older than what its makers mend.
    #[error("the server is PostgreSQL {found}; {oldest} is the oldest that is supported: upgrade it")]
    TooOld {
        /// Its version.
        found: String,
        /// The oldest that will do.
        oldest: i32,
    },
    /// This user may not write to it; SQLite has to, even to read.
    #[error("no permission to write to it and its directory, which reading it takes too")]
    ReadOnly,
    /// It holds what dupfind never writes.
    #[error("it is damaged ({0}): restore a copy, or remove it and scan again")]
    Damaged(String),
    /// The database refused a statement.
    #[error("{operation}: {}", words(source))]
    Database {
        /// What was being done.
        operation: &'static str,
        /// What the database said.
        source: sqlx::Error,
    },
}

/// What to do about an index that has a migration this program does not.
fn is_newer(error: &MigrateError) -> &'static str {
    if matches!(error, MigrateError::VersionMissing(_)) { ": use a newer dupfind" } else { "" }
}

/// What a database said, and what can be done about it; without the places in its own source that sqlx adds.
fn words(error: &sqlx::Error) -> String {
    let Some(answer) = error.as_database_error() else { return error.to_string() };
    let said = answer.message();
    // See the appendix "PostgreSQL Error Codes" of its manual.
    let advice = match answer.code().as_deref() {
        Some("28P01") => "; set PGPASSWORD, or put the password into ~/.pgpass (chmod 600)",
        Some("28000") => "; see pg_hba.conf on the server",
        Some("3D000") => "; make it with createdb on the server",
        Some("42501") => "; the role has to own the database, or be granted all on its schema",
        _ => "",
    };
    format!("{said}{advice}")
}

impl IndexError {
    /// Translates sqlx's error while doing `operation`.
    pub(super) fn during(operation: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| {
            let Some(error) = source.as_database_error() else { return Self::Database { operation, source } };
            if error.try_downcast_ref::<PgDatabaseError>().is_some() {
                // 53100 is disk_full, see the appendix "PostgreSQL Error Codes" of its manual.
                return match error.code().as_deref() {
                    Some("53100") => Self::Full { operation },
                    _ => Self::Database { operation, source },
                };
            }
            Self::of_sqlite(error, operation).unwrap_or(Self::Database { operation, source })
        }
    }

    /// Translates what kept the tables of the SQLite index at `location` from being made or brought up to date.
    pub(super) fn migrating(location: String) -> impl FnOnce(MigrateError) -> Self {
        |source| {
            let known = match &source {
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                    error.as_database_error().and_then(|error| Self::of_sqlite(error, "make the index"))
                }
                _ => None,
            };
            known.unwrap_or(Self::Schema { index: location, source: source.into() })
        }
    }

    /// What an answer of SQLite means, if more can be said than its words.
    fn of_sqlite(answer: &dyn DatabaseError, operation: &'static str) -> Option<Self> {
        // See https://www.sqlite.org/rescode.html
        let code: u32 = answer.code().and_then(|code| code.parse().ok()).unwrap_or_default();
        if code == NO_ROOM_FOR_SHARED_MEMORY {
            return Some(Self::Full { operation });
        }
        match code & PRIMARY {
            8 => Some(Self::ReadOnly),
            11 | 26 => Some(Self::Damaged(answer.message().to_owned())),
            13 => Some(Self::Full { operation }),
            _ => None,
        }
    }

    /// The SQLSTATE of PostgreSQL's answer.
    fn sql_state(&self) -> Option<String> {
        let (Self::Database { source, .. } | Self::Unreachable { source, .. }) = self else { return None };
        let answer = source.as_database_error()?;
        answer.try_downcast_ref::<PgDatabaseError>()?;
        answer.code().map(Into::into)
    }

    /// True if the same may well succeed a moment later: the connection was lost, the server is going
    /// down or coming up, has no connection left, or gave way to another transaction.
    pub(super) fn is_passing(&self) -> bool {
        if let Some(state) = self.sql_state() {
            // Class 08 is connection_exception, 57P01 to 57P03 admin_shutdown, crash_shutdown and
            // cannot_connect_now, 57P05 idle_session_timeout, 53300 too_many_connections.
            let is_lost = state.starts_with("08")
                || ["57P01", "57P02", "57P03", "57P05", "25P03", "53300"].contains(&state.as_str());
            return is_lost || self.is_conflict();
        }
        match self {
            Self::CutOff => true,
            Self::Database { source, .. } | Self::Unreachable { source, .. } => matches!(
                source,
                sqlx::Error::Io(_)
                    | sqlx::Error::Protocol(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::WorkerCrashed
            ),
            _ => false,
        }
    }

    /// True if the server says itself that it will be there in a moment.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self.sql_state().as_deref(), Some("57P03" | "53300"))
    }

    /// True if two transactions were in each other's way: `serialization_failure` (40001),
    /// `deadlock_detected` (40P01), or `unique_violation` (23505), where both made the same row.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self.sql_state().as_deref(), Some("40001" | "40P01" | "23505"))
    }

    /// True if the server refused a statement for its size: `program_limit_exceeded` (54000) or
    /// `out_of_memory` (53200).
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self.sql_state().as_deref(), Some("54000" | "53200"))
    }

    pub(super) fn opening(path: &Path) -> impl FnOnce(sqlx::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match Self::during("open")(source) {
            Self::Database { source, .. } => Self::Open { path, source: source.into() },
            known => known,
        }
    }
}
