//! The wish to stop, seen by every thread and task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a sleeper looks whether it is to stop.
const GLANCE: Duration = Duration::from_millis(100);

/// A flag that is raised once and never lowered. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks everyone to stop at the next safe point.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Sleeps, but not much longer than until a stop is asked for: false then.
    pub async fn sleep(&self, duration: Duration) -> bool {
        let mut left = duration;
        while !self.is_requested() {
            if left.is_zero() {
                return true;
            }
            let step = left.min(GLANCE);
            tokio::time::sleep(step).await;
            left -= step;
        }
        false
    }

    /// True once a stop was asked for.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
