//! JSON text going out: strings and numbers.

/// Write a string in quotes, escaping what JSON has to escape and nothing more.
pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| must_escape(*byte)) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let byte = tail[0];
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
        rest = &tail[1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[inline]
fn must_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

pub(crate) fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    // u64::MAX has 20 digits.
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10).to_le_bytes()[0];
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    put_unsigned(out, value.unsigned_abs());
}

/// Write a number with as many leading zeros as make it `width` digits.
pub(crate) fn put_padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let start = out.len();
    put_unsigned(out, value);
    let missing = width.saturating_sub(out.len() - start);
    out.splice(start..start, std::iter::repeat_n(b'0', missing));
}

/// Write the shortest digits that read back as the same float; `shortest` is its `Debug` form,
/// which is JSON for every finite number.
pub(crate) fn put_float(out: &mut Vec<u8>, value: f64, shortest: &dyn std::fmt::Debug) {
    use std::io::Write;
    if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 {
            b"\"Infinity\""
        } else {
            b"\"-Infinity\""
        });
    } else {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{shortest:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(
            written(|out| put_string(out, "a\"b\\c\n\r\t\0\u{1f}\u{7f}é\u{1F600}")),
            "\"a\\\"b\\\\c\\n\\r\\t\\u0000\\u001f\u{7f}é\u{1F600}\""
        );
        assert_eq!(written(|out| put_string(out, "")), "\"\"");
    }

    #[test]
    fn numbers_have_their_digits() {
        assert_eq!(
            written(|out| put_unsigned(out, u64::MAX)),
            "18446744073709551615"
        );
        assert_eq!(
            written(|out| put_signed(out, i64::MIN)),
            "-9223372036854775808"
        );
        assert_eq!(written(|out| put_signed(out, 0)), "0");
        assert_eq!(written(|out| put_padded(out, 7, 3)), "007");
        assert_eq!(written(|out| put_padded(out, 1234, 3)), "1234");
    }

    #[test]
    fn floats_are_short() {
        for (value, text) in [
            (1.0, "1.0"),
            (1e300, "1e300"),
            (-0.0, "-0.0"),
            (1e-7, "1e-7"),
        ] {
            assert_eq!(written(|out| put_float(out, value, &value)), text);
        }
        assert_eq!(
            written(|out| put_float(out, f64::from(0.1_f32), &0.1_f32)),
            "0.1"
        );
        assert_eq!(
            written(|out| put_float(out, f64::NAN, &f64::NAN)),
            "\"NaN\""
        );
    }
}
