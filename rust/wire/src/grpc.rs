//! gRPC over HTTP/2: message framing, timeouts, status and metadata.
//!
//! Source: the gRPC project's "gRPC over HTTP2" protocol document.

use crate::compress::{self, Encoding};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::borrow::Cow;
use std::time::Duration;

/// Compressed flag and length.
pub const PREFIX: usize = 5;

/// The flag of a compressed message.
pub(crate) const COMPRESSED: u8 = 1;

// Names that are parsed once and not for each call.
pub(crate) static STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) static MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(crate) static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub(crate) static ENCODING: HeaderName = HeaderName::from_static(compress::ENCODING);

/// Status codes that the wire itself produces.
#[allow(missing_docs)]
pub mod code {
    pub const OK: u32 = 0;
    pub const CANCELLED: u32 = 1;
    pub const UNKNOWN: u32 = 2;
    pub const INVALID_ARGUMENT: u32 = 3;
    pub const DEADLINE_EXCEEDED: u32 = 4;
    pub const PERMISSION_DENIED: u32 = 7;
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    pub const UNIMPLEMENTED: u32 = 12;
    pub const INTERNAL: u32 = 13;
    pub const UNAVAILABLE: u32 = 14;
    pub const UNAUTHENTICATED: u32 = 16;
}

/// Senders omit the padding of `-bin` values, receivers accept both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A peer that broke the protocol, as a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The gRPC status code.
    pub status: u32,
    /// What was wrong.
    pub message: Cow<'static, str>,
}

