//! The index over hashes, and an empty write-ahead log: what makes the next report fast.
//!
//! Hashes come in no order, so a large write-back would touch a page of the index for each. The index is
//! therefore dropped when a run writes many, and made anew, by one sort, when the run has written its last.
//! Without it a report finds the same groups, and sorts all hashes to do so.

use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;

use super::{SqliteIndex, summary};
use crate::index::convert::to_integer;
use crate::index::{IndexError, Result};

/// With size and physical file beside the hash, groups and their figures are found in the index alone.
const MAKE: &str = "
    create index if not exists contents_by_hash on contents (hash, size, inode, volume_id) where hash is not null";

const DROP: &str = "drop index if exists contents_by_hash";

/// Whether it is there, and the largest number ever given to a file.
const LOOK: &str = "
    select exists (select 1 from sqlite_schema where name = 'contents_by_hash'),
           coalesce((select max(seq) from sqlite_sequence where name = 'files'), 0)";

/// Hashes that are written with the index in place, whatever it holds.
const ALWAYS_KEPT: i64 = 16 * 1024;

/// One hash written with the index in place costs as much as making the index of so many.
const KEPT_SHARE: i64 = 8;

/// Whether a run keeps the index over hashes.
#[derive(Debug)]
pub(super) struct HashIndex {
    is_there: bool,
    /// Hashes that may still be written with it.
    left: i64,
}

impl HashIndex {
    pub(super) async fn look(connection: &mut SqliteConnection) -> Result<Self> {
        let (is_there, files): (bool, i64) = sqlx::query_as(LOOK)
            .fetch_one(&mut *connection)
            .await
            .map_err(IndexError::during("look for the index over hashes"))?;
        // Numbers are used up by changes, too, so they say less the older the index is.
        let files = summary::kept(connection).await?.map_or(files, |(_, kept)| to_integer(kept.files));
        Ok(Self { is_there, left: ALWAYS_KEPT.max(files / KEPT_SHARE) })
    }

    /// Prepares for hashes to be written: drops the index if they are too many for it.
    pub(super) async fn expect(&mut self, connection: &mut SqliteConnection, hashes: usize) -> Result<()> {
        self.left = self.left.saturating_sub_unsigned(hashes as u64);
        if self.is_there && self.left < 0 {
            let dropped = sqlx::query(DROP).execute(connection).await;
            dropped.map_err(IndexError::during("drop the index over hashes"))?;
            self.is_there = false;
        }
        Ok(())
    }

    /// Makes the index, if it is not there.
    pub(super) async fn make(&mut self, connection: &mut SqliteConnection) -> Result<()> {
        if !self.is_there {
            let made = sqlx::query(MAKE).execute(connection).await;
            made.map_err(IndexError::during("make the index over hashes"))?;
            self.is_there = true;
        }
        Ok(())
    }
}

/// Moves what is committed from the write-ahead log into the file. Others read and write meanwhile.
pub(super) async fn empty_log(index: &SqliteIndex) -> Result<()> {
    let failed = || IndexError::during("move the log into the index");
    let mut connection = index.connect().await?;
    let moved = sqlx::query("pragma wal_checkpoint(passive)").execute(&mut connection).await;
    moved.map_err(failed())?;
    connection.close().await.map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::lock::OnBusy;

    #[tokio::test]
    async fn a_run_that_writes_many_hashes_does_without_the_index_until_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let index = SqliteIndex::create(&directory.path().join("index.db"), OnBusy::Fail).await.unwrap();
        let mut connection = index.connect().await.unwrap();
        let mut hashes = HashIndex::look(&mut connection).await.unwrap();
        hashes.make(&mut connection).await.unwrap();
        let mut hashes = HashIndex::look(&mut connection).await.unwrap();
        let few = usize::try_from(ALWAYS_KEPT).unwrap();
        hashes.expect(&mut connection, few).await.unwrap();
        assert!(HashIndex::look(&mut connection).await.unwrap().is_there);
        hashes.expect(&mut connection, 1).await.unwrap();
        assert!(!HashIndex::look(&mut connection).await.unwrap().is_there);
        hashes.make(&mut connection).await.unwrap();
        assert!(HashIndex::look(&mut connection).await.unwrap().is_there);
    }
}
