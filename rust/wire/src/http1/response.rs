//! Answers on the wire.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, StatusCode};
use std::collections::VecDeque;

/// A body up to this size travels in one piece with its head.
const COPIED_BODY: usize = 16 * 1024;

/// What the request says about the form of its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing {
    /// The answer to HEAD has the fields of the answer to GET, and no body.
    pub(super) head_only: bool,
    pub(super) http10: bool,
}

/// Appends an answer to `output`.
pub(super) fn write(
    output: &mut VecDeque<Bytes>,
    framing: Framing,
    keep_alive: bool,
    status: StatusCode,
    headers: &HeaderMap,
    body: Bytes,
) {
    // An interim answer would leave the peer waiting for a final one for ever.
    let status = if status.is_informational() {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        status
    };
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = match status {
        StatusCode::RESET_CONTENT => Bytes::new(),
        _ => body,
    };
    let mut head = begin(status, headers);
    if !bodiless {
        field(
            &mut head,
            "content-length",
            body.len().to_string().as_bytes(),
        );
    }
    persistence(&mut head, framing, keep_alive);
    head.put_slice(b"\r\n");
    if bodiless || framing.head_only || body.is_empty() {
        output.push_back(head.freeze());
    } else if body.len() <= COPIED_BODY {
        head.put_slice(&body);
        output.push_back(head.freeze());
    } else {
        output.push_back(head.freeze());
        output.push_back(body);
    }
}

/// The head of an answer whose body comes in parts. HTTP/1.0 has no chunks: there the end of the
/// connection ends it.
pub(super) fn open(
    framing: Framing,
    keep_alive: bool,
    status: StatusCode,
    headers: &HeaderMap,
) -> Bytes {
    let mut head = begin(status, headers);
    if !framing.http10 {
        field(&mut head, "transfer-encoding", b"chunked");
    }
    persistence(&mut head, framing, keep_alive);
    head.put_slice(b"\r\n");
    head.freeze()
}

/// Appends a part of a body.
pub(super) fn part(output: &mut VecDeque<Bytes>, framing: Framing, data: Bytes) {
    if data.is_empty() {
        // An empty chunk would be the last one.
    } else if framing.http10 {
        output.push_back(data);
    } else if data.len() <= COPIED_BODY {
        let mut chunk = BytesMut::with_capacity(data.len() + 20);
        chunk.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
        chunk.put_slice(&data);
        chunk.put_slice(b"\r\n");
        output.push_back(chunk.freeze());
    } else {
        output.push_back(Bytes::from(format!("{:x}\r\n", data.len())));
        output.push_back(data);
        output.push_back(Bytes::from_static(b"\r\n"));
    }
}

/// What follows the last part.
pub(super) fn last(framing: Framing) -> &'static [u8] {
    if framing.http10 { b"" } else { b"0\r\n\r\n" }
}

fn begin(status: StatusCode, headers: &HeaderMap) -> BytesMut {
    let mut head = BytesMut::with_capacity(256);
    head.put_slice(b"HTTP/1.1 ");
    head.put_slice(status.as_str().as_bytes());
    head.put_u8(b' ');
    head.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.put_slice(b"\r\n");
    for (name, value) in headers {
        // The types of `http` admit no line end in either.
        if !is_about_connection(name) {
            field(&mut head, name.as_str(), value.as_bytes());
        }
    }
    head
}

fn persistence(head: &mut BytesMut, framing: Framing, keep_alive: bool) {
    match (keep_alive, framing.http10) {
        (false, _) => field(head, "connection", b"close"),
        (true, true) => field(head, "connection", b"keep-alive"),
        (true, false) => {}
    }
}

fn field(head: &mut BytesMut, name: &str, value: &[u8]) {
    head.put_slice(name.as_bytes());
    head.put_slice(b": ");
    head.put_slice(value);
    head.put_slice(b"\r\n");
}

/// Fields that are this machine's business and nobody else's.
fn is_about_connection(name: &HeaderName) -> bool {
    [
        CONNECTION,
        CONTENT_LENGTH,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ]
    .contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}
