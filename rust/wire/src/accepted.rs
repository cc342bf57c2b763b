//! A connection that was accepted: HTTP/2, or HTTP/1.1 where plain requests or browsers are served.

use crate::compress::Encoding;
use crate::grpc::Framed;
use crate::http1::Http1Connection;
use crate::message::HttpEvent;
use crate::server::{ServerConfig, ServerConnection, ServerEvent};
use crate::web::{End, WebConnection};
use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// RFC 9113, 3.4: a client of HTTP/2 begins with this, and no request of HTTP/1.1 does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

enum Machine {
    /// Too few bytes to tell.
    Undecided {
        start: Vec<u8>,
        since: Duration,
    },
    Http2(Box<ServerConnection>),
    Http1 {
        machine: Box<Http1Connection>,
        told: bool,
    },
    /// HTTP/1.1 that carries calls.
    Web(Box<WebConnection>),
    Closed {
        told: bool,
    },
}

/// One accepted connection, with the events and commands of [`ServerConnection`].
pub struct AcceptedConnection {
    config: Arc<ServerConfig>,
    machine: Machine,
}

impl AcceptedConnection {
    /// A connection that was just accepted. Where `config` has neither plain
    /// HTTP nor browsers it is HTTP/2; otherwise `alpn` decides, or where TLS
    /// has agreed on nothing, the first bytes.
    pub fn new(config: Arc<ServerConfig>, alpn: Option<&str>, now: Duration) -> Self {
        let is_http2_only = config.http.is_none() && config.web.is_none();
        let machine = match alpn {
            _ if is_http2_only => Self::http2_machine(&config, now),
            Some("h2") => Self::http2_machine(&config, now),
            Some("http/1.1") => Self::http1_machine(&config, now),
            _ => Machine::Undecided {
                start: Vec::new(),
                since: now,
            },
        };
        Self { config, machine }
    }

    fn http2_machine(config: &Arc<ServerConfig>, now: Duration) -> Machine {
        Machine::Http2(Box::new(ServerConnection::new(Arc::clone(config), now)))
    }

    fn http1_machine(config: &Arc<ServerConfig>, now: Duration) -> Machine {
        if config.web.is_some() {
            Machine::Web(Box::new(WebConnection::new(Arc::clone(config), now)))
        } else {
            let limits = config.http.clone().unwrap_or_default();
            Machine::Http1 {
                machine: Box::new(Http1Connection::new(limits, now)),
                told: false,
            }
        }
    }

    /// Bytes came from the peer.
    pub fn handle_input(&mut self, data: &[u8], now: Duration) {
        match &mut self.machine {
            Machine::Http2(machine) => machine.handle_input(data, now),
            Machine::Http1 { machine, .. } => machine.handle_input(data, now),
            Machine::Web(machine) => machine.handle_input(data, now),
            Machine::Closed { .. } => {}
            Machine::Undecided { start, .. } => {
                start.extend_from_slice(data);
                let seen = start.len().min(PREFACE.len());
                let decided = if start[..seen] != PREFACE[..seen] {
                    Self::http1_machine(&self.config, now)
                } else if seen == PREFACE.len() {
                    Self::http2_machine(&self.config, now)
                } else {
                    return;
                };
                let start = std::mem::take(start);
                self.machine = decided;
                self.handle_input(&start, now);
            }
        }
    }

    /// As [`Self::handle_input`]; what is given away is not copied where it is much.
    pub fn handle_bytes(&mut self, data: Bytes, now: Duration) {
        match &mut self.machine {
            Machine::Http2(machine) => machine.handle_bytes(data, now),
            _ => self.handle_input(&data, now),
        }
    }

    /// The peer will send no more.
    pub fn handle_eof(&mut self, now: Duration) {
        match &mut self.machine {
            Machine::Http2(machine) => machine.handle_eof(now),
            Machine::Http1 { machine, .. } => machine.handle_eof(),
            Machine::Web(machine) => machine.handle_eof(now),
            Machine::Undecided { .. } => self.machine = Machine::Closed { told: false },
            Machine::Closed { .. } => {}
        }
    }

