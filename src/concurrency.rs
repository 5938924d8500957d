//! How many threads work at once: one for each processor while everything comes from memory, more while a
//! disk or a network is waited for.
//!
//! A processor gains nothing from more threads than it can run, and loses time changing between them; a disk
//! answers faster the more requests it can choose from, up to a number that nobody tells (virtual disks call
//! themselves rotational, and rotating ones hide behind caches). So it is measured: how long requests take says
//! which of the two is waited for, and while it is the disk, the number follows what it is seen to get done.

use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The bounds between which threads may be at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// While nothing is waited for.
    pub least: usize,
    /// While it pays.
    pub most: usize,
}

/// What a request may take that is answered from memory, with or without a system call or two around it. A
/// solid disk takes 80 microseconds for one, a rotating one 5,000.
const FROM_MEMORY: Duration = Duration::from_micros(50);

/// What memory delivers at least while many threads ask for it: a byte in a nanosecond.
const BYTES_PER_NANOSECOND: u64 = 1;

/// Bytes that take a disk about as long as finding the place where they are.
const BYTES_LIKE_A_REQUEST: u64 = 64 * 1024;

/// How long a number of threads is tried, and with how many requests at least; and how long on the first climb,
/// when each step should show clearly and every moment with too few threads is lost.
const TRIAL: Duration = Duration::from_millis(200);
const FIRST_TRIALS: Duration = Duration::from_millis(50);
const TRIAL_REQUESTS: u64 = 64;

/// So many requests say whether there is a disk to be waited for, if no more were made.
const TELLING_REQUESTS: u64 = 8;

/// Requests of a thread that are noted together.
const NOTED_AT_ONCE: u64 = 16;

/// A change in what gets done that is more than chance: a tenth.
const NOTICEABLE: u64 = 10;

/// If less than one request in so many is waited for, it is by chance: a thread that lost its processor waits, too.
/// One in eight takes a disk longer than the other seven take memory.
const FEW_WAIT: u64 = 8;

/// What was found out about the disk, for those who begin where others ended.
#[derive(Debug, Clone, Copy)]
pub struct Adaptation {
    /// How many threads may work.
    pub allowed: usize,
    /// True if requests have to be waited for.
    pub waits: bool,
}

/// Lets as many threads work as are worth it.
#[derive(Debug)]
pub struct Concurrency {
    threads: Threads,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    working: usize,
    has_ended: bool,
    adaptation: Adaptation,
    trial: Trial,
    /// What got done in the last trial, in bytes a second.
    before: Option<u64>,
    /// True if the next trial gets more threads than the last.
    rising: bool,
    /// True if more threads always paid so far.
    first_climb: bool,
}

/// The requests since a moment.
#[derive(Debug)]
struct Trial {
    began: Instant,
    answered: Answered,
}

/// Requests that were answered.
#[derive(Debug, Clone, Copy, Default)]
struct Answered {
    requests: u64,
    /// Those of them whose time says where they were answered.
    timed: u64,
    /// Those of these that were not answered from memory.
    waited: u64,
    /// What all that were timed took, and those that were waited for.
    time: Duration,
    waited_time: Duration,
    bytes: u64,
}

impl Threads {
    /// So many, whatever is measured.
    pub fn exactly(number: usize) -> Self {
        Self { least: number, most: number }
    }
}

/// The adaptation at the end of the last work of a kind.
#[derive(Debug, Default)]
pub struct LastAdaptation(Mutex<Option<Adaptation>>);

impl LastAdaptation {
    /// None before there was any.
    pub fn get(&self) -> Option<Adaptation> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps it.
    pub fn set(&self, adaptation: Adaptation) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(adaptation);
    }
}

impl Adaptation {
    /// While nothing is known: that of memory.
    fn begin(threads: Threads) -> Self {
        Self { allowed: threads.least, waits: false }
    }
}

impl Concurrency {
    /// Begins with the least number of threads.
    pub fn new(threads: Threads) -> Self {
        Self::after(threads, None)
    }

