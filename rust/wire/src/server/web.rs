//! Streams whose framing is not gRPC's own.

use super::ServerConnection;
use super::stream::{Gone, Kind, Sending, Stream};
use crate::compress::Encoding;
use crate::grpc::code;
use crate::stats::CallTable;
use crate::web::{self, Admission, Dialect, End, WebConfig, Whole};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use std::task::Context;

/// A call, or the answer that the request is none.
pub(super) fn admit(
    config: &WebConfig,
    compression: Option<Encoding>,
    table: &CallTable,
    verb: &Method,
    uri: &Uri,
    headers: &mut HeaderMap,
) -> Result<(Kind, Box<Dialect>), Box<Whole>> {
    let target = uri
        .path_and_query()
        .map_or("", http::uri::PathAndQuery::as_str);
    match web::admit(config, compression, table, verb, target, headers) {
        Admission::Answer(answer) => Err(answer),
        Admission::Call(call) => {
            let kind = Kind::Grpc {
                index: call.index,
                method: call.method,
                timeout: call.timeout,
            };
            Ok((kind, Box::new(call.dialect)))
        }
    }
}

pub(super) fn ok(trailing: HeaderMap) -> End<'static> {
    End {
        status: code::OK,
        message: None,
        trailing,
    }
}

impl Stream {
    /// Sends the head of the answer, or keeps the metadata where the head waits for the status.
    pub(super) fn start_web(&mut self, initial: HeaderMap) -> Result<(), h2::Error> {
        let Some(dialect) = &mut self.dialect else {
            return Ok(());
        };
        if dialect.is_bare() {
            dialect.keep_initial(initial);
            Ok(())
        } else {
            let headers = dialect.head(initial);
            self.start_response(StatusCode::OK, headers)
        }
    }

    /// Takes bytes of the request: those that messages in envelopes are cut from.
    pub(super) fn take_web(&mut self, data: Bytes, limit: usize) -> Result<Bytes, Gone> {
        let Some(dialect) = &mut self.dialect else {
            return Ok(data);
        };
        let received = data.len();
        let data = dialect.take(data, limit)?;
        // What framing takes, and a message that is kept whole, must not close the window.
        let framing = received.saturating_sub(data.len());
        self.release(framing);
        Ok(data)
    }

    /// Ends the answer, with the reply if there is one and nothing was sent.
    pub(super) fn finish_web(
        &mut self,
        reply: Option<Bytes>,
        initial: HeaderMap,
        end: End<'_>,
    ) -> Result<(), h2::Error> {
        let Some(dialect) = &mut self.dialect else {
            return Ok(());
        };
        if let Sending::Body(body) = &mut self.sending {
            let mut context = Context::from_waker(&self.waker);
            if let Some(reply) = reply {
                body.push(dialect.message(reply), &mut context)?;
            }
            body.push(dialect.end(end), &mut context)?;
            return body.end(None, &mut context);
        }
        let answer = dialect.whole(reply, initial, end);
        if answer.body.is_empty() {
            return self.respond_only(answer.status, answer.headers);
        }
        self.start_response(answer.status, answer.headers)?;
        match &mut self.sending {
            Sending::Body(body) => {
                body.answer(answer.body, None, &mut Context::from_waker(&self.waker))
            }
            Sending::Idle(_) | Sending::Closed => Ok(()),
        }
    }
}

impl ServerConnection {
    /// Ends a call of a dialect.
    pub(super) fn end_web(
        &mut self,
        stream: u32,
        mut entry: Box<Stream>,
        reply: Option<Bytes>,
        initial: HeaderMap,
        end: End<'_>,
    ) {
        let status = end.status;
        let result = entry.finish_web(reply, initial, end);
        self.after_end(stream, entry, &result, status);
    }
}
