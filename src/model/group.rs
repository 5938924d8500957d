//! Duplicates as the index reports them.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::stamp::Stamp;
use super::volume::Extent;

/// Which groups are reported, in which order.
#[derive(Debug, Clone, Default)]
pub struct ReportFilter {
    /// If set, only files in these subtrees count; a group needs two of them.
    pub under: Option<Vec<Extent>>,
    /// Groups of smaller files are left out (bytes).
    pub min_size: u64,
    /// The order.
    pub sort: SortBy,
    /// At most this many groups; the summary still counts all.
    pub limit: Option<u64>,
}

impl ReportFilter {
    /// True if every file counts.
    pub fn is_everything(&self) -> bool {
        self.under.is_none() && self.min_size == 0
    }
}

/// The order of groups in a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SortBy {
    /// Most reclaimable bytes first.
    #[default]
    Reclaimable,
    /// Largest files first.
    Size,
    /// Most files first.
    Count,
    /// By the path of the first file.
    Path,
}

/// The figures over the whole report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Names in the index.
    pub files: u64,
    /// Their sizes added up.
    pub bytes: u64,
    /// Groups of duplicates.
    pub groups: u64,
    /// Physical files that a group could do without.
    pub redundant_files: u64,
    /// What removing those would free.
    pub reclaimable_bytes: u64,
    /// Names still to be read before the report is complete.
    pub pending_files: u64,
    /// Their bytes.
    pub pending_bytes: u64,
    /// Files and directories that could not be read.
    pub problems: u64,
}

impl Summary {
    /// True if nothing is left to be read, and nothing is to be tried again.
    pub fn is_settled(&self) -> bool {
        self.pending_files == 0 && self.problems == 0
    }
}

/// Two or more physical files of the same size and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Size of each file in bytes.
    pub size: u64,
    /// Their hash.
    pub digest: Digest,
    /// How many physical files there are: at least two.
    pub files: u64,
}

impl Group {
    /// What is freed if one file stays.
    pub fn reclaimable_bytes(&self) -> u64 {
        self.size.saturating_mul(self.files.saturating_sub(1))
    }
}

/// One name in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// True if this name begins another physical file; false if it is a hard link of the one before.
    pub first_name: bool,
    /// The host that this path is of, where the index knows several.
    pub host: Option<Arc<str>>,
    /// The absolute path.
    pub path: PathBuf,
    /// What the index knows of it.
    pub stamp: Stamp,
}

/// A step through a report: a group, followed by its names; hard links of a file stand together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportItem {
    /// A group begins.
    Group(Group),
    /// A name of the group that began last.
    Member(Member),
}

/// A file or directory that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProblemRow {
    /// The host that this path is of, where the index knows several.
    pub host: Option<Arc<str>>,
    /// The absolute path.
    pub path: PathBuf,
    /// Why.
    pub problem: String,
}