    /// Begins with what was found out before, if anything.
    pub fn after(threads: Threads, adaptation: Option<Adaptation>) -> Self {
        let trial = Trial { began: Instant::now(), answered: Answered::default() };
        let state = State {
            working: 0,
            has_ended: false,
            adaptation: adaptation.unwrap_or(Adaptation::begin(threads)),
            trial,
            before: None,
            rising: true,
            first_climb: true,
        };
        Self { threads, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Divides tasks among threads, until `next` has none or `work` breaks off; blocks until then. Each thread has
    /// something of its own, made by `begin`; to the meter `work` says how long requests took.
    ///
    /// A thread is started when it is first allowed to work. One that may work goes on with the next task, and one that may
    /// not sleeps and holds none: to change threads between tasks would cost as much as a small task.
    pub fn divide<T, S>(
        &self,
        name: &str,
        next: impl Fn() -> Option<T> + Sync,
        begin: impl Fn() -> S + Sync,
        work: impl Fn(T, &mut S, &mut Meter<'_>) -> ControlFlow<()> + Sync,
    ) {
        let take_part = || {
            let mut own = begin();
            let mut meter = self.meter();
            while let Some(mut place) = self.take_place() {
                while !place.has_ended && !self.lock().is_crowded() {
                    place.has_ended = match next() {
                        Some(task) => work(task, &mut own, &mut meter).is_break(),
                        None => true,
                    };
                }
            }
        };
        thread::scope(|scope| {
            let mut started = 0;
            while self.wants_more_than(started) {
                let thread = thread::Builder::new().name(format!("{name}-{started}"));
                if thread.spawn_scoped(scope, take_part).is_err() {
                    // The system has no more of them: those that were started do the work.
                    break;
                }
                started += 1;
            }
            if started == 0 {
                take_part();
            }
        });
    }

    /// The bounds.
    pub fn threads(&self) -> Threads {
        self.threads
    }

    /// What was found out until now.
    pub fn adaptation(&self) -> Adaptation {
        self.lock().adaptation
    }

    /// What is found out at the end, also from a trial that was too short to change the number of threads.
    pub fn last_adaptation(&self) -> Adaptation {
        let mut state = self.lock();
        if state.trial.answered.timed >= TELLING_REQUESTS {
            let elapsed = state.trial.began.elapsed();
            state.decide(self.threads, elapsed);
        }
        state.adaptation
    }

    /// For one thread.
    pub fn meter(&self) -> Meter<'_> {
        Meter { concurrency: self, answered: Answered::default() }
    }

    /// Waits until more threads may work than so many; false if there is no more work.
    fn wants_more_than(&self, started: usize) -> bool {
        let is_enough = |state: &mut State| !state.has_ended && state.adaptation.allowed <= started;
        let state = self.changed.wait_while(self.lock(), is_enough).unwrap_or_else(PoisonError::into_inner);
        !state.has_ended
    }

    /// Waits until this thread may work; none if there is no more work.
    fn take_place(&self) -> Option<Place<'_>> {
        let mut state = self.lock();
        while !state.has_ended && state.working >= state.adaptation.allowed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.has_ended {
            return None;
        }
        state.working += 1;
        drop(state);
        Some(Place { concurrency: self, has_ended: false })
    }

    fn note(&self, answered: Answered) {
        let mut state = self.lock();
        state.trial.answered += answered;
        let elapsed = state.trial.began.elapsed();
        let trial = if state.first_climb { FIRST_TRIALS } else { TRIAL };
        if elapsed < trial || state.trial.answered.requests < TRIAL_REQUESTS {
            return;
        }
        state.decide(self.threads, elapsed);
        state.trial = Trial { began: Instant::now(), answered: Answered::default() };
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_crowded(&self) -> bool {
        self.working > self.adaptation.allowed
    }

    /// Climbs towards the number of threads with which most gets done: twice as many, or half as many, and
    /// back when that was the wrong way.
    fn decide(&mut self, Threads { least, most }: Threads, elapsed: Duration) {
        let Answered { requests, bytes, .. } = self.trial.answered;
        if !self.trial.answered.waits() {
            self.adaptation = Adaptation { allowed: least, waits: false };
            (self.before, self.rising, self.first_climb) = (None, true, true);
            return;
        }
        let elapsed = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        let done = (bytes + requests * BYTES_LIKE_A_REQUEST).saturating_mul(1_000_000) / elapsed;
        if self.before.is_some_and(|before| self.is_wrong_way(before, done)) {
            self.rising = !self.rising;
            self.first_climb = false;
        }
        self.before = Some(done);
        let allowed = if self.rising { self.adaptation.allowed * 2 } else { self.adaptation.allowed / 2 };
        self.adaptation = Adaptation { allowed: allowed.clamp(least, most), waits: true };
    }

    /// More threads are tried as long as they do no harm, fewer only while they do good: of steps that each lose less
    /// than can be told from chance, the last would be that to the fewest.
    fn is_wrong_way(&self, before: u64, done: u64) -> bool {
        if self.rising { done < before - before / NOTICEABLE } else { done < before + before / NOTICEABLE }
    }
}

/// A thread's right to work.
struct Place<'a> {
    concurrency: &'a Concurrency,
    /// True if there is no more work for anybody.
    has_ended: bool,
}

impl Drop for Place<'_> {
    /// Gives it back. Those who sleep must not wait for one that panicked, either.
    fn drop(&mut self) {
        let has_ended = self.has_ended || thread::panicking();
        let mut state = self.concurrency.lock();
        state.working -= 1;
        state.has_ended |= has_ended;
        drop(state);
        if has_ended {
            self.concurrency.changed.notify_all();
        }
    }
}

