//! The client's side of an HTTP/2 connection that carries gRPC calls.

mod call;
mod greeting;
mod lifetime;
mod opening;
mod replies;

use self::call::{Call, Waiting, ended_event, failed, late};
use self::greeting::{Greeting, OWN_FIELDS, list_size};
use crate::compress::{self, Encoding};
use crate::grpc::{Framed, code};
use crate::guard::{Flood, FloodLimits, Guard};
use crate::keepalive::{Keepalive, KeepaliveSettings, LAST_STREAM};
use crate::outbound::SEND_BUFFER;
use crate::pipe::{DATA_FRAME_BUDGET, INPUT_LIMIT, Pipe, ReadyList};
use crate::stats::{CallTable, Running};
use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{PingPong, Reason};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, header};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Streams opened before the peer's SETTINGS have told its limit: the least
/// that RFC 9113, 6.5.2 recommends it to allow. Strict peers take more for an error.
const ASSUMED_MAX_STREAMS: usize = 100;

/// Calls that were cancelled and are remembered for a second, so that answers
/// on their way are passed over. h2's 50 are few where deadlines pass together.
const REMEMBERED_RESETS: usize = 10_000;

/// Why a connection has ended that the server left without a GOAWAY.
const CUT_OFF: &str = "the server closed the connection";

/// Bounds of one connection.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// Largest message in bytes.
    pub max_message: usize,
    /// Largest header list in bytes that is accepted.
    pub max_header_bytes: u32,
    /// Flow-control window of a stream in bytes.
    pub stream_window: u32,
    /// Flow-control window of the connection in bytes.
    pub connection_window: u32,
    /// Calls that may wait for the server to allow another stream.
    pub max_waiting: usize,
    /// What compresses the requests that do not choose.
    pub compression: Option<Encoding>,
    /// What the server may do for nothing; resets are its right.
    pub floods: FloodLimits,
    /// When to ping the server, if ever.
    pub keepalive: Option<KeepaliveSettings>,
    /// A connection whose streams have come to this id takes no new calls.
    pub last_stream: u32,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            max_message: 4 * 1024 * 1024,
            max_header_bytes: 16 * 1024,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            max_waiting: 10_000,
            compression: None,
            floods: FloodLimits::default(),
            keepalive: None,
            last_stream: LAST_STREAM,
        }
    }
}

/// How a call ended.
#[derive(Debug)]
pub struct Outcome {
    /// The gRPC status code.
    pub status: u32,
    /// The decoded `grpc-message`, or a reason found here.
    pub message: Option<String>,
    /// Trailers, or the headers of a trailers-only answer.
    pub trailers: HeaderMap,
    /// Whether the server certainly did not process the call: it may be tried
    /// again even if it is not idempotent.
    pub unprocessed: bool,
    /// Whether it never left the client: it may be tried again and again.
    pub unsent: bool,
}

/// What happened on the connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// A call whose reply is one message has ended.
    Reply {
        /// The call.
        call: u32,
        /// Response headers, empty if there were none.
        headers: HeaderMap,
        /// The reply, if one came.
        message: Option<Bytes>,
        /// The end.
        outcome: Outcome,
    },
    /// Response headers of a streaming call.
    Headers {
        /// The call.
        call: u32,
        /// The headers.
        headers: HeaderMap,
    },
    /// A message of a streaming reply. Report it with `consume` when the application has taken it.
    Message {
        /// The call.
        call: u32,
        /// The message.
        data: Bytes,
    },
    /// A streaming call has ended.
    End {
        /// The call.
        call: u32,
        /// The end.
        outcome: Outcome,
    },
    /// There is room again after a `send_message` that answered false.
    Writable {
        /// The call.
        call: u32,
    },
    /// The connection takes no new calls; those in progress may go on.
    Draining,
    /// The connection ended; every call was reported as ended before.
    Closed {
        /// Why, if not by agreement.
        error: Option<String>,
    },
}

/// A call to start.
#[derive(Debug)]
pub struct Start {
    /// Index of the method in the table.
    pub method: u32,
    /// The application's metadata; `grpc-encoding` instead of the connection's own.
    pub metadata: HeaderMap,
    /// When to give up, as an absolute time.
    pub deadline: Option<Duration>,
    /// The framed request, for methods whose request is one message.
    pub request: Option<Framed>,
    /// Whether the reply is one message, to be reported with the end.
    pub unary_reply: bool,
}

enum State {
    Handshaking(Handshaking),
    Open(Box<Connection<Pipe, Bytes>>),
    Closed,
}

type Handshaking = Pin<Box<dyn Future<Output = Handshaked> + Send>>;
type Handshaked = Result<(SendRequest<Bytes>, Connection<Pipe, Bytes>), h2::Error>;

