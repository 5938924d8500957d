//! How the index developed, as charts over time, and the latest runs.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde::Serialize;

use super::page::{Development, HistoryView, MomentLine, RunLine, Tick};
use super::push_safe_in_script;
use crate::format::{bytes, count, moment, rfc3339};
use crate::index::{self, Index};
use crate::model::history::{Figures, FiguresAt, HistoryFilter, Run};
use crate::model::path::escape;
use crate::model::stamp::Nanos;
use crate::model::volume::Places;
use crate::report::history;

/// Points of a chart at most: more than a screen can tell apart gain nothing.
const POINTS: u32 = 300;

/// Runs in the table.
const RUNS: u64 = 20;

/// The side of the square that lines are drawn in.
const SIDE: f64 = 1000.0;

/// Labels at the left, and below, at most.
const LEVELS: f64 = 4.0;
const TIMES: i64 = 6;

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;

/// What is told of the past, read before the page is written.
#[derive(Debug, Default)]
pub struct History {
    moments: Vec<FiguresAt>,
    runs: Vec<(Run, String)>,
}

impl History {
    /// Reads what the index has noted.
    pub async fn read(index: &dyn Index, places: &Places) -> index::Result<Self> {
        let moments = index.development(POINTS).await?;
        let runs = index.history(HistoryFilter { root: None, limit: RUNS }).await?;
        Ok(Self::new(moments, runs, places))
    }

    fn new(moments: Vec<FiguresAt>, runs: Vec<Run>, places: &Places) -> Self {
        let with_place = |run: Run| {
            let place = history::place(&run, places);
            (run, place)
        };
        Self { moments, runs: runs.into_iter().map(with_place).collect() }
    }

    /// What the page shows of it.
    pub(super) fn view(&self, now: Nanos) -> HistoryView {
        let runs = self.runs.iter().map(|(run, place)| run_line(run, place, now)).collect();
        let (first, last) = match (self.moments.first(), self.moments.last()) {
            (Some(first), Some(last)) if first.at < last.at => (first.at, last.at),
            _ => {
                let (charts, moments, data) = (Vec::new(), Vec::new(), "null".to_owned());
                return HistoryView { span: None, charts, moments, runs, data };
            }
        };
        let counts = count(self.moments.len() as u64);
        let time = TimeAxis { first, last };
        let span = format!("From {} to {} UTC, counted {counts} times", time.name(first), time.name(last));
        let charts: Vec<(Development, Vec<f64>)> =
            SERIES.iter().map(|series| series.chart(&self.moments, &time)).collect();
        let data = Data {
            at: self.moments.iter().map(|moment| rfc3339(moment.at)).collect(),
            x: self.moments.iter().map(|moment| rounded(time.place(moment.at))).collect(),
            y: charts.iter().map(|(_, places)| places.iter().copied().map(rounded).collect()).collect(),
            values: SERIES
                .iter()
                .map(|series| {
                    self.moments.iter().map(|it| series.text((series.value)(&it.figures))).collect()
                })
                .collect(),
        };
        let mut text = String::new();
        push_safe_in_script(&mut text, &serde_json::to_string(&data).unwrap_or_else(|_| "null".to_owned()));
        HistoryView {
            span: Some(span),
            charts: charts.into_iter().map(|(chart, _)| chart).collect(),
            moments: self.moments.iter().rev().map(moment_line).collect(),
            runs,
            data: text,
        }
    }
}

/// Where each point stands, for the page to follow the pointer.
#[derive(Debug, Serialize)]
struct Data {
    at: Vec<String>,
    x: Vec<f64>,
    y: Vec<Vec<f64>>,
    values: Vec<Vec<String>>,
}

/// What one chart shows.
struct Series {
    id: &'static str,
    title: &'static str,
    value: fn(&Figures) -> u64,
    is_bytes: bool,
}

const SERIES: [Series; 4] = [
    Series {
        id: "reclaimable",
        title: "Reclaimable space",
        value: |figures| figures.reclaimable_bytes,
        is_bytes: true,
    },
    Series { id: "files", title: "Files", value: |figures| figures.files, is_bytes: false },
    Series {
        id: "redundant",
        title: "Redundant copies",
        value: |figures| figures.redundant_files,
        is_bytes: false,
    },
    Series {
        id: "groups",
        title: "Groups of identical files",
        value: |figures| figures.groups,
        is_bytes: false,
    },
];

impl Series {
    fn text(&self, value: u64) -> String {
        if self.is_bytes { bytes(value) } else { count(value) }
    }

