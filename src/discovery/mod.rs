//! Phase one: which files are there.
//!
//! Owns walking, the filters and the cutting of directories into listings. Refuses to know the
//! index: it hands [`Listing`](crate::model::listing::Listing)s to a channel, several at once, and waits
//! when that is full.

pub mod filter;
pub mod named;
mod open_listing;
mod outbox;
mod tasks;
pub mod walk;

/// Entries in one listing at most; a larger directory comes in pieces, so that memory does not grow
/// with it. 4,096 entries are about half a megabyte.
const LISTING_ENTRIES: usize = 4096;