/// One connection. See the [crate's documentation](crate) for the order of calls.
pub struct ClientConnection {
    limits: ClientLimits,
    table: Arc<CallTable>,
    scheme: Scheme,
    authority: Authority,
    base: HeaderMap,
    /// What a request's header list counts beside its metadata and its path.
    own_fields: usize,
    /// The largest header list that the server takes.
    max_fields: usize,
    /// Until the server has told its limits.
    greeting: Option<Greeting>,
    pipe: Pipe,
    state: State,
    sender: Option<SendRequest<Bytes>>,
    ready: Arc<ReadyList>,
    woken: Vec<u32>,
    calls: FxHashMap<u32, Call>,
    waiting: VecDeque<Waiting>,
    deadlines: BinaryHeap<Reverse<(Duration, u32)>>,
    events: VecDeque<ClientEvent>,
    next_call: u32,
    draining: bool,
    /// Messages that came since the pipe was told.
    messages: u32,
    keepalive: Option<Keepalive>,
    pings: Option<PingPong>,
    pings_refused: bool,
    now: Duration,
}

impl ClientConnection {
    /// A connection that was just opened. `None` if `authority` is no valid
    /// host and port.
    pub fn new(
        table: Arc<CallTable>,
        limits: ClientLimits,
        tls: bool,
        authority: &str,
        user_agent: &str,
        now: Duration,
    ) -> Option<Self> {
        let guard = Guard::of_client(limits.floods.clone(), limits.max_header_bytes, now);
        let pipe = Pipe::new(guard);
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .max_header_list_size(limits.max_header_bytes)
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .initial_max_send_streams(ASSUMED_MAX_STREAMS)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            // What a server sends for a forgotten stream is its answer that
            // crossed our cancellation: no reason ever to end the connection.
            .max_local_error_reset_streams(None)
            .data_frame_budget(DATA_FRAME_BUDGET);
        let handshake: Handshaking = {
            let pipe = pipe.clone();
            Box::pin(async move { builder.handshake::<_, Bytes>(pipe).await })
        };
        let mut base = HeaderMap::with_capacity(8);
        base.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        base.insert(header::TE, HeaderValue::from_static("trailers"));
        base.insert(
            compress::ACCEPT_ENCODING,
            HeaderValue::from_static(compress::ACCEPTED),
        );
        base.insert(header::USER_AGENT, HeaderValue::from_str(user_agent).ok()?);
        let own_fields = OWN_FIELDS + authority.len() + list_size(&base);
        let keepalive = limits.keepalive.map(|each| Keepalive::new(each, now));
        let mut this = Self {
            limits,
            table,
            scheme: if tls { Scheme::HTTPS } else { Scheme::HTTP },
            authority: Authority::try_from(authority).ok()?,
            base,
            own_fields,
            max_fields: usize::MAX,
            greeting: Some(Greeting::default()),
            pipe,
            state: State::Handshaking(handshake),
            sender: None,
            ready: Arc::default(),
            woken: Vec::new(),
            calls: FxHashMap::default(),
            waiting: VecDeque::new(),
            deadlines: BinaryHeap::new(),
            events: VecDeque::new(),
            next_call: 1,
            draining: false,
            messages: 0,
            keepalive,
            pings: None,
            pings_refused: false,
            now,
        };
        this.drive();
        Some(this)
    }

    /// Bytes came from the peer.
    pub fn handle_input(&mut self, data: &[u8], now: Duration) {
        self.take_input(data, now, Pipe::feed);
    }

    /// As [`Self::handle_input`]; what is given away is not copied.
    pub fn handle_bytes(&mut self, data: Bytes, now: Duration) {
        self.take_input(data, now, Pipe::feed_bytes);
    }

