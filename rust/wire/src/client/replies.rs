//! From the frames of a stream to the events of a reply.

use super::call::{Call, Receiving, failed, outcome_of_trailers};
use super::{ClientConnection, ClientEvent, Outcome};
use crate::compress::Encoding;
use crate::grpc::{self, Deframer, Violation, code};
use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{Response, header};
use std::pin::Pin;
use std::task::{Context, Poll};

impl ClientConnection {
    /// Polls one call for all it can give or take.
    pub(super) fn progress(&mut self, call: u32) {
        let Some(mut entry) = self.calls.remove(&call) else {
            return;
        };
        entry.ready.rearm();
        match self.advance(call, &mut entry) {
            Ok(None) => {
                self.calls.insert(call, entry);
            }
            Ok(Some(outcome)) => {
                if entry
                    .sending
                    .as_ref()
                    .is_some_and(|sending| !sending.is_done())
                {
                    entry.reset(Reason::CANCEL);
                }
                self.report(call, &mut entry, outcome);
            }
            Err(Violation { status, message }) => {
                entry.reset(Reason::CANCEL);
                self.report(call, &mut entry, failed(status, &message));
            }
        }
    }

    fn advance(&mut self, call: u32, entry: &mut Call) -> Result<Option<Outcome>, Violation> {
        let waker = entry.waker.clone();
        let mut context = Context::from_waker(&waker);
        if let Some(sending) = &mut entry.sending
            && !sending.is_done()
        {
            let _ = sending.flush(&mut context);
            if sending.take_writable() {
                self.events.push_back(ClientEvent::Writable { call });
            }
        }
        if entry.deframer.may_expand() && !entry.deframer.is_empty() {
            self.take_messages(call, entry)?;
        }
        loop {
            if entry.is_full(self.limits.stream_window) {
                return Ok(None);
            }
            let (error, before_headers) = match &mut entry.receiving {
                Receiving::Closed => return Ok(None),
                Receiving::Headers(response) => match Pin::new(response).poll(&mut context) {
                    Poll::Pending => return Ok(None),
                    Poll::Ready(Err(error)) => (error, true),
                    Poll::Ready(Ok(response)) => {
                        if let Some(outcome) = self.take_headers(call, entry, response) {
                            return Ok(Some(outcome));
                        }
                        continue;
                    }
                },
                Receiving::Body(body) => match body.poll_data(&mut context) {
                    Poll::Pending => return Ok(None),
                    Poll::Ready(Some(Ok(data))) => {
                        self.take_data(call, entry, data)?;
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => (error, false),
                    Poll::Ready(None) => match body.poll_trailers(&mut context) {
                        Poll::Pending => return Ok(None),
                        Poll::Ready(Err(error)) => (error, false),
                        Poll::Ready(Ok(trailers)) => {
                            let whole = entry.deframer.is_empty();
                            return Ok(Some(outcome_of_trailers(trailers, whole)));
                        }
                    },
                },
            };
            return Ok(Some(entry.outcome_of(&error, before_headers, self.now)));
        }
    }

    /// `Some` for a trailers-only answer and for what is no gRPC answer at all.
    fn take_headers(
        &mut self,
        call: u32,
        entry: &mut Call,
        response: Response<RecvStream>,
    ) -> Option<Outcome> {
        let (parts, body) = response.into_parts();
        let grpc = parts
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if parts.headers.contains_key(&grpc::STATUS) && body.is_end_stream() {
            return Some(outcome_of_trailers(Some(parts.headers), true));
        }
        if parts.status != http::StatusCode::OK || !grpc {
            let kind = match parts.headers.get(header::CONTENT_TYPE) {
                Some(kind) => format!("with content-type {kind:?}"),
                None => "without a content-type".to_owned(),
            };
            entry.reset(Reason::CANCEL);
            let status = if parts.status == http::StatusCode::OK {
                code::UNKNOWN
            } else {
                grpc::status_from_http(parts.status)
            };
            let message = format!(
                "the server answered HTTP {} {kind}: expected gRPC",
                parts.status
            );
            return Some(failed(status, &message));
        }
        match Encoding::announced(&parts.headers) {
            Ok(None) => {}
            Ok(encoding) => entry.deframer = Deframer::new(encoding),
            Err(message) => {
                entry.reset(Reason::CANCEL);
                return Some(failed(code::INTERNAL, &message));
            }
        }
        entry.receiving = Receiving::Body(body);
        if entry.unary_reply {
            entry.headers = parts.headers;
        } else {
            self.events.push_back(ClientEvent::Headers {
                call,
                headers: parts.headers,
            });
        }
        None
    }

    fn take_data(&mut self, call: u32, entry: &mut Call, data: Bytes) -> Result<(), Violation> {
        entry.credit.received(data.len());
        entry.deframer.push(data);
        // What waits for the application earns nothing yet, which is not the peer's fault.
        self.messages += u32::from(entry.is_full(self.limits.stream_window));
        self.take_messages(call, entry)
    }

    fn take_messages(&mut self, call: u32, entry: &mut Call) -> Result<(), Violation> {
        while !entry.is_full(self.limits.stream_window)
            && let Some(message) = entry.deframer.next(self.limits.max_message)?
        {
            self.messages += 1;
            if entry.unary_reply {
                if entry.message.replace(message).is_some() {
                    return Err(Violation::new(
                        code::INTERNAL,
                        "more than one message in a unary reply",
                    ));
                }
            } else {
                entry.credit.delivered(grpc::PREFIX + message.len());
                self.events.push_back(ClientEvent::Message {
                    call,
                    data: message,
                });
            }
        }
        entry.settle();
        Ok(())
    }

    pub(super) fn report(&mut self, call: u32, entry: &mut Call, mut outcome: Outcome) {
        if entry.unary_reply && outcome.status == code::OK && entry.message.is_none() {
            outcome = Outcome {
                trailers: outcome.trailers,
                ..failed(code::INTERNAL, "OK without a reply message")
            };
        }
        entry.method.end(outcome.status, entry.started, self.now);
        self.events.push_back(if entry.unary_reply {
            let headers = std::mem::take(&mut entry.headers);
            ClientEvent::Reply {
                call,
                headers,
                message: entry.message.take(),
                outcome,
            }
        } else {
            ClientEvent::End { call, outcome }
        });
    }
}
