//! gRPC-Web and the Connect protocol: what they frame differently from gRPC.
//!
//! A [`Dialect`] turns the bytes of one request into messages and the answer's
//! messages and end into bytes; everything between, from deadline to
//! cancellation, is a call like any other. Sources: the gRPC project's
//! "gRPC Web" protocol document, and the "Connect Protocol Reference" of
//! connectrpc.com.

mod connect;
mod dispatch;
mod http1;
mod origin;
mod text;

pub(crate) use dispatch::{Admission, Admitted, admit};
pub(crate) use http1::WebConnection;
pub use origin::Origins;

use crate::compress::Encoding;
use crate::grpc::{self, COMPRESSED, PREFIX, Violation, code};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use rustc_hash::FxHashSet;
use std::time::Duration;
use text::TextDecoder;

/// How browsers are served.
#[derive(Clone, Debug, Default)]
pub struct WebConfig {
    /// Pages of these origins may call; those of the server's own always may.
    pub origins: Origins,
    /// Whether such pages may send cookies and client certificates.
    pub credentials: bool,
    /// How long a browser may remember what it was allowed.
    pub max_age: Duration,
    /// Methods with one request and one reply, by index: Connect frames them differently.
    pub unary: FxHashSet<u32>,
    /// Those among them without side effects: they may be called by GET.
    pub safe: FxHashSet<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    GrpcWeb,
    GrpcWebText,
    ConnectUnary,
    ConnectStream,
}

/// How one call is framed.
#[derive(Debug)]
pub(crate) struct Dialect {
    protocol: Protocol,
    /// Whether messages are JSON.
    pub(crate) json: bool,
    text: TextDecoder,
    /// The body of a unary Connect request, which has no framing.
    body: BytesMut,
    /// Initial metadata that waits for the status of the answer.
    initial: HeaderMap,
    /// What compresses the messages of the request.
    inbound: Option<Encoding>,
    /// What compresses the next messages of the answer.
    outbound: Option<Encoding>,
    /// What the head of the answer has announced.
    announced: Option<Encoding>,
    /// The page's origin, if it has to be told that it may read the answer.
    origin: origin::Grant,
}

/// An answer that is complete.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// How a call ended.
pub(crate) struct End<'a> {
    pub(crate) status: u32,
    pub(crate) message: Option<&'a str>,
    pub(crate) trailing: HeaderMap,
}

impl<'a> From<&'a Violation> for End<'a> {
    fn from(violation: &'a Violation) -> Self {
        Self {
            status: violation.status,
            message: Some(&violation.message),
            trailing: HeaderMap::new(),
        }
    }
}

/// Why a call is refused that would be one too many.
pub(crate) const BUSY: &str = "the server has too many calls";

/// The flag of the envelope that ends a Connect stream.
const CONNECT_END: u8 = 0x02;

/// The flag of the envelope with gRPC-Web's trailers.
const WEB_TRAILERS: u8 = 0x80;

impl Dialect {
    /// By the content type; `None` if it is of no dialect. gRPC itself is none.
    pub(crate) fn of(content_type: &[u8]) -> Option<Self> {
        let essence = content_type.split(|byte| *byte == b';').next()?;
        let essence = essence.trim_ascii().to_ascii_lowercase();
        let (protocol, json) = match essence.as_slice() {
            b"application/grpc-web" | b"application/grpc-web+proto" => (Protocol::GrpcWeb, false),
            b"application/grpc-web+json" => (Protocol::GrpcWeb, true),
            b"application/grpc-web-text" | b"application/grpc-web-text+proto" => {
                (Protocol::GrpcWebText, false)
            }
            b"application/proto" => (Protocol::ConnectUnary, false),
            b"application/json" => (Protocol::ConnectUnary, true),
            b"application/connect+proto" => (Protocol::ConnectStream, false),
            b"application/connect+json" => (Protocol::ConnectStream, true),
            _ => return None,
        };
        Some(Self {
            protocol,
            json,
            text: TextDecoder::default(),
            body: BytesMut::new(),
            initial: HeaderMap::new(),
            inbound: None,
            outbound: None,
            announced: None,
            origin: origin::Grant::default(),
        })
    }

    fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static(match (self.protocol, self.json) {
            (Protocol::GrpcWeb, false) => "application/grpc-web+proto",
            (Protocol::GrpcWeb, true) => "application/grpc-web+json",
            (Protocol::GrpcWebText, _) => "application/grpc-web-text+proto",
            (Protocol::ConnectUnary, false) => "application/proto",
            (Protocol::ConnectUnary, true) => "application/json",
            (Protocol::ConnectStream, false) => "application/connect+proto",
            (Protocol::ConnectStream, true) => "application/connect+json",
        })
    }

    /// Whether the request is the message, without an envelope around it, and
    /// the answer is known only when the call ends.
    pub(crate) fn is_bare(&self) -> bool {
        self.protocol == Protocol::ConnectUnary
    }

    /// What compresses the messages of the request.
    pub(crate) fn inbound(&self) -> Option<Encoding> {
        self.inbound
    }

    /// Compresses the messages of the answer from now on; `None`: no more. False
    /// if its head is out and has announced something else.
    pub(crate) fn set_encoding(&mut self, encoding: Option<Encoding>, is_idle: bool) -> bool {
        let possible = is_idle || encoding.is_none() || encoding == self.announced;
        if possible {
            self.outbound = encoding;
        }
        possible
    }

    /// Takes bytes of the request's body: what they hold of enveloped
    /// messages, or nothing if the message has no envelope.
    pub(crate) fn take(&mut self, data: Bytes, limit: usize) -> Result<Bytes, Violation> {
        match self.protocol {
            Protocol::GrpcWeb | Protocol::ConnectStream => Ok(data),
            Protocol::GrpcWebText => self.text.decode(&data).map(Bytes::from),
            Protocol::ConnectUnary => {
                let size = self.body.len() + data.len();
                if size > limit {
                    return Err(Violation::new(
                        code::RESOURCE_EXHAUSTED,
                        format!(
                            "message of {size} bytes or more is larger than the limit of {limit} bytes"
                        ),
                    ));
                }
                self.body.extend_from_slice(&data);
                Ok(Bytes::new())
            }
        }
    }

    /// Bytes of a message without an envelope.
    pub(crate) fn held(&self) -> usize {
        self.body.len()
    }

    /// The request has ended: its message, if that had no envelope.
    pub(crate) fn end_request(&mut self, limit: usize) -> Result<Option<Bytes>, Violation> {
        self.text.end()?;
        if !self.is_bare() {
            return Ok(None);
        }
        let body = self.body.split().freeze();
        match self.inbound {
            None => Ok(Some(body)),
            Some(encoding) => encoding.decompress(&body, limit).map(Some),
        }
    }

    /// Keeps initial metadata until the answer's head can be written.
    pub(crate) fn keep_initial(&mut self, initial: HeaderMap) {
        self.initial = initial;
    }

    /// The head of an answer that is sent before the call has ended.
    pub(crate) fn head(&mut self, initial: HeaderMap) -> HeaderMap {
        let mut headers = initial;
        headers.insert(header::CONTENT_TYPE, self.content_type());
        self.announced = self.outbound;
        if let Some(encoding) = self.announced {
            let name = dispatch::encoding_header(self.protocol);
            headers.insert(name, HeaderValue::from_static(encoding.name()));
        }
        self.origin.apply(&mut headers);
        headers
    }

    /// A message in its envelope, from gRPC's envelope of it.
    pub(crate) fn message(&self, framed: Bytes) -> Bytes {
        let framed = match self.outbound {
            None => framed,
            Some(encoding) => encoding.compress(framed),
        };
        match self.protocol {
            Protocol::GrpcWebText => text::encode(&framed),
            _ => framed,
        }
    }

    /// What ends an answer whose head was sent.
    pub(crate) fn end(&self, end: End<'_>) -> Bytes {
        match self.protocol {
            Protocol::GrpcWeb => envelope(WEB_TRAILERS, &web_trailers(&end)),
            Protocol::GrpcWebText => text::encode(&envelope(WEB_TRAILERS, &web_trailers(&end))),
            Protocol::ConnectUnary | Protocol::ConnectStream => {
                envelope(CONNECT_END, connect::end_of_stream(end).as_bytes())
            }
        }
    }

    /// All of an answer of which nothing was sent: the reply in gRPC's envelope
    /// if there is one, and the end.
    pub(crate) fn whole(
        &mut self,
        framed: Option<Bytes>,
        initial: HeaderMap,
        end: End<'_>,
    ) -> Whole {
        let mut initial = initial;
        for (name, value) in &self.initial {
            initial.append(name, value.clone());
        }
        if self.protocol == Protocol::ConnectUnary {
            return self.unary(framed, initial, &end);
        }
        let mut body = BytesMut::new();
        if let Some(framed) = framed {
            body.extend_from_slice(&self.message(framed));
        }
        body.extend_from_slice(&self.end(end));
        Whole {
            status: StatusCode::OK,
            headers: self.head(initial),
            body: body.freeze(),
        }
    }

    /// The answer to a call that would be one too many.
    pub(crate) fn busy(&mut self) -> Whole {
        let why = Violation::new(code::RESOURCE_EXHAUSTED, BUSY);
        self.whole(None, HeaderMap::new(), End::from(&why))
    }

    fn unary(&mut self, framed: Option<Bytes>, initial: HeaderMap, end: &End<'_>) -> Whole {
        let mut headers = initial;
        let (status, body, content_type) = match framed {
            Some(framed) if end.status == code::OK => {
                let mut framed = self.message(framed);
                let body = framed.split_off(PREFIX.min(framed.len()));
                if let Some(encoding) = self.outbound
                    && framed.first() == Some(&COMPRESSED)
                {
                    let name = HeaderValue::from_static(encoding.name());
                    headers.insert(header::CONTENT_ENCODING, name);
                }
                (StatusCode::OK, body, self.content_type())
            }
            _ => (
                connect::http_status(end.status),
                Bytes::from(connect::error(end)),
                HeaderValue::from_static("application/json"),
            ),
        };
        for (name, value) in &end.trailing {
            if name == connect::DETAILS {
                continue;
            }
            if let Ok(name) = HeaderName::try_from(format!("trailer-{name}")) {
                headers.append(name, value.clone());
            }
        }
        headers.insert(header::CONTENT_TYPE, content_type);
        self.origin.apply(&mut headers);
        Whole {
            status,
            headers,
            body,
        }
    }
}

fn envelope(flags: u8, content: &[u8]) -> Bytes {
    let mut framed = BytesMut::from(&grpc::frame(content)[..]);
    framed[0] = flags;
    framed.freeze()
}

/// gRPC-Web's trailers: a block of HTTP/1.1 header fields.
fn web_trailers(end: &End<'_>) -> Vec<u8> {
    let mut block = format!("grpc-status: {}\r\n", end.status).into_bytes();
    let message = end.message.map(grpc::encode_message);
    let message = message.iter().map(|value| ("grpc-message", value));
    let trailing = end
        .trailing
        .iter()
        .map(|(name, value)| (name.as_str(), value));
    for (name, value) in message.chain(trailing) {
        block.extend_from_slice(name.as_bytes());
        block.extend_from_slice(b": ");
        block.extend_from_slice(value.as_bytes());
        block.extend_from_slice(b"\r\n");
    }
    block
}
