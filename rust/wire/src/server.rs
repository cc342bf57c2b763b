//! The server's side of an HTTP/2 connection that carries gRPC, plain HTTP or both.

pub(crate) mod arrivals;
mod config;
mod lifetime;
mod patience;
mod requests;
mod stream;
mod web;

use self::arrivals::Arrivals;
pub use self::config::{ServerConfig, ServerLimits};
use self::lifetime::Lifetime;
use self::stream::{Kind, Phase, Sending, Stream, grpc_headers};
use crate::compress::Encoding;
use crate::grpc::{self, Framed, code};
use crate::guard::{Bucket, Flood, Guard};
use crate::message::HttpRequest;
use crate::pipe::{DATA_FRAME_BUDGET, INPUT_LIMIT, Pipe, ReadyList};
use crate::web::End;
use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection, Handshake};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Streams that were reset here and are remembered for a second, so that what
/// the client sends before it knows is passed over.
const REMEMBERED_RESETS: usize = 1000;

/// Frames for forgotten streams in the life of a connection. Each costs a reset
/// in reply, which piles up if the client does not read, so there is an end.
const FORGOTTEN_RESETS: usize = 10_000;

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
        /// Whether messages are JSON, in both directions.
        json: bool,
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

/// How long a connection that is to be closed waits for a preface that may be under way.
const LATE_PREFACE: Duration = Duration::from_secs(1);

/// One connection. See the [crate's documentation](crate) for the order of calls.
pub struct ServerConnection {
    config: Arc<ServerConfig>,
    pipe: Pipe,
    state: State,
    ready: Arc<ReadyList>,
    woken: Vec<u32>,
    /// Boxed, for each is taken out and put back whenever something comes for it.
    streams: FxHashMap<u32, Box<Stream>>,
    events: VecDeque<ServerEvent>,
    /// Streams that have a handler or will have one, and handlers whose stream
    /// was reset.
    live: u32,
    now: Duration,
    since: Duration,
    /// Resets that were received or provoked (CVE-2023-44487, CVE-2025-8671).
    resets: Bucket,
    /// Messages that came since the pipe was told.
    messages: u32,
    /// Why the connection has to end now.
    flood: Option<Flood>,
    /// Shut down before the preface came; `since` is when.
    leaving: bool,
    lifetime: Lifetime,
    /// The client was told which encodings are taken: once is enough.
    advertised: bool,
    arrivals: Arc<Arrivals>,
    /// Whether credit was kept from anybody.
    is_rationing: bool,
    /// What the connection's window was widened by for it.
    widened: usize,
}

impl ServerConnection {
    /// A connection that was just accepted.
    pub fn new(config: Arc<ServerConfig>, now: Duration) -> Self {
        let limits = &config.limits;
        let mut guard = Guard::of_server(limits.floods.clone(), limits.max_header_bytes, now);
        if let Some(pings) = config.pings {
            guard.limit_pings(pings);
        }
        let pipe = Pipe::new(guard);
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(limits.max_streams)
            .max_header_list_size(limits.max_header_bytes)
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_send_buffer_size(crate::outbound::SEND_BUFFER)
            // h2 would cut off a client that cancels a batch before we look at
            // it; what comes here is rationed by `count_reset` as any reset.
            .max_pending_accept_reset_streams(limits.floods.resets.burst as usize)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            .max_local_error_reset_streams(Some(FORGOTTEN_RESETS))
            .data_frame_budget(DATA_FRAME_BUDGET);
        let state = State::Handshaking(builder.handshake(pipe.clone()));
        let resets = Bucket::new(limits.floods.resets, now);
        let lifetime = Lifetime::new(&config, now);
        let mut this = Self {
            arrivals: Arrivals::new(&config),
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
            messages: 0,
            flood: None,
            leaving: false,
            lifetime,
            advertised: false,
            is_rationing: false,
            widened: 0,
        };
        this.drive();
        this
    }

    /// Bytes came from the peer.
    pub fn handle_input(&mut self, data: &[u8], now: Duration) {
        self.take_input(data, now, Pipe::feed);
    }

