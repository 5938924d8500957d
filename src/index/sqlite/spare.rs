//! The connection that one question of a run leaves for the next.
//!
//! To connect takes 0.7 ms: a thread, the pragmas, and the schema, which SQLite reads anew for each connection. A run asks
//! a dozen questions whose answers take less. A connection is kept only while this process writes: afterwards the file may
//! be replaced by another. The one that opened the index is left for whoever comes first.

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
    /// That which opened the index.
    First(SqliteConnection),
    Open(Option<SqliteConnection>),
}

impl Spare {
    /// Leaves the connection that opened the index for whoever comes first.
    pub(super) fn leave_first(&self, connection: SqliteConnection) {
        *self.place() = Place::First(connection);
    }

    /// The connection that opened the index, if nobody came yet.
    pub(super) fn take_first(&self) -> Option<SqliteConnection> {
        let mut place = self.place();
        match std::mem::take(&mut *place) {
            Place::First(connection) => Some(connection),
            other => {
                *place = other;
                None
            }
        }
    }

    /// Keeps what is given back from now on, until what is returned is dropped.
    pub(super) fn open(&self) -> OpenSpare {
        *self.place() = Place::Open(None);
        OpenSpare(self.clone())
    }

    pub(super) fn take(&self) -> Option<SqliteConnection> {
        match &mut *self.place() {
            Place::Open(kept) => return kept.take(),
            Place::Closed | Place::First(_) => {}
        }
        self.take_first()
    }

    /// Keeps a connection that left no transaction and no temporary table behind; returns it if none is wanted.
    pub(super) fn give_back(&self, connection: SqliteConnection) -> Option<SqliteConnection> {
        match &mut *self.place() {
            Place::Open(kept @ None) => {
                *kept = Some(connection);
                None
            }
            Place::Open(Some(_)) | Place::Closed | Place::First(_) => Some(connection),
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
