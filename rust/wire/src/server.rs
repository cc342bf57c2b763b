//! The server's side of an HTTP/2 connection that carries gRPC, plain HTTP or both.

use crate::credit::Credit;
use crate::grpc::{self, Deframer, Violation, code};
use crate::message::{HttpLimits, HttpRequest, Problem};
use crate::outbound::Outbound;
use crate::pipe::{INPUT_LIMIT, Pipe, ReadyList, StreamWaker};
use crate::stats::{CallTable, MethodEntry};
use bytes::{Bytes, BytesMut};
use h2::server::{Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Bounds of one connection.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Streams at once; a handler counts until it ends, also after a reset.
    pub max_streams: u32,
    /// Largest message in bytes.
    pub max_message: usize,
    /// Largest header list in bytes that is accepted.
    pub max_header_bytes: u32,
    /// Flow-control window of a stream in bytes.
    pub stream_window: u32,
    /// Flow-control window of the connection in bytes.
    pub connection_window: u32,
    /// From the first byte until the preface has come.
    pub handshake_timeout: Duration,
    /// Without any stream for this long, the connection is closed.
    pub idle_timeout: Duration,
    /// Resets allowed at once, received or provoked (CVE-2023-44487, CVE-2025-8671).
    pub reset_burst: u32,
    /// Resets allowed each second beyond the burst.
    pub reset_rate: u32,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_streams: 100,
            max_message: 4 * 1024 * 1024,
            max_header_bytes: 16 * 1024,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
            reset_burst: 200,
            reset_rate: 33,
        }
    }
}

/// What a server's connections share.
#[derive(Clone, Debug, Default)]
pub struct ServerConfig {
    /// The bounds.
    pub limits: ServerLimits,
    /// The methods that are served, if gRPC is.
    pub grpc: Option<Arc<CallTable>>,
    /// The bounds of plain requests, if those are served.
    pub http: Option<HttpLimits>,
}

/// What happened on the connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// A call began. With a message it is whole: nothing more comes for it but a reset.
    Call {
        /// Identifies the call on its connection.
        stream: u32,
        /// Index of the method in the table.
        method: u32,
        /// Request headers.
        headers: HeaderMap,
        /// What `grpc-timeout` leaves.
        timeout: Option<Duration>,
        /// The one request message, for methods whose request is one message.
        message: Option<Bytes>,
    },
    /// A message of a streaming request. Report it with `consume` when the application has taken it.
    Message {
        /// The call.
        stream: u32,
        /// The message.
        data: Bytes,
    },
    /// The streaming request has ended.
    End {
        /// The call.
        stream: u32,
    },
    /// There is room again after a `send_message` that answered false.
    Writable {
        /// The call.
        stream: u32,
    },
    /// The call is over without an answer: cancel its handler, then report `handler_ended`.
    Reset {
        /// The call.
        stream: u32,
    },
    /// A plain request.
    Http(HttpRequest),
    /// The connection ended; every open stream was reported as reset before.
    Closed {
        /// Why, if not by agreement.
        error: Option<String>,
    },
}

enum State {
    Handshaking(Handshake<Pipe, Bytes>),
    Open(Connection<Pipe, Bytes>),
    Closed,
}

enum Sending {
    /// No response headers yet.
    Idle(SendResponse<Bytes>),
    /// Response headers are out.
    Body(Outbound),
    Closed,
}

enum Kind {
    Grpc {
        index: u32,
        method: Arc<MethodEntry>,
        timeout: Option<Duration>,
    },
    Http {
        method: Method,
        target: String,
        deadline: Duration,
    },
}

struct Stream {
    ready: Arc<StreamWaker>,
    waker: Waker,
    kind: Kind,
    started: Duration,
    /// Request headers, until the event takes them.
    headers: Option<HeaderMap>,
    receiving: Option<RecvStream>,
    deframer: Deframer,
    body: BytesMut,
    message: Option<Bytes>,
    credit: Credit,
    sending: Sending,
    phase: Phase,
    /// Bytes of a plain request that came after its answer.
    skipped: usize,
}