    /// Time has passed; call it about once a second.
    pub fn handle_timeout(&mut self, now: Duration) {
        match &mut self.machine {
            Machine::Http2(machine) => machine.handle_timeout(now),
            Machine::Http1 { machine, .. } => machine.handle_timeout(now),
            Machine::Web(machine) => machine.handle_timeout(now),
            Machine::Undecided { since, .. } => {
                if now.saturating_sub(*since) > self.config.limits.handshake_timeout {
                    self.machine = Machine::Closed { told: false };
                }
            }
            Machine::Closed { .. } => {}
        }
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        let told = match &mut self.machine {
            Machine::Http2(machine) => return machine.poll_event(),
            Machine::Web(machine) => return machine.poll_event(),
            Machine::Undecided { .. } => return None,
            Machine::Closed { told } => told,
            Machine::Http1 { machine, told } => match machine.poll_event() {
                Some(HttpEvent::Request(request)) => return Some(ServerEvent::Http(request)),
                Some(HttpEvent::Reset { stream }) => return Some(ServerEvent::Reset { stream }),
                None if machine.is_finished() => told,
                // Bodies are not streamed here, so there are no other events.
                _ => return None,
            },
        };
        (!std::mem::replace(told, true)).then_some(ServerEvent::Closed { error: None })
    }

    /// Shows the bytes for the peer to `take`; `None` if there are none.
    pub fn drain_output<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        match &mut self.machine {
            Machine::Http2(machine) => machine.drain_output(take),
            Machine::Http1 { machine, .. } => gather(|| machine.poll_output(), take),
            Machine::Web(machine) => gather(|| machine.poll_output(), take),
            Machine::Undecided { .. } | Machine::Closed { .. } => None,
        }
    }

    /// False while the peer has to be kept from sending.
    pub fn wants_read(&self) -> bool {
        match &self.machine {
            Machine::Http2(machine) => machine.wants_read(),
            Machine::Http1 { machine, .. } => machine.wants_read(),
            Machine::Web(machine) => machine.wants_read(),
            Machine::Undecided { .. } => true,
            Machine::Closed { .. } => false,
        }
    }

    /// Whether there is anything to do for `drain_output`'s caller.
    pub fn wants_write(&self) -> bool {
        match &self.machine {
            Machine::Http2(machine) => machine.wants_write(),
            Machine::Undecided { .. } => false,
            Machine::Http1 { .. } | Machine::Web(_) | Machine::Closed { .. } => true,
        }
    }

    /// Whether the connection is over and everything was handed out.
    pub fn is_finished(&self) -> bool {
        match &self.machine {
            Machine::Http2(machine) => machine.is_finished(),
            Machine::Http1 { machine, .. } => machine.is_finished(),
            Machine::Web(machine) => machine.is_finished(),
            Machine::Undecided { .. } => false,
            Machine::Closed { .. } => true,
        }
    }

    /// Takes no new requests and closes when those in progress have ended.
    pub fn shutdown(&mut self) {
        match &mut self.machine {
            Machine::Http2(machine) => machine.shutdown(),
            Machine::Http1 { machine, .. } => machine.shutdown(),
            Machine::Web(machine) => machine.shutdown(),
            Machine::Undecided { .. } => self.machine = Machine::Closed { told: false },
            Machine::Closed { .. } => {}
        }
    }

    /// Answers a call with one message and OK.
    pub fn respond(
        &mut self,
        stream: u32,
        framed: impl Into<Framed>,
        initial: HeaderMap,
        trailing: HeaderMap,
        now: Duration,
    ) {
        match &mut self.machine {
            Machine::Http2(machine) => machine.respond(stream, framed, initial, trailing, now),
            Machine::Web(machine) => {
                machine.respond(stream, framed.into().joined(), initial, trailing, now);
            }
            _ => {}
        }
    }

    /// Compresses the messages of a reply from now on; see
    /// [`ServerConnection::set_encoding`].
    pub fn set_encoding(&mut self, stream: u32, encoding: Option<Encoding>) -> bool {
        match &mut self.machine {
            Machine::Http2(machine) => machine.set_encoding(stream, encoding),
            Machine::Web(machine) => machine.set_encoding(stream, encoding),
            _ => true,
        }
    }

    /// Sends the response headers of a streaming call, once.
    pub fn send_headers(&mut self, stream: u32, initial: HeaderMap) {
        match &mut self.machine {
            Machine::Http2(machine) => machine.send_headers(stream, initial),
            Machine::Web(machine) => machine.send_headers(stream, initial),
            _ => {}
        }
    }

    /// Sends a message of a streaming call. False: wait for
    /// [`ServerEvent::Writable`] (or Reset) before the next one.
    pub fn send_message(&mut self, stream: u32, framed: impl Into<Framed>) -> bool {
        match &mut self.machine {
            Machine::Http2(machine) => machine.send_message(stream, framed),
            Machine::Web(machine) => machine.send_message(stream, framed.into().joined()),
            _ => true,
        }
    }

    /// Ends a call with a status.
    pub fn finish(
        &mut self,
        stream: u32,
        status: u32,
        message: Option<&str>,
        initial: HeaderMap,
        trailing: HeaderMap,
        now: Duration,
    ) {
        match &mut self.machine {
            Machine::Http2(machine) => {
                machine.finish(stream, status, message, initial, trailing, now);
            }
            Machine::Web(machine) => {
                let end = End {
                    status,
                    message,
                    trailing,
                };
                machine.end(stream, None, initial, end, now);
            }
            _ => {}
        }
    }

    /// The application took `size` bytes of messages: the peer may send as many more.
    pub fn consume(&mut self, stream: u32, size: usize) {
        match &mut self.machine {
            Machine::Http2(machine) => machine.consume(stream, size),
            Machine::Web(machine) => machine.consume(stream, size),
            _ => {}
        }
    }

    /// Calls in progress.
    pub fn in_flight(&self) -> usize {
        match &self.machine {
            Machine::Http2(machine) => machine.in_flight(),
            Machine::Web(machine) => machine.in_flight(),
            _ => 0,
        }
    }

    /// Answers a plain request.
    pub fn respond_http(
        &mut self,
        stream: u32,
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
        now: Duration,
    ) {
        match &mut self.machine {
            Machine::Http2(machine) => machine.respond_http(stream, status, headers, body, now),
            Machine::Http1 { machine, .. } => machine.respond(stream, status, &headers, body, now),
            Machine::Web(_) | Machine::Undecided { .. } | Machine::Closed { .. } => {}
        }
    }

    /// Ends a stream at once; HTTP/1.1 can only end the connection.
    pub fn reset(&mut self, stream: u32, reason: Reason, now: Duration) {
        match &mut self.machine {
            Machine::Http2(machine) => machine.reset(stream, reason, now),
            Machine::Web(machine) => machine.reset(stream, now),
            Machine::Http1 { .. } => self.machine = Machine::Closed { told: false },
            Machine::Undecided { .. } | Machine::Closed { .. } => {}
        }
    }

    /// The handler of a stream that was reported as reset has ended.
    pub fn handler_ended(&mut self, stream: u32) {
        match &mut self.machine {
            Machine::Http2(machine) => machine.handler_ended(stream),
            Machine::Web(machine) => machine.handler_ended(),
            _ => {}
        }
    }

    /// The machine that knows gRPC, if that is what the connection carries.
    pub fn http2(&mut self) -> Option<&mut ServerConnection> {
        match &mut self.machine {
            Machine::Http2(machine) => Some(machine),
            _ => None,
        }
    }
}

