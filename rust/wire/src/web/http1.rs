//! Calls over HTTP/1.1, which is what browsers speak without TLS: one at a time on a connection.

use super::{Admission, Admitted, End, Whole, admit};
use crate::compress::Encoding;
use crate::grpc::{Deframer, PREFIX, Violation, code};
use crate::http1::Http1Connection;
use crate::message::{HttpEvent, HttpLimits, HttpRequest, Problem};
use crate::outbound::SEND_BUFFER;
use crate::refusals;
use crate::server::arrivals::{Arrivals, Holding, too_much};
use crate::server::{ServerConfig, ServerEvent, ServerLimits};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a refused request that are waited for: the same for HTTP/2.
const REFUSED_LIMIT: usize = 65_535;

/// Most header fields in a request.
const MAX_HEADERS: usize = 100;

/// The request in hand.
enum State {
    Idle,
    Call(Box<Call>),
    /// The answer waits for the rest of the request, so that it does not cut it off.
    Refused {
        answer: Box<Whole>,
        skipped: usize,
    },
}

struct Call {
    stream: u32,
    admitted: Admitted,
    /// Request headers, until the event that tells a handler takes them.
    headers: Option<HeaderMap>,
    deframer: Deframer,
    message: Option<Bytes>,
    /// What is held of a request that is not whole yet.
    holding: Option<Holding>,
    since: Duration,
    /// When something last came or went.
    active_at: Duration,
    /// The request has ended, but that was not told yet.
    has_ended: bool,
    /// Whether the head of the answer is out.
    is_answering: bool,
    /// Bytes of messages that the handler has not taken.
    unconsumed: usize,
    /// Bytes of the answer that wait for the socket.
    queued: usize,
    blocked: bool,
}

/// One HTTP/1.1 connection, with the events and commands of an HTTP/2 one.
pub(crate) struct WebConnection {
    config: Arc<ServerConfig>,
    http: Http1Connection,
    state: State,
    events: VecDeque<ServerEvent>,
    /// Calls that have a handler or will have one, and handlers whose call was reset.
    live: u32,
    now: Duration,
    told: bool,
    arrivals: Arc<Arrivals>,
}

impl WebConnection {
    pub(crate) fn new(config: Arc<ServerConfig>, now: Duration) -> Self {
        let limits = &config.limits;
        let bounds = HttpLimits {
            // Bodies are streamed: what bounds them is the size of messages.
            max_body: usize::MAX,
            max_header_bytes: limits.max_header_bytes as usize,
            max_headers: MAX_HEADERS,
            header_timeout: limits.handshake_timeout,
            body_timeout: limits.request_timeout,
            idle_timeout: limits.idle_timeout,
        };
        Self {
            arrivals: Arrivals::new(&config),
            config,
            http: Http1Connection::streaming(bounds, now),
            state: State::Idle,
            events: VecDeque::new(),
            live: 0,
            now,
            told: false,
        }
    }

    pub(crate) fn handle_input(&mut self, data: &[u8], now: Duration) {
        self.now = now;
        self.http.handle_input(data, now);
    }