/// Bytes of a plain request that are skipped after its answer before it is reset.
const SKIP_LIMIT: usize = 8 * 1024 * 1024;

/// Where a stream is between the peer and the application.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The application does not know of it yet.
    Arriving,
    /// Its handler runs.
    Handled,
    /// Its handler has ended; the answer may still be on its way.
    Answered,
}

/// One connection. See the [crate's documentation](crate) for the order of calls.
pub struct ServerConnection {
    config: Arc<ServerConfig>,
    pipe: Pipe,
    state: State,
    ready: Arc<ReadyList>,
    woken: Vec<u32>,
    streams: FxHashMap<u32, Stream>,
    events: VecDeque<ServerEvent>,
    /// Streams that have a handler or will have one, and handlers whose stream
    /// was reset.
    live: u32,
    now: Duration,
    since: Duration,
    resets: f64,
    resets_at: Duration,
}

impl ServerConnection {
    /// A connection that was just accepted.
    pub fn new(config: Arc<ServerConfig>, now: Duration) -> Self {
        let pipe = Pipe::default();
        let limits = &config.limits;
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(limits.max_streams)
            .max_header_list_size(limits.max_header_bytes)
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_send_buffer_size(crate::outbound::SEND_BUFFER)
            // h2 would cut off a client that cancels a batch before we look at
            // it; what comes here is rationed by `count_reset` as any reset.
            .max_pending_accept_reset_streams(limits.reset_burst as usize);
        let state = State::Handshaking(builder.handshake(pipe.clone()));
        let resets = f64::from(limits.reset_burst);
        let mut this = Self {
            config,
            pipe,
            state,
            ready: Arc::default(),
            woken: Vec::new(),
            streams: FxHashMap::default(),
            events: VecDeque::new(),
            live: 0,
            now,
            since: now,
            resets,
            resets_at: now,
        };
        this.drive();
        this
    }

    /// Bytes came from the peer.
    pub fn handle_input(&mut self, data: &[u8], now: Duration) {
        self.now = now;
        if !matches!(self.state, State::Closed) {
            self.pipe.feed(data);
            self.drive();
        }
    }

    /// The peer will send no more.
    pub fn handle_eof(&mut self, now: Duration) {
        self.now = now;
        self.pipe.feed_eof();
        self.drive();
        self.close(None);
    }