    /// As [`Self::handle_input`]; what is given away is not copied.
    pub fn handle_bytes(&mut self, data: Bytes, now: Duration) {
        self.take_input(data, now, Pipe::feed_bytes);
    }

    fn take_input<D>(&mut self, data: D, now: Duration, feed: fn(&Pipe, D, Duration, bool)) {
        self.now = now;
        self.lifetime.heard(now);
        if !matches!(self.state, State::Closed) {
            feed(&self.pipe, data, now, self.in_flight() > 0);
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
            State::Handshaking(_)
                if now.saturating_sub(self.since)
                    > if self.leaving {
                        LATE_PREFACE
                    } else {
                        limits.handshake_timeout
                    } =>
            {
                self.close(Some(
                    "no HTTP/2 preface within the handshake timeout".into(),
                ));
            }
            State::Open(_) if self.pipe.is_stuck_in_headers(now) => {
                self.flood = Some(Flood::HEADERS);
            }
            State::Open(connection) if self.streams.is_empty() && self.live == 0 => {
                if now.saturating_sub(self.since) > limits.idle_timeout {
                    connection.graceful_shutdown();
                }
            }
            _ => {
                self.expire_requests();
                self.expire_streams();
            }
        }
        self.check_lifetime();
        self.drive();
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// Shows the bytes for the peer to `take`; `None` if there are none.
    pub fn drain_output<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.drive();
        for _ in 0..self.pipe.inspect_output() {
            self.count_reset();
        }
        if let Some(flood) = self.flood.take() {
            self.end_by(flood);
        }
        self.pipe.drain(take)
    }

    /// False while the peer has to be kept from sending: its input is piling up
    /// because it does not read our output, or would be passed over, because it
    /// does not read how the connection ended.
    pub fn wants_read(&self) -> bool {
        let is_told = !matches!(self.state, State::Closed) || !self.pipe.has_output();
        is_told && self.pipe.backlog() < INPUT_LIMIT
    }