    /// The chart, and how high each value stands in it.
    fn chart(&self, moments: &[FiguresAt], time: &TimeAxis) -> (Development, Vec<f64>) {
        let values: Vec<u64> = moments.iter().map(|moment| (self.value)(&moment.figures)).collect();
        let (first, last) =
            (values.first().copied().unwrap_or_default(), values.last().copied().unwrap_or_default());
        let lowest = values.iter().copied().min().unwrap_or_default();
        let highest = values.iter().copied().max().unwrap_or_default();
        let scale = Scale::of(lowest, highest, self.is_bytes);
        let places: Vec<f64> = values.iter().map(|value| scale.place(*value)).collect();
        let xs: Vec<f64> = moments.iter().map(|moment| time.place(moment.at)).collect();
        let line = steps(&xs, &places);
        let area = scale.begins_at_zero().then(|| format!("{line}V{SIDE}H0Z"));
        let since = time.name(time.first);
        let change = match last.abs_diff(first) {
            0 => format!("as on {since}"),
            difference => {
                let direction = if last > first { "more" } else { "less" };
                format!("{} {direction} than on {since}", self.text(difference))
            }
        };
        let [first, last, lowest, highest] = [first, last, lowest, highest].map(|value| self.text(value));
        let description = format!(
            "{}: {first} on {since}, {last} on {}; between {lowest} and {highest}.",
            self.title,
            time.name(time.last)
        );
        let levels = scale.ticks(self.is_bytes);
        let chart = Development {
            id: self.id,
            title: self.title,
            value: last,
            change,
            description,
            line,
            area,
            label_width: levels.iter().map(|tick| tick.label.len()).max().unwrap_or_default(),
            levels,
            times: time.ticks(),
            last: places.last().copied().unwrap_or_default(),
        };
        (chart, places)
    }
}

/// A line that keeps each height until the next: nothing is known to have changed in between.
fn steps(xs: &[f64], ys: &[f64]) -> String {
    use std::fmt::Write as _;
    let mut line = String::new();
    for (x, y) in xs.iter().zip(ys) {
        let (x, y) = (rounded(x * SIDE / 100.0), rounded(SIDE - y * SIDE / 100.0));
        let written = if line.is_empty() { write!(line, "M{x} {y}") } else { write!(line, "H{x}V{y}") };
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    line
}

fn rounded(place: f64) -> f64 {
    (place * 100.0).round() / 100.0
}

/// From which value to which a chart goes, and at which distance lines are drawn.
#[derive(Debug)]
struct Scale {
    low: f64,
    high: f64,
    step: f64,
    /// One of the labels' units.
    unit: f64,
    /// Which, if they are bytes.
    unit_index: usize,
}

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

impl Scale {
    /// One that begins at zero, unless what happens would hardly be seen then.
    #[expect(clippy::cast_precision_loss, reason = "places in a picture")]
    fn of(least: u64, most: u64, is_bytes: bool) -> Self {
        let unit_index = if is_bytes { (most.max(1).ilog2() / 10) as usize } else { 0 };
        let unit = 1024_f64.powi(i32::try_from(unit_index).unwrap_or_default());
        let (least, most) = (least as f64 / unit, most as f64 / unit);
        let is_zoomed = least > most / 2.0 && least < most;
        let span = if is_zoomed { most - least } else { most };
        // Parts of one file or of one byte are nothing.
        let whole = if unit_index == 0 { 1.0 } else { 0.0 };
        let step = nice(span / LEVELS).max(whole);
        let low = if is_zoomed { (least / step).floor() * step } else { 0.0 };
        let high = ((most / step).ceil() * step).max(low + step);
        Self { low, high, step, unit, unit_index }
    }

    #[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
    fn place(&self, value: u64) -> f64 {
        (value as f64 / self.unit - self.low) / (self.high - self.low) * 100.0
    }

    fn begins_at_zero(&self) -> bool {
        self.low <= 0.0
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number that is not negative"
    )]
    fn ticks(&self, is_bytes: bool) -> Vec<Tick> {
        let steps = ((self.high - self.low) / self.step).round() as u32;
        let tick = |index: u32| {
            let value = self.low + self.step * f64::from(index);
            let label = if !is_bytes {
                count(value.round() as u64)
            } else if value == 0.0 {
                "0".to_owned()
            } else {
                let decimals = if self.step >= 1.0 { 0 } else { (-self.step.log10()).ceil() as usize };
                format!("{value:.decimals$} {}", UNITS[self.unit_index.min(UNITS.len() - 1)])
            };
            Tick { at: f64::from(index) * 100.0 / f64::from(steps.max(1)), label }
        };
        (0..=steps).map(tick).collect()
    }
}

