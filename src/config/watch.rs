//! When roots are reconciled, and how long a file has to be quiet.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::format;
use crate::model::upkeep::Upkeep;

/// What holds for every root that `dupfind watch` keeps up to date and that has no options of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WatchSection")]
pub struct WatchSettings {
    /// How long a file has to be quiet before it is read.
    pub debounce: Duration,
    /// From one reconciliation to the next.
    pub interval: Duration,
    /// The least that the schedule may make of it; never more than the interval.
    pub shortest_interval: Duration,
    /// The most that the schedule may make of it; never less than the interval.
    pub longest_interval: Duration,
    /// The schedule learns from what reconciliations find; without it the interval is always the same.
    pub smart: bool,
    /// How often a root is reconciled that the system sends no events of.
    pub poll: Duration,
}

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            // An editor that saves, or a copy that pauses, is done by then; a person hardly waits.
            debounce: Duration::from_millis(500),
            interval: DAY,
            shortest_interval: HOUR,
            longest_interval: 7 * DAY,
            smart: true,
            poll: Duration::from_mins(10),
        }
    }
}

/// Intervals that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{lesser} ({}) is more than {greater} ({})",
    format::duration(*.lesser_is),
    format::duration(*.greater_is)
)]
pub struct IntervalError {
    lesser: &'static str,
    lesser_is: Duration,
    greater: &'static str,
    greater_is: Duration,
}

impl WatchSettings {
    /// What holds for a root with options of its own, which are in seconds. What it leaves open is as for any root,
    /// but makes room for what it says.
    ///
    /// # Errors
    /// What the root says contradicts itself.
    pub fn of_root(&self, upkeep: &Upkeep) -> Result<Self, IntervalError> {
        let seconds = |own: Option<u64>| own.map(Duration::from_secs);
        let settings = Self { poll: seconds(upkeep.poll).unwrap_or(self.poll), ..*self };
        settings.with_intervals(
            seconds(upkeep.shortest_interval),
            seconds(upkeep.interval),
            seconds(upkeep.longest_interval),
        )
    }

    /// Replaces intervals by those that are given; the others give way.
    fn with_intervals(
        self,
        shortest: Option<Duration>,
        usual: Option<Duration>,
        longest: Option<Duration>,
    ) -> Result<Self, IntervalError> {
        let given = [("shortest_interval", shortest), ("interval", usual), ("longest_interval", longest)];
        let given: Vec<(&'static str, Duration)> =
            given.into_iter().filter_map(|(name, interval)| Some((name, interval?))).collect();
        for pair in given.windows(2) {
            let [(lesser, lesser_is), (greater, greater_is)] = [pair[0], pair[1]];
            if lesser_is > greater_is {
                return Err(IntervalError { lesser, lesser_is, greater, greater_is });
            }
        }
        let interval = usual.unwrap_or_else(|| {
            let at_least = self.interval.max(shortest.unwrap_or_default());
            at_least.min(longest.unwrap_or(Duration::MAX))
        });
        Ok(Self {
            interval,
            shortest_interval: shortest.unwrap_or(self.shortest_interval).min(interval),
            longest_interval: longest.unwrap_or(self.longest_interval).max(interval),
            ..self
        })
    }
}

/// The section `watch` of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WatchSection {
    #[serde(deserialize_with = "duration")]
    debounce: Option<Duration>,
    #[serde(deserialize_with = "interval")]
    interval: Option<Duration>,
    #[serde(deserialize_with = "interval")]
    shortest_interval: Option<Duration>,
    #[serde(deserialize_with = "interval")]
    longest_interval: Option<Duration>,
    smart: Option<bool>,
    #[serde(deserialize_with = "interval")]
    poll: Option<Duration>,
}

impl TryFrom<WatchSection> for WatchSettings {
    type Error = IntervalError;

    fn try_from(section: WatchSection) -> Result<Self, IntervalError> {
        let default = Self::default();
        let settings = Self {
            debounce: section.debounce.unwrap_or(default.debounce),
            smart: section.smart.unwrap_or(default.smart),
            poll: section.poll.unwrap_or(default.poll),
            ..default
        };
        settings.with_intervals(section.shortest_interval, section.interval, section.longest_interval)
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<DurationText>::deserialize(deserializer)?;
    let parsed = text.map(|DurationText::Text(text)| format::parse_duration(&text)).transpose();
    parsed.map_err(serde::de::Error::custom)
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<DurationText>::deserialize(deserializer)?;
    let parsed = text.map(|DurationText::Text(text)| format::parse_interval(&text)).transpose();
    parsed.map_err(serde::de::Error::custom)
}

/// A number alone would not say of what.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a duration with its unit: text such as \"24h\", \"90m\" or \"7d\"")]
enum DurationText {
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_holds_and_the_rest_gives_way() {
        let default = WatchSettings::default();
        let own = |shortest_interval, interval, longest_interval| {
            let upkeep = Upkeep { interval, shortest_interval, longest_interval, ..Upkeep::default() };
            default.of_root(&upkeep).map(|settings| {
                let WatchSettings { shortest_interval, interval, longest_interval, .. } = settings;
                [shortest_interval, interval, longest_interval].map(|interval| interval.as_secs())
            })
        };
        let (hour, day) = (3600, 86400);
        assert_eq!(own(None, None, None), Ok([hour, day, 7 * day]));
        assert_eq!(own(None, Some(600), None), Ok([600, 600, 7 * day]));
        assert_eq!(own(None, Some(30 * day), None), Ok([hour, 30 * day, 30 * day]));
        assert_eq!(own(Some(2 * day), None, None), Ok([2 * day, 2 * day, 7 * day]));
        assert_eq!(own(None, None, Some(60)), Ok([60, 60, 60]));
        assert_eq!(own(Some(60), Some(60), Some(60)), Ok([60, 60, 60]));
        let said = own(Some(7200), None, Some(60)).unwrap_err().to_string();
        assert_eq!(said, "shortest_interval (2h) is more than longest_interval (1m)");
        let said = own(None, Some(8 * day), Some(7 * day)).unwrap_err().to_string();
        assert_eq!(said, "interval (8d) is more than longest_interval (7d)");
    }

    #[test]
    fn a_root_that_is_polled_says_how_often() {
        let polled = Upkeep { poll: Some(30), ..Upkeep::default() };
        let settings = WatchSettings::default().of_root(&polled).unwrap();
        assert_eq!(settings, WatchSettings { poll: Duration::from_secs(30), ..WatchSettings::default() });
    }
}
