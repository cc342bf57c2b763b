//! Numbers going in: JSON's grammar, exact integers, floats without silent infinities.

use crate::error::{Error, ErrorKind, Result, shorten};

/// Whether a text is a number by JSON's grammar.
pub(crate) fn is_number(text: &str) -> bool {
    number_len(text.as_bytes()) == Some(text.len())
}

/// Length of the JSON number that a text begins with.
pub(crate) fn number_len(text: &[u8]) -> Option<usize> {
    let mut at = usize::from(text.first() == Some(&b'-'));
    match text.get(at) {
        Some(b'0') => at += 1,
        Some(b'1'..=b'9') => at += digits(&text[at..]),
        _ => return None,
    }
    if text.get(at) == Some(&b'.') {
        let fraction = digits(&text[at + 1..]);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(&text[at + 1 + sign..]);
        if exponent == 0 {
            return None;
        }
        at += 1 + sign + exponent;
    }
    Some(at)
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// The integer that a number stands for, exactly: `1e3` and `5.0` are integers, too.
pub(crate) fn integer(text: &str) -> Result<i128> {
    if !is_number(text) {
        return Err(not_integer(text));
    }
    // The common case: few digits and nothing else.
    if text.len() <= 19
        && let Ok(value) = text.parse::<i64>()
    {
        return Ok(value.into());
    }
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = || {
        whole
            .bytes()
            .chain(fraction.bytes())
            .skip_while(|digit| *digit == b'0')
    };
    if digits().next().is_none() {
        return Ok(0);
    }
    // An exponent that does not fit is as good as infinite: the mantissa is no longer than memory.
    let exponent = exponent
        .trim_start_matches('+')
        .parse::<i64>()
        .unwrap_or_else(|_| {
            if exponent.starts_with('-') {
                i64::MIN / 2
            } else {
                i64::MAX / 2
            }
        });
    let shift = exponent - i64::try_from(fraction.len()).unwrap_or(i64::MAX / 2);
    let mut kept = digits().collect::<Vec<_>>();
    let mut shift = shift;
    while shift < 0 && kept.last() == Some(&b'0') {
        kept.pop();
        shift += 1;
    }
    if shift < 0 {
        return Err(not_integer(text));
    }
    // 20 digits hold every 64-bit number, 38 fit an i128.
    let zeros = usize::try_from(shift).unwrap_or(usize::MAX);
    if kept.len().saturating_add(zeros) > 30 {
        return Err(Error::new(
            ErrorKind::OutOfRange,
            format!("{} is out of range", shorten(text)),
        ));
    }
    let value = kept
        .into_iter()
        .chain(std::iter::repeat_n(b'0', zeros))
        .fold(0_i128, |value, digit| value * 10 + i128::from(digit - b'0'));
    Ok(if negative { -value } else { value })
}

/// The float nearest to a number; one beyond the largest is refused, never infinite.
pub(crate) fn float(text: &str) -> Result<f64> {
    let value = if is_number(text) {
        text.parse::<f64>().ok()
    } else {
        None
    };
    match value {
        Some(value) if value.is_finite() => Ok(value),
        Some(_) => Err(Error::new(
            ErrorKind::OutOfRange,
            format!("{} is out of range", shorten(text)),
        )),
        None => Err(Error::new(
            ErrorKind::WrongType,
            format!("expected a number, got the string {:?}", shorten(text)),
        )),
    }
}

fn not_integer(text: &str) -> Error {
    Error::new(
        ErrorKind::WrongType,
        format!("expected an integer, got {:?}", shorten(text)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact() {
        for (text, value) in [
            ("0", 0),
            ("-0", 0),
            ("1e3", 1000),
            ("1.5e1", 15),
            ("100e-2", 1),
            ("5.000", 5),
            ("0e999999999999999999999", 0),
            ("0.0e-99999999999999999999", 0),
            ("9223372036854775807", i64::MAX.into()),
            ("9.223372036854775807e18", i64::MAX.into()),
            ("-9223372036854775808", i64::MIN.into()),
            ("18446744073709551615", u64::MAX.into()),
            ("1000000000000000000000000e-20", 10_000),
        ] {
            assert_eq!(integer(text).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn what_is_no_integer_is_told_from_what_is_too_large() {
        for text in [
            "", "+1", "01", "1.5", "1e-1", "1_0", " 1", "0x1", "NaN", ".5", "1.", "1e", "-",
        ] {
            assert_eq!(
                integer(text).unwrap_err().kind(),
                ErrorKind::WrongType,
                "{text}"
            );
        }
        let long = "9".repeat(10_000);
        for text in ["1e400", "1e99999999999999999999", &long] {
            assert_eq!(
                integer(text).unwrap_err().kind(),
                ErrorKind::OutOfRange,
                "{text}"
            );
        }
    }

    #[test]
    fn floats_overflow_loudly() {
        assert!((float("1e308").unwrap() - 1e308).abs() < 1.0);
        assert_eq!(float("1e400").unwrap_err().kind(), ErrorKind::OutOfRange);
        assert_eq!(float("-1e400").unwrap_err().kind(), ErrorKind::OutOfRange);
        for text in ["nan", "inf", "1,5", ""] {
            assert_eq!(
                float(text).unwrap_err().kind(),
                ErrorKind::WrongType,
                "{text}"
            );
        }
    }
}
