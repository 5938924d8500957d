//! What a keeper tells while it is at work.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::format::{bytes, count, duration, plural};
use crate::model::path::escape_path;
use crate::model::scan::{ScanCounts, ScanKind};

/// Is told what happens.
pub type Teller = Arc<dyn Fn(&Told)>;

/// Something worth a line in the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// It goes on with what it began with; nothing for people.
    Starting,
    /// All roots were reconciled, or cannot be now.
    Ready,
    /// Events come from now on.
    Live {
        /// The root.
        root: PathBuf,
        /// Directories that are followed.
        directories: usize,
    },
    /// Events do not come: it is reconciled instead.
    Polled {
        /// The root.
        root: PathBuf,
        /// Why.
        reason: String,
        /// How often.
        every: Duration,
    },
    /// It cannot be reached.
    Offline {
        /// The root.
        root: PathBuf,
        /// Why.
        reason: String,
    },
    /// It is not watched any more.
    LetGo {
        /// The root.
        root: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// Events were lost.
    Lost {
        /// The root.
        root: PathBuf,
        /// How.
        reason: String,
    },
    /// It is walked again.
    Reconciling {
        /// The root.
        root: PathBuf,
        /// What began it.
        kind: ScanKind,
        /// Why.
        reason: String,
    },
    /// It was walked again.
    Reconciled {
        /// The root.
        root: PathBuf,
        /// What began it.
        kind: ScanKind,
        /// What it did.
        counts: ScanCounts,
        /// How long it took.
        took: Duration,
    },
    /// It could not be walked.
    Failed {
        /// The root.
        root: PathBuf,
        /// Why.
        error: String,
    },
    /// What was seen could not be looked at; it is tried again.
    Trouble {
        /// Why.
        error: String,
    },
    /// What was seen is in the index.
    Followed {
        /// What changed.
        counts: ScanCounts,
        /// What was renamed and kept what was known of it.
        moved: u64,
        /// How long it took.
        took: Duration,
    },
    /// Something that was seen could not be written to the index; the next reconciliation tries again.
    Refused {
        /// Where it is.
        directory: PathBuf,
        /// Why.
        error: String,
    },
    /// The index cannot be reached.
    IndexAway {
        /// Why.
        error: String,
    },
    /// The index can be reached again.
    IndexBack,
}

impl Told {
    /// True of what somebody may have to do something about.
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::Polled { .. }
                | Self::Offline { .. }
                | Self::Lost { .. }
                | Self::Failed { .. }
                | Self::Refused { .. }
                | Self::Trouble { .. }
                | Self::IndexAway { .. }
        )
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        match self {
            Self::Starting => json!({ "event": "starting" }),
            Self::Ready => json!({ "event": "ready" }),
            Self::Live { root, directories } => {
                json!({ "event": "live", "root": path(root), "directories": directories })
            }
            Self::Polled { root, reason, every } => {
                let seconds = every.as_secs_f64();
                json!({ "event": "polled", "root": path(root), "reason": reason, "every_seconds": seconds })
            }
            Self::Offline { root, reason } => {
                json!({ "event": "offline", "root": path(root), "reason": reason })
            }
            Self::LetGo { root, reason } => {
                json!({ "event": "let_go", "root": path(root), "reason": reason })
            }
            Self::Lost { root, reason } => json!({ "event": "lost", "root": path(root), "reason": reason }),
            Self::Reconciling { root, kind, reason } => {
                json!({ "event": "reconciling", "root": path(root), "kind": kind.as_str(), "reason": reason })
            }
            Self::Reconciled { root, kind, counts, took } => {
                let mut value = counts_json(counts, *took);
                value["event"] = "reconciled".into();
                value["root"] = path(root).into();
                value["kind"] = kind.as_str().into();
                value
            }
            Self::Failed { root, error } => json!({ "event": "failed", "root": path(root), "error": error }),
            Self::Trouble { error } => json!({ "event": "trouble", "error": error }),
            Self::Followed { counts, moved, took } => {
                let mut value = counts_json(counts, *took);
                value["event"] = "followed".into();
                value["moved"] = (*moved).into();
                value
            }
            Self::Refused { directory, error } => {
                json!({ "event": "refused", "directory": path(directory), "error": error })
            }
            Self::IndexAway { error } => json!({ "event": "index_away", "error": error }),
            Self::IndexBack => json!({ "event": "index_back" }),
        }
    }
}

fn counts_json(counts: &ScanCounts, took: Duration) -> Value {
    json!({
        "seconds": took.as_secs_f64(),
        "events": counts.events,
        "files_seen": counts.files_seen,
        "added": counts.added,
        "updated": counts.updated,
        "removed": counts.removed,
        "hashed": counts.hashed,
        "bytes_read": counts.bytes_read,
        "problems": counts.problems,
    })
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => write!(f, "starting"),
            Self::Ready => write!(f, "ready"),
            Self::Live { root, directories } => {
                let directories = plural(*directories as u64, "directory", "directories");
                write!(f, "{}: live, {directories} watched", escape_path(root))
            }
            Self::Polled { root, reason, every } => {
                let every = duration(*every);
                write!(f, "{}: not live, looked at every {every} instead: {reason}", escape_path(root))
            }
            Self::Offline { root, reason } => write!(f, "{}: offline: {reason}", escape_path(root)),
            Self::LetGo { root, reason } => {
                write!(f, "{}: not watched any more: {reason}", escape_path(root))
            }
            Self::Lost { root, reason } => write!(f, "{}: events were lost: {reason}", escape_path(root)),
            Self::Reconciling { root, kind, reason } => {
                write!(f, "{}: {}: {reason}", escape_path(root), reconciliation(*kind))
            }
            Self::Reconciled { root, kind, counts, took } => {
                let files = plural(counts.files_seen, "file", "files");
                let path = escape_path(root);
                write!(f, "{path}: {} done: {files}, ", reconciliation(*kind))?;
                write_counts(f, counts, *took)
            }
            Self::Failed { root, error } => write!(f, "{}: not reconciled: {error}", escape_path(root)),
            Self::Followed { counts, moved, took } => {
                write!(f, "{}: ", plural(counts.events, "event", "events"))?;
                if *moved > 0 {
                    write!(f, "{moved} renamed, ")?;
                }
                write_counts(f, counts, *took)
            }
            Self::Refused { directory, error } => {
                let path = escape_path(directory);
                write!(
                    f,
                    "{path}: the index refused what was seen there; left to the next reconciliation: {error}"
                )
            }
            Self::IndexAway { error } | Self::Trouble { error } => write!(f, "{error}; trying again"),
            Self::IndexBack => write!(f, "the index can be reached again"),
        }
    }
}

fn reconciliation(kind: ScanKind) -> &'static str {
    if kind == ScanKind::Startup { "startup reconciliation" } else { "reconciliation" }
}

fn write_counts(f: &mut fmt::Formatter<'_>, counts: &ScanCounts, took: Duration) -> fmt::Result {
    let ScanCounts { added, updated, removed, hashed, bytes_read, problems, .. } = *counts;
    write!(f, "{} new, {} changed, {} gone", count(added), count(updated), count(removed))?;
    if hashed > 0 {
        write!(f, ", {} read with {}", count(hashed), bytes(bytes_read))?;
    }
    if problems > 0 {
        write!(f, ", {}", plural(problems, "problem", "problems"))?;
    }
    write!(f, " ({:.1} s)", took.as_secs_f64())
}