impl Violation {
    pub(crate) fn new(status: u32, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}

/// Prefixes a message with its flag and length.
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// A message behind its flag and length, which stand apart from a large one: it need not be copied.
#[derive(Clone, Debug)]
pub struct Framed {
    pub(crate) first: Bytes,
    /// Empty if `first` is all.
    pub(crate) rest: Bytes,
}

impl Framed {
    /// Frames a message as it is.
    pub fn apart(message: Bytes) -> Self {
        let mut prefix = [0; PREFIX];
        let size = u32::try_from(message.len()).unwrap_or(u32::MAX);
        prefix[1..].copy_from_slice(&size.to_be_bytes());
        Self {
            first: Bytes::copy_from_slice(&prefix),
            rest: message,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// In one piece.
    pub(crate) fn joined(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut joined = BytesMut::with_capacity(self.len());
        joined.put_slice(&self.first);
        joined.put_slice(&self.rest);
        joined.freeze()
    }
}

/// What was framed before, or needs no frame.
impl From<Bytes> for Framed {
    fn from(first: Bytes) -> Self {
        let rest = Bytes::new();
        Self { first, rest }
    }
}

/// Cuts DATA into messages; holds at most one incomplete message, unless its
/// user leaves others in it.
#[derive(Debug, Default)]
pub struct Deframer {
    partial: BytesMut,
    rest: Bytes,
    encoding: Option<Encoding>,
}

impl Deframer {
    /// For messages that may be compressed, if there is an encoding.
    pub fn new(encoding: Option<Encoding>) -> Self {
        Self {
            encoding,
            ..Self::default()
        }
    }

    /// Whether a message can be many times larger than what came of it.
    pub fn may_expand(&self) -> bool {
        self.encoding.is_some()
    }

    /// Adds what one DATA frame carried; take the messages before the next one.
    pub fn push(&mut self, data: Bytes) {
        if self.partial.is_empty() && self.rest.is_empty() {
            self.rest = data;
        } else {
            let rest = std::mem::take(&mut self.rest);
            self.append(&rest);
            self.append(&data);
        }
    }

    /// Makes room for the whole message once an eighth of it has come: nobody gets
    /// memory for the promise of a prefix, and few bytes are moved twice.
    fn append(&mut self, data: &[u8]) {
        let have = self.partial.len() + data.len();
        if have > self.partial.capacity() {
            let whole = match *self.partial {
                [_, a, b, c, d, ..] => PREFIX + u32::from_be_bytes([a, b, c, d]) as usize,
                _ => 0,
            };
            let mut larger = BytesMut::with_capacity(whole.min(8 * have).max(have));
            larger.extend_from_slice(&self.partial);
            self.partial = larger;
        }
        self.partial.extend_from_slice(data);
    }

    /// The next whole message, decompressed; both sizes are held to the limit.
    pub fn next(&mut self, limit: usize) -> Result<Option<Bytes>, Violation> {
        let Some((encoding, size)) = self.head(limit)? else {
            return Ok(None);
        };
        if self.len() < PREFIX + size {
            return Ok(None);
        }
        let message = if self.partial.is_empty() {
            self.rest.advance(PREFIX);
            self.rest.split_to(size)
        } else {
            self.partial.advance(PREFIX);
            let message = self.partial.split_to(size).freeze();
            if self.partial.is_empty() {
                self.partial = BytesMut::new();
            }
            message
        };
        match encoding {
            None => Ok(Some(message)),
            Some(encoding) => encoding.decompress(&message, limit).map(Some),
        }
    }

    /// The encoding and the size of the next message, once its prefix has come.
    fn head(&self, limit: usize) -> Result<Option<(Option<Encoding>, usize)>, Violation> {
        let Some(prefix) = self.available().get(..PREFIX) else {
            return Ok(None);
        };
        let encoding = match prefix[0] {
            0 => None,
            COMPRESSED if self.encoding.is_some() => self.encoding,
            COMPRESSED => {
                return Err(Violation::new(
                    code::INTERNAL,
                    "message has the compressed flag, but no encoding was announced",
                ));
            }
            other => {
                return Err(Violation::new(
                    code::INTERNAL,
                    format!("message has the flag {other}: only 0 and 1 are defined"),
                ));
            }
        };
        let size = size_in(prefix);
        if size > limit {
            return Err(Violation::new(
                code::RESOURCE_EXHAUSTED,
                format!("message of {size} bytes is larger than the limit of {limit} bytes"),
            ));
        }
        Ok(Some((encoding, size)))
    }

    /// Refuses what holds, or will, more than one message within the limit.
    pub(crate) fn check_only(&self, limit: usize) -> Result<(), Violation> {
        match self.head(limit)? {
            Some((_, size)) if self.len() > PREFIX + size => Err(Violation::new(
                code::INTERNAL,
                "more than one message in a unary request",
            )),
            _ => Ok(()),
        }
    }

    /// The size that the next message is to have, once its prefix has come.
    pub(crate) fn announced(&self) -> Option<usize> {
        self.available().get(..PREFIX).map(size_in)
    }

    fn available(&self) -> &[u8] {
        if self.partial.is_empty() {
            &self.rest
        } else {
            &self.partial
        }
    }

    /// Bytes of an incomplete message that are held.
    pub fn len(&self) -> usize {
        self.partial.len() + self.rest.len()
    }

    /// Whether no part of a message is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The size in a message's prefix.
fn size_in(prefix: &[u8]) -> usize {
    prefix[1..PREFIX]
        .iter()
        .fold(0, |size, byte| size << 8 | usize::from(*byte))
}

/// Reads `grpc-timeout`: at most 8 digits and a unit. `None` if it is malformed.
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let mut count: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        count = count * 10 + u64::from(digit - b'0');
    }
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Writes `grpc-timeout`, rounded down to the finest unit that fits: a child's
/// deadline is never later than its parent's.
pub fn format_timeout(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let nanos = timeout.as_nanos();
    let units = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
    ];
    let text = units
        .iter()
        .find(|(size, _)| nanos / size <= MOST)
        .map_or_else(
            || format!("{MOST}M"),
            |(size, unit)| format!("{}{unit}", nanos / size),
        );
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("99999999M"))
}

/// Percent-encodes a `grpc-message`, spaces at its ends included, which no
/// field value may have (RFC 9113, 8.2.1).
pub fn encode_message(message: &str) -> HeaderValue {
    let mut encoded = Vec::with_capacity(message.len());
    let last = message.len().saturating_sub(1);
    for (position, byte) in message.bytes().enumerate() {
        let is_plain = match byte {
            b' ' => position != 0 && position != last,
            b'%' => false,
            byte => byte.is_ascii_graphic(),
        };
        if is_plain {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    HeaderValue::from_bytes(&encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Decodes a `grpc-message`; what is malformed is passed through, never lost.
pub fn decode_message(value: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = (byte == b'%').then(|| tail.get(..2)).flatten();
        let escaped = hex
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        if let Some(raw) = escaped {
            decoded.push(raw);
            rest = &tail[2..];
        } else {
            decoded.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(decoded)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A metadata value as an application sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataValue<'a> {
    /// Any name not ending in `-bin`.
    Text(Cow<'a, str>),
    /// A name ending in `-bin`.
    Binary(Vec<u8>),
}

/// Values of metadata in one call: no server takes as many, and a map of
/// headers ends the process when it is full.
const MOST_VALUES: usize = 10_000;

/// Why an application's metadata cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMetadata(pub String);

/// Headers that belong to the protocol and are neither shown as metadata nor
/// accepted as such.
fn is_reserved(name: &str) -> bool {
    (name.starts_with("grpc-")
        && !matches!(
            name,
            "grpc-status-details-bin"
                | "grpc-trace-bin"
                | "grpc-tags-bin"
                | "grpc-previous-rpc-attempts"
                | "grpc-retry-pushback-ms"
        ))
        || matches!(
            name,
            "content-type"
                | "te"
                | "content-length"
                | "host"
                // RFC 9113, 8.2.2: of one connection, and malformed in HTTP/2.
                | "connection"
                | "keep-alive"
                | "proxy-connection"
                | "transfer-encoding"
                | "upgrade"
        )
}

/// Whether anything in `headers` is the application's.
pub fn has_metadata(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| !is_reserved(name.as_str()))
}

/// The application's part of `headers`, in order. Repeated `-bin` values joined
/// by commas are taken apart; one that is no base64 is left out.
pub fn metadata(headers: &HeaderMap) -> Vec<(&str, MetadataValue<'_>)> {
    let mut found = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let name = name.as_str();
        if is_reserved(name) {
            continue;
        }
        if name.ends_with("-bin") {
            for part in value.as_bytes().split(|byte| *byte == b',') {
                if let Ok(raw) = BASE64.decode(part.trim_ascii()) {
                    found.push((name, MetadataValue::Binary(raw)));
                }
            }
        } else {
            found.push((
                name,
                MetadataValue::Text(String::from_utf8_lossy(value.as_bytes())),
            ));
        }
    }
    found
}

/// Adds to the `headers` of a request what an application wants sent: its
/// metadata, and `grpc-encoding` for a call that has a compression of its own.
pub fn append_request_metadata(
    headers: &mut HeaderMap,
    name: &str,
    value: &MetadataValue<'_>,
) -> Result<(), BadMetadata> {
    if name != compress::ENCODING {
        return append_metadata(headers, name, value);
    }
    let MetadataValue::Text(encoding) = value else {
        return Err(BadMetadata("grpc-encoding: expected str".to_owned()));
    };
    let found = Encoding::named(encoding).map_err(BadMetadata)?;
    let name = HeaderValue::from_static(found.map_or(compress::IDENTITY, Encoding::name));
    headers.insert(compress::ENCODING, name);
    Ok(())
}

/// Adds an application's metadata to `headers`.
pub fn append_metadata(
    headers: &mut HeaderMap,
    name: &str,
    value: &MetadataValue<'_>,
) -> Result<(), BadMetadata> {
    let bad = |reason: &str| BadMetadata(format!("metadata {name:?}: {reason}"));
    let lower = if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    };
    if is_reserved(&lower) {
        return Err(bad("the name is reserved for the protocol"));
    }
    if headers.len() >= MOST_VALUES {
        return Err(bad("there are too many values"));
    }
    let key = HeaderName::from_bytes(lower.as_bytes())
        .map_err(|_| bad("a name has only the characters 0-9 a-z _ - ."))?;
    let field = match value {
        MetadataValue::Text(_) if lower.ends_with("-bin") => {
            return Err(bad("a name that ends in -bin takes bytes, not str"));
        }
        MetadataValue::Binary(_) if !lower.ends_with("-bin") => {
            return Err(bad("bytes need a name that ends in -bin"));
        }
        MetadataValue::Text(text) => {
            if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                return Err(bad(
                    "a text value is printable ASCII; use a -bin name for the rest",
                ));
            }
            // The protocol lets white space at the ends be stripped, and HTTP forbids it.
            HeaderValue::from_str(text.trim_matches(' '))
                .map_err(|_| bad("the value is no valid header value"))?
        }
        MetadataValue::Binary(raw) => HeaderValue::try_from(BASE64.encode(raw))
            .map_err(|_| bad("the value is no valid header value"))?,
    };
    headers.append(key, field);
    Ok(())
}

/// The status code that an HTTP status stands for when no grpc-status came.
///
/// Source: the gRPC project's "HTTP to gRPC status code mapping".
pub fn status_from_http(status: http::StatusCode) -> u32 {
    match status.as_u16() {
        400 => code::INTERNAL,
        401 => code::UNAUTHENTICATED,
        403 => code::PERMISSION_DENIED,
        404 => code::UNIMPLEMENTED,
        429 | 502 | 503 | 504 => code::UNAVAILABLE,
        _ => code::UNKNOWN,
    }
}

/// The status code that an HTTP/2 error stands for.
///
/// Source: the gRPC project's "gRPC over HTTP2", section Errors.
pub fn status_from_reset(reason: u32) -> u32 {
    match reason {
        7 => code::UNAVAILABLE,
        8 => code::CANCELLED,
        11 => code::RESOURCE_EXHAUSTED,
        12 => code::PERMISSION_DENIED,
        _ => code::INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_survive_the_round_trip_and_never_grow() {
        for nanos in [
            1,
            999,
            99_999_999,
            100_000_000,
            1_234_567_891,
            3_600_000_000_000_u64,
        ] {
            let sent = Duration::from_nanos(nanos);
            let read = parse_timeout(format_timeout(sent).as_bytes()).unwrap();
            assert!(read <= sent && sent.abs_diff(read) < sent / 1000 + Duration::from_nanos(1));
        }
        for bad in ["", "1", "S", "123456789S", "-1S", "1.5S", "1s "] {
            assert_eq!(parse_timeout(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn messages_survive_percent_encoding() {
        for text in ["", " ", "  both  ", "plain", "50 % \u{e9}\u{20ac}\n", "%41"] {
            assert_eq!(decode_message(encode_message(text).as_bytes()), text);
        }
        assert_eq!(decode_message(b"%zz%4"), "%zz%4");
    }

    #[test]
    fn any_chunking_gives_the_same_messages() {
        let mut wire = frame(b"one").to_vec();
        wire.extend_from_slice(&frame(b""));
        wire.extend_from_slice(&frame(b"three"));
        for size in 1..=wire.len() {
            let mut deframer = Deframer::default();
            let mut found = Vec::new();
            for chunk in wire.chunks(size) {
                deframer.push(Bytes::copy_from_slice(chunk));
                while let Some(message) = deframer.next(100).unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, [&b"one"[..], b"", b"three"]);
            assert!(deframer.is_empty());
        }
    }

    #[test]
    fn a_large_message_is_refused_by_its_prefix() {
        let mut deframer = Deframer::default();
        deframer.push(Bytes::from_static(&[0, 0, 0, 1, 0]));
        assert_eq!(
            deframer.next(255).unwrap_err().status,
            code::RESOURCE_EXHAUSTED
        );
    }
}