    /// Whether there is anything to do for `drain_output`'s caller.
    pub fn wants_write(&self) -> bool {
        self.pipe.has_output() || matches!(self.state, State::Closed)
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
            // The client may have calls on their way already: it has our SETTINGS.
            State::Handshaking(_) => {
                if !self.leaving {
                    self.leaving = true;
                    self.since = self.now;
                }
            }
            State::Closed => {}
        }
    }

    /// Answers a call with one message and OK.
    pub fn respond(
        &mut self,
        stream: u32,
        framed: impl Into<Framed>,
        initial: HeaderMap,
        trailing: HeaderMap,
        now: Duration,
    ) {
        self.now = now;
        let framed = framed.into();
        let Some(mut entry) = self.take_handled(stream) else {
            return self.handler_ended(stream);
        };
        entry.ready.rearm();
        if entry.dialect.is_some() {
            let reply = Some(framed.joined());
            return self.end_web(stream, entry, reply, initial, web::ok(trailing));
        }
        let mut trailers = trailing;
        trailers.insert(&grpc::STATUS, HeaderValue::from_static("0"));
        let framed = entry.packed(framed);
        let result = entry.start_call(initial).and_then(|()| {
            let mut context = Context::from_waker(&entry.waker);
            match &mut entry.sending {
                Sending::Body(body) => body.answer(framed, Some(trailers), &mut context),
                Sending::Idle(_) | Sending::Closed => Ok(()),
            }
        });
        self.after_end(stream, entry, &result, code::OK);
    }

    /// Compresses the messages of a reply from now on; `None`: no more. The
    /// client must accept the encoding. False if the headers are out and have
    /// announced another one, or none.
    pub fn set_encoding(&mut self, stream: u32, encoding: Option<Encoding>) -> bool {
        let Some(entry) = self.streams.get_mut(&stream) else {
            return true;
        };
        entry.set_encoding(encoding)
    }

    /// Sends the response headers of a streaming call, once.
    pub fn send_headers(&mut self, stream: u32, initial: HeaderMap) {
        if let Some(entry) = self.handled(stream) {
            // An error here is a reset, which the next poll reports.
            let _ = entry.start_call(initial);
        }
    }

    /// Sends a message of a streaming call. False: wait for
    /// [`ServerEvent::Writable`] (or Reset) before the next one.
    pub fn send_message(&mut self, stream: u32, framed: impl Into<Framed>) -> bool {
        let framed = framed.into();
        let now = self.now;
        let Some(entry) = self.handled(stream) else {
            return true;
        };
        if entry.start_call(HeaderMap::new()).is_err() {
            return true;
        }
        let framed = match &entry.dialect {
            None => entry.packed(framed),
            Some(dialect) => dialect.message(framed.joined()).into(),
        };
        entry.active_at = now;
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
        let Some(mut entry) = self.take_handled(stream) else {
            return self.handler_ended(stream);
        };
        entry.ready.rearm();
        if entry.dialect.is_some() {
            let end = End {
                status,
                message,
                trailing,
            };
            return self.end_web(stream, entry, None, initial, end);
        }
        let mut trailers = trailing;
        trailers.insert(&grpc::STATUS, HeaderValue::from(status));
        if let Some(message) = message {
            trailers.insert(&grpc::MESSAGE, grpc::encode_message(message));
        }
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
        let Some(mut entry) = self.take_handled(stream) else {
            return self.handler_ended(stream);
        };
        let head = matches!(&entry.kind, Kind::Http { method, .. } if method == Method::HEAD);
        let mut headers = headers;
        for name in [
            header::CONNECTION,
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
        ] {
            headers.remove(name);
        }
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if !bodiless {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        entry.ready.rearm();
        let result = if body.is_empty() || head || bodiless {
            entry.respond_only(status, headers)
        } else {
            entry.start_response(status, headers).and_then(|()| {
                let mut context = Context::from_waker(&entry.waker);
                match &mut entry.sending {
                    Sending::Body(sending) => sending.answer(body, None, &mut context),
                    Sending::Idle(_) | Sending::Closed => Ok(()),
                }
            })
        };
        self.after_end(stream, entry, &result, code::OK);
    }

    /// Ends a stream at once.
    pub fn reset(&mut self, stream: u32, reason: Reason, now: Duration) {
        self.now = now;
        if let Some(mut entry) = self.take_handled(stream) {
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
            // Nothing else waits for the application but what may grow as it is decompressed.
            if entry.deframer.may_expand() {
                entry.ready.rearm();
                self.progress(stream);
            }
        }
    }

    fn drive(&mut self) {
        let noop = Waker::noop();
        loop {
            if let Some(flood) = self.flood.take() {
                return self.end_by(flood);
            }
            let mut context = Context::from_waker(noop);
            match &mut self.state {
                State::Closed => return,
                State::Handshaking(handshake) => match Pin::new(handshake).poll(&mut context) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(mut connection)) => {
                        if self.leaving {
                            connection.graceful_shutdown();
                        }
                        self.state = State::Open(connection);
                    }
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
                    let progressed = self.ready.take(&mut woken);
                    for stream in woken.drain(..) {
                        self.progress(stream);
                    }
                    self.woken = woken;
                    let progressed = self.ration() || progressed;
                    match self.pipe.resume(std::mem::take(&mut self.messages)) {
                        Ok(resumed) if !resumed && !progressed => return,
                        Ok(_) => {}
                        Err(flood) => self.flood = Some(flood),
                    }
                }
            }
        }
    }

    /// The application's answer is complete; the stream may still have bytes to send.
    fn after_end(
        &mut self,
        stream: u32,
        mut entry: Box<Stream>,
        result: &Result<(), h2::Error>,
        status: u32,
    ) {
        self.handler_ended(stream);
        // A client that lets as many calls end as it cancels is no attacker,
        // however many that are.
        self.resets.give(1.0);
        entry.phase = Phase::Answered;
        entry.record(status, self.now);
        if !entry.is_skipping() {
            entry.stop_receiving();
        }
        if result.is_ok() && (entry.is_sending() || entry.is_skipping()) {
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
