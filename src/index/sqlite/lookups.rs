//! Indexes that are worth having only while little is written: over hashes, and over sizes.
//!
//! Hashes and sizes come in no order, so a large batch would touch a page of the index for each. The index is
//! therefore dropped when a run writes many, and made anew, by one sort, when somebody needs it: a report finds groups
//! by their hashes, a watcher the partners of a file by its size. Without it the same is found by reading everything.

use sqlx::sqlite::SqliteConnection;

use super::summary;
use crate::index::convert::to_integer;
use crate::index::{IndexError, Result};

/// What there may be an index over.
#[derive(Debug)]
pub(super) struct Key {
    name: &'static str,
    make: &'static str,
    drop: &'static str,
}

/// With size and physical file beside the hash, groups and their figures are found in the index alone.
pub(super) const HASHES: Key = Key {
    name: "contents_by_hash",
    make: "create index if not exists contents_by_hash on contents (hash, size, inode, volume_id)
           where hash is not null",
    drop: "drop index if exists contents_by_hash",
};

/// With physical file and directory beside the size, so are sizes that files share.
pub(super) const SIZES: Key = Key {
    name: "files_by_size",
    make: "create index if not exists files_by_size on files (size, inode, volume_id, directory_id)",
    drop: "drop index if exists files_by_size",
};

/// Whether it is there, and the largest number ever given to a file.
const LOOK: &str = "
    select exists (select 1 from sqlite_schema where name = ?),
           coalesce((select max(seq) from sqlite_sequence where name = 'files'), 0)";

/// Rows that are written with the index in place, whatever it holds.
const ALWAYS_KEPT: i64 = 16 * 1024;

/// One row written with the index in place costs as much as making the index of so many.
const KEPT_SHARE: i64 = 8;

/// Whether a run keeps such an index.
#[derive(Debug)]
pub(super) struct LookUp {
    key: &'static Key,
    is_there: bool,
    files: i64,
    /// Rows that may still be written with it.
    left: i64,
}

impl LookUp {
    pub(super) async fn look(key: &'static Key, connection: &mut SqliteConnection) -> Result<Self> {
        let (is_there, files): (bool, i64) = sqlx::query_as(LOOK)
            .bind(key.name)
            .fetch_one(&mut *connection)
            .await
            .map_err(IndexError::during("look for an index over the tables"))?;
        // Numbers are used up by changes, too, so they say less the older the index is.
        let files = summary::kept(connection).await?.map_or(files, |(_, kept)| to_integer(kept.files));
        Ok(Self { key, is_there, files, left: worth_keeping_for(files) })
    }

    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// Files when the run began, if not fewer.
    pub(super) fn files(&self) -> i64 {
        self.files
    }

    /// Prepares for rows to be written: drops it if they are too many.
    pub(super) async fn expect(&mut self, connection: &mut SqliteConnection, rows: u64) -> Result<()> {
        self.left = self.left.saturating_sub_unsigned(rows);
        if self.is_there && self.left < 0 {
            let dropped = sqlx::query(self.key.drop).execute(connection).await;
            dropped.map_err(IndexError::during("drop an index over the tables"))?;
            self.is_there = false;
        }
        Ok(())
    }

    /// Makes it, if it is not there.
    pub(super) async fn make(&mut self, connection: &mut SqliteConnection) -> Result<()> {
        if !self.is_there {
            let made = sqlx::query(self.key.make).execute(connection).await;
            made.map_err(IndexError::during("make an index over the tables"))?;
            self.is_there = true;
            self.left = worth_keeping_for(self.files);
        }
        Ok(())
    }
}

/// How many rows are written with an index over so many files in place.
fn worth_keeping_for(files: i64) -> i64 {
    ALWAYS_KEPT.max(files / KEPT_SHARE)
}

#[cfg(test)]
mod tests {
    use super::super::SqliteIndex;
    use super::*;
    use crate::index::lock::OnBusy;

    #[tokio::test]
    async fn a_run_that_writes_much_does_without_until_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let index = SqliteIndex::create(&directory.path().join("index.db"), OnBusy::Fail).await.unwrap();
        let mut connection = index.connect().await.unwrap();
        for key in [&HASHES, &SIZES] {
            let mut kept = LookUp::look(key, &mut connection).await.unwrap();
            kept.make(&mut connection).await.unwrap();
            let mut kept = LookUp::look(key, &mut connection).await.unwrap();
            kept.expect(&mut connection, ALWAYS_KEPT.unsigned_abs()).await.unwrap();
            assert!(LookUp::look(key, &mut connection).await.unwrap().is_there());
            kept.expect(&mut connection, 1).await.unwrap();
            assert!(!LookUp::look(key, &mut connection).await.unwrap().is_there());
            kept.make(&mut connection).await.unwrap();
            kept.expect(&mut connection, 1).await.unwrap();
            assert!(
                LookUp::look(key, &mut connection).await.unwrap().is_there(),
                "made anew, it counts anew"
            );
        }
    }
}