    /// Time has passed; call it about once a second.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.now = now;
        let limits = &self.config.limits;
        match &mut self.state {
            State::Handshaking(_) if now.saturating_sub(self.since) > limits.handshake_timeout => {
                self.close(Some(
                    "no HTTP/2 preface within the handshake timeout".into(),
                ));
            }
            State::Open(connection) if self.streams.is_empty() && self.live == 0 => {
                if now.saturating_sub(self.since) > limits.idle_timeout {
                    connection.graceful_shutdown();
                }
            }
            _ => self.expire_bodies(),
        }
        self.drive();
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// Shows the bytes for the peer to `take`; `None` if there are none.
    pub fn drain_output<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.drive();
        self.pipe.drain(take)
    }

    /// False while the peer has to be kept from sending: its input is piling up
    /// because it does not read our output.
    pub fn wants_read(&self) -> bool {
        self.pipe.backlog() < INPUT_LIMIT
    }

    /// Whether the connection is over and everything was handed out.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Closed) && !self.pipe.has_output()
    }

    /// Streams and handlers in progress.
    pub fn in_flight(&self) -> usize {
        self.streams.len().max(self.live as usize)
    }

    /// Takes no new streams (GOAWAY) and closes when those in progress have ended.
    pub fn shutdown(&mut self) {
        match &mut self.state {
            State::Open(connection) => connection.graceful_shutdown(),
            State::Handshaking(_) => self.close(None),
            State::Closed => {}
        }
    }

    /// Answers a call with one message and OK.
    pub fn respond(
        &mut self,
        stream: u32,
        framed: Bytes,
        initial: HeaderMap,
        trailing: HeaderMap,
        now: Duration,
    ) {
        self.now = now;
        let Some(mut entry) = self.streams.remove(&stream) else {
            return self.handler_ended(stream);
        };
        let mut trailers = trailing;
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        entry.ready.rearm();
        let result = entry
            .start_response(StatusCode::OK, grpc_headers(initial))
            .and_then(|()| {
                let mut context = Context::from_waker(&entry.waker);
                match &mut entry.sending {
                    Sending::Body(body) => body.send_whole(framed, Some(trailers), &mut context),
                    Sending::Idle(_) | Sending::Closed => Ok(()),
                }
            });
        self.after_end(stream, entry, &result, code::OK);
    }

    /// Sends the response headers of a streaming call, once.
    pub fn send_headers(&mut self, stream: u32, initial: HeaderMap) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            // An error here is a reset, which the next poll reports.
            let _ = entry.start_response(StatusCode::OK, grpc_headers(initial));
        }
    }

    /// Sends a message of a streaming call. False: wait for
    /// [`ServerEvent::Writable`] (or Reset) before the next one.
    pub fn send_message(&mut self, stream: u32, framed: Bytes) -> bool {
        let Some(entry) = self.streams.get_mut(&stream) else {
            return true;
        };
        if entry
            .start_response(StatusCode::OK, grpc_headers(HeaderMap::new()))
            .is_err()
        {
            return true;
        }
        entry.ready.rearm();
        let mut context = Context::from_waker(&entry.waker);
        match &mut entry.sending {
            Sending::Body(body) => body.push(framed, &mut context).unwrap_or(true),
            Sending::Idle(_) | Sending::Closed => true,
        }
    }

    /// Ends a call with a status; without earlier headers, in one HEADERS frame.
    pub fn finish(
        &mut self,
        stream: u32,
        status: u32,
        message: Option<&str>,
        initial: HeaderMap,
        trailing: HeaderMap,
        now: Duration,
    ) {
        self.now = now;
        let Some(mut entry) = self.streams.remove(&stream) else {
            return self.handler_ended(stream);
        };
        let mut trailers = trailing;
        trailers.insert("grpc-status", HeaderValue::from(status));
        if let Some(message) = message {
            trailers.insert("grpc-message", grpc::encode_message(message));
        }
        entry.ready.rearm();
        let result = if let Sending::Body(body) = &mut entry.sending {
            body.end(Some(trailers), &mut Context::from_waker(&entry.waker))
        } else {
            let mut headers = grpc_headers(initial);
            // Not `extend`, which would replace initial by trailing metadata of the same name.
            for (name, value) in &trailers {
                headers.append(name, value.clone());
            }
            entry.respond_only(StatusCode::OK, headers)
        };
        self.after_end(stream, entry, &result, status);
    }

    /// Answers a plain request.
    pub fn respond_http(
        &mut self,
        stream: u32,
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
        now: Duration,
    ) {
        self.now = now;
        let Some(mut entry) = self.streams.remove(&stream) else {
            return self.handler_ended(stream);
        };
        let head = matches!(&entry.kind, Kind::Http { method, .. } if method == Method::HEAD);
        let mut headers = headers;
        for name in [
            header::CONNECTION,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
        ] {
            headers.remove(name);
        }
        if !headers.contains_key(header::CONTENT_LENGTH) && status != StatusCode::NO_CONTENT {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        entry.ready.rearm();
        let result = if body.is_empty() || head {
            entry.respond_only(status, headers)
        } else {
            entry.start_response(status, headers).and_then(|()| {
                let mut context = Context::from_waker(&entry.waker);
                match &mut entry.sending {
                    Sending::Body(sending) => sending.send_whole(body, None, &mut context),
                    Sending::Idle(_) | Sending::Closed => Ok(()),
                }
            })
        };
        self.after_end(stream, entry, &result, code::OK);
    }

    /// Ends a stream at once.
    pub fn reset(&mut self, stream: u32, reason: Reason, now: Duration) {
        self.now = now;
        if let Some(mut entry) = self.streams.remove(&stream) {
            entry.reset(reason);
            entry.record(code::CANCELLED, now);
        }
        self.handler_ended(stream);
    }

    /// The application took `size` bytes of messages: the peer may send as many more.
    pub fn consume(&mut self, stream: u32, size: usize) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.credit.consumed(size);
            entry.settle();
            entry.ready.rearm();
            self.progress(stream);
        }
    }

    /// The handler of a call that was reported as [`ServerEvent::Reset`] has ended.
    pub fn handler_ended(&mut self, _stream: u32) {
        self.live = self.live.saturating_sub(1);
        self.since = self.now;
    }

    fn drive(&mut self) {
        let noop = Waker::noop();
        loop {
            let mut context = Context::from_waker(noop);
            match &mut self.state {
                State::Closed => return,
                State::Handshaking(handshake) => match Pin::new(handshake).poll(&mut context) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(connection)) => self.state = State::Open(connection),
                    Poll::Ready(Err(error)) => return self.close(Some(error.to_string())),
                },
                State::Open(connection) => {
                    match connection.poll_accept(&mut context) {
                        Poll::Ready(Some(Ok((request, respond)))) => {
                            self.accept(request, respond);
                            continue;
                        }
                        Poll::Ready(Some(Err(error))) => {
                            return self.close(Some(error.to_string()));
                        }
                        Poll::Ready(None) => return self.close(None),
                        Poll::Pending => {}
                    }
                    let mut woken = std::mem::take(&mut self.woken);
                    if !self.ready.take(&mut woken) {
                        self.woken = woken;
                        return;
                    }
                    for stream in woken.drain(..) {
                        self.progress(stream);
                    }
                    self.woken = woken;
                }
            }
        }
    }

    fn accept(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (parts, body) = request.into_parts();
        let stream = respond.stream_id().as_u32();
        if self.live as usize >= self.config.limits.max_streams as usize
            || self.streams.len() >= 2 * self.config.limits.max_streams as usize
        {
            respond.send_reset(Reason::REFUSED_STREAM);
            return self.count_reset();
        }
        self.since = self.now;
        let (ready, waker) = StreamWaker::new(stream, &self.ready);
        let is_grpc = parts
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| is_grpc_content_type(value.as_bytes()));
        let mut headers = parts.headers;
        let kind = match (&self.config.grpc, &self.config.http) {
            (Some(table), _) if is_grpc => {
                match grpc_kind(table, &parts.method, parts.uri.path(), &headers) {
                    Ok(kind) => kind,
                    Err(refusal) => return refusal.send(respond),
                }
            }
            (_, Some(http)) => {
                if !headers.contains_key(header::HOST) {
                    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
                    if let Some(host) = authority.and_then(|host| HeaderValue::from_str(host).ok())
                    {
                        headers.insert(header::HOST, host);
                    }
                }
                let target = parts.uri.path_and_query().map_or_else(
                    || parts.uri.path().to_owned(),
                    |target| target.as_str().to_owned(),
                );
                Kind::Http {
                    method: parts.method,
                    target,
                    deadline: self.now + http.body_timeout,
                }
            }
            _ => return Refusal::Http(StatusCode::UNSUPPORTED_MEDIA_TYPE).send(respond),
        };
        self.live += 1;
        let mut entry = Stream {
            ready,
            waker,
            kind,
            started: self.now,
            headers: Some(headers),
            receiving: Some(body),
            deframer: Deframer::default(),
            body: BytesMut::new(),
            message: None,
            credit: Credit::default(),
            sending: Sending::Idle(respond),
            phase: Phase::Arriving,
            skipped: 0,
        };
        if let Kind::Grpc {
            index,
            method,
            timeout,
        } = &entry.kind
            && !method.unary_request()
        {
            self.events.push_back(ServerEvent::Call {
                stream,
                method: *index,
                headers: entry.headers.take().unwrap_or_default(),
                timeout: *timeout,
                message: None,
            });
            entry.phase = Phase::Handled;
        }
        if let (Kind::Http { .. }, Some(http), Some(headers)) =
            (&entry.kind, &self.config.http, &entry.headers)
            && headers.len() > http.max_headers
        {
            self.deliver_http(stream, &mut entry, Some(Problem::HeadersTooLarge));
        }
        self.streams.insert(stream, entry);
        self.progress(stream);
    }

    /// Polls one stream for all it can give or take.
    fn progress(&mut self, stream: u32) {
        let Some(mut entry) = self.streams.remove(&stream) else {
            return;
        };
        entry.ready.rearm();
        match self.advance(stream, &mut entry) {
            Ok(()) => {
                let ended = match &mut entry.sending {
                    Sending::Body(body) => body.is_done(),
                    Sending::Closed => true,
                    Sending::Idle(_) => false,
                };
                if !ended || entry.phase == Phase::Handled || entry.is_skipping() {
                    self.streams.insert(stream, entry);
                }
            }
            Err(Gone::Reset) => {
                self.count_reset();
                self.give_up(stream, &entry, code::CANCELLED);
            }
            Err(Gone::Violation(violation)) => {
                self.count_reset();
                self.give_up(stream, &entry, violation.status);
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from(violation.status));
                trailers.insert("grpc-message", grpc::encode_message(&violation.message));
                if matches!(entry.sending, Sending::Idle(_)) {
                    let mut headers = grpc_headers(HeaderMap::new());
                    headers.extend(trailers);
                    let _ = entry.respond_only(StatusCode::OK, headers);
                    // The answer is complete; the rest of the request is not wanted (RFC 9113, 8.1).
                    entry.stop_receiving();
                } else {
                    entry.reset(Reason::CANCEL);
                }
            }
        }
    }

    fn advance(&mut self, stream: u32, entry: &mut Stream) -> Result<(), Gone> {
        let waker = entry.waker.clone();
        let mut context = Context::from_waker(&waker);
        while let Some(receiving) = &mut entry.receiving {
            match receiving.poll_data(&mut context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(data))) => {
                    if matches!(entry.kind, Kind::Http { .. }) {
                        self.take_body(stream, entry, &data);
                    } else {
                        self.take_grpc(stream, entry, data)?;
                    }
                }
                Poll::Ready(Some(Err(_))) => return Err(Gone::Reset),
                Poll::Ready(None) => {
                    entry.receiving = None;
                    self.end_request(stream, entry)?;
                }
            }
        }
        let reset = match &mut entry.sending {
            Sending::Idle(respond) => respond.poll_reset(&mut context),
            Sending::Body(body) if body.is_done() => return Ok(()),
            Sending::Body(body) => {
                body.flush(&mut context).map_err(|_| Gone::Reset)?;
                if body.take_writable() {
                    self.events.push_back(ServerEvent::Writable { stream });
                }
                body.poll_reset(&mut context)
            }
            Sending::Closed => return Ok(()),
        };
        if reset.is_ready() {
            Err(Gone::Reset)
        } else {
            Ok(())
        }
    }

    fn take_grpc(&mut self, stream: u32, entry: &mut Stream, data: Bytes) -> Result<(), Gone> {
        let Kind::Grpc { method, .. } = &entry.kind else {
            return Ok(());
        };
        let unary = method.unary_request();
        entry.credit.received(data.len());
        entry.deframer.push(data);
        while let Some(message) = entry.deframer.next(self.config.limits.max_message)? {
            if unary {
                if entry.message.replace(message).is_some() {
                    return Err(Violation::new(
                        code::INTERNAL,
                        "more than one message in a unary request",
                    )
                    .into());
                }
            } else {
                entry.credit.delivered(grpc::PREFIX + message.len());
                self.events.push_back(ServerEvent::Message {
                    stream,
                    data: message,
                });
            }
        }
        entry.settle();
        Ok(())
    }

    fn take_body(&mut self, stream: u32, entry: &mut Stream, data: &Bytes) {
        entry.release(data.len());
        let limit = self.config.http.as_ref().map_or(0, |http| http.max_body);
        if entry.phase != Phase::Arriving {
            entry.skipped += data.len();
            if entry.skipped > SKIP_LIMIT {
                entry.receiving = None;
            }
            return;
        }
        if entry.body.len() + data.len() > limit {
            self.deliver_http(stream, entry, Some(Problem::BodyTooLarge));
        } else {
            entry.body.extend_from_slice(data);
        }
    }

    fn end_request(&mut self, stream: u32, entry: &mut Stream) -> Result<(), Gone> {
        if matches!(entry.kind, Kind::Http { .. }) {
            if entry.phase == Phase::Arriving {
                self.deliver_http(stream, entry, None);
            }
            return Ok(());
        }
        if !entry.deframer.is_empty() {
            return Err(
                Violation::new(code::INTERNAL, "the request ended inside a message").into(),
            );
        }
        let Kind::Grpc {
            index,
            method,
            timeout,
        } = &entry.kind
        else {
            return Ok(());
        };
        if !method.unary_request() {
            self.events.push_back(ServerEvent::End { stream });
            return Ok(());
        }
        let Some(message) = entry.message.take() else {
            return Err(Violation::new(code::INTERNAL, "a unary request without a message").into());
        };
        self.events.push_back(ServerEvent::Call {
            stream,
            method: *index,
            headers: entry.headers.take().unwrap_or_default(),
            timeout: *timeout,
            message: Some(message),
        });
        entry.phase = Phase::Handled;
        Ok(())
    }

    fn deliver_http(&mut self, stream: u32, entry: &mut Stream, problem: Option<Problem>) {
        let Kind::Http { method, target, .. } = &entry.kind else {
            return;
        };
        let body = std::mem::take(&mut entry.body).freeze();
        self.events.push_back(ServerEvent::Http(HttpRequest {
            stream,
            method: method.clone(),
            target: target.clone(),
            headers: entry.headers.take().unwrap_or_default(),
            body: if problem.is_none() {
                body
            } else {
                Bytes::new()
            },
            version: http::Version::HTTP_2,
            problem,
        }));
        entry.phase = Phase::Handled;
    }

    fn expire_bodies(&mut self) {
        let now = self.now;
        let late: Vec<u32> = self
            .streams
            .iter()
            .filter(|(_, entry)| {
                (entry.phase == Phase::Arriving || entry.is_skipping())
                    && matches!(&entry.kind, Kind::Http { deadline, .. } if *deadline < now)
            })
            .map(|(stream, _)| *stream)
            .collect();
        for stream in late {
            if let Some(mut entry) = self.streams.remove(&stream)
                && entry.phase == Phase::Arriving
            {
                self.deliver_http(stream, &mut entry, Some(Problem::Timeout));
                self.streams.insert(stream, entry);
            }
        }
    }

    /// The application's answer is complete; the stream may still have bytes to send.
    fn after_end(
        &mut self,
        stream: u32,
        mut entry: Stream,
        result: &Result<(), h2::Error>,
        status: u32,
    ) {
        self.handler_ended(stream);
        entry.phase = Phase::Answered;
        entry.record(status, self.now);
        if !entry.is_skipping() {
            entry.stop_receiving();
        }
        let sending = matches!(&entry.sending, Sending::Body(body) if !body.is_done());
        if result.is_ok() && (sending || entry.is_skipping()) {
            self.streams.insert(stream, entry);
        }
    }

    /// The stream ends without the application's doing.
    fn give_up(&mut self, stream: u32, entry: &Stream, status: u32) {
        match entry.phase {
            Phase::Arriving => self.handler_ended(stream),
            Phase::Handled => self.events.push_back(ServerEvent::Reset { stream }),
            Phase::Answered => return,
        }
        entry.record(status, self.now);
    }

    /// Each reset has made us work for nothing: beyond a rate, the peer is cut off.
    fn count_reset(&mut self) {
        let limits = &self.config.limits;
        let refill =
            self.now.saturating_sub(self.resets_at).as_secs_f64() * f64::from(limits.reset_rate);
        self.resets = (self.resets + refill).min(f64::from(limits.reset_burst)) - 1.0;
        self.resets_at = self.now;
        if self.resets < 0.0
            && let State::Open(connection) = &mut self.state
        {
            connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
    }

    fn close(&mut self, error: Option<String>) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.state = State::Closed;
        for (stream, entry) in std::mem::take(&mut self.streams) {
            self.give_up(stream, &entry, code::CANCELLED);
        }
        self.events.push_back(ServerEvent::Closed { error });
    }
}

