//! One stream of a server connection, and how it is refused.

use super::arrivals::Share;
use crate::compress::{self, Encoding};
use crate::credit::Credit;
use crate::grpc::{self, Deframer, Framed, Violation, code};
use crate::message::Problem;
use crate::outbound::Outbound;
use crate::pipe::StreamWaker;
use crate::stats::{CallTable, Running};
use crate::web::{BUSY, Dialect, End, Whole};
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

pub(super) enum Sending {
    /// No response headers yet.
    Idle(SendResponse<Bytes>),
    /// Response headers are out.
    Body(Outbound),
    Closed,
}

pub(super) enum Kind {
    Grpc {
        index: u32,
        method: Running,
        timeout: Option<Duration>,
    },
    Http {
        method: Method,
        target: String,
    },
    /// No request that is served here: answered with this status when it has come.
    Refused {
        method: Method,
        answer: Box<Whole>,
    },
}

pub(super) struct Stream {
    pub(super) ready: Arc<StreamWaker>,
    pub(super) waker: Waker,
    pub(super) kind: Kind,
    /// What frames a call that is not gRPC itself.
    pub(super) dialect: Option<Box<Dialect>>,
    pub(super) started: Duration,
    /// When something last came or went.
    pub(super) active_at: Duration,
    /// When to give up waiting for the rest of a request that is delivered whole.
    pub(super) arrives_until: Duration,
    /// Request headers, until the event takes them.
    pub(super) headers: Option<HeaderMap>,
    pub(super) receiving: Option<RecvStream>,
    pub(super) deframer: Deframer,
    pub(super) body: BytesMut,
    pub(super) message: Option<Bytes>,
    pub(super) credit: Credit,
    pub(super) share: Share,
    pub(super) sending: Sending,
    /// What compresses the next messages of the reply.
    pub(super) encoding: Option<Encoding>,
    /// Whether the response headers tell which encodings are taken.
    pub(super) advertises: bool,
    /// What the response headers have announced.
    pub(super) announced: Option<Encoding>,
    pub(super) phase: Phase,
    /// Bytes that nobody reads: of a plain request after its answer, or of a refused one.
    pub(super) skipped: usize,
}

/// Bytes of a plain request that are skipped after its answer before it is reset.
pub(super) const SKIP_LIMIT: usize = 8 * 1024 * 1024;

/// Bytes of a refused request that are waited for: as much as flows before any `WINDOW_UPDATE`
/// (RFC 9113, 6.9.2).
pub(super) const REFUSED_LIMIT: usize = 65_535;

/// Where a stream is between the peer and the application.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The application does not know of it yet.
    Arriving,
    /// Its handler runs.
    Handled,
    /// Its handler has ended; the answer may still be on its way.
    Answered,
}

pub(super) enum Gone {
    Reset,
    Violation(Violation),
}

impl From<Violation> for Gone {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl Stream {
    /// Sends the response headers of a call unless they are out.
    pub(super) fn start_call(&mut self, initial: HeaderMap) -> Result<(), h2::Error> {
        if !matches!(self.sending, Sending::Idle(_)) {
            return Ok(());
        }
        if self.dialect.is_some() {
            return self.start_web(initial);
        }
        let mut headers = grpc_headers(initial);
        if let Some(encoding) = self.encoding {
            headers.insert(
                compress::ENCODING,
                HeaderValue::from_static(encoding.name()),
            );
            self.announced = self.encoding;
        }
        if self.advertises {
            advertise(&mut headers);
        }
        self.start_response(StatusCode::OK, headers)
    }

    pub(super) fn set_encoding(&mut self, encoding: Option<Encoding>) -> bool {
        let idle = matches!(self.sending, Sending::Idle(_));
        if let Some(dialect) = &mut self.dialect {
            return dialect.set_encoding(encoding, idle);
        }
        let possible = idle || encoding.is_none() || encoding == self.announced;
        if possible {
            self.encoding = encoding;
        }
        possible
    }

    /// The message as it is sent: compressed, if that was asked for.
    pub(super) fn packed(&self, framed: Framed) -> Framed {
        match self.encoding {
            None => framed,
            Some(encoding) => encoding.compress(framed).into(),
        }
    }

    /// Sends response headers unless they are out.
    pub(super) fn start_response(
        &mut self,
        status: StatusCode,
        headers: HeaderMap,
    ) -> Result<(), h2::Error> {
        if let Sending::Idle(respond) = &mut self.sending {
            let stream = respond.send_response(response(status, headers), false)?;
            self.sending = Sending::Body(Outbound::new(stream));
        }
        Ok(())
    }