/// Shows all the pieces to `take` as one.
fn gather<R>(mut next: impl FnMut() -> Option<Bytes>, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
    let first = next()?;
    let Some(second) = next() else {
        return Some(take(&first));
    };
    let mut whole = Vec::with_capacity(first.len() + second.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&second);
    while let Some(more) = next() {
        whole.extend_from_slice(&more);
    }
    Some(take(&whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::HttpLimits;

    fn accept(alpn: Option<&str>) -> AcceptedConnection {
        let config = ServerConfig {
            http: Some(HttpLimits::default()),
            ..ServerConfig::default()
        };
        AcceptedConnection::new(Arc::new(config), alpn, Duration::ZERO)
    }

    #[test]
    fn the_first_bytes_decide_the_version_however_they_are_split() {
        for (start, http2) in [
            (PREFACE, true),
            (b"PUT / HTTP/1.1\r\nhost: a\r\n\r\n", false),
        ] {
            for split in 1..start.len() {
                let mut connection = accept(None);
                connection.handle_input(&start[..split], Duration::ZERO);
                connection.handle_input(&start[split..], Duration::ZERO);
                assert_eq!(connection.http2().is_some(), http2);
            }
        }
    }

    #[test]
    fn what_tls_has_agreed_on_holds() {
        for (alpn, other) in [
            ("h2", &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..]),
            ("http/1.1", PREFACE),
        ] {
            let mut connection = accept(Some(alpn));
            connection.handle_input(other, Duration::ZERO);
            assert_eq!(connection.http2().is_some(), alpn == "h2");
            let served = std::iter::from_fn(|| connection.poll_event()).any(
                |event| matches!(event, ServerEvent::Http(request) if request.problem.is_none()),
            );
            assert!(!served, "{alpn}");
        }
    }

    #[test]
    fn a_peer_that_sends_nothing_is_dropped_after_the_handshake_timeout() {
        let mut connection = accept(None);
        connection.handle_timeout(Duration::from_secs(9));
        assert!(!connection.is_finished());
        connection.handle_timeout(Duration::from_secs(11));
        assert!(connection.is_finished());
        assert!(matches!(
            connection.poll_event(),
            Some(ServerEvent::Closed { error: None })
        ));
        assert!(connection.poll_event().is_none());
    }
}
