//! Work that makes more of its kind, shared by threads.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::model::stamp::Nanos;

/// Which of the tasks that wait is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The last found: so few wait at any time.
    LastFound,
    /// Those that changed of late; of two that changed at once, any.
    Recent,
}

/// Tasks that wait, and how many are at work, which may add some.
#[derive(Debug)]
pub(super) struct Tasks<T> {
    order: Order,
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: BinaryHeap<Waiting<T>>,
    pushed: i64,
    running: usize,
}

/// A task, and how soon it is its turn.
#[derive(Debug)]
struct Waiting<T> {
    urgency: i64,
    task: T,
}

impl<T> Tasks<T> {
    pub(super) fn new(order: Order) -> Self {
        let state = State { waiting: BinaryHeap::new(), pushed: 0, running: 0 };
        Self { order, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Adds a task about something that was last changed at this moment.
    pub(super) fn push(&self, task: T, changed_at: Nanos) {
        let mut state = self.lock();
        state.pushed += 1;
        let urgency = match self.order {
            Order::LastFound => state.pushed,
            Order::Recent => changed_at.0,
        };
        state.waiting.push(Waiting { urgency, task });
        drop(state);
        self.changed.notify_one();
    }

    /// The next task, until it is dropped; waits if only those that are at work can add one.
    pub(super) fn next(&self) -> Option<Running<'_, T>> {
        let mut state = self.lock();
        loop {
            if let Some(Waiting { task, .. }) = state.waiting.pop() {
                state.running += 1;
                return Some(Running { task, tasks: self });
            }
            if state.running == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that was handed out, until it is finished. Nobody must wait for one that panicked, either.
#[derive(Debug)]
pub(super) struct Running<'a, T> {
    pub(super) task: T,
    tasks: &'a Tasks<T>,
}

impl<T> Drop for Running<'_, T> {
    fn drop(&mut self) {
        let mut state = self.tasks.lock();
        state.running -= 1;
        let is_last = state.running == 0;
        drop(state);
        if is_last {
            self.tasks.changed.notify_all();
        }
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.urgency == other.urgency
    }
}

impl<T> Eq for Waiting<T> {}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.urgency.cmp(&other.urgency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(tasks: &Tasks<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| tasks.next().map(|running| running.task)).collect()
    }

    #[test]
    fn tasks_come_in_their_order() {
        for (order, expected) in [(Order::LastFound, ["c", "b", "a"]), (Order::Recent, ["b", "c", "a"])] {
            let tasks = Tasks::new(order);
            for (task, changed_at) in [("a", 1), ("b", 3), ("c", 2)] {
                tasks.push(task, Nanos(changed_at));
            }
            assert_eq!(all(&tasks), expected);
        }
    }

    #[test]
    fn nobody_waits_for_a_task_that_panicked() {
        let tasks = Tasks::new(Order::LastFound);
        tasks.push((), Nanos(0));
        std::thread::scope(|scope| {
            let panicking = scope.spawn(|| {
                let _running = tasks.next();
                // The other one waits by now, or finds that all is done.
                std::thread::sleep(std::time::Duration::from_millis(20));
                panic!("a bug");
            });
            while tasks.lock().running == 0 && !panicking.is_finished() {
                std::thread::yield_now();
            }
            assert!(tasks.next().is_none());
            assert!(panicking.join().is_err());
        });
    }
}
