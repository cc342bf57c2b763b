//! HTTP/1.1 server connections (RFC 9112).
//!
//! One request is handled at a time: the next one of a pipeline starts when
//! the answer to the one before has left through [`Http1Connection::poll_output`].
//! So a peer that sends and never reads costs one answer and one input buffer.
//! It follows that an answer, and output taken, can bring the next event:
//! poll for events again after both.
//!
//! Where the grammar leaves room for two readings of where a request ends,
//! the request is refused: another server on the path may have read it the
//! other way, and what is a body to it would be a request to us.

mod body;
mod head;
mod lines;
mod response;
mod streaming;

use crate::message::{HttpEvent, HttpLimits, HttpRequest, Problem};
use body::Body;
use bytes::{Bytes, BytesMut};
use head::{Framing, Head};
use http::{HeaderMap, Method, StatusCode, Version};
use lines::{Lines, Scan};
use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

/// How much of a pipeline is read ahead while a request is being answered.
const READ_AHEAD: usize = 16 * 1024;

/// A body that is too large is read and dropped up to this many times the
/// limit, which keeps the connection; a larger one costs the connection.
const SKIP_FACTOR: usize = 4;

/// How long to go on reading from a peer that was refused in the middle of
/// sending. Closing at once would reset the connection, and a reset destroys
/// the answer that the peer has not read yet (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(1);

const CONTINUE: Bytes = Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n");

/// The server's end of one HTTP/1.1 connection.
#[derive(Debug)]
pub struct Http1Connection {
    limits: HttpLimits,
    /// Whether bodies are handed on as they come.
    streams_bodies: bool,
    now: Duration,
    deadline: Option<Duration>,
    input: BytesMut,
    reader: Reader,
    exchange: Option<Exchange>,
    next_stream: u32,
    events: VecDeque<HttpEvent>,
    output: VecDeque<Bytes>,
    shutting_down: bool,
    peer_is_done: bool,
}

/// What the next byte of input is.
#[derive(Debug)]
enum Reader {
    /// Part of a request head; also: nothing has come yet.
    Head(Lines),
    /// Part of the body of a request that is not delivered yet.
    Body(Box<Head>, Body),
    /// Part of a body that is handed on as it comes.
    Stream(Body),
    /// Part of a body that was refused, before or after the answer to it.
    Skip(Body),
    /// Part of the request after the one that waits for its answer.
    Complete,
    /// Of no use: the connection closes after the answer, or after lingering.
    Swallow,
    /// Impossible, or ignored.
    Closed,
}

/// The request that waits for its answer.
#[derive(Debug)]
struct Exchange {
    stream: u32,
    framing: response::Framing,
    keep_alive: bool,
    linger: bool,
    /// Whether the head of an answer in parts is out.
    answering: bool,
}

impl Http1Connection {
    /// A connection that has just been accepted.
    pub fn new(limits: HttpLimits, now: Duration) -> Self {
        let deadline = now.checked_add(limits.idle_timeout);
        Self {
            limits,
            streams_bodies: false,
            now,
            deadline,
            input: BytesMut::new(),
            reader: Reader::Head(Lines::of_head()),
            exchange: None,
            next_stream: 1,
            events: VecDeque::new(),
            output: VecDeque::new(),
            shutting_down: false,
            peer_is_done: false,
        }
    }

    /// Takes what the peer has sent.
    pub fn handle_input(&mut self, data: &[u8], now: Duration) {
        self.now = now;
        if !matches!(self.reader, Reader::Swallow | Reader::Closed) {
            self.input.extend_from_slice(data);
            self.advance();
        }
    }

    /// The peer will send nothing more. A request that waits for its answer is
    /// reset: in HTTP/1.1 this is all that a client does to give up.
    pub fn handle_eof(&mut self) {
        self.peer_is_done = true;
        match (&self.reader, &self.exchange) {
            // Refusals need no handler to be cancelled, and half of a request
            // followed by an end still deserves to hear why.
            (Reader::Swallow, Some(_)) => return,
            (_, Some(exchange)) => {
                let stream = exchange.stream;
                self.events.push_back(HttpEvent::Reset { stream });
                self.exchange = None;
            }
            (_, None) => {}
        }
        self.close();
    }

