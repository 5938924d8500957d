//! Keeping the index in step with the disk: a watcher that is told of changes at once, and reconciliations that find what
//! it was not told of.
//!
//! Owns the file system's events, their debouncing and the schedule. What there is to be done is done by the
//! [`Scanner`](crate::scan::Scanner), as in a scan; there is no second way into the index.
//!
//! ```text
//! file system --events--> watcher (a thread) --touched names--> debouncer --what is quiet--> keeper --> Scanner::follow
//!                                                    schedule --what is due--> keeper --> Scanner::reconcile_root
//! ```

mod debounce;
mod keeper;
mod pieces;
mod roots;
mod schedule;
mod told;
mod watcher;

pub use keeper::{Keeper, KeeperSettings, Opener, SyncError};
pub use told::{Teller, Told};
