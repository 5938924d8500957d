//! The wish to stop, seen by every thread and task.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// A flag that is raised once and never lowered. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    is_raised: AtomicBool,
    raised: Notify,
}

impl Cancel {
    /// Asks everyone to stop at the next safe point.
    pub fn request(&self) {
        self.0.is_raised.store(true, Ordering::SeqCst);
        self.0.raised.notify_waiters();
    }

    /// Ends when a stop is asked for.
    pub async fn requested(&self) {
        let mut raised = pin!(self.0.raised.notified());
        // Before the flag is looked at, so that nothing falls between.
        raised.as_mut().enable();
        if !self.is_requested() {
            raised.await;
        }
    }

    /// Sleeps, but no longer than until a stop is asked for: false then.
    pub async fn sleep(&self, duration: Duration) -> bool {
        tokio::time::timeout(duration, self.requested()).await.is_err()
    }

    /// True once a stop was asked for.
    pub fn is_requested(&self) -> bool {
        self.0.is_raised.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_is_woken_by_the_wish_to_stop() {
        let cancel = Cancel::default();
        assert!(cancel.sleep(Duration::from_millis(1)).await);
        let other = cancel.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            other.request();
        });
        assert!(!cancel.sleep(Duration::from_mins(1)).await);
        thread.join().unwrap();
        assert!(!cancel.sleep(Duration::from_mins(1)).await, "it stays raised");
    }
}
