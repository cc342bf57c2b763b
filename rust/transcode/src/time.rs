//! The texts of `Timestamp` (RFC 3339) and `Duration`.

use crate::error::{Error, ErrorKind, Result, shorten};
use crate::text::{put_padded, put_unsigned};

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z: the limits that timestamp.proto states.
const TIMESTAMP_RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// About 10,000 years: the limit that duration.proto states.
const DURATION_LIMIT: i64 = 315_576_000_000;

/// Seconds since 1970 and nanoseconds of a timestamp's text.
pub(crate) fn parse_timestamp(text: &str) -> Result<(i64, i32)> {
    let malformed = || {
        Error::new(
            ErrorKind::WrongType,
            format!(
                "{:?} is no RFC 3339 timestamp such as 2030-01-31T12:00:00Z",
                shorten(text)
            ),
        )
    };
    let mut at = Cursor {
        rest: text.as_bytes(),
    };
    let fields = (|| {
        let date = (at.number(4)?, at.after(b'-', 2)?, at.after(b'-', 2)?);
        let time = (at.after(b'T', 2)?, at.after(b':', 2)?, at.after(b':', 2)?);
        let nanos = at.fraction()?;
        let offset = at.zone()?;
        at.rest.is_empty().then_some((date, time, nanos, offset))
    })();
    let ((year, month, day), (hour, minute, second), nanos, offset) =
        fields.ok_or_else(malformed)?;
    let valid = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return Err(malformed());
    }
    let seconds =
        days_since_epoch(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    if TIMESTAMP_RANGE.contains(&seconds) {
        Ok((seconds, nanos))
    } else {
        Err(Error::new(
            ErrorKind::OutOfRange,
            format!("{:?} is out of range", shorten(text)),
        ))
    }
}

/// Write a timestamp in quotes, with 0, 3, 6 or 9 digits of a second's fraction.
pub(crate) fn put_timestamp(out: &mut Vec<u8>, seconds: i64, nanos: i32) -> Result<()> {
    let fraction = u64::try_from(nanos)
        .ok()
        .filter(|nanos| *nanos < NANOS.unsigned_abs());
    let Some(fraction) = fraction.filter(|_| TIMESTAMP_RANGE.contains(&seconds)) else {
        return Err(Error::new(
            ErrorKind::Unprintable,
            format!("the timestamp of {seconds} s and {nanos} ns is out of range"),
        ));
    };
    let (year, month, day) = date_of(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    out.push(b'"');
    let parts = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second / 3600, 2, b':'),
        (second / 60 % 60, 2, b':'),
    ];
    for (value, width, mark) in parts {
        put_padded(out, value.unsigned_abs(), width);
        out.push(mark);
    }
    put_padded(out, (second % 60).unsigned_abs(), 2);
    put_fraction(out, fraction);
    out.extend_from_slice(b"Z\"");
    Ok(())
}

/// Seconds and nanoseconds, of one sign, of a duration's text.
pub(crate) fn parse_duration(text: &str) -> Result<(i64, i32)> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut at = Cursor {
        rest: unsigned.as_bytes(),
    };
    let parsed = (|| {
        let seconds = at.digits();
        let nanos = at.fraction()?;
        (!seconds.is_empty() && at.rest == b"s").then_some((seconds, nanos))
    })();
    let Some((digits, nanos)) = parsed else {
        return Err(Error::new(
            ErrorKind::WrongType,
            format!("{:?} is no duration such as 1.5s", shorten(text)),
        ));
    };
    let seconds = digits.iter().try_fold(0_i64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(i64::from(digit - b'0'))
    });
    match seconds {
        Some(seconds) if seconds <= DURATION_LIMIT => Ok(if negative {
            (-seconds, -nanos)
        } else {
            (seconds, nanos)
        }),
        _ => Err(Error::new(
            ErrorKind::OutOfRange,
            format!("{:?} is out of range", shorten(text)),
        )),
    }
}

/// Write a duration in quotes, with 0, 3, 6 or 9 digits of a second's fraction.
pub(crate) fn put_duration(out: &mut Vec<u8>, seconds: i64, nanos: i32) -> Result<()> {
    let one_sign = (seconds >= 0 && nanos >= 0) || (seconds <= 0 && nanos <= 0);
    let in_range =
        seconds.unsigned_abs() <= DURATION_LIMIT.unsigned_abs() && i64::from(nanos).abs() < NANOS;
    if !(one_sign && in_range) {
        return Err(Error::new(
            ErrorKind::Unprintable,
            format!("the duration of {seconds} s and {nanos} ns is out of range"),
        ));
    }
    out.push(b'"');
    if seconds < 0 || nanos < 0 {
        out.push(b'-');
    }
    put_unsigned(out, seconds.unsigned_abs());
    put_fraction(out, nanos.unsigned_abs().into());
    out.extend_from_slice(b"s\"");
    Ok(())
}