    /// Time has passed; due or not, `now` is always welcome.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.now = now;
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        match &self.reader {
            Reader::Head(lines) if lines.started() => self.refuse(None, Problem::Timeout),
            Reader::Body(..) => {
                let head = self.take_head();
                self.refuse(head, Problem::Timeout);
            }
            Reader::Skip(_) if self.exchange.is_some() => self.abandon_body(),
            Reader::Stream(_) => self.break_off(Problem::Timeout),
            _ => self.close(),
        }
    }

    /// When [`Self::handle_timeout`] wants to be called, if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.deadline
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<HttpEvent> {
        if self.events.is_empty() {
            self.advance();
        }
        self.events.pop_front()
    }

    /// Answers a request. An answer to anything else than the request in hand
    /// comes too late and is dropped.
    ///
    /// `content-length` and `connection` are set here, whatever `headers` say;
    /// `connection: close` in them is obeyed.
    pub fn respond(
        &mut self,
        stream: u32,
        status: StatusCode,
        headers: &HeaderMap,
        body: Bytes,
        now: Duration,
    ) {
        self.now = now;
        let Some(exchange) = self.exchange.take_if(|exchange| exchange.stream == stream) else {
            return;
        };
        let keep_alive = self.keeps_alive(&exchange) && !head::asks_to_close(headers);
        response::write(
            &mut self.output,
            exchange.framing,
            keep_alive,
            status,
            headers,
            body,
        );
        self.after_answer(&exchange, keep_alive);
    }

    fn keeps_alive(&self, exchange: &Exchange) -> bool {
        // Nobody can tell how much is still to come of a body that is not wanted.
        exchange.keep_alive && !self.shutting_down && !matches!(self.reader, Reader::Stream(_))
    }

    fn after_answer(&mut self, exchange: &Exchange, keep_alive: bool) {
        match &self.reader {
            Reader::Skip(_) if keep_alive => {}
            Reader::Complete if keep_alive => self.await_head(),
            Reader::Complete if self.input.is_empty() => self.close(),
            _ if exchange.linger => self.linger(),
            _ => self.close(),
        }
    }

    /// The next piece to send.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    /// Whether more input is of use now. While it is not, the caller leaves it
    /// in the socket, so that the peer slows down.
    pub fn wants_read(&self) -> bool {
        match &self.reader {
            Reader::Body(..) | Reader::Stream(_) | Reader::Skip(_) | Reader::Swallow => {
                !self.peer_is_done
            }
            Reader::Head(_) if self.output.is_empty() => true,
            Reader::Head(_) | Reader::Complete => self.input.len() < READ_AHEAD,
            Reader::Closed => false,
        }
    }

    /// Answers the request that has begun, if any, and closes.
    pub fn shutdown(&mut self) {
        self.shutting_down = true;
        match &self.reader {
            Reader::Head(_) if self.input.is_empty() => self.close(),
            Reader::Skip(_) if self.exchange.is_none() => self.linger(),
            _ => {}
        }
    }

    /// Whether the caller can close the socket.
    pub fn is_finished(&self) -> bool {
        matches!(self.reader, Reader::Closed) && self.output.is_empty()
    }

    fn advance(&mut self) {
        while self.step() {}
    }

    /// Takes one step through the input; false if it needs more, or may not.
    fn step(&mut self) -> bool {
        match &mut self.reader {
            Reader::Head(lines) => {
                if self.input.is_empty() || !self.output.is_empty() {
                    return false;
                }
                if !lines.started() {
                    self.deadline = self.now.checked_add(self.limits.header_timeout);
                }
                match lines.advance(&self.input, self.limits.max_header_bytes) {
                    Scan::More => return false,
                    Scan::End(end) => self.take_request(end),
                    Scan::Malformed => {
                        let seen = self.input.split_to(lines.scanned());
                        self.refuse_head(&seen, Problem::Malformed);
                    }
                    Scan::TooLarge => self.refuse(None, Problem::HeadersTooLarge),
                }
            }
            Reader::Body(_, body) => match body.read(&mut self.input) {
                Ok(None) => return false,
                Ok(Some(content)) => {
                    if let Some(head) = self.take_head() {
                        self.deliver(head, content);
                    }
                }
                Err(Problem::BodyTooLarge) => self.refuse_body(),
                Err(problem) => {
                    let head = self.take_head();
                    self.refuse(head, problem);
                }
            },
            Reader::Stream(_) => return self.step_stream(),
            Reader::Skip(body) => match body.skip(&mut self.input) {
                Ok(false) => return false,
                Ok(true) if self.exchange.is_some() => self.complete(),
                Ok(true) => self.await_head(),
                Err(_) => self.abandon_body(),
            },
            Reader::Swallow => {
                self.input.clear();
                return false;
            }
            Reader::Complete | Reader::Closed => return false,
        }
        true
    }

    /// The head of a request ends at `end`.
    fn take_request(&mut self, end: usize) {
        let bytes = self.input.split_to(end);
        let head = match head::parse(&bytes, self.limits.max_headers) {
            Ok(head) => Box::new(head),
            Err(problem) => return self.refuse_head(&bytes, problem),
        };
        if self.streams_bodies {
            return self.begin_stream(head);
        }
        match head.framing {
            Framing::Empty => self.deliver(head, Bytes::new()),
            // Without leave the peer may or may not send what it announced, so
            // nobody can tell where the next request would start.
            Framing::Length(length) if length > self.limits.max_body && head.expects_continue => {
                self.refuse(Some(head), Problem::BodyTooLarge);
            }
            Framing::Length(_) | Framing::Chunked => {
                if head.expects_continue {
                    self.output.push_back(CONTINUE);
                }
                self.deadline = self.now.checked_add(self.limits.body_timeout);
                let body = Body::new(head.framing, &self.limits);
                self.reader = Reader::Body(head, body);
            }
        }
    }

    /// The head of the request whose body was being read.
    fn take_head(&mut self) -> Option<Box<Head>> {
        match mem::replace(&mut self.reader, Reader::Complete) {
            Reader::Body(head, _) => Some(head),
            other => {
                self.reader = other;
                None
            }
        }
    }

    fn deliver(&mut self, head: Box<Head>, body: Bytes) {
        self.open(Some(head), body, None, true);
        self.complete();
    }

    /// Refuses what came as a head. A peer that does not even begin like one
    /// speaks something else, and would take our answer for it: no answer then.
    fn refuse_head(&mut self, seen: &[u8], problem: Problem) {
        let is_first = self.next_stream == 1;
        if is_first && problem == Problem::Malformed && !head::resembles_request(seen) {
            self.close();
        } else {
            self.refuse(None, problem);
        }
    }

    /// Refuses a request after which no other can be read.
    fn refuse(&mut self, head: Option<Box<Head>>, problem: Problem) {
        self.open(head, Bytes::new(), Some(problem), false);
        self.deadline = None;
        self.input = BytesMut::new();
        self.reader = Reader::Swallow;
    }

    /// Refuses a body that is too large, and goes on after it if that is cheap.
    fn refuse_body(&mut self) {
        match mem::replace(&mut self.reader, Reader::Complete) {
            Reader::Body(head, mut body) => {
                if body.allow(SKIP_FACTOR) {
                    self.open(Some(head), Bytes::new(), Some(Problem::BodyTooLarge), true);
                    self.reader = Reader::Skip(body);
                } else {
                    self.refuse(Some(head), Problem::BodyTooLarge);
                }
            }
            other => self.reader = other,
        }
    }

    /// Emits a request and waits for the answer to it.
    fn open(
        &mut self,
        head: Option<Box<Head>>,
        body: Bytes,
        problem: Option<Problem>,
        reusable: bool,
    ) {
        let stream = self.next_stream;
        self.next_stream = stream.wrapping_add(1);
        let head = head.map_or_else(Head::unknown, |head| *head);
        self.exchange = Some(Exchange {
            stream,
            framing: response::Framing {
                head_only: head.method == Method::HEAD,
                http10: head.http10,
            },
            keep_alive: reusable && head.keep_alive,
            linger: problem != Some(Problem::Timeout),
            answering: false,
        });
        self.events.push_back(HttpEvent::Request(HttpRequest {
            stream,
            method: head.method,
            target: head.target,
            headers: head.headers,
            body,
            version: Version::HTTP_11,
            problem,
        }));
    }

    /// The request is read to its end; now it is the handler's time.
    fn complete(&mut self) {
        self.deadline = None;
        self.reader = Reader::Complete;
    }

    fn await_head(&mut self) {
        if self.input.is_empty() {
            // An idle connection keeps no buffer.
            self.input = BytesMut::new();
        }
        self.deadline = self.now.checked_add(self.limits.idle_timeout);
        self.reader = Reader::Head(Lines::of_head());
    }

    /// The rest of a refused body will not be read after all.
    fn abandon_body(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.keep_alive = false;
            self.deadline = None;
            self.reader = Reader::Swallow;
        } else {
            self.linger();
        }
    }

    fn linger(&mut self) {
        if self.peer_is_done {
            return self.close();
        }
        self.input = BytesMut::new();
        self.deadline = self.now.checked_add(LINGER);
        self.reader = Reader::Swallow;
    }

    fn close(&mut self) {
        self.input = BytesMut::new();
        self.deadline = None;
        self.reader = Reader::Closed;
    }
}