enum Gone {
    Reset,
    Violation(Violation),
}

impl From<Violation> for Gone {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl Stream {
    /// Sends response headers unless they are out.
    fn start_response(&mut self, status: StatusCode, headers: HeaderMap) -> Result<(), h2::Error> {
        if let Sending::Idle(respond) = &mut self.sending {
            let stream = respond.send_response(response(status, headers), false)?;
            self.sending = Sending::Body(Outbound::new(stream));
        }
        Ok(())
    }

    /// Sends a response that is headers only.
    fn respond_only(&mut self, status: StatusCode, headers: HeaderMap) -> Result<(), h2::Error> {
        if let Sending::Idle(respond) = &mut self.sending {
            respond.send_response(response(status, headers), true)?;
            self.sending = Sending::Closed;
        }
        Ok(())
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.sending {
            Sending::Idle(respond) => respond.send_reset(reason),
            Sending::Body(body) => body.reset(reason),
            Sending::Closed => {}
        }
    }

    fn settle(&mut self) {
        let back = self.credit.settle(self.deframer.len());
        self.release(back);
    }

    fn release(&mut self, size: usize) {
        if let Some(receiving) = &mut self.receiving {
            // Fails only for more than was received, which the counters exclude.
            let _ = receiving.flow_control().release_capacity(size);
        }
    }

