//! Why a run could not go on.

use std::io;
use std::path::PathBuf;

use crate::bridge::ThreadFailed;
use crate::discovery::filter::FilterError;
use crate::index::IndexError;
use crate::model::path::escape_path;

/// An error that ends the whole run. Trouble with single files is data, not an error.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The directory cannot be looked at.
    #[error("{}: {source}", escape_path(path))]
    Root {
        /// As it was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that is no directory was to be scanned.
    #[error("{}: not a directory; name its directory, or list single files with --files-from", escape_path(.0))]
    NotADirectory(PathBuf),
    /// Nothing is known of the directory to be resumed.
    #[error("{}: the index knows nothing of it; run 'dupfind scan' on it first", escape_path(.0))]
    Unknown(PathBuf),
    /// A root's options keep its walks out of the directory.
    #[error("{}: passed over by the options of its root; 'dupfind roots --json' shows them", escape_path(.0))]
    PassedOver(PathBuf),
    /// A part of a directory's files can be chosen, but not of a file.
    #[error("{}: a file; --sample takes directories, and without it the file is read whole", escape_path(.0))]
    NoSampleOfFiles(PathBuf),
    /// The options choose no file that could exist.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The mount table could not be read.
    #[error("read the mount table: {0}")]
    Mounts(#[source] io::Error),
    /// The list of names could not be read.
    #[error("read the list of files: {0}")]
    Names(#[source] io::Error),
    /// A thread died.
    #[error(transparent)]
    Thread(#[from] ThreadFailed),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
}
