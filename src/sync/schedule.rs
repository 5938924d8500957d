//! When a root is reconciled next, and why then.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use crate::config::WatchSettings;
use crate::format::{count, duration};
use crate::model::scan::RootId;

/// Reconciliations that the schedule looks back on.
pub(super) const LOOKED_BACK: usize = 10;

/// Of so many files one may be missed without a consequence: changes of the moment in which it was walked.
const TOLERATED: u64 = 1000;

/// More than one missed of so many is a watcher that hardly works.
const MANY: u64 = 100;

/// How much the moment may differ, so that not all roots of all hosts are walked at once: a twentieth, both ways.
const JITTER: u32 = 20;

/// What a reconciliation found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Past {
    /// Changes that the watcher had missed.
    pub(super) missed: u64,
    /// Files that it looked at.
    pub(super) files: u64,
}

/// From one reconciliation to the next, after these, the newest first; and the reason, for people.
///
/// Each that finds nothing makes it half as long again, one that finds more than a thousandth of the files changed
/// makes it half as long, more than a hundredth a quarter.
pub(super) fn interval(settings: &WatchSettings, past: &[Past]) -> (Duration, String) {
    let usual = settings.interval;
    let (shortest, longest) = (settings.shortest_interval, settings.longest_interval);
    let mut interval = usual;
    if settings.smart {
        for past in past.iter().take(LOOKED_BACK).rev() {
            interval = match past.missed {
                0 => interval + interval / 2,
                missed if missed.saturating_mul(MANY) > past.files => interval / 4,
                missed if missed.saturating_mul(TOLERATED) > past.files => interval / 2,
                _ => interval,
            };
            interval = interval.clamp(shortest, longest);
        }
    }
    let every = format!("every {}", duration(whole(interval)));
    let clean = past.iter().take_while(|past| past.missed == 0).count();
    let reason = match past.first() {
        _ if interval == usual => every,
        Some(last) if last.missed > 0 => {
            format!("{every}: the last one found {} that were missed", changes(last.missed))
        }
        _ if clean == 1 => format!("{every}: the last one found nothing that was missed"),
        _ if interval > usual => format!("{every}: the last {clean} found nothing that was missed"),
        _ => format!("{every}: earlier ones found changes that were missed"),
    };
    (interval, reason)
}

fn changes(number: u64) -> String {
    if number == 1 { "a change".to_owned() } else { format!("{} changes", count(number)) }
}

/// To the minute, or to the second below an hour: nobody wants to read more.
fn whole(interval: Duration) -> Duration {
    let unit = if interval >= Duration::from_hours(1) { 60 } else { 1 };
    let seconds = interval.as_secs() / unit * unit;
    if seconds == 0 { interval } else { Duration::from_secs(seconds) }
}

/// An interval that differs a little from root to root, host to host and time to time.
pub(super) fn with_jitter(interval: Duration, root: RootId, host: &str, salt: i64) -> Duration {
    let mut hasher = DefaultHasher::new();
    (root, host, salt).hash(&mut hasher);
    let share = u32::try_from(hasher.finish() % 2001).unwrap_or_default();
    // From -1 to 1 in thousandths.
    let spread = interval / JITTER;
    interval.saturating_sub(spread) + spread * share / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn past(missed: &[u64]) -> Vec<Past> {
        missed.iter().map(|missed| Past { missed: *missed, files: 100_000 }).collect()
    }

    #[test]
    fn a_root_is_visited_as_often_as_its_watcher_misses_something() {
        let settings = WatchSettings::default();
        let of = |missed: &[u64]| interval(&settings, &past(missed));
        assert_eq!(of(&[]), (DAY, "every 24h".to_owned()));
        assert_eq!(of(&[0]).0, DAY * 3 / 2);
        assert_eq!(of(&[0, 0, 0]).1, "every 3d 9h: the last 3 found nothing that was missed");
        assert_eq!(of(&[0; 20]).0, settings.longest_interval);
        assert_eq!(of(&[50]), (DAY, "every 24h".to_owned()), "what changes while it is walked");
        let (shorter, reason) = of(&[500]);
        assert_eq!(shorter, DAY / 2);
        assert_eq!(reason, "every 12h: the last one found 500 changes that were missed");
        assert_eq!(of(&[50_000]).0, DAY / 4);
        assert_eq!(of(&[50_000; 20]).0, settings.shortest_interval);
        let fixed = WatchSettings { smart: false, ..settings };
        assert_eq!(interval(&fixed, &past(&[0, 0, 50_000])), (DAY, "every 24h".to_owned()));
    }

    #[test]
    fn jitter_stays_near_and_spreads() {
        let all: Vec<Duration> = (0..1000).map(|salt| with_jitter(DAY, RootId(1), "here", salt)).collect();
        assert!(all.iter().all(|it| it.abs_diff(DAY) <= DAY / 20));
        let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        assert!(most.abs_diff(*least) > DAY / 12);
        assert_eq!(with_jitter(DAY, RootId(1), "here", 7), with_jitter(DAY, RootId(1), "here", 7));
    }
}
