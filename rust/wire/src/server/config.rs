//! What bounds a server's connections, and what they share.

use crate::compress::Encoding;
use crate::guard::FloodLimits;
use crate::keepalive::{AgeLimits, KeepaliveSettings, LAST_STREAM, PingLimits};
use crate::message::HttpLimits;
use crate::refusals::Refusals;
use crate::stats::CallTable;
use crate::web::WebConfig;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// Bounds of one connection.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Streams at once; a handler counts until it ends, also after a reset.
    pub max_streams: u32,
    /// Largest message in bytes.
    pub max_message: usize,
    /// Largest header list in bytes that is accepted.
    pub max_header_bytes: u32,
    /// Flow-control window of a stream in bytes.
    pub stream_window: u32,
    /// Flow-control window of the connection in bytes.
    pub connection_window: u32,
    /// From the first byte until the preface has come.
    pub handshake_timeout: Duration,
    /// From the start of a call whose request is one message until it has come.
    pub request_timeout: Duration,
    /// Without any stream for this long, the connection is closed.
    pub idle_timeout: Duration,
    /// A peer that takes nothing of an answer for this long has it reset.
    pub blocked_timeout: Duration,
    /// A streaming request that has not ended, and nothing came or went for it
    /// for this long, is ended.
    pub stream_idle_timeout: Duration,
    /// Calls at once over all connections that share the configuration; more
    /// are refused before they begin.
    pub max_calls: Option<usize>,
    /// Bytes of requests that are not whole, held by a connection. Beyond half
    /// of it only the oldest may grow, and each other one is held to its window.
    pub max_incomplete: usize,
    /// The same for all connections that share the configuration. Beyond it,
    /// calls whose requests are larger than 16 KiB are refused.
    pub max_incomplete_of_all: usize,
    /// What the peer may do for nothing.
    pub floods: FloodLimits,
    /// A connection whose streams have come to this id takes no new calls.
    pub last_stream: u32,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_streams: 100,
            max_message: 4 * 1024 * 1024,
            max_header_bytes: 16 * 1024,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(3600),
            blocked_timeout: Duration::from_secs(60),
            stream_idle_timeout: Duration::from_secs(300),
            max_calls: None,
            max_incomplete: 16 * 1024 * 1024,
            max_incomplete_of_all: 512 * 1024 * 1024,
            floods: FloodLimits::default(),
            last_stream: LAST_STREAM,
        }
    }
}

/// What a server's connections share.
#[derive(Clone, Debug, Default)]
pub struct ServerConfig {
    /// The bounds.
    pub limits: ServerLimits,
    /// The methods that are served, if gRPC is.
    pub grpc: Option<Arc<CallTable>>,
    /// The bounds of plain requests, if those are served.
    pub http: Option<HttpLimits>,
    /// How browsers are served, if gRPC-Web and Connect are beside gRPC.
    pub web: Option<WebConfig>,
    /// What compresses the replies to clients that accept it, unless a handler chooses.
    pub compression: Option<Encoding>,
    /// Calls in progress; only counted if there is a limit.
    pub calls: Arc<AtomicUsize>,
    /// Bytes that are held of requests that are not whole.
    pub incomplete: Arc<AtomicUsize>,
    /// What was refused or cut off.
    pub refusals: Arc<Refusals>,
    /// When to ping clients, if ever.
    pub keepalive: Option<KeepaliveSettings>,
    /// How often a client may ping, if that is to be held to more than to the limit on floods.
    pub pings: Option<PingLimits>,
    /// When connections end for their age, if they do.
    pub age: Option<AgeLimits>,
}
