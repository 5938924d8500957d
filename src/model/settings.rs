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
    /// Which files are hashed. An index or a file written before there was a choice says `hash_all`.
    #[serde(alias = "hash_all")]
    pub hash: HashPolicy,
}

/// Which files below a root are hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", from = "PolicyOrBool")]
pub enum HashPolicy {
    /// Those that may be duplicates: that share their size with another.
    #[default]
    Candidates,
    /// Every file.
    All,
    /// No file: they are listed and kept up to date, but never read, and no other file is read because of them.
    None,
}

impl HashPolicy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Candidates, Self::All, Self::None];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Candidates => "candidates",
            Self::All => "all",
            Self::None => "none",
        }
    }

    /// From the flag that there was before there was a choice.
    pub fn of_flag(hash_all: bool) -> Self {
        if hash_all { Self::All } else { Self::Candidates }
    }
}

/// A policy as it may be written.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected \"candidates\", \"all\" or \"none\"")]
enum PolicyOrBool {
    Policy(PolicyWord),
    HashAll(bool),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum PolicyWord {
    Candidates,
    All,
    None,
}

impl From<PolicyOrBool> for HashPolicy {
    fn from(written: PolicyOrBool) -> Self {
        match written {
            PolicyOrBool::Policy(PolicyWord::Candidates) => Self::Candidates,
            PolicyOrBool::Policy(PolicyWord::All) => Self::All,
            PolicyOrBool::Policy(PolicyWord::None) => Self::None,
            PolicyOrBool::HashAll(hash_all) => Self::of_flag(hash_all),
        }
    }
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
            hash: HashPolicy::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_remembered_before_there_was_a_choice_is_still_understood() {
        let hash = |text: &str| serde_json::from_str::<ScanSettings>(text).map(|settings| settings.hash);
        for (text, policy) in [
            (r#"{"hash_all": true}"#, HashPolicy::All),
            (r#"{"hash_all": false}"#, HashPolicy::Candidates),
            (r#"{"hash": "none"}"#, HashPolicy::None),
            ("{}", HashPolicy::Candidates),
        ] {
            assert_eq!(hash(text).unwrap(), policy, "{text}");
        }
        assert!(hash(r#"{"hash": "some"}"#).unwrap_err().to_string().contains("candidates"));
        for policy in HashPolicy::ALL {
            let settings = ScanSettings { hash: policy, ..ScanSettings::default() };
            let text = serde_json::to_string(&settings).unwrap();
            assert!(text.contains(&format!(r#""hash":"{}""#, policy.as_str())), "{text}");
            assert_eq!(serde_json::from_str::<ScanSettings>(&text).unwrap(), settings);
        }
    }
}
