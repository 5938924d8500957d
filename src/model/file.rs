//! What the index knows of single files.

use std::path::PathBuf;
use std::sync::Arc;

use super::digest::Digest;
use super::group::Member;
use super::stamp::Stamp;
use super::volume::Extent;

/// Which files are asked for.
#[derive(Debug, Clone)]
pub struct FilesFilter {
    /// Where they are.
    pub wanted: WantedFiles,
    /// At most so many.
    pub limit: Option<u64>,
    /// True if the names of their copies are wanted, too.
    pub with_copies: bool,
}

/// Where files are that are asked for.
#[derive(Debug, Clone)]
pub enum WantedFiles {
    /// One name in one directory.
    Named {
        /// The directory.
        directory: Extent,
        /// The name in it.
        name: Box<[u8]>,
    },
    /// All in these subtrees.
    Below(Vec<Extent>),
}

/// A name in the index, with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFile {
    /// The host that its path is of, where the index knows several.
    pub host: Option<Arc<str>>,
    /// The absolute path.
    pub path: PathBuf,
    /// What the filesystem said of it.
    pub stamp: Stamp,
    /// The hash of its content, if it was read.
    pub digest: Option<Digest>,
    /// True if three places of it were read, which may be enough to know that it has no copy.
    pub is_sampled: bool,
    /// True if the next run would read it.
    pub is_pending: bool,
    /// Why it could not be read.
    pub problem: Option<String>,
    /// Other physical files with the same content, wherever they are.
    pub copies: u64,
}

/// A step through files: one, followed by its copies if they are wanted. Hard links of a file stand behind it:
/// those of the file itself come first, and none of them is the first name of anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileItem {
    /// A file.
    File(KnownFile),
    /// Another name of the same content as the file that came last.
    Copy(Member),
}
