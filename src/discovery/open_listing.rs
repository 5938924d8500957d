//! A directory while it is being listed: cut into pieces, if it is large.

use std::sync::Arc;

use super::LISTING_ENTRIES;
use super::outbox::{Closed, Outbox};
use crate::model::listing::{Absent, Coverage, Entry, Listing, Problem};
use crate::volume::Place;

/// A directory while it is being listed; sends pieces as they fill.
pub(super) struct OpenListing<'w, 'a> {
    outbox: &'w Outbox<'a>,
    place: Place,
    pub(super) entries: Vec<Entry>,
    /// Of names that were looked at one by one, what they are not; else empty.
    pub(super) absent: Absent,
    /// True if only some names are looked at.
    pub(super) is_selection: bool,
    pieces: usize,
}

impl<'w, 'a> OpenListing<'w, 'a> {
    pub(super) fn new(outbox: &'w Outbox<'a>, place: Place, is_selection: bool) -> Self {
        Self { outbox, place, entries: Vec::new(), absent: Absent::default(), is_selection, pieces: 0 }
    }

    /// Pieces that were sent so far.
    pub(super) fn pieces(&self) -> usize {
        self.pieces
    }

    /// Sends what was looked at so far, if it is enough.
    pub(super) fn send_if_full(&mut self) -> Result<(), Closed> {
        if self.entries.len().max(self.absent.files.len()) >= LISTING_ENTRIES {
            let absent = std::mem::take(&mut self.absent);
            return self.send(Coverage::Selected(absent));
        }
        Ok(())
    }

    /// Takes on a file; sends those before it if they are enough.
    pub(super) fn add(&mut self, entry: Entry) -> Result<(), Closed> {
        if self.entries.len() == LISTING_ENTRIES && !self.is_selection {
            self.send(Coverage::Piece { first: self.pieces == 0, last: false })?;
            self.pieces += 1;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Sends the rest. `was_stopped`: some may be missing.
    pub(super) fn close(mut self, trouble: Option<Problem>, was_stopped: bool) -> Result<(), Closed> {
        let coverage = match trouble {
            Some(problem) => Coverage::Unreadable(problem),
            // A walk that was told to stop may have left the loop early.
            _ if self.is_selection => Coverage::Selected(std::mem::take(&mut self.absent)),
            None if was_stopped => Coverage::Selected(Absent::default()),
            None if self.pieces == 0 => Coverage::Whole,
            None => Coverage::Piece { first: false, last: true },
        };
        self.send(coverage)
    }

    fn send(&mut self, coverage: Coverage) -> Result<(), Closed> {
        let mut entries = std::mem::take(&mut self.entries);
        // The index keeps a directory's files in the order of their names.
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.outbox.push(Listing {
            volume: Arc::clone(&self.place.volume),
            directory: self.place.path.clone(),
            coverage,
            entries,
        })
    }
}