    fn take_input<D: AsRef<[u8]>>(
        &mut self,
        data: D,
        now: Duration,
        feed: fn(&Pipe, D, Duration, bool),
    ) {
        self.now = now;
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.heard(now);
        }
        if let Some(greeting) = &mut self.greeting
            && let Some(limit) = greeting.read(data.as_ref())
        {
            self.max_fields = limit;
            self.greeting = None;
        }
        if !matches!(self.state, State::Closed) {
            feed(&self.pipe, data, now, true);
            self.drive();
        }
    }

    /// The peer will send no more, or the connection broke.
    pub fn handle_eof(&mut self, now: Duration) {
        self.now = now;
        self.pipe.feed_eof();
        self.drive();
        self.close(Some(CUT_OFF.to_owned()));
    }

    /// Ends the calls whose deadline has come, and looks whether the server lives.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.now = now;
        while let Some(Reverse((deadline, call))) = self.deadlines.peek().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop();
            let outcome = late();
            if let Some(mut entry) = self.calls.remove(&call) {
                entry.reset(Reason::CANCEL);
                self.report(call, &mut entry, outcome);
            } else if let Some(position) = self.waiting.iter().position(|w| w.call == call)
                && let Some(waiting) = self.waiting.remove(position)
            {
                self.report_waiting(&waiting, outcome);
            }
        }
        self.look_after_server();
        self.drive();
    }

    /// When [`Self::handle_timeout`] is due, as an absolute time.
    pub fn poll_timeout(&mut self) -> Option<Duration> {
        // Most calls end long before their deadline: what they leave here goes
        // when it comes to the top.
        let look = self.keepalive.as_ref().map(|each| each.due(self.now));
        while let Some(Reverse((deadline, call))) = self.deadlines.peek().copied() {
            if self.calls.contains_key(&call) || self.waiting.iter().any(|w| w.call == call) {
                return Some(look.map_or(deadline, |look| look.min(deadline)));
            }
            self.deadlines.pop();
        }
        look
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Shows the bytes for the peer to `take`; `None` if there are none.
    pub fn drain_output<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.drive();
        self.pipe.inspect_output();
        self.pipe.drain(take)
    }

    /// False while the peer has to be kept from sending.
    pub fn wants_read(&self) -> bool {
        self.pipe.backlog() < INPUT_LIMIT
    }

    /// Whether there is anything to do for `drain_output`'s caller.
    pub fn wants_write(&self) -> bool {
        self.pipe.has_output() || matches!(self.state, State::Closed)
    }

    /// Whether the connection is over and everything was handed out.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Closed) && !self.pipe.has_output()
    }

    /// Whether new calls would be refused.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether the server has ended the connection because it was pinged too often.
    pub fn pings_refused(&self) -> bool {
        self.pings_refused
    }

    /// Calls that are open or wait for a stream.
    pub fn in_flight(&self) -> usize {
        self.calls.len() + self.waiting.len()
    }

    /// Starts a call and gives its id. It waits while the server allows no more streams.
    /// `None` if the connection takes no new calls or too many are waiting.
    pub fn start(&mut self, start: Start, now: Duration) -> Option<u32> {
        self.now = now;
        if self.draining || self.waiting.len() >= self.limits.max_waiting {
            return None;
        }
        let call = self.next_call;
        self.next_call = self.next_call.checked_add(1)?;
        if let Some(deadline) = start.deadline {
            self.trim_deadlines();
            self.deadlines.push(Reverse((deadline, call)));
        }
        let method = self.table.get(start.method);
        let waiting = Waiting {
            call,
            method: method.map(|method| Running::new(method, &start.metadata)),
            started: now,
            start,
            queue: Vec::new(),
            queued: 0,
            ended: false,
        };
        if self.waiting.is_empty() && !self.is_early(&waiting) && self.has_room() {
            self.open(waiting);
        } else {
            self.waiting.push_back(waiting);
        }
        Some(call)
    }

    /// Sends a message of a streaming request. False: wait for
    /// [`ClientEvent::Writable`] (or End) before the next one.
    pub fn send_message(&mut self, call: u32, framed: impl Into<Framed>) -> bool {
        let framed = framed.into();
        if let Some(entry) = self.calls.get_mut(&call) {
            entry.ready.rearm();
            let mut context = Context::from_waker(&entry.waker);
            let framed = match entry.encoding {
                None => framed,
                Some(encoding) => encoding.compress(framed).into(),
            };
            return match &mut entry.sending {
                // An error here is the stream's end, which the next poll reports.
                Some(sending) => sending.push(framed, &mut context).unwrap_or(true),
                None => true,
            };
        }
        if let Some(waiting) = self.waiting.iter_mut().find(|w| w.call == call) {
            waiting.queued += framed.len();
            waiting.queue.push(framed);
            return waiting.queued <= SEND_BUFFER;
        }
        true
    }

    /// Ends a streaming request.
    pub fn end(&mut self, call: u32) {
        if let Some(entry) = self.calls.get_mut(&call) {
            entry.ready.rearm();
            let mut context = Context::from_waker(&entry.waker);
            if let Some(sending) = &mut entry.sending {
                let _ = sending.end(None, &mut context);
            }
        } else if let Some(waiting) = self.waiting.iter_mut().find(|w| w.call == call) {
            waiting.ended = true;
        }
    }

    /// Gives up a call: `RST_STREAM(CANCEL)`. Nothing is reported for it any more.
    pub fn cancel(&mut self, call: u32, now: Duration) {
        self.now = now;
        if let Some(mut entry) = self.calls.remove(&call) {
            entry.reset(Reason::CANCEL);
            entry.method.end(code::CANCELLED, entry.started, now);
        } else if let Some(position) = self.waiting.iter().position(|w| w.call == call) {
            self.waiting.remove(position);
        }
    }

    /// The application took `size` bytes of messages: the peer may send as many more.
    pub fn consume(&mut self, call: u32, size: usize) {
        if let Some(entry) = self.calls.get_mut(&call) {
            entry.credit.consumed(size);
            entry.settle();
            if entry.deframer.may_expand() {
                self.progress(call);
            }
        }
    }

    /// Takes no new calls; the connection closes when those in progress have ended.
    pub fn shutdown(&mut self) {
        self.drain();
        self.sender = None;
        self.drive();
    }

    fn has_room(&mut self) -> bool {
        let open = self.calls.len();
        self.sender.as_mut().is_some_and(|sender| {
            open < sender.current_max_send_streams()
                && matches!(
                    sender.poll_ready(&mut Context::from_waker(Waker::noop())),
                    Poll::Ready(Ok(()))
                )
        })
    }

    fn drive(&mut self) {
        let noop = Waker::noop();
        loop {
            let mut context = Context::from_waker(noop);
            match &mut self.state {
                State::Closed => return,
                State::Handshaking(handshake) => match handshake.as_mut().poll(&mut context) {
                    Poll::Pending => return,
                    Poll::Ready(Ok((sender, connection))) => {
                        self.sender = Some(sender);
                        self.state = State::Open(Box::new(connection));
                    }
                    Poll::Ready(Err(error)) => return self.close(Some(error.to_string())),
                },
                State::Open(connection) => {
                    let ended = Pin::new(connection).poll(&mut context);
                    let mut woken = std::mem::take(&mut self.woken);
                    let progressed = self.ready.take(&mut woken);
                    for call in woken.drain(..) {
                        self.progress(call);
                    }
                    self.woken = woken;
                    match ended {
                        // Without the end of input, it is a GOAWAY of either side that ends it.
                        Poll::Ready(Ok(())) => {
                            let cut_off = self.pipe.has_eof().then(|| CUT_OFF.to_owned());
                            return self.close(cut_off);
                        }
                        Poll::Ready(Err(error)) => {
                            self.note_refused_pings(&error);
                            return self.close(Some(error.to_string()));
                        }
                        Poll::Pending => {}
                    }
                    if !self.draining
                        && let Some(sender) = &mut self.sender
                        && let Poll::Ready(Err(error)) = sender.poll_ready(&mut context)
                    {
                        self.note_refused_pings(&error);
                        self.drain();
                    }
                    let mut opened = false;
                    while let Some(next) = self.waiting.front()
                        && !self.is_early(next)
                        && !self.draining
                        && self.has_room()
                    {
                        if let Some(waiting) = self.waiting.pop_front() {
                            opened = true;
                            self.open(waiting);
                        }
                    }
                    match self.pipe.resume(std::mem::take(&mut self.messages)) {
                        Ok(resumed) if !resumed && !progressed && !opened => return,
                        Ok(_) => {}
                        Err(flood) => return self.end_by(flood),
                    }
                }
            }
        }
    }

    pub(super) fn drain(&mut self) {
        if !self.draining {
            self.draining = true;
            self.events.push_back(ClientEvent::Draining);
            for waiting in std::mem::take(&mut self.waiting) {
                let mut outcome = failed(code::UNAVAILABLE, "the connection is going away");
                outcome.unprocessed = true;
                outcome.unsent = true;
                self.report_waiting(&waiting, outcome);
            }
        }
    }

    fn report_waiting(&mut self, waiting: &Waiting, outcome: Outcome) {
        if let Some(method) = &waiting.method {
            method.end(outcome.status, waiting.started, self.now);
        }
        self.events.push_back(ended_event(
            waiting.start.unary_reply,
            waiting.call,
            outcome,
        ));
    }

    /// Keeps the heap in proportion to the open calls.
    fn trim_deadlines(&mut self) {
        if self.deadlines.len() > 64 + 4 * (self.calls.len() + self.waiting.len()) {
            let waiting: rustc_hash::FxHashSet<u32> = self.waiting.iter().map(|w| w.call).collect();
            let calls = &self.calls;
            self.deadlines
                .retain(|Reverse((_, call))| calls.contains_key(call) || waiting.contains(call));
        }
    }

    fn end_by(&mut self, flood: Flood) {
        self.pipe.end_by(flood);
        self.close(Some(flood.to_string()));
    }

    fn close(&mut self, error: Option<String>) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.drain();
        self.state = State::Closed;
        self.keepalive = None;
        self.sender = None;
        let reason = error.as_deref().unwrap_or("the connection was closed");
        for (call, mut entry) in std::mem::take(&mut self.calls) {
            self.report(call, &mut entry, failed(code::UNAVAILABLE, reason));
        }
        self.events.push_back(ClientEvent::Closed { error });
    }
}