/// The least of 1, 2, 5, 10, 20... that is not smaller.
fn nice(step: f64) -> f64 {
    if step <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    factors.into_iter().map(|factor| factor * power).find(|nice| *nice >= step * 0.999_999).unwrap_or(step)
}

/// From which moment to which the charts go.
#[derive(Debug)]
struct TimeAxis {
    first: Nanos,
    last: Nanos,
}

/// Distances of labels below, in seconds, and how a label is written.
const DISTANCES: [(i64, &str); 17] = [
    (1, "%H:%M:%S"),
    (5, "%H:%M:%S"),
    (15, "%H:%M:%S"),
    (30, "%H:%M:%S"),
    (60, "%H:%M"),
    (300, "%H:%M"),
    (900, "%H:%M"),
    (1800, "%H:%M"),
    (HOUR, "%H:%M"),
    (3 * HOUR, "%H:%M"),
    (6 * HOUR, "%b %-d %H:%M"),
    (12 * HOUR, "%b %-d %H:%M"),
    (DAY, "%b %-d"),
    (2 * DAY, "%b %-d"),
    (4 * DAY, "%b %-d"),
    (7 * DAY, "%b %-d"),
    (14 * DAY, "%b %-d"),
];

/// Distances in months, where days would be too many.
const MONTHS: [i64; 5] = [1, 2, 3, 6, 12];

impl TimeAxis {
    #[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
    fn place(&self, at: Nanos) -> f64 {
        (at.0 - self.first.0) as f64 / (self.last.0 - self.first.0) as f64 * 100.0
    }

    /// A moment as exactly as the span asks for: `2026-11-20`, or `2026-11-20 20:51:07`.
    fn name(&self, at: Nanos) -> String {
        let span = (self.last.0 - self.first.0) / SECOND;
        let format = match span {
            ..HOUR => "%Y-%m-%d %H:%M:%S",
            HOUR..WEEK => "%Y-%m-%d %H:%M",
            _ => "%Y-%m-%d",
        };
        timestamp(at.0 / SECOND).to_zoned(TimeZone::UTC).strftime(format).to_string()
    }

    /// Labels at round moments.
    fn ticks(&self) -> Vec<Tick> {
        let (first, last) = (self.first.0 / SECOND, self.last.0 / SECOND);
        let fits = |distance: i64| (last - first) / distance <= TIMES;
        if let Some((distance, format)) = DISTANCES.into_iter().find(|(distance, _)| fits(*distance)) {
            let begin = (first / distance + 1) * distance;
            let distance_in_steps = usize::try_from(distance).unwrap_or(1);
            return (begin..=last)
                .step_by(distance_in_steps)
                .map(|second| self.tick(second, format))
                .collect();
        }
        let months = MONTHS.into_iter().find(|months| fits(months * 30 * DAY)).unwrap_or(60);
        let start = timestamp(first).to_zoned(TimeZone::UTC).date();
        let mut month = Date::new(start.year(), 1, 1).unwrap_or(start);
        let mut ticks = Vec::new();
        while let Ok(second) = month.to_zoned(TimeZone::UTC).map(|at| at.timestamp().as_second()) {
            if second > last {
                break;
            }
            if second >= first {
                ticks.push(self.tick(second, "%b %Y"));
            }
            let Ok(next) = month.checked_add(months.months()) else { break };
            month = next;
        }
        ticks
    }

    fn tick(&self, second: i64, format: &str) -> Tick {
        let label = timestamp(second).to_zoned(TimeZone::UTC).strftime(format).to_string();
        Tick { at: self.place(Nanos(second.saturating_mul(SECOND))), label }
    }
}

fn timestamp(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or_default()
}

/// `2026-11-20 20:51`.
fn to_the_minute(at: Nanos) -> String {
    moment(at).trim_end_matches(" UTC").to_owned()
}

fn moment_line(moment: &FiguresAt) -> MomentLine {
    let Figures { files, bytes: total, groups, redundant_files, reclaimable_bytes } = moment.figures;
    MomentLine {
        at: to_the_minute(moment.at),
        files: count(files),
        bytes: bytes(total),
        groups: count(groups),
        redundant_files: count(redundant_files),
        reclaimable: bytes(reclaimable_bytes),
    }
}