fn put_fraction(out: &mut Vec<u8>, nanos: u64) {
    let (value, width) = match nanos {
        0 => return,
        _ if nanos.is_multiple_of(1_000_000) => (nanos / 1_000_000, 3),
        _ if nanos.is_multiple_of(1000) => (nanos / 1000, 6),
        _ => (nanos, 9),
    };
    out.push(b'.');
    put_padded(out, value, width);
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn number(&mut self, width: usize) -> Option<i64> {
        let (head, tail) = self.rest.split_at_checked(width)?;
        self.rest = tail;
        head.iter().try_fold(0, |sum, byte| {
            byte.is_ascii_digit()
                .then(|| sum * 10 + i64::from(byte - b'0'))
        })
    }

    fn after(&mut self, mark: u8, width: usize) -> Option<i64> {
        self.skip(mark)?;
        self.number(width)
    }

    fn skip(&mut self, mark: u8) -> Option<()> {
        let (first, tail) = self.rest.split_first()?;
        self.rest = tail;
        (*first == mark).then_some(())
    }

    fn digits(&mut self) -> &'a [u8] {
        let len = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (head, tail) = self.rest.split_at(len);
        self.rest = tail;
        head
    }

    /// Nanoseconds of an optional fraction of one to nine digits.
    fn fraction(&mut self) -> Option<i32> {
        if self.rest.first() != Some(&b'.') {
            return Some(0);
        }
        self.skip(b'.')?;
        let digits = self.digits();
        if digits.is_empty() || digits.len() > 9 {
            return None;
        }
        let padded = digits
            .iter()
            .copied()
            .chain(std::iter::repeat(b'0'))
            .take(9);
        Some(padded.fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0')))
    }

    /// Seconds east of UTC.
    fn zone(&mut self) -> Option<i64> {
        let (sign, tail) = self.rest.split_first()?;
        self.rest = tail;
        let direction = match sign {
            b'Z' => return Some(0),
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let (hours, minutes) = (self.number(2)?, self.after(b':', 2)?);
        (hours < 24 && minutes < 60).then_some(direction * (hours * 3600 + minutes * 60))
    }
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days between 0000-03-01 and 1970-01-01: counting from March puts the leap day last.
const MARCH_EPOCH: i64 = 719_468;
/// Days in 400 Gregorian years.
const ERA: i64 = 146_097;

fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    // Months from March have 153 days in five.
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA + day_of_era - MARCH_EPOCH
}

fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + MARCH_EPOCH;
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    // Leap days of 4, 100 and 400 years taken out, each year has 365 days.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(seconds: i64, nanos: i32) -> String {
        let mut out = Vec::new();
        put_timestamp(&mut out, seconds, nanos).unwrap();
        String::from_utf8(out).unwrap().trim_matches('"').to_owned()
    }

    #[test]
    fn timestamps_are_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", (0, 0)),
            ("1972-01-01T10:00:20.021-05:00", (63_126_020, 21_000_000)),
            ("0001-01-01T00:00:00Z", (-62_135_596_800, 0)),
            (
                "9999-12-31T23:59:59.999999999Z",
                (253_402_300_799, 999_999_999),
            ),
            ("2000-02-29T12:00:00.5+01:30", (951_820_200, 500_000_000)),
        ] {
            assert_eq!(parse_timestamp(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_timestamps() {
        for text in [
            "",
            "now",
            "2020-01-01",
            "2020-01-01T00:00:00",
            "2020-01-01t00:00:00Z",
            "2020-01-01T00:00:00z",
            "2020-13-01T00:00:00Z",
            "2021-02-29T00:00:00Z",
            "2020-01-01T24:00:00Z",
            "2020-01-01T00:00:60Z",
            "2020-01-01T00:00:00.Z",
            "2020-01-01T00:00:00.1234567890Z",
            "2020-01-01T00:00:00+0100",
            "2020-1-1T0:0:0Z",
            "2020-01-01T00:00:00Zjunk",
            "2020-01-01T00:00:00+24:00",
            "é020-01-01T00:00:00Z",
        ] {
            assert_eq!(
                parse_timestamp(text).unwrap_err().kind(),
                ErrorKind::WrongType,
                "{text}"
            );
        }
        for text in [
            "0000-12-31T23:59:59Z",
            "9999-12-31T23:59:59-00:01",
            "0001-01-01T00:00:00+01:00",
        ] {
            assert_eq!(
                parse_timestamp(text).unwrap_err().kind(),
                ErrorKind::OutOfRange,
                "{text}"
            );
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, expected) in [
            ("1s", (1, 0)),
            ("-0.5s", (0, -500_000_000)),
            ("-3.000000001s", (-3, -1)),
            ("315576000000s", (DURATION_LIMIT, 0)),
        ] {
            assert_eq!(parse_duration(text).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "s",
            "1",
            "1m",
            "+1s",
            "1.s",
            ".5s",
            "--1s",
            "1.0123456789s",
            " 1s",
            "1s ",
        ] {
            assert_eq!(
                parse_duration(text).unwrap_err().kind(),
                ErrorKind::WrongType,
                "{text}"
            );
        }
        for text in ["315576000001s", "-99999999999999999999999s"] {
            assert_eq!(
                parse_duration(text).unwrap_err().kind(),
                ErrorKind::OutOfRange,
                "{text}"
            );
        }
    }

    #[test]
    fn what_the_types_forbid_is_not_printed() {
        let mut out = Vec::new();
        for (seconds, nanos) in [(253_402_300_800, 0), (0, -1), (0, 1_000_000_000)] {
            assert!(put_timestamp(&mut out, seconds, nanos).is_err());
        }
        for (seconds, nanos) in [(1, -1), (-1, 1), (0, 1_000_000_000), (i64::MIN, 0)] {
            assert!(put_duration(&mut out, seconds, nanos).is_err());
        }
    }

    proptest! {
        #[test]
        fn timestamps_survive(seconds in TIMESTAMP_RANGE, nanos in 0..1_000_000_000_i32) {
            prop_assert_eq!(parse_timestamp(&printed(seconds, nanos)).unwrap(), (seconds, nanos));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = (parse_timestamp(&text), parse_duration(&text));
        }
    }
}
