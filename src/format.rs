//! Figures, times and emphasis as text.

use bytesize::ByteSize;
use jiff::Timestamp;
use jiff::tz::TimeZone;

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

/// A moment for machines, in UTC: `2026-11-20T20:51:00.5Z`.
pub fn rfc3339(moment: Nanos) -> String {
    timestamp(moment).to_string()
}

/// A moment for people, in UTC and to the minute: `2026-11-20 20:51 UTC`.
pub fn moment(moment: Nanos) -> String {
    timestamp(moment).to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC").to_string()
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
        assert_eq!(Style::new(true).bold("x"), "\x1b[1mx\x1b[0m");
    }
}
