//! Request targets: split first, decoded after, and refused where two readers could differ.

use std::borrow::Cow;

use crate::error::{Error, ErrorKind, Result};

/// A checked request target.
pub(crate) struct Target<'t> {
    /// Segments as sent, with their decoded form.
    pub(crate) segments: Vec<PathSegment<'t>>,
    pub(crate) query: &'t str,
}

#[derive(Clone)]
pub(crate) struct PathSegment<'t> {
    pub(crate) raw: &'t str,
    pub(crate) decoded: Cow<'t, str>,
}

impl<'t> Target<'t> {
    pub(crate) fn parse(target: &'t str) -> Result<Self> {
        if let Some(at) = target.bytes().position(|byte| !matches!(byte, 0x21..0x7f)) {
            return Err(bad(format!(
                "it has a character at {at} that must be percent-encoded"
            )));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Some(path) = path.strip_prefix('/') else {
            return Err(bad("the path must start with a slash"));
        };
        if target.contains('#') {
            return Err(bad("a fragment is no part of a request"));
        }
        let mut segments = Vec::with_capacity(8);
        let mut rest = Some(path).filter(|path| !path.is_empty());
        while let Some(path) = rest {
            let (raw, tail) = match path.split_once('/') {
                Some((raw, tail)) => (raw, Some(tail)),
                None => (path, None),
            };
            // One at the very end is no fault of form, but no route has it.
            if raw.is_empty() && tail.is_some() {
                return Err(bad("the path has an empty segment"));
            }
            segments.push(PathSegment {
                raw,
                decoded: decode_segment(raw)?,
            });
            rest = tail;
        }
        Ok(Self { segments, query })
    }
}

/// Decode one segment, and refuse what some other reader of the path could take for a step
/// through it.
pub(crate) fn decode_segment(raw: &str) -> Result<Cow<'_, str>> {
    if raw.contains('\\') {
        return Err(bad("a backslash is no part of a path"));
    }
    let decoded = if raw.contains('%') {
        Cow::Owned(decode(raw, Decoding::Segment)?)
    } else {
        Cow::Borrowed(raw)
    };
    if decoded.starts_with('.') || matches!(decoded, Cow::Owned(_)) {
        if decoded
            .split(['/', '\\'])
            .any(|part| part == "." || part == "..")
        {
            return Err(bad("the path has a . or .. segment"));
        }
        if decoded.chars().any(char::is_control) {
            return Err(bad("the path has an encoded control character"));
        }
    }
    Ok(decoded)
}

/// What percent-decoding makes of a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decoding {
    /// One segment of a path.
    Segment,
    /// A part of a variable with several segments: `%2F` stays, as `google.api.http` has it.
    Segments,
    /// A name or value of a query: a plus is a space.
    Query,
}

/// Percent-decode a text; its escapes must be whole, UTF-8 and not NUL.
pub(crate) fn decode(raw: &str, decoding: Decoding) -> Result<String> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                let Some((escape, tail)) = tail.split_first_chunk::<2>() else {
                    return Err(bad_escape());
                };
                let escaped = hex_byte(*escape).ok_or_else(bad_escape)?;
                if escaped == b'/' && decoding == Decoding::Segments {
                    out.push(b'%');
                    out.extend_from_slice(escape);
                } else {
                    out.push(escaped);
                }
                rest = tail;
            }
            b'+' if decoding == Decoding::Query => out.push(b' '),
            _ => out.push(byte),
        }
    }
    let text = String::from_utf8(out).map_err(|_| bad("its percent escapes are not UTF-8"))?;
    if text.contains('\0') {
        return Err(bad("it has an encoded NUL"));
    }
    Ok(text)
}

fn hex_byte(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? << 4 | low?).ok()
}

fn bad_escape() -> Error {
    bad("it has a % that two hexadecimal digits do not follow")
}

pub(crate) fn bad(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(
        ErrorKind::BadTarget,
        format!("bad request target: {}", what.into()),
    )
}
