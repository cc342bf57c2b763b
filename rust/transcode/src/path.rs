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
        Cow::Owned(decode(raw, false)?)
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

/// Decode all of a multi-segment variable's part but its `%2F`, as `google.api.http` has it.
pub(crate) fn decode_but_slash(raw: &str, out: &mut String) -> Result<()> {
    let mut rest = raw;
    while let Some(at) = rest
        .find("%2")
        .filter(|at| matches!(rest.as_bytes().get(at + 2), Some(b'F' | b'f')))
    {
        out.push_str(&decode(&rest[..at], false)?);
        out.push_str(&rest[at..at + 3]);
        rest = &rest[at + 3..];
    }
    out.push_str(&decode(rest, false)?);
    Ok(())
}

/// Percent-decode; in a query, a plus is a space.
pub(crate) fn decode(raw: &str, in_query: bool) -> Result<String> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                match (digit(bytes.next()), digit(bytes.next())) {
                    (Some(high), Some(low)) => {
                        u8::try_from(high << 4 | low).map_err(|_| bad("bad percent escape"))?
                    }
                    _ => return Err(bad("it has a % that two hexadecimal digits do not follow")),
                }
            }
            b'+' if in_query => b' ',
            _ => byte,
        });
    }
    let text = String::from_utf8(out).map_err(|_| bad("its percent escapes are not UTF-8"))?;
    if text.contains('\0') {
        return Err(bad("it has an encoded NUL"));
    }
    Ok(text)
}

pub(crate) fn bad(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(
        ErrorKind::BadTarget,
        format!("bad request target: {}", what.into()),
    )
}
