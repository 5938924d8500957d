//! What belongs to a scan: the options that are remembered with a root.

use serde::{Deserialize, Serialize};

/// Which files below a root are of interest, and how thoroughly they are hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own on the command line")]
pub struct ScanSettings {
    /// Smallest size in bytes.
    pub min_size: u64,
    /// Largest size in bytes; `None` is no limit.
    pub max_size: Option<u64>,
    /// If not empty, only files that match one of these globs.
    pub include: Vec<String>,
    /// Files and directories that match one of these globs are passed over.
    pub exclude: Vec<String>,
    /// Names that begin with a dot are included.
    pub hidden: bool,
    /// Names that are hardly ever of interest (`*~`, `*.tmp`, ...) and hidden ones are passed over.
    pub default_ignores: bool,
    /// The walk does not enter other filesystems.
    pub one_file_system: bool,
    /// Symbolic links are followed.
    pub follow_links: bool,
    /// How many levels below the root are listed; 1 is the root's own entries.
    pub max_depth: Option<usize>,
    /// Every file is hashed, not only possible duplicates.
    pub hash_all: bool,
}

impl Default for ScanSettings {
    fn default() -> Self {
        Self {
            min_size: 1,
            max_size: None,
            include: Vec::new(),
            exclude: Vec::new(),
            hidden: false,
            default_ignores: true,
            one_file_system: false,
            follow_links: false,
            max_depth: None,
            hash_all: false,
        }
    }
}