    /// Returns the credit of what nobody will read.
    /// Whether the rest of a plain request still flows after its answer: many
    /// clients send all of it before they look for one.
    fn is_skipping(&self) -> bool {
        self.phase == Phase::Answered
            && self.receiving.is_some()
            && matches!(self.kind, Kind::Http { .. })
    }

    fn stop_receiving(&mut self) {
        let back = self.credit.abandon();
        self.release(back);
        self.receiving = None;
    }

    fn record(&self, status: u32, now: Duration) {
        if let Kind::Grpc { method, .. } = &self.kind {
            method.record(status, now.saturating_sub(self.started));
        }
    }
}

enum Refusal {
    Http(StatusCode),
    Grpc(Violation),
}

impl Refusal {
    fn send(self, mut respond: SendResponse<Bytes>) {
        let answer = match self {
            Self::Http(status) => response(status, HeaderMap::new()),
            Self::Grpc(violation) => {
                let mut headers = grpc_headers(HeaderMap::new());
                headers.insert("grpc-status", HeaderValue::from(violation.status));
                headers.insert("grpc-message", grpc::encode_message(&violation.message));
                response(StatusCode::OK, headers)
            }
        };
        // The peer may be gone already: then there is nobody to refuse.
        let _ = respond.send_response(answer, true);
    }
}

fn grpc_kind(
    table: &CallTable,
    verb: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<Kind, Refusal> {
    if verb != Method::POST {
        return Err(Refusal::Http(StatusCode::METHOD_NOT_ALLOWED));
    }
    let refuse = |status, message: String| Err(Refusal::Grpc(Violation::new(status, message)));
    let Some((index, method)) = table.find(path) else {
        return refuse(
            code::UNIMPLEMENTED,
            format!("method {path} is not served here"),
        );
    };
    let timeout = match headers.get("grpc-timeout") {
        None => None,
        Some(value) => match grpc::parse_timeout(value.as_bytes()) {
            Some(timeout) => Some(timeout),
            None => return refuse(code::INTERNAL, format!("malformed grpc-timeout: {value:?}")),
        },
    };
    if let Some(encoding) = headers.get("grpc-encoding")
        && encoding != "identity"
    {
        return refuse(
            code::UNIMPLEMENTED,
            format!("grpc-encoding {encoding:?} is not supported"),
        );
    }
    Ok(Kind::Grpc {
        index,
        method,
        timeout,
    })
}

fn is_grpc_content_type(value: &[u8]) -> bool {
    value
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'+' || rest[0] == b';')
}

fn grpc_headers(mut headers: HeaderMap) -> HeaderMap {
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers
}

fn response(status: StatusCode, headers: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
