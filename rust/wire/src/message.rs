//! What HTTP/1.1 and HTTP/2 have in common once a request is whole.

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use std::time::Duration;

/// Bounds of one plain HTTP (not gRPC) connection.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Largest request body in bytes.
    pub max_body: usize,
    /// Largest header list in bytes, names and values counted.
    pub max_header_bytes: usize,
    /// Most header fields in one request.
    pub max_headers: usize,
    /// From the first byte of a request head to its last.
    pub header_timeout: Duration,
    /// From the end of the head to the last byte of the body.
    pub body_timeout: Duration,
    /// A connection without any request in flight is closed after this.
    pub idle_timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            max_body: 1024 * 1024,
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(3600),
        }
    }
}

/// Why a request cannot be handled as it came; the caller words the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The request breaks HTTP's grammar: 400.
    Malformed,
    /// The body is larger than [`HttpLimits::max_body`]: 413.
    BodyTooLarge,
    /// The head is larger than the header limits: 431.
    HeadersTooLarge,
    /// The head or the body took too long to arrive: 408.
    Timeout,
}

/// A request that is complete, or that has a [`Problem`] and will not be.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// Identifies the exchange on its connection.
    pub stream: u32,
    /// The method as sent.
    pub method: Method,
    /// Path and query exactly as sent, not decoded.
    pub target: String,
    /// Fields as sent; HTTP/2's `:authority` and `:scheme` appear as `host`
    /// and not at all.
    pub headers: HeaderMap,
    /// The whole body; empty when there is a problem.
    pub body: Bytes,
    /// The version of HTTP that carried it.
    pub version: Version,
    /// What is wrong with the request, if anything.
    pub problem: Option<Problem>,
}

/// What happens on a plain HTTP connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HttpEvent {
    /// Answer it with `respond`. Where bodies are streamed, this one has yet to come.
    Request(HttpRequest),
    /// A part of a body that is streamed.
    Data {
        /// The exchange.
        stream: u32,
        /// What came.
        data: Bytes,
    },
    /// The body that is streamed has ended.
    End {
        /// The exchange.
        stream: u32,
    },
    /// The rest of the body that is streamed will not come; the request can still be answered.
    Broken {
        /// The exchange.
        stream: u32,
        /// Why.
        problem: Problem,
    },
    /// The peer gave up on this exchange: cancel its handler.
    Reset {
        /// The exchange.
        stream: u32,
    },
}
