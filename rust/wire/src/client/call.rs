//! One call of a client connection, and how it can end.

use super::{ClientEvent, Outcome, Start};
use crate::compress::Encoding;
use crate::credit::Credit;
use crate::grpc::{self, Deframer, Framed, code};
use crate::outbound::Outbound;
use crate::pipe::StreamWaker;
use crate::stats::Running;
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

pub(super) enum Receiving {
    Headers(ResponseFuture),
    Body(RecvStream),
    Closed,
}

pub(super) struct Call {
    pub(super) ready: Arc<StreamWaker>,
    pub(super) waker: Waker,
    pub(super) method: Running,
    pub(super) started: Duration,
    pub(super) deadline: Option<Duration>,
    pub(super) unary_reply: bool,
    pub(super) sending: Option<Outbound>,
    pub(super) receiving: Receiving,
    pub(super) headers: HeaderMap,
    /// What compresses the request.
    pub(super) encoding: Option<Encoding>,
    pub(super) deframer: Deframer,
    pub(super) message: Option<Bytes>,
    pub(super) credit: Credit,
}

pub(super) struct Waiting {
    pub(super) call: u32,
    /// None if it was not registered.
    pub(super) method: Option<Running>,
    pub(super) started: Duration,
    pub(super) start: Start,
    /// What a streaming call sent meanwhile.
    pub(super) queue: Vec<Framed>,
    pub(super) queued: usize,
    pub(super) ended: bool,
}

impl Call {
    /// Whether the next compressed message has to wait until the application has
    /// taken others: the window bounds what came, not what it decompresses to.
    pub(super) fn is_full(&self, window: u32) -> bool {
        self.deframer.may_expand() && self.credit.unconsumed() > window as usize
    }

    pub(super) fn settle(&mut self) {
        let back = self.credit.settle(self.deframer.len());
        self.release(back);
    }

    pub(super) fn release(&mut self, size: usize) {
        if let Receiving::Body(body) = &mut self.receiving {
            // Fails only for more than was received, which the counters exclude.
            let _ = body.flow_control().release_capacity(size);
        }
    }

    /// How the call ends by what came of its stream.
    pub(super) fn outcome_of(
        &self,
        error: &h2::Error,
        before_headers: bool,
        now: Duration,
    ) -> Outcome {
        let passed = self.deadline.is_some_and(|deadline| deadline <= now);
        if passed && error.is_remote() && error.reason() == Some(Reason::CANCEL) {
            // Servers that see the deadline before our own timer has come reset what is late.
            return late();
        }
        outcome_of(error, before_headers)
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        if let Some(sending) = &mut self.sending {
            sending.reset(reason);
        }
    }
}

pub(super) fn ended_event(unary_reply: bool, call: u32, outcome: Outcome) -> ClientEvent {
    if unary_reply {
        ClientEvent::Reply {
            call,
            headers: HeaderMap::new(),
            message: None,
            outcome,
        }
    } else {
        ClientEvent::End { call, outcome }
    }
}

pub(super) fn failed(status: u32, message: &str) -> Outcome {
    Outcome {
        status,
        message: Some(message.to_owned()),
        trailers: HeaderMap::new(),
        unprocessed: false,
        unsent: false,
    }
}

/// The end of a call whose deadline has come, whoever saw it first.
pub(super) fn late() -> Outcome {
    failed(code::DEADLINE_EXCEEDED, "the deadline has passed")
}

/// RFC 9113, 6.8 and 8.7: streams beyond a GOAWAY's last id and refused streams
/// were not processed.
pub(super) fn outcome_of(error: &h2::Error, before_headers: bool) -> Outcome {
    // Whatever a server says after it has begun to answer, it has processed something.
    let refused =
        error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM) && before_headers;
    let beyond_goaway = error.is_go_away() && error.is_remote() && before_headers;
    let status = match error.reason() {
        _ if beyond_goaway || error.is_io() => code::UNAVAILABLE,
        Some(reason) if error.is_reset() => grpc::status_from_reset(reason.into()),
        _ => code::UNAVAILABLE,
    };
    let is_shutdown = error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
    let mut outcome = if is_shutdown && error.is_remote() {
        failed(status, "the server has shut the connection down (GOAWAY)")
    } else {
        failed(status, &error.to_string())
    };
    outcome.unprocessed = refused || beyond_goaway;
    outcome
}

pub(super) fn outcome_of_trailers(trailers: Option<HeaderMap>, whole: bool) -> Outcome {
    let Some(trailers) = trailers else {
        return failed(code::INTERNAL, "the answer ended without grpc-status");
    };
    let status = trailers
        .get(&grpc::STATUS)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u32>().ok());
    let Some(status) = status else {
        return failed(code::UNKNOWN, "the answer has no valid grpc-status");
    };
    if status == code::OK && !whole {
        return failed(code::INTERNAL, "the answer ended inside a message");
    }
    let message = trailers
        .get(&grpc::MESSAGE)
        .map(|value| grpc::decode_message(value.as_bytes()));
    let status = if status > 16 { code::UNKNOWN } else { status };
    Outcome {
        status,
        message,
        trailers,
        unprocessed: false,
        unsent: false,
    }
}