fn run_line(run: &Run, place: &str, now: Nanos) -> RunLine {
    RunLine {
        started_at: to_the_minute(run.started_at),
        kind: run.kind.as_str(),
        place: place.to_owned(),
        status: run.status.as_str(),
        error: run.error.as_ref().map(|error| escape(error.as_bytes())),
        took: history::took(run, now),
        seen: history::seen(run),
        changes: history::changes(run),
        read: history::read(run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &[Tick]) -> Vec<&str> {
        ticks.iter().map(|tick| tick.label.as_str()).collect()
    }

    #[test]
    fn a_scale_has_round_labels_and_holds_every_value() {
        let gib = 1 << 30;
        let cases = [
            (0, 0, false, vec!["0", "1"]),
            (0, 3, false, vec!["0", "1", "2", "3"]),
            (10, 38_651, false, vec!["0", "10,000", "20,000", "30,000", "40,000"]),
            (300_000, 300_000, false, vec!["0", "100,000", "200,000", "300,000"]),
            (299_990, 300_010, false, vec!["299,990", "299,995", "300,000", "300,005", "300,010"]),
            (0, 12 * gib, true, vec!["0", "5 GiB", "10 GiB", "15 GiB"]),
            (gib, gib + gib / 4, true, vec!["1.0 GiB", "1.1 GiB", "1.2 GiB", "1.3 GiB"]),
            (0, 700, true, vec!["0", "200 B", "400 B", "600 B", "800 B"]),
        ];
        for (least, most, is_bytes, expected) in cases {
            let scale = Scale::of(least, most, is_bytes);
            assert_eq!(labels(&scale.ticks(is_bytes)), expected, "{least} to {most}");
            for value in [least, most] {
                assert!((0.0..=100.0).contains(&scale.place(value)), "{value} of {least} to {most}");
            }
        }
        assert!(Scale::of(10, 100, false).begins_at_zero());
        assert!(!Scale::of(90, 100, false).begins_at_zero(), "else nothing would be seen");
        assert!(Scale::of(0, u64::MAX, true).place(u64::MAX) <= 100.0);
    }

    #[test]
    fn times_are_labelled_at_round_moments_whatever_the_span() {
        // 2026-11-20 20:51:07 UTC
        let start = 1_795_207_867;
        let ticks = |seconds: i64| {
            TimeAxis { first: Nanos(start * SECOND), last: Nanos((start + seconds) * SECOND) }.ticks()
        };
        assert_eq!(labels(&ticks(4)), ["20:51:08", "20:51:09", "20:51:10", "20:51:11"]);
        assert_eq!(labels(&ticks(3 * HOUR))[..2], ["21:00", "21:30"]);
        assert_eq!(labels(&ticks(5 * DAY)), ["Nov 21", "Nov 22", "Nov 23", "Nov 24", "Nov 25"]);
        assert_eq!(labels(&ticks(150 * DAY)), ["Dec 2026", "Jan 2027", "Feb 2027", "Mar 2027", "Apr 2027"]);
        assert_eq!(labels(&ticks(4 * 365 * DAY)), ["Jan 2027", "Jan 2028", "Jan 2029", "Jan 2030"]);
        for span in [1, 59, 4000, 90_000, 30 * DAY, 91 * DAY, 99 * DAY, 800 * DAY, 9000 * DAY] {
            let ticks = ticks(span);
            assert!(ticks.len() <= 8, "{span}: {ticks:?}");
            assert!(ticks.iter().all(|tick| (0.0..=100.0).contains(&tick.at)), "{span}: {ticks:?}");
        }
    }

    #[test]
    fn a_chart_says_what_changed_and_keeps_its_height_between_counts() {
        let moment = |day: i64, files| FiguresAt {
            at: Nanos(day * DAY * SECOND),
            figures: Figures { files, reclaimable_bytes: 4 << 30, ..Figures::default() },
        };
        let history =
            History::new(vec![moment(0, 100), moment(1, 50), moment(4, 25)], Vec::new(), &Places::default());
        let view = history.view(Nanos(0));
        let files = view.charts.iter().find(|chart| chart.id == "files").unwrap();
        assert_eq!(files.line, "M0 0H250V500H1000V750");
        assert_eq!(files.area.as_deref(), Some("M0 0H250V500H1000V750V1000H0Z"));
        assert_eq!((files.value.as_str(), files.change.as_str()), ("25", "75 less than on 1970-01-01 00:00"));
        assert!((files.last - 25.0).abs() < 1e-9);
        assert_eq!(view.charts[0].change, "as on 1970-01-01 00:00");
        assert_eq!(
            view.moments.iter().map(|line| line.files.as_str()).collect::<Vec<_>>(),
            ["25", "50", "100"]
        );
        let data: serde_json::Value = serde_json::from_str(&view.data).unwrap();
        assert_eq!(data["values"][1], serde_json::json!(["100", "50", "25"]));

        let alone = History::new(vec![moment(0, 100)], Vec::new(), &Places::default()).view(Nanos(0));
        assert!(alone.span.is_none() && alone.charts.is_empty() && alone.data == "null");
    }
}