    /// Sends a response that is headers only.
    pub(super) fn respond_only(
        &mut self,
        status: StatusCode,
        headers: HeaderMap,
    ) -> Result<(), h2::Error> {
        if let Sending::Idle(respond) = &mut self.sending {
            respond.send_response(response(status, headers), true)?;
            self.sending = Sending::Closed;
        }
        Ok(())
    }

    /// Ends the answer by a status of our own, after what the application has sent.
    pub(super) fn refuse(&mut self, violation: &Violation) -> Result<(), h2::Error> {
        if self.dialect.is_some() {
            return self.finish_web(None, HeaderMap::new(), End::from(violation));
        }
        let mut headers = HeaderMap::new();
        headers.insert(&grpc::STATUS, HeaderValue::from(violation.status));
        headers.insert(&grpc::MESSAGE, grpc::encode_message(&violation.message));
        if let Sending::Body(body) = &mut self.sending {
            return body.end(Some(headers), &mut Context::from_waker(&self.waker));
        }
        self.respond_only(StatusCode::OK, grpc_headers(headers))
    }

    /// Whether the answer is not all handed to h2.
    pub(super) fn is_sending(&self) -> bool {
        matches!(&self.sending, Sending::Body(body) if !body.is_done())
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        match &mut self.sending {
            Sending::Idle(respond) => respond.send_reset(reason),
            Sending::Body(body) => body.reset(reason),
            Sending::Closed => {}
        }
    }

    /// Whether the next compressed message has to wait until the application has
    /// taken others: the window bounds what came, not what it decompresses to.
    pub(super) fn is_full(&self, window: u32) -> bool {
        self.deframer.may_expand() && self.credit.unconsumed() > window as usize
    }

    pub(super) fn settle(&mut self) {
        let back = self.credit.settle(self.deframer.len());
        self.release(back);
    }

    /// Gives credit back, or keeps it until it is this stream's turn.
    pub(super) fn release(&mut self, size: usize) {
        if self.share.is_rationed {
            self.share.kept += size;
        } else if let Some(receiving) = &mut self.receiving {
            // Fails only for more than was received, which the counters exclude.
            let _ = receiving.flow_control().release_capacity(size);
        }
    }

    /// Gives back the credit that waits for its turn; false if there is none.
    pub(super) fn give_kept(&mut self) -> bool {
        self.share.is_rationed = false;
        let kept = std::mem::take(&mut self.share.kept);
        self.release(kept);
        kept > 0
    }

    /// Nothing more of the request is looked at.
    pub(super) fn close_receiving(&mut self) {
        self.give_kept();
        self.receiving = None;
    }

    /// Whether its answer can still say that there is no room for the request.
    pub(super) fn is_refusable(&self) -> bool {
        self.phase != Phase::Answered && matches!(self.kind, Kind::Grpc { .. })
    }

    /// Whether the rest of a plain request still flows after its answer: many
    /// clients send all of it before they look for one.
    pub(super) fn is_skipping(&self) -> bool {
        self.phase == Phase::Answered
            && self.receiving.is_some()
            && matches!(self.kind, Kind::Http { .. })
    }

    /// Returns the credit of what nobody will read, and forgets what waited for its turn.
    pub(super) fn stop_receiving(&mut self) {
        self.deframer = Deframer::default();
        self.message = None;
        self.share.holding = None;
        self.give_kept();
        let back = self.credit.abandon();
        self.release(back);
        self.receiving = None;
    }