    pub(crate) fn handle_eof(&mut self, now: Duration) {
        self.now = now;
        self.http.handle_eof();
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        self.now = now;
        self.http.handle_timeout(now);
        let limits = &self.config.limits;
        if let State::Call(call) = &self.state
            && call.is_handled()
            && now.saturating_sub(call.active_at) > limits.stream_idle_timeout
            && self.http.is_receiving()
        {
            let stream = call.stream;
            let why = "nothing came or went for too long";
            self.refuse(stream, &Violation::new(code::DEADLINE_EXCEEDED, why));
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<ServerEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            match self.http.poll_event() {
                Some(event) => self.react(event),
                None if self.http.is_finished() && !self.told => {
                    self.told = true;
                    return Some(ServerEvent::Closed { error: None });
                }
                None => return None,
            }
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Bytes> {
        let output = self.http.poll_output();
        if output.is_none()
            && let State::Call(call) = &mut self.state
        {
            call.queued = 0;
            if std::mem::take(&mut call.blocked) {
                let stream = call.stream;
                self.events.push_back(ServerEvent::Writable { stream });
            }
        }
        output
    }

    /// False while the handler has to take messages before more may come.
    pub(crate) fn wants_read(&self) -> bool {
        let window = self.config.limits.stream_window as usize;
        let has_room = match &self.state {
            State::Call(call) => call.unconsumed < window,
            State::Idle | State::Refused { .. } => true,
        };
        has_room && self.http.wants_read()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.http.is_finished()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.live as usize
    }

    pub(crate) fn shutdown(&mut self) {
        self.http.shutdown();
    }

    /// Answers a call with one message and OK.
    pub(crate) fn respond(
        &mut self,
        stream: u32,
        framed: Bytes,
        initial: HeaderMap,
        trailing: HeaderMap,
        now: Duration,
    ) {
        let end = End {
            status: code::OK,
            message: None,
            trailing,
        };
        self.end(stream, Some(framed), initial, end, now);
    }

    /// Sends the head of a streaming answer, once.
    pub(crate) fn send_headers(&mut self, stream: u32, initial: HeaderMap) {
        let Some(call) = self.state.call(stream) else {
            return;
        };
        let dialect = &mut call.admitted.dialect;
        if call.is_answering {
            return;
        }
        if dialect.is_bare() {
            return dialect.keep_initial(initial);
        }
        call.is_answering = true;
        let headers = dialect.head(initial);
        self.http.start(stream, StatusCode::OK, &headers);
    }

    /// Sends a message. False: wait for [`ServerEvent::Writable`] before the next one.
    pub(crate) fn send_message(&mut self, stream: u32, framed: Bytes) -> bool {
        self.send_headers(stream, HeaderMap::new());
        let Some(call) = self.state.call(stream) else {
            return true;
        };
        let data = call.admitted.dialect.message(framed);
        call.active_at = self.now;
        call.queued += data.len();
        call.blocked = call.queued > SEND_BUFFER;
        self.http.send(stream, data);
        !call.blocked
    }

    /// Ends a call with a status, and the reply if there is one.
    pub(crate) fn end(
        &mut self,
        stream: u32,
        reply: Option<Bytes>,
        initial: HeaderMap,
        end: End<'_>,
        now: Duration,
    ) {
        self.now = now;
        self.handler_ended();
        let Some(mut call) = self.state.take_call(stream) else {
            return;
        };
        call.admitted.method.end(end.status, call.since, now);
        self.answer(&mut call, reply, initial, end);
    }

    /// Gives up a call: HTTP/1.1 can only end the connection.
    pub(crate) fn reset(&mut self, stream: u32, now: Duration) {
        self.now = now;
        self.handler_ended();
        if let Some(call) = self.state.take_call(stream) {
            call.admitted.method.end(code::CANCELLED, call.since, now);
            self.http.abort();
        }
    }

    /// A handler has ended, whose call may be over for long.
    pub(crate) fn handler_ended(&mut self) {
        if self.live > 0 {
            self.live -= 1;
            self.config.release_calls(1);
        }
    }

    /// The handler took `size` bytes of messages.
    pub(crate) fn consume(&mut self, stream: u32, size: usize) {
        if let Some(call) = self.state.call(stream) {
            call.unconsumed = call.unconsumed.saturating_sub(size);
            self.advance(stream);
        }
    }

    /// Compresses the messages of the answer from now on.
    pub(crate) fn set_encoding(&mut self, stream: u32, encoding: Option<Encoding>) -> bool {
        let Some(call) = self.state.call(stream) else {
            return true;
        };
        let is_idle = !call.is_answering;
        call.admitted.dialect.set_encoding(encoding, is_idle)
    }

    fn answer(&mut self, call: &mut Call, reply: Option<Bytes>, initial: HeaderMap, end: End<'_>) {
        let (stream, dialect) = (call.stream, &mut call.admitted.dialect);
        if call.is_answering {
            if let Some(reply) = reply {
                self.http.send(stream, dialect.message(reply));
            }
            self.http.send(stream, dialect.end(end));
            self.http.end(stream, self.now);
        } else {
            let answer = dialect.whole(reply, initial, end);
            self.send_whole(stream, answer);
        }
    }

    fn send_whole(&mut self, stream: u32, answer: Whole) {
        self.http.respond(
            stream,
            answer.status,
            &answer.headers,
            answer.body,
            self.now,
        );
    }

    fn react(&mut self, event: HttpEvent) {
        match event {
            HttpEvent::Request(request) => self.begin(request),
            HttpEvent::Data { stream, data } => self.take(stream, data),
            HttpEvent::End { stream } => self.end_request(stream),
            HttpEvent::Broken { stream, problem } => self.broken(stream, problem),
            HttpEvent::Reset { stream } => match self.state.take_call(stream) {
                Some(call) => self.give_up(&call, code::CANCELLED),
                None => self.state = State::Idle,
            },
        }
    }

    fn begin(&mut self, mut request: HttpRequest) {
        let stream = request.stream;
        if let Some(problem) = request.problem {
            let answer = Whole {
                status: match problem {
                    Problem::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                    Problem::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                    Problem::Timeout => StatusCode::REQUEST_TIMEOUT,
                    Problem::Malformed => StatusCode::BAD_REQUEST,
                },
                headers: HeaderMap::new(),
                body: Bytes::new(),
            };
            return self.send_whole(stream, answer);
        }
        let (Some(table), Some(web)) = (&self.config.grpc, &self.config.web) else {
            return self.http.abort();
        };
        let headers = &mut request.headers;
        let (verb, target) = (&request.method, &request.target);
        let path = target.split('?').next().unwrap_or_default();
        match admit(web, self.config.compression, table, verb, target, headers) {
            Admission::Answer(answer) => {
                if !answer.status.is_success() {
                    self.config.count_bad_head(path);
                }
                self.state = State::Refused { answer, skipped: 0 };
            }
            Admission::Call(mut admitted) if !self.config.claim_call(path) => {
                self.config.refusals.count(refusals::OVERLOADED);
                self.state = State::Refused {
                    answer: Box::new(admitted.dialect.busy()),
                    skipped: 0,
                };
            }
            Admission::Call(admitted) => {
                self.live += 1;
                let mut call = Box::new(Call {
                    stream,
                    deframer: Deframer::new(admitted.dialect.inbound()),
                    admitted: *admitted,
                    headers: Some(request.headers),
                    message: None,
                    since: self.now,
                    active_at: self.now,
                    has_ended: false,
                    is_answering: false,
                    holding: None,
                    unconsumed: 0,
                    queued: 0,
                    blocked: false,
                });
                if !call.admitted.method.unary_request() {
                    self.events.push_back(call.event(None));
                    self.http.wait_for_body();
                }
                self.state = State::Call(call);
            }
        }
    }

    fn take(&mut self, stream: u32, data: Bytes) {
        match &mut self.state {
            State::Idle => {}
            State::Refused { skipped, .. } => {
                *skipped += data.len();
                if *skipped > REFUSED_LIMIT {
                    self.end_request(stream);
                }
            }
            State::Call(call) => {
                let limit = self.config.limits.max_message;
                call.active_at = self.now;
                match call.admitted.dialect.take(data, limit) {
                    Ok(data) => {
                        call.deframer.push(data);
                        self.advance(stream);
                    }
                    Err(violation) => self.refuse(stream, &violation),
                }
            }
        }
    }

    /// Takes what can be taken of the request that came.
    fn advance(&mut self, stream: u32) {
        let Some(call) = self.state.call(stream) else {
            return;
        };
        let advanced = call.advance(&self.config.limits, &mut self.events);
        let size = call.incomplete();
        Holding::note(&mut call.holding, &self.arrivals, size);
        let holding = call.holding.as_ref();
        let violation = match advanced {
            Err(violation) => violation,
            Ok(()) if holding.is_some_and(|each| each.is_too_much(&self.config)) => {
                self.config.refusals.count(refusals::MEMORY);
                too_much()
            }
            Ok(()) => return,
        };
        self.refuse(stream, &violation);
    }

    fn end_request(&mut self, stream: u32) {
        match &mut self.state {
            State::Idle => {}
            State::Refused { .. } => {
                if let State::Refused { answer, .. } =
                    std::mem::replace(&mut self.state, State::Idle)
                {
                    self.send_whole(stream, *answer);
                }
            }
            State::Call(call) => {
                call.has_ended = true;
                self.advance(stream);
            }
        }
    }

    fn broken(&mut self, stream: u32, problem: Problem) {
        let violation = match problem {
            Problem::Timeout => Violation::new(
                code::DEADLINE_EXCEEDED,
                "the request took too long to arrive",
            ),
            _ => Violation::new(code::INTERNAL, "the request's body is malformed"),
        };
        if matches!(self.state, State::Refused { .. }) {
            self.end_request(stream);
        } else {
            self.refuse(stream, &violation);
        }
    }

    /// Ends a call by a status of our own.
    fn refuse(&mut self, stream: u32, violation: &Violation) {
        let Some(mut call) = self.state.take_call(stream) else {
            return;
        };
        self.give_up(&call, violation.status);
        self.answer(&mut call, None, HeaderMap::new(), End::from(violation));
    }

    fn give_up(&mut self, call: &Call, status: u32) {
        if call.is_handled() {
            let stream = call.stream;
            self.events.push_back(ServerEvent::Reset { stream });
        } else {
            self.handler_ended();
        }
        call.admitted.method.end(status, call.since, self.now);
    }
}

impl Drop for WebConnection {
    fn drop(&mut self) {
        self.config.release_calls(self.live);
    }
}

impl State {
    fn call(&mut self, stream: u32) -> Option<&mut Call> {
        match self {
            Self::Call(call) if call.stream == stream => Some(call),
            _ => None,
        }
    }

    fn take_call(&mut self, stream: u32) -> Option<Box<Call>> {
        self.call(stream)?;
        match std::mem::replace(self, Self::Idle) {
            Self::Call(call) => Some(call),
            _ => None,
        }
    }
}

impl Call {
    fn is_handled(&self) -> bool {
        self.headers.is_none()
    }

    /// Bytes that are held of what is not whole yet.
    fn incomplete(&self) -> usize {
        let message = self.message.as_ref().map_or(0, Bytes::len);
        self.deframer.len() + message + self.admitted.dialect.held()
    }

    fn event(&mut self, message: Option<Bytes>) -> ServerEvent {
        ServerEvent::Call {
            stream: self.stream,
            method: self.admitted.index,
            headers: self.headers.take().unwrap_or_default(),
            timeout: self.admitted.timeout,
            message,
            json: self.admitted.dialect.json,
        }
    }

    /// Whether the next compressed message has to wait until others were
    /// taken: what came is bounded, what it decompresses to is not.
    fn is_full(&self, window: u32) -> bool {
        self.deframer.may_expand() && self.unconsumed > window as usize
    }

    fn advance(
        &mut self,
        limits: &ServerLimits,
        events: &mut VecDeque<ServerEvent>,
    ) -> Result<(), Violation> {
        while !self.is_full(limits.stream_window)
            && let Some(message) = self.deframer.next(limits.max_message)?
        {
            if !self.admitted.method.unary_request() {
                self.unconsumed += PREFIX + message.len();
                events.push_back(ServerEvent::Message {
                    stream: self.stream,
                    data: message,
                });
            } else if self.message.replace(message).is_some() {
                let why = "more than one message in a unary request";
                return Err(Violation::new(code::INTERNAL, why));
            }
        }
        if self.has_ended && !self.is_full(limits.stream_window) {
            self.has_ended = false;
            events.push_back(self.end(limits.max_message)?);
        }
        Ok(())
    }

    fn end(&mut self, limit: usize) -> Result<ServerEvent, Violation> {
        if let Some(message) = self.admitted.dialect.end_request(limit)? {
            self.message = Some(message);
        }
        if !self.deframer.is_empty() {
            let why = "the request ended inside a message";
            return Err(Violation::new(code::INTERNAL, why));
        }
        if !self.admitted.method.unary_request() {
            return Ok(ServerEvent::End {
                stream: self.stream,
            });
        }
        let why = "a unary request without a message";
        let message = self.message.take();
        let message = message.ok_or_else(|| Violation::new(code::INTERNAL, why))?;
        Ok(self.event(Some(message)))
    }
}
