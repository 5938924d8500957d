//! Listings on their way to the index.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use crate::model::listing::Listing;
use crate::progress::Progress;

/// Rows that wait for company: to wake the other side costs as much as to list a small directory.
const ENOUGH_ROWS: usize = 256;

/// How long they wait, if what is found next is found soon.
const LONGEST_WAIT: Duration = Duration::from_millis(5);

/// Collects listings and sends several at once, in the order in which they came.
#[derive(Debug)]
pub(super) struct Outbox<'a> {
    sender: Sender<Vec<Listing>>,
    progress: &'a Progress,
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    listings: Vec<Listing>,
    rows: usize,
    sent: Instant,
}

/// Nobody takes listings any more: that means "stop".
#[derive(Debug)]
pub(super) struct Closed;

impl<'a> Outbox<'a> {
    pub(super) fn new(sender: Sender<Vec<Listing>>, progress: &'a Progress) -> Self {
        let waiting = Waiting { listings: Vec::new(), rows: 0, sent: Instant::now() };
        Self { sender, progress, waiting: Mutex::new(waiting) }
    }

    /// Takes one on; waits while the other side is busy.
    pub(super) fn push(&self, listing: Listing) -> Result<(), Closed> {
        self.progress.files.add(listing.entries.len() as u64);
        self.progress.bytes.add(listing.entries.iter().map(|entry| entry.stamp.size).sum());
        // Locked while it sends: nobody else may send what came later before it.
        self.lock().push(listing, &self.sender)
    }

    /// Sends what is waiting.
    pub(super) fn flush(&self) -> Result<(), Closed> {
        self.lock().send(&self.sender)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn push(&mut self, listing: Listing, sender: &Sender<Vec<Listing>>) -> Result<(), Closed> {
        self.rows += 1 + listing.entries.len();
        self.listings.push(listing);
        let is_due = self.rows >= ENOUGH_ROWS || self.sent.elapsed() >= LONGEST_WAIT;
        if is_due { self.send(sender) } else { Ok(()) }
    }

    fn send(&mut self, sender: &Sender<Vec<Listing>>) -> Result<(), Closed> {
        let listings = std::mem::take(&mut self.listings);
        self.rows = 0;
        let sent = sender.blocking_send(listings).map_err(|_| Closed);
        self.sent = Instant::now();
        sent
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::listing::Coverage;
    use crate::model::path::VolumePath;
    use crate::model::volume::{Mount, MountedVolume, VolumeIdentity};

    fn listing(number: usize) -> Listing {
        let volume = Arc::new(MountedVolume {
            identity: VolumeIdentity("test".into()),
            mount: Mount { root: VolumePath::new(b""), at: b"/".as_slice().into() },
        });
        let directory = VolumePath::new(format!("/{number}").as_bytes());
        Listing { volume, directory, coverage: Coverage::Whole, entries: Vec::new() }
    }

    #[test]
    fn everything_arrives_in_order_and_many_at_once() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1000);
        let progress = Progress::default();
        let outbox = Outbox::new(sender, &progress);
        let all: Vec<Listing> = (0..1000).map(listing).collect();
        for listing in &all {
            outbox.push(listing.clone()).unwrap();
        }
        outbox.flush().unwrap();
        drop(outbox);
        let mut sends = Vec::new();
        while let Some(send) = receiver.blocking_recv() {
            sends.push(send);
        }
        assert!(sends.len() < all.len() / 2, "{}", sends.len());
        assert_eq!(sends.concat(), all);
    }

    #[test]
    fn the_first_that_nobody_takes_is_told() {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let progress = Progress::default();
        let outbox = Outbox::new(sender, &progress);
        drop(receiver);
        assert!(outbox.is_closed());
        assert!((0..ENOUGH_ROWS).any(|number| outbox.push(listing(number)).is_err()));
    }
}
