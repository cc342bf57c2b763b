//! From the frames of a stream to the events of a request.

use super::arrivals::Share;
use super::stream::{
    Gone, Kind, Phase, REFUSED_LIMIT, SKIP_LIMIT, Sending, Stream, grpc_kind, grpc_only,
    http_problem, is_grpc, refuse_busy, send_whole,
};
use super::web::admit;
use super::{ServerConnection, ServerEvent};
use crate::compress::{self, Encoding};
use crate::credit::Credit;
use crate::grpc::{self, Deframer, Violation, code};
use crate::message::{HttpRequest, Problem};
use crate::pipe::StreamWaker;
use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use std::collections::hash_map::Entry;
use std::task::{Context, Poll};

impl ServerConnection {
    pub(super) fn accept(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (parts, body) = request.into_parts();
        let stream = respond.stream_id().as_u32();
        if self.is_full() {
            return self.refuse_stream(respond);
        }
        self.note_stream(stream);
        let (ready, waker) = StreamWaker::new(stream, &self.ready);
        let mut headers = parts.headers;
        let (mut problem, mut dialect, mut encoding) = (None, None, None);
        let mut patience = self.config.limits.request_timeout;
        let kind = match (&self.config.grpc, &self.config.http) {
            (Some(table), _) if is_grpc(&headers) => {
                match grpc_kind(table, &parts.method, parts.uri.path(), &headers) {
                    Ok((kind, announced)) => {
                        encoding = announced;
                        kind
                    }
                    Err(violation) => {
                        return self.refuse_head(parts.uri.path(), &violation, respond);
                    }
                }
            }
            (Some(table), None) if let Some(web) = &self.config.web => {
                let (verb, uri) = (&parts.method, &parts.uri);
                match admit(web, self.config.compression, table, verb, uri, &mut headers) {
                    Ok((kind, framing)) => {
                        encoding = framing.inbound();
                        dialect = Some(framing);
                        kind
                    }
                    Err(answer) => Kind::Refused {
                        method: parts.method,
                        answer,
                    },
                }
            }
            (_, Some(http)) => {
                problem = http_problem(&parts.method, &parts.uri, &headers, http.max_headers);
                let authority = parts.uri.authority().map(http::uri::Authority::as_str);
                if let Some(host) = authority.and_then(|host| HeaderValue::from_str(host).ok()) {
                    headers.insert(header::HOST, host);
                }
                let target = parts.uri.path_and_query().map_or_else(
                    || parts.uri.path().to_owned(),
                    |target| target.as_str().to_owned(),
                );
                patience = http.body_timeout;
                Kind::Http {
                    method: parts.method,
                    target,
                }
            }
            _ => grpc_only(&parts.method, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        };
        if !self.begin_call(&kind) {
            return refuse_busy(respond, dialect);
        }
        let mut entry = Box::new(Stream {
            ready,
            waker,
            kind,
            started: self.now,
            active_at: self.now,
            arrives_until: self.now + patience,
            receiving: Some(body),
            deframer: Deframer::new(encoding),
            body: BytesMut::new(),
            message: None,
            credit: Credit::default(),
            share: Share::default(),
            sending: Sending::Idle(respond),
            encoding: self.reply_encoding(&headers, dialect.is_none()),
            advertises: !std::mem::replace(&mut self.advertised, true),
            announced: None,
            phase: Phase::Arriving,
            skipped: 0,
            dialect,
            headers: Some(headers),
        });
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
                json: entry.dialect.as_ref().is_some_and(|dialect| dialect.json),
            });
            entry.phase = Phase::Handled;
        }
        if problem.is_some() {
            self.deliver_http(stream, &mut entry, problem);
        }
        self.poll(stream, entry);
    }

    /// What compresses the reply to a request, unless its handler chooses.
    fn reply_encoding(&self, headers: &HeaderMap, is_grpc: bool) -> Option<Encoding> {
        self.config.compression.filter(|encoding| {
            let accepted = headers.get(compress::ACCEPT_ENCODING);
            is_grpc && accepted.is_some_and(|accepted| encoding.is_accepted_by(accepted.as_bytes()))
        })
    }

    /// Polls one stream for all it can give or take.
    pub(super) fn progress(&mut self, stream: u32) {
        if let Some(entry) = self.streams.remove(&stream) {
            self.poll(stream, entry);
        }
    }

    /// The same for a stream that is not among the others; it is put there if it goes on.
    fn poll(&mut self, stream: u32, mut entry: Box<Stream>) {
        entry.ready.rearm();
        self.prepare(&mut entry);
        let advanced = self.advance(stream, &mut entry);
        match advanced.and_then(|()| self.note_arrival(&mut entry)) {
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
                // Who has waited for the answer to begin did not reset rapidly. A
                // reset that the peer has made us send is counted where it is sent.
                if self.pipe.take_reset_seen() && matches!(entry.sending, Sending::Idle(_)) {
                    self.count_reset();
                }
                self.give_up(stream, &entry, code::CANCELLED);
            }
            Err(Gone::Violation(violation)) => self.refuse(stream, entry, &violation),
        }
    }

    /// Ends a call by a status of our own.
    pub(super) fn refuse(&mut self, stream: u32, mut entry: Box<Stream>, violation: &Violation) {
        self.count_reset();
        self.give_up(stream, &entry, violation.status);
        entry.phase = Phase::Answered;
        entry.ready.rearm();
        let sent = entry.refuse(violation);
        // The answer is complete; the rest of the request is not wanted (RFC 9113, 8.1).
        entry.stop_receiving();
        if sent.is_ok() && entry.is_sending() {
            self.streams.insert(stream, entry);
        }
    }

    /// A stream that its handler may still answer: one that was refused may be
    /// there until the peer has taken why.
    pub(super) fn handled(&mut self, stream: u32) -> Option<&mut Stream> {
        let entry = self.streams.get_mut(&stream)?;
        (entry.phase != Phase::Answered).then_some(entry)
    }

    /// Takes such a stream out, to end it.
    pub(super) fn take_handled(&mut self, stream: u32) -> Option<Box<Stream>> {
        match self.streams.entry(stream) {
            Entry::Occupied(entry) if entry.get().phase != Phase::Answered => Some(entry.remove()),
            _ => None,
        }
    }

    fn advance(&mut self, stream: u32, entry: &mut Stream) -> Result<(), Gone> {
        let waker = entry.waker.clone();
        let mut context = Context::from_waker(&waker);
        if entry.deframer.may_expand() && !entry.deframer.is_empty() {
            self.take_messages(stream, entry)?;
        }
        let window = self.config.limits.stream_window;
        while !entry.is_full(window)
            && let Some(receiving) = &mut entry.receiving
        {
            match receiving.poll_data(&mut context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(data))) => match entry.kind {
                    Kind::Grpc { .. } => self.take_grpc(stream, entry, data)?,
                    Kind::Http { .. } => self.take_body(stream, entry, &data),
                    Kind::Refused { .. } => self.skip_refused(stream, entry, data.len()),
                },
                Poll::Ready(Some(Err(_))) => return Err(Gone::Reset),
                Poll::Ready(None) => {
                    entry.close_receiving();
                    self.end_request(stream, entry)?;
                }
            }
        }
        let reset = match &mut entry.sending {
            Sending::Idle(respond) => respond.poll_reset(&mut context),
            Sending::Body(body) if body.is_done() => return Ok(()),
            Sending::Body(body) => {
                body.flush(&mut context).map_err(|_| Gone::Reset)?;
                if body.take_writable() && entry.phase == Phase::Handled {
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
        let data = match &mut entry.dialect {
            None => data,
            Some(_) => entry.take_web(data, self.config.limits.max_message)?,
        };
        entry.active_at = self.now;
        entry.credit.received(data.len());
        entry.deframer.push(data);
        // What waits for the application earns nothing yet, which is not the peer's fault.
        self.messages += u32::from(entry.is_full(self.config.limits.stream_window));
        self.take_messages(stream, entry)
    }

    fn take_messages(&mut self, stream: u32, entry: &mut Stream) -> Result<(), Gone> {
        let Kind::Grpc { method, .. } = &entry.kind else {
            return Ok(());
        };
        let unary = method.unary_request();
        if unary && entry.deframer.may_expand() && entry.receiving.is_some() {
            // Kept as it came until it is whole: what it decompresses to is not
            // bounded by any window.
            entry.deframer.check_only(self.config.limits.max_message)?;
            entry.settle();
            return Ok(());
        }
        while !entry.is_full(self.config.limits.stream_window)
            && let Some(message) = entry.deframer.next(self.config.limits.max_message)?
        {
            self.messages += 1;
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
                entry.close_receiving();
            }
            return;
        }
        if entry.body.len() + data.len() > limit {
            self.deliver_http(stream, entry, Some(Problem::BodyTooLarge));
        } else {
            entry.body.extend_from_slice(data);
        }
    }

    /// Waits for the end of a request before it is refused, within a limit: one that turns out
    /// malformed is a stream error, and many clients send all before they look for an answer.
    fn skip_refused(&mut self, stream: u32, entry: &mut Stream, size: usize) {
        entry.release(size);
        entry.skipped += size;
        if entry.skipped > REFUSED_LIMIT {
            self.answer_refused(stream, entry);
        }
    }

    pub(super) fn answer_refused(&mut self, stream: u32, entry: &mut Stream) {
        if let Kind::Refused { method, answer } = &entry.kind
            && let Sending::Idle(respond) = &mut entry.sending
        {
            send_whole(method, answer, respond);
            entry.sending = Sending::Closed;
            entry.phase = Phase::Answered;
            entry.stop_receiving();
            self.handler_ended(stream);
        }
    }

    fn end_request(&mut self, stream: u32, entry: &mut Stream) -> Result<(), Gone> {
        match entry.kind {
            Kind::Http { .. } => {
                if entry.phase == Phase::Arriving {
                    self.deliver_http(stream, entry, None);
                }
                return Ok(());
            }
            Kind::Refused { .. } => {
                self.answer_refused(stream, entry);
                return Ok(());
            }
            Kind::Grpc { .. } => {}
        }
        if let Some(dialect) = &mut entry.dialect
            && let Some(message) = dialect.end_request(self.config.limits.max_message)?
        {
            entry.message = Some(message);
        }
        self.take_messages(stream, entry)?;
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
            json: entry.dialect.as_ref().is_some_and(|dialect| dialect.json),
        });
        entry.phase = Phase::Handled;
        Ok(())
    }

    pub(super) fn deliver_http(
        &mut self,
        stream: u32,
        entry: &mut Stream,
        problem: Option<Problem>,
    ) {
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
}
