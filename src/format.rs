//! Figures, times and emphasis as text, and durations as people write them.

use std::time::Duration;

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytesize::ByteSize;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

use crate::model::stamp::Nanos;

/// A size for people: `1.5 GiB`.
pub fn bytes(size: u64) -> String {
    ByteSize(size).display().iec().to_string()
}

/// A number for people: `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number with the noun that goes with it: `1 file`, `1,234 files`.
pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A time that something took, for people, by its two largest units: `40 ms`, `1.5 s`, `12 s`, `3 min 5 s`, `2 d 3 h`.
pub fn elapsed(length: Duration) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "d"), (3600, "h"), (60, "min")];
    let seconds = length.as_secs();
    if seconds == 0 {
        return format!("{} ms", length.as_millis());
    }
    if seconds < 10 {
        return format!("{:.1} s", length.as_secs_f64());
    }
    let Some(largest) = UNITS.iter().position(|(unit, _)| seconds >= *unit) else {
        return format!("{seconds} s");
    };
    let (unit, name) = UNITS[largest];
    let (smaller, smaller_name) = UNITS.get(largest + 1).copied().unwrap_or((1, "s"));
    match seconds % unit / smaller {
        0 => format!("{} {name}", seconds / unit),
        rest => format!("{} {name} {rest} {smaller_name}", seconds / unit),
    }
}

/// The bytes of a path that is not UTF-8, for machines.
pub fn base64_if_odd(path: &Path) -> Option<String> {
    path.to_str().is_none().then(|| STANDARD.encode(path.as_os_str().as_bytes()))
}

/// A moment for machines, in UTC: `2026-11-20T20:51:00.5Z`.
pub fn rfc3339(moment: Nanos) -> String {
    timestamp(moment).to_string()
}

/// A moment for people, in UTC and to the minute: `2026-11-20 20:51 UTC`.
pub fn moment(moment: Nanos) -> String {
    timestamp(moment).to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// A duration for people, in the words they may write it with: `500ms`, `1h 30m`, `24h`, `7d`.
pub fn duration(duration: Duration) -> String {
    let days = duration.as_secs() / SECONDS_A_DAY;
    // A day and a bit is better told in hours.
    let days = if days < 2 { 0 } else { days };
    let rest = duration.saturating_sub(Duration::from_secs(days * SECONDS_A_DAY));
    let rest_text = format!("{:#}", SignedDuration::try_from(rest).unwrap_or(SignedDuration::MAX));
    match (days, rest.is_zero()) {
        (0, _) => rest_text,
        (_, true) => format!("{days}d"),
        (_, false) => format!("{days}d {rest_text}"),
    }
}

const SECONDS_A_DAY: u64 = 24 * 60 * 60;

/// A duration as people write it: `500ms`, `90m`, `24h`, `7d`, `1d 12h`. A day has 24 hours.
///
/// # Errors
/// What is wrong with it, for people: also if it is zero or negative.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let span: Result<Span, _> = text.trim().parse();
    let duration = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    let duration = duration.ok().and_then(|duration| Duration::try_from(duration).ok());
    match duration {
        None => Err(format!("{text:?} is no duration such as \"24h\", \"90m\" or \"7d\"")),
        Some(Duration::ZERO) => Err("expected more than no time at all".to_owned()),
        Some(duration) => Ok(duration),
    }
}

/// The same, of a whole second or more: what is done again and again.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration < Duration::from_secs(1) {
        return Err(format!("{text:?} is less than a second"));
    }
    Ok(duration)
}

fn timestamp(moment: Nanos) -> Timestamp {
    // 64-bit nanoseconds end in the year 2262; jiff goes to 9999.
    Timestamp::from_nanosecond(i128::from(moment.0)).unwrap_or_default()
}

/// Whether text may be coloured, decided once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    coloured: bool,
}

impl Style {
    /// Text as it is.
    pub fn plain() -> Self {
        Self { coloured: false }
    }

    /// Colours if `coloured`.
    pub fn new(coloured: bool) -> Self {
        Self { coloured }
    }

    /// For what matters most.
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// For what matters least.
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// For what needs attention.
    pub fn warning(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// For what went wrong.
    pub fn error(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// ECMA-48 "select graphic rendition".
    fn wrap(self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_people_read_them() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_610_612_736), "1.5 GiB");
        assert_eq!([count(7), count(1000), count(1_234_567)], ["7", "1,000", "1,234,567"]);
        assert_eq!(plural(1, "file", "files"), "1 file");
        assert_eq!(rfc3339(Nanos(-1)), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(moment(Nanos(0)), "1970-01-01 00:00 UTC");
        let lengths =
            [0, 400, 1_500, 12_000, 60_000, 185_000, 7_200_000, 183_900_000].map(Duration::from_millis);
        let shown = ["0 ms", "400 ms", "1.5 s", "12 s", "1 min", "3 min 5 s", "2 h", "2 d 3 h"];
        assert_eq!(lengths.map(elapsed), shown);
        assert_eq!(Style::new(true).bold("x"), "\x1b[1mx\x1b[0m");
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        let seconds = |text: &str| parse_duration(text).map(|duration| duration.as_secs());
        let day = SECONDS_A_DAY;
        for (text, expected) in
            [("24h", day), ("90m", 5400), ("7d", 7 * day), ("1d 12h", 36 * 3600), (" 2 weeks ", 14 * day)]
        {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "24", "soon", "-1h", "1h ago", "1 month", "0h", "0s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert!(parse_interval("900ms").unwrap_err().contains("less than a second"));
        assert_eq!(parse_interval("1s"), Ok(Duration::from_secs(1)));
    }

    #[test]
    fn durations_are_written_as_they_may_be_read() {
        let texts = ["500ms", "1s 500ms", "10m", "1h 30m", "24h", "36h", "7d", "2d 1h", "30d 10m"];
        for text in texts {
            assert_eq!(duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(duration(Duration::ZERO), "0s");
        assert!(!duration(Duration::MAX).is_empty());
    }
}
