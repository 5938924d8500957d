//! The connection that one question of a run leaves for the next.
//!
//! To connect takes 0.7 ms: a thread, the pragmas, and the schema, which SQLite reads anew for each connection. A run asks
//! a dozen questions whose answers take less. A connection is kept only while this process writes: afterwards the file may
//! be replaced by another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::sqlite::SqliteConnection;

/// A place for one connection that is not in use.
#[derive(Debug, Clone, Default)]
pub(super) struct Spare(Arc<Mutex<Place>>);

#[derive(Debug, Default)]
enum Place {
    /// Nothing is kept.
    #[default]
    Closed,
    Open(Option<SqliteConnection>),
}

impl Spare {
    /// Keeps what is given back from now on, until what is returned is dropped.
    pub(super) fn open(&self) -> OpenSpare {
        *self.place() = Place::Open(None);
        OpenSpare(self.clone())
    }

    pub(super) fn take(&self) -> Option<SqliteConnection> {
        match &mut *self.place() {
            Place::Open(kept) => kept.take(),
            Place::Closed => None,
        }
    }

    /// Keeps a connection that left no transaction and no temporary table behind; returns it if none is wanted.
    pub(super) fn give_back(&self, connection: SqliteConnection) -> Option<SqliteConnection> {
        match &mut *self.place() {
            Place::Open(kept @ None) => {
                *kept = Some(connection);
                None
            }
            Place::Open(Some(_)) | Place::Closed => Some(connection),
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the place when it is dropped.
#[derive(Debug)]
pub(super) struct OpenSpare(Spare);

impl OpenSpare {
    /// Returns what was kept, to be closed in good order.
    pub(super) fn close(self) -> Option<SqliteConnection> {
        self.0.take()
    }
}

impl Drop for OpenSpare {
    fn drop(&mut self) {
        *self.0.place() = Place::Closed;
    }
}