impl std::ops::AddAssign for Answered {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.timed += other.timed;
        self.waited += other.waited;
        self.time += other.time;
        self.waited_time += other.waited_time;
        self.bytes += other.bytes;
    }
}

impl Answered {
    /// True if there is a disk to be waited for: by many requests, or by few that take most of the time, as when the
    /// system reads ahead of whoever reads large files.
    fn waits(&self) -> bool {
        self.waited * FEW_WAIT >= self.timed || self.waited_time > self.time / 4 * 3
    }
}

/// Takes down how long a thread's requests take.
#[derive(Debug)]
pub struct Meter<'a> {
    concurrency: &'a Concurrency,
    answered: Answered,
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.concurrency.note(self.answered);
    }
}

impl Meter<'_> {
    /// True if requests are answered by a disk at the moment, and not from memory.
    pub fn waits(&self) -> bool {
        self.concurrency.adaptation().waits
    }

    /// Notes a request that was answered: how long that took, and the bytes it brought.
    pub fn note(&mut self, took: Duration, bytes: u64) {
        let from_memory = FROM_MEMORY + Duration::from_nanos(bytes / BYTES_PER_NANOSECOND);
        let has_waited = took > from_memory;
        self.add(Answered {
            requests: 1,
            timed: 1,
            waited: u64::from(has_waited),
            time: took,
            waited_time: if has_waited { took } else { Duration::ZERO },
            bytes,
        });
    }

    /// Notes a request that was made before its answer was needed: how long it took nobody knows.
    pub fn note_expected(&mut self, bytes: u64) {
        self.add(Answered { requests: 1, bytes, ..Answered::default() });
    }

    fn add(&mut self, answered: Answered) {
        self.answered += answered;
        if self.answered.requests >= NOTED_AT_ONCE {
            self.concurrency.note(std::mem::take(&mut self.answered));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets as many trials pass as there are entries: (microseconds a request takes, requests in a trial).
    fn allowed_after(trials: &[(u64, u64)]) -> Vec<usize> {
        let concurrency = Concurrency::new(Threads { least: 2, most: 32 });
        let trial = |(micros, requests): &(u64, u64)| {
            let mut state = concurrency.lock();
            let waited = if *micros > 50 { *requests } else { 0 };
            state.trial.answered =
                Answered { requests: *requests, timed: *requests, waited, ..Answered::default() };
            state.decide(concurrency.threads, TRIAL);
            state.adaptation.allowed
        };
        trials.iter().map(trial).collect()
    }

    #[test]
    fn what_comes_from_memory_needs_no_more_threads() {
        assert_eq!(allowed_after(&[(10, 1000), (20, 1000)]), [2, 2]);
        assert_eq!(allowed_after(&[(500, 1000), (500, 2000), (10, 9000)]), [4, 8, 2]);
    }

    #[test]
    fn more_threads_are_kept_while_more_gets_done() {
        let more_each_time: Vec<_> = (1..=6).map(|trial| (500, 1000 * trial)).collect();
        assert_eq!(allowed_after(&more_each_time), [4, 8, 16, 32, 32, 32]);
        assert_eq!(allowed_after(&[(500, 1000), (500, 2000), (500, 1500), (500, 2000)]), [4, 8, 4, 2]);
    }

    #[test]
    fn one_bad_trial_does_not_lead_step_by_step_to_the_fewest() {
        let hardly_less_each_time = [1000, 2000, 1500, 1450, 1400, 1350].map(|requests| (500, requests));
        assert_eq!(allowed_after(&hardly_less_each_time), [4, 8, 4, 8, 16, 32]);
    }

    #[test]
    fn a_few_requests_tell_those_who_come_later_whether_there_is_a_disk() {
        let threads = Threads { least: 2, most: 32 };
        let adaptation_after = |took, requests| {
            let concurrency = Concurrency::new(threads);
            let mut meter = concurrency.meter();
            (0..requests).for_each(|_| meter.note(took, 0));
            drop(meter);
            let adaptation = concurrency.last_adaptation();
            (adaptation.allowed, adaptation.waits)
        };
        assert_eq!(adaptation_after(Duration::from_millis(5), TELLING_REQUESTS), (4, true));
        assert_eq!(adaptation_after(Duration::from_millis(5), TELLING_REQUESTS - 1), (2, false), "too few");
        assert_eq!(adaptation_after(Duration::from_micros(5), TELLING_REQUESTS), (2, false));
    }

    #[test]
    fn few_requests_that_take_most_of_the_time_are_those_of_a_disk() {
        let waits_if_one_of_32_takes = |took| {
            let concurrency = Concurrency::new(Threads { least: 2, most: 32 });
            let mut meter = concurrency.meter();
            (0..31).for_each(|_| meter.note(Duration::from_micros(40), 256 * 1024));
            meter.note(took, 256 * 1024);
            drop(meter);
            concurrency.last_adaptation().waits
        };
        assert!(waits_if_one_of_32_takes(Duration::from_millis(8)), "the next 8 MiB that were read ahead");
        assert!(!waits_if_one_of_32_takes(Duration::from_millis(2)), "a thread that lost its processor");
    }

    #[test]
    fn every_task_is_done_once_and_all_threads_come_home() {
        let (left, done) = (Mutex::new(1000), Mutex::new(0));
        let next = || {
            let mut left = left.lock().unwrap();
            *left -= i32::from(*left > 0);
            (*left > 0).then_some(*left)
        };
        let work = |task: i32, sum: &mut i32, meter: &mut Meter<'_>| {
            meter.note(Duration::from_millis(5), 0);
            *sum += 1;
            *done.lock().unwrap() += task;
            ControlFlow::Continue(())
        };
        Concurrency::new(Threads { least: 2, most: 8 }).divide("test", next, || 0, work);
        assert_eq!(*done.lock().unwrap(), 999 * 1000 / 2);
    }

    #[test]
    fn nobody_waits_for_a_thread_that_panicked() {
        let concurrency = Concurrency::new(Threads { least: 1, most: 8 });
        let work = |(): (), (): &mut (), _: &mut Meter<'_>| -> ControlFlow<()> { panic!("a bug") };
        let divided = std::panic::AssertUnwindSafe(|| concurrency.divide("test", || Some(()), || (), work));
        assert!(std::panic::catch_unwind(divided).is_err());
    }
}
