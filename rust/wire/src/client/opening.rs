//! From a call that may start to its stream.

use super::ClientConnection;
use super::call::{Call, Receiving, Waiting, ended_event, failed, outcome_of};
use super::greeting::{ASSUMED_MAX_METADATA, list_size};
use crate::compress::{self, Encoding};
use crate::credit::Credit;
use crate::grpc::{self, Deframer, Framed, code};
use crate::outbound::Outbound;
use crate::pipe::StreamWaker;
use crate::stats::MethodEntry;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use std::task::Context;
use std::time::Duration;

impl ClientConnection {
    /// Whether a call has to wait until it is known how much the server takes.
    pub(super) fn is_early(&self, waiting: &Waiting) -> bool {
        self.greeting.is_some() && list_size(&waiting.start.metadata) > ASSUMED_MAX_METADATA
    }

    pub(super) fn open(&mut self, waiting: Waiting) {
        let Waiting {
            call,
            method,
            started,
            mut start,
            queue,
            ended,
            ..
        } = waiting;
        let Some(method) = method else {
            return self.events.push_back(ended_event(
                start.unary_reply,
                call,
                failed(code::INTERNAL, "the method was not registered"),
            ));
        };
        let fields = self.own_fields + method.path().len() + list_size(&start.metadata);
        if fields > self.max_fields && !start.metadata.is_empty() {
            let most = self.max_fields;
            let text = format!(
                "metadata makes the headers {fields} bytes: the server takes no more than {most}"
            );
            method.end(code::RESOURCE_EXHAUSTED, started, self.now);
            return self.events.push_back(ended_event(
                start.unary_reply,
                call,
                failed(code::RESOURCE_EXHAUSTED, &text),
            ));
        }
        let left = start
            .deadline
            .map(|deadline| deadline.saturating_sub(self.now));
        let encoding = match start.metadata.remove(compress::ENCODING) {
            None => self.limits.compression,
            Some(name) => Encoding::from_name(name.as_bytes()),
        };
        let mut request = self.request(&method, start.metadata, left);
        if let Some(encoding) = encoding {
            let name = HeaderValue::from_static(encoding.name());
            request.headers_mut().insert(compress::ENCODING, name);
        }
        let packed = |framed: Framed| match encoding {
            None => framed,
            Some(encoding) => encoding.compress(framed).into(),
        };
        let (ready, waker) = StreamWaker::new(call, &self.ready);
        let mut entry = Call {
            ready,
            waker,
            method,
            started,
            deadline: start.deadline,
            unary_reply: start.unary_reply,
            sending: None,
            receiving: Receiving::Closed,
            headers: HeaderMap::new(),
            encoding,
            deframer: Deframer::default(),
            message: None,
            credit: Credit::default(),
        };
        let Some(sender) = &mut self.sender else {
            return;
        };
        match sender.send_request(request, false) {
            Ok((response, stream)) => {
                let mut context = Context::from_waker(&entry.waker);
                let mut sending = Outbound::new(stream);
                // Errors are the stream's end, which the first poll reports.
                if let Some(request) = start.request {
                    let _ = sending.send_whole(packed(request), None, &mut context);
                }
                for data in queue {
                    let _ = sending.push(packed(data), &mut context);
                }
                if ended {
                    let _ = sending.end(None, &mut context);
                }
                entry.sending = Some(sending);
                let id = response.stream_id().as_u32();
                entry.receiving = Receiving::Headers(response);
                self.calls.insert(call, entry);
                if id >= self.limits.last_stream {
                    self.drain();
                }
                self.progress(call);
            }
            Err(error) => {
                let outcome = outcome_of(&error, true);
                self.report(call, &mut entry, outcome);
            }
        }
    }

    fn request(
        &self,
        method: &MethodEntry,
        metadata: HeaderMap,
        left: Option<Duration>,
    ) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(method.path_and_query().clone());
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        let headers = request.headers_mut();
        *headers = self.base.clone();
        headers.extend(metadata);
        if let Some(left) = left {
            headers.insert(&grpc::TIMEOUT, grpc::format_timeout(left));
        }
        request
    }
}
