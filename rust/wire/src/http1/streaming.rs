//! Requests whose bodies are handed on as they come, and answers in parts.

use super::body::Body;
use super::head::{Framing, Head};
use super::{CONTINUE, Http1Connection, Reader, response};
use crate::message::{HttpEvent, HttpLimits, Problem};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::mem;
use std::time::Duration;

impl Http1Connection {
    /// A connection that has just been accepted, and that hands on bodies as they come: their
    /// size is the caller's to bound.
    pub fn streaming(limits: HttpLimits, now: Duration) -> Self {
        let mut this = Self::new(limits, now);
        this.streams_bodies = true;
        this
    }

    /// The body being read may take as long as it likes.
    pub fn wait_for_body(&mut self) {
        if matches!(self.reader, Reader::Stream(_)) {
            self.deadline = None;
        }
    }

    /// Whether a part of the body has yet to come.
    pub fn is_receiving(&self) -> bool {
        matches!(self.reader, Reader::Stream(_))
    }

    /// Begins an answer in parts, unless it has begun.
    pub fn start(&mut self, stream: u32, status: StatusCode, headers: &HeaderMap) {
        let Some(mut exchange) = self.exchange.take_if(|exchange| exchange.stream == stream) else {
            return;
        };
        if !exchange.answering {
            exchange.answering = true;
            exchange.keep_alive &= !self.shutting_down && !exchange.framing.http10;
            let head = response::open(exchange.framing, exchange.keep_alive, status, headers);
            self.output.push_back(head);
        }
        self.exchange = Some(exchange);
    }

    /// Sends a part of an answer that has begun.
    pub fn send(&mut self, stream: u32, data: Bytes) {
        if let Some(exchange) = &self.exchange
            && exchange.stream == stream
            && exchange.answering
        {
            response::part(&mut self.output, exchange.framing, data);
        }
    }

    /// Ends an answer that has begun.
    pub fn end(&mut self, stream: u32, now: Duration) {
        self.now = now;
        let is_meant =
            |exchange: &mut super::Exchange| exchange.stream == stream && exchange.answering;
        let Some(exchange) = self.exchange.take_if(is_meant) else {
            return;
        };
        let last = response::last(exchange.framing);
        if !last.is_empty() {
            self.output.push_back(Bytes::from_static(last));
        }
        let keep_alive = self.keeps_alive(&exchange);
        self.after_answer(&exchange, keep_alive);
    }

    /// Gives up: the peer sees that its answer is not complete.
    pub fn abort(&mut self) {
        self.exchange = None;
        self.close();
    }

    pub(super) fn begin_stream(&mut self, head: Box<Head>) {
        let framing = head.framing;
        if head.expects_continue {
            self.output.push_back(CONTINUE);
        }
        self.open(Some(head), Bytes::new(), None, true);
        if framing == Framing::Empty {
            self.end_stream();
        } else {
            self.deadline = self.now.checked_add(self.limits.body_timeout);
            self.reader = Reader::Stream(Body::new(framing, &self.limits));
        }
    }

    /// Takes one step through a body; false if it needs more input.
    pub(super) fn step_stream(&mut self) -> bool {
        let Reader::Stream(body) = &mut self.reader else {
            return false;
        };
        match body.take(&mut self.input) {
            Ok((data, ended)) => {
                let moves = ended || !data.is_empty();
                if let Some(exchange) = &self.exchange
                    && !data.is_empty()
                {
                    let stream = exchange.stream;
                    self.events.push_back(HttpEvent::Data { stream, data });
                }
                if ended {
                    self.end_stream();
                }
                moves
            }
            Err(problem) => {
                self.break_off(problem);
                true
            }
        }
    }

    fn end_stream(&mut self) {
        if let Some(exchange) = &self.exchange {
            let stream = exchange.stream;
            self.events.push_back(HttpEvent::End { stream });
        }
        self.complete();
    }

    /// No more of the body will be read; after the answer, the connection ends.
    pub(super) fn break_off(&mut self, problem: Problem) {
        if let Some(exchange) = &mut self.exchange {
            exchange.keep_alive = false;
            let stream = exchange.stream;
            self.events.push_back(HttpEvent::Broken { stream, problem });
        }
        self.deadline = None;
        drop(mem::take(&mut self.input));
        self.reader = Reader::Swallow;
    }
}
