//! Phase two: what the files hold.
//!
//! Owns reading and hashing. Refuses to know where jobs come from and where outcomes go: both are
//! channels.
//!
//! Elimination in stages: files that share their size are sampled at three places (small ones are
//! read whole at once), and of those only files that share size *and* sample are read whole, side by side
//! if they come from memory.

mod many;
mod opened;
pub mod pool;
pub mod read;
pub mod twins;

#[cfg(test)]
mod testing {
    use std::path::Path;

    use crate::model::listing::DirectoryId;
    use crate::model::pending::{FileId, FileKey, Job, PendingName, Stage};
    use crate::model::stamp::{FileStat, Stamp};

    /// To read this file, as it is now.
    pub(super) fn job(path: &Path, stage: Stage) -> Job {
        let stat = FileStat::from(&std::fs::metadata(path).unwrap());
        let name = path.file_name().unwrap().as_encoded_bytes().into();
        let key = FileKey { id: FileId(1), directory: DirectoryId(1), name };
        Job {
            stamp: Stamp::of(&stat, stat.device),
            names: vec![PendingName { key, directory: path.parent().unwrap().into() }],
            stage,
            lease: None,
            known: None,
            sample: None,
        }
    }
}