    pub(super) fn record(&self, status: u32, now: Duration) {
        if let Kind::Grpc { method, .. } = &self.kind {
            method.end(status, self.started, now);
        }
    }
}

/// What somebody reads who points a browser at a gRPC port.
const GRPC_ONLY: &str = "gRPC is served here: POST with content-type application/grpc\n";

/// The answer to what is no gRPC on a port that serves nothing else.
pub(super) fn grpc_only(method: &Method, status: StatusCode) -> Kind {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Kind::Refused {
        method: method.clone(),
        answer: Box::new(Whole {
            status,
            headers,
            body: Bytes::from_static(GRPC_ONLY.as_bytes()),
        }),
    }
}

/// Sends an answer that no handler has made.
pub(super) fn send_whole(method: &Method, answer: &Whole, respond: &mut SendResponse<Bytes>) {
    let bodiless = *method == Method::HEAD || answer.body.is_empty();
    let head = response(answer.status, answer.headers.clone());
    // The peer may be gone already: then there is nobody to answer.
    if let Ok(mut stream) = respond.send_response(head, bodiless)
        && !bodiless
    {
        let _ = stream.send_data(answer.body.clone(), true);
    }
}

/// When a call that was refused for others' sake may come again, in
/// milliseconds: clients obey it to the letter (gRFC A6), so each hears another.
const PUSHBACK_MS: std::ops::Range<u32> = 500..1500;

/// Refuses a call because there are too many.
pub(super) fn refuse_busy(mut respond: SendResponse<Bytes>, dialect: Option<Box<Dialect>>) {
    if let Some(mut dialect) = dialect {
        return send_whole(&Method::POST, &dialect.busy(), &mut respond);
    }
    let mut headers = grpc_headers(HeaderMap::new());
    headers.insert(&grpc::STATUS, HeaderValue::from(code::RESOURCE_EXHAUSTED));
    let why = HeaderValue::from_static(BUSY);
    headers.insert(&grpc::MESSAGE, why);
    // Fibonacci hashing: neighbours land far from each other.
    let hash = respond.stream_id().as_u32().wrapping_mul(0x9e37_79b9);
    let spread = hash % (PUSHBACK_MS.end - PUSHBACK_MS.start);
    let after = HeaderValue::from(PUSHBACK_MS.start + spread);
    headers.insert("grpc-retry-pushback-ms", after);
    let _ = respond.send_response(response(StatusCode::OK, headers), true);
}

/// Answers a call that no handler gets.
pub(super) fn refuse_grpc(violation: &Violation, mut respond: SendResponse<Bytes>) {
    let mut headers = grpc_headers(HeaderMap::new());
    headers.insert(&grpc::STATUS, HeaderValue::from(violation.status));
    headers.insert(&grpc::MESSAGE, grpc::encode_message(&violation.message));
    if violation.status == code::UNIMPLEMENTED {
        // What the client may use instead, if the encoding was it.
        advertise(&mut headers);
    }
    // The peer may be gone already: then there is nobody to refuse.
    let _ = respond.send_response(response(StatusCode::OK, headers), true);
}

fn advertise(headers: &mut HeaderMap) {
    let accepted = HeaderValue::from_static(compress::ACCEPTED);
    headers.insert(compress::ACCEPT_ENCODING, accepted);
}

/// The method that is called, and what compresses its request.
pub(super) fn grpc_kind(
    table: &CallTable,
    verb: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<(Kind, Option<Encoding>), Violation> {
    if verb != Method::POST {
        return Ok((grpc_only(verb, StatusCode::METHOD_NOT_ALLOWED), None));
    }
    let refuse = |status, message: String| Err(Violation::new(status, message));
    let Some((index, method)) = table.find(path) else {
        return refuse(
            code::UNIMPLEMENTED,
            format!("method {path} is not served here"),
        );
    };
    let timeout = match headers.get(&grpc::TIMEOUT) {
        None => None,
        Some(value) => match grpc::parse_timeout(value.as_bytes()) {
            Some(timeout) => Some(timeout),
            None => return refuse(code::INTERNAL, format!("malformed grpc-timeout: {value:?}")),
        },
    };
    let encoding = match Encoding::announced(headers) {
        Ok(encoding) => encoding,
        Err(message) => return refuse(code::UNIMPLEMENTED, message),
    };
    let kind = Kind::Grpc {
        index,
        method: Running::new(method, headers),
        timeout,
    };
    Ok((kind, encoding))
}

/// What is wrong with the head of a plain request, by the rules that hold for
/// HTTP/1.1 as well: handlers see no difference between the versions.
pub(super) fn http_problem(
    method: &Method,
    uri: &http::Uri,
    headers: &HeaderMap,
    max_headers: usize,
) -> Option<Problem> {
    let path = uri.path();
    let has_target = path.starts_with('/') || (path == "*" && method == Method::OPTIONS);
    // RFC 9113, 8.3.1: two names of the host must not differ.
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let has_one_host = headers.get_all(header::HOST).iter().all(|host| {
        authority.is_empty() || host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())
    });
    if *method == Method::CONNECT || !has_target || !has_one_host || authority.contains('@') {
        Some(Problem::Malformed)
    } else {
        (headers.len() > max_headers).then_some(Problem::HeadersTooLarge)
    }
}

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'+' || rest[0] == b';')
}

pub(super) fn grpc_headers(mut headers: HeaderMap) -> HeaderMap {
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers
}

pub(super) fn response(status: StatusCode, headers: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
