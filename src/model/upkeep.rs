//! How a root is kept up to date.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scan::RootId;
use super::stamp::Nanos;

/// What is remembered with a root for `dupfind watch`; what is `None` is as for any root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upkeep {
    /// `dupfind watch` without directories takes it.
    #[serde(skip_serializing_if = "is_default")]
    pub watch: bool,
    /// Seconds from one reconciliation to the next.
    #[serde(skip_serializing_if = "is_default")]
    pub interval: Option<u64>,
    /// The least that the schedule may make of it, in seconds.
    #[serde(skip_serializing_if = "is_default")]
    pub shortest_interval: Option<u64>,
    /// The most that the schedule may make of it, in seconds.
    #[serde(skip_serializing_if = "is_default")]
    pub longest_interval: Option<u64>,
    /// No events are asked for: it is reconciled so often, in seconds.
    #[serde(skip_serializing_if = "is_default")]
    pub poll: Option<u64>,
    /// Rows written to the index at once.
    #[serde(skip_serializing_if = "is_default")]
    pub batch_size: Option<usize>,
    /// Threads that walk.
    #[serde(skip_serializing_if = "is_default")]
    pub threads: Option<usize>,
    /// Files read at once.
    #[serde(skip_serializing_if = "is_default")]
    pub io_threads: Option<usize>,
    /// Directories below the root that are completed before the others, in this order.
    #[serde(skip_serializing_if = "is_default")]
    pub first: Vec<String>,
    /// Directories that changed of late are walked before the others.
    #[serde(skip_serializing_if = "is_default")]
    pub recent_first: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How a watcher learns what happens in a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchMode {
    /// The system tells it.
    Live,
    /// It looks now and then, for this reason.
    Polled(String),
    /// Not at all: the root cannot be reached, for this reason.
    Offline(String),
}

impl WatchMode {
    /// The word for it in the index and in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Polled(_) => "polled",
            Self::Offline(_) => "offline",
        }
    }

    /// Why it is not live.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Live => None,
            Self::Polled(reason) | Self::Offline(reason) => Some(reason),
        }
    }

    /// From its word and its reason.
    pub fn parse(word: &str, reason: Option<String>) -> Option<Self> {
        let reason = reason.unwrap_or_default();
        match word {
            "live" => Some(Self::Live),
            "polled" => Some(Self::Polled(reason)),
            "offline" => Some(Self::Offline(reason)),
            _ => None,
        }
    }
}

/// A root that a process watches, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The root.
    pub root: RootId,
    /// The host it is watched on.
    pub host: String,
    /// The watcher's process number there.
    pub process: u32,
    /// How it learns what happens.
    pub mode: WatchMode,
    /// When it began.
    pub since: Nanos,
    /// How long ago it gave its last sign of life.
    pub silence: Duration,
    /// False once it has been silent for so long that it is taken for dead: then nobody watches.
    pub is_alive: bool,
    /// Events it was told of.
    pub events: u64,
    /// When the root is reconciled next.
    pub next: Option<NextReconciliation>,
}

/// When a root is to be reconciled, and why then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextReconciliation {
    /// The moment.
    pub at: Nanos,
    /// What made the schedule choose it, for people.
    pub reason: String,
}

impl NextReconciliation {
    /// From its columns in the index.
    pub fn from_columns(at: Option<i64>, reason: Option<String>) -> Option<Self> {
        Some(Self { at: Nanos(at?), reason: reason.unwrap_or_default() })
    }
}

/// A watcher's sign of life for one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchSign {
    /// The root.
    pub root: RootId,
    /// How it learns what happens.
    pub mode: WatchMode,
    /// When it began.
    pub since: Nanos,
    /// Events it was told of since.
    pub events: u64,
    /// When the root is reconciled next.
    pub next: Option<NextReconciliation>,
}
