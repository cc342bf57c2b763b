//! Peers that make work and take none: what they cost stays bounded.

use crate::{BIDI, CLIENT_STREAM, Stage, UNARY, server_limits, table};
use bascule_wire::grpc;
use bascule_wire::server::{ServerConfig, ServerConnection, ServerEvent, ServerLimits};
use bascule_wire::{FloodLimits, Rate};
use http::HeaderMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NOW: Duration = Duration::from_secs(100);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header block without tables or Huffman coding (RFC 7541, 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

pub(crate) fn request_block(method: usize) -> Vec<u8> {
    block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", crate::METHODS[method].0),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ])
}

fn request(stream: u32, method: u32) -> Vec<u8> {
    let mut bytes = frame(
        HEADERS,
        END_HEADERS,
        stream,
        &request_block(method as usize),
    );
    if method == UNARY {
        bytes.extend(frame(DATA, END_STREAM, stream, &grpc::frame(b"x")));
    }
    bytes
}

fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// A server whose handlers take their time: they end when the test says so.
struct Victim {
    server: ServerConnection,
    running: BTreeSet<u32>,
    reset: BTreeSet<u32>,
    most_running: usize,
    calls: usize,
    /// Why the connection ended, once it has; empty if by agreement.
    closed: Option<String>,
    output: Vec<u8>,
    most_output: usize,
}

impl Victim {
    fn new(limits: ServerLimits) -> Self {
        let config = ServerConfig {
            limits,
            grpc: Some(table()),
            ..ServerConfig::default()
        };
        let mut victim = Self {
            server: ServerConnection::new(Arc::new(config), NOW),
            running: BTreeSet::new(),
            reset: BTreeSet::new(),
            most_running: 0,
            calls: 0,
            closed: None,
            output: Vec::new(),
            most_output: 0,
        };
        victim.takes(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat());
        victim
    }

    fn takes(&mut self, data: &[u8]) {
        self.server.handle_input(data, NOW);
        while let Some(event) = self.server.poll_event() {
            match event {
                ServerEvent::Call { stream, .. } => {
                    self.calls += 1;
                    assert!(self.running.insert(stream));
                    self.most_running = self.most_running.max(self.running.len());
                }
                ServerEvent::Reset { stream } => assert!(self.reset.insert(stream)),
                ServerEvent::Closed { error } => self.closed = Some(error.unwrap_or_default()),
                _ => {}
            }
        }
    }

    fn sends(&mut self) {
        while self
            .server
            .drain_output(|data| self.output.extend_from_slice(data))
            .is_some()
        {}
        self.most_output = self.most_output.max(self.output.len());
    }

    /// Handlers of streams that were reset notice it.
    fn reap(&mut self) {
        for stream in std::mem::take(&mut self.reset) {
            self.running.remove(&stream);
            self.server.handler_ended(stream);
        }
    }

    /// Error codes of the GOAWAY frames that were sent.
    fn goaways(&self) -> Vec<u32> {
        let mut codes = Vec::new();
        let mut rest = &self.output[..];
        while let Some((head, tail)) = rest.split_at_checked(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if head[3] == GOAWAY {
                codes.push(u32::from_be_bytes(tail[4..8].try_into().unwrap()));
            }
            rest = &tail[length..];
        }
        codes
    }
}

const ENHANCE_YOUR_CALM: u32 = 11;

#[test]
fn rapid_resets_start_few_handlers_and_end_the_connection() {
    for method in [UNARY, BIDI] {
        for reads in ["one", "pairs", "frames"] {
            for reaps in [true, false] {
                let limits = server_limits();
                let most = limits.max_streams as usize;
                let mut victim = Victim::new(limits);
                let mut sent = 0;
                let mut bulk = Vec::new();
                for stream in (1..10_001).step_by(2) {
                    if victim.closed.is_some() {
                        break;
                    }
                    sent += 1;
                    let (open, close) = (request(stream, method), cancel(stream));
                    match reads {
                        "one" => {
                            bulk.extend(open);
                            bulk.extend(close);
                            if bulk.len() > 16_000 {
                                victim.takes(&std::mem::take(&mut bulk));
                            }
                        }
                        "pairs" => victim.takes(&[open, close].concat()),
                        _ => {
                            victim.takes(&open);
                            victim.takes(&close);
                        }
                    }
                    if reaps {
                        victim.reap();
                    }
                    victim.sends();
                }
                let case = format!("method {method}, reads: {reads}, reaps: {reaps}");
                victim.sends();
                assert!(victim.closed.is_some(), "{case}: cut off");
                assert!(sent <= 400, "{case}: after {sent}");
                assert_eq!(victim.goaways().last(), Some(&ENHANCE_YOUR_CALM), "{case}");
                assert!(
                    victim.most_running <= most,
                    "{case}: {}",
                    victim.most_running
                );
                assert_eq!(
                    victim.reset.len(),
                    victim.running.len(),
                    "{case}: all are told"
                );
                victim.reap();
                assert_eq!(victim.server.in_flight(), 0, "{case}");
            }
        }
    }
}

fn patient() -> FloodLimits {
    let resets = Rate {
        burst: 1000,
        per_second: 0,
    };
    FloodLimits {
        resets,
        ..FloodLimits::default()
    }
}

/// Requests wait complete but for their last byte, others take all places, and
/// then the last bytes come.
#[test]
fn handlers_never_outnumber_the_streams_that_are_allowed() {
    let limits = ServerLimits {
        max_streams: 10,
        floods: patient(),
        ..server_limits()
    };
    let mut victim = Victim::new(limits);
    let mut next = 1;
    for _ in 0..5 {
        let streams: Vec<u32> = (0..10).map(|n| next + 2 * n).collect();
        next += 20;
        for &stream in &streams {
            let block = request_block(UNARY as usize);
            victim.takes(&frame(HEADERS, END_HEADERS, stream, &block));
        }
        for &stream in &streams {
            victim.takes(&frame(DATA, END_STREAM, stream, &grpc::frame(b"x")));
        }
        // All but one go, and their handlers are slow to notice.
        for &stream in &streams[1..] {
            victim.takes(&cancel(stream));
        }
        let one = streams[0];
        if victim.running.remove(&one) {
            let none = HeaderMap::new();
            victim.server.finish(one, 0, None, none.clone(), none, NOW);
        }
        victim.sends();
    }
    assert!(
        victim.most_running <= 10,
        "{} handlers",
        victim.most_running
    );
    victim.reap();
    assert_eq!(victim.server.in_flight(), 0);
    assert!(victim.closed.is_none());
}

#[test]
fn a_client_that_cancels_in_earnest_is_not_an_attacker() {
    let mut victim = Victim::new(server_limits());
    for stream in (1..200).step_by(2) {
        let mut bytes = request(stream, BIDI);
        bytes.extend(cancel(stream));
        victim.takes(&bytes);
        victim.reap();
    }
    victim.sends();
    assert!(victim.closed.is_none());
    // A whole batch that is cancelled before anybody looked at it.
    let batch: Vec<u8> = (201..321)
        .step_by(2)
        .flat_map(|stream| [request(stream, BIDI), cancel(stream)].concat())
        .collect();
    victim.takes(&batch);
    victim.reap();
    victim.sends();
    assert!(victim.closed.is_none(), "{:?}", victim.closed);
    victim.takes(&request(1001, UNARY));
    assert_eq!(victim.running.len(), 1);
}

#[test]
fn a_busy_client_may_cancel_every_second_call_and_any_that_has_begun_to_answer() {
    let mut stage = Stage::new();
    for _ in 0..1000 {
        let waiting = stage.pair.start(CLIENT_STREAM, None, true);
        stage.pair.start(UNARY, Some(b"x"), true);
        let answering = stage.pair.start(BIDI, None, false);
        stage.pair.client.send_message(answering, grpc::frame(b"x"));
        stage.settle();
        stage.pair.client.cancel(waiting, stage.pair.now);
        stage.pair.client.cancel(answering, stage.pair.now);
        stage.settle();
    }
    assert_eq!((stage.caller.closed, stage.application.closed), (0, 0));
    assert!(stage.application.running.is_empty());
    assert_eq!(stage.pair.server.in_flight(), 0);
}

#[test]
fn continuations_without_end_close_the_connection() {
    for (payload, most) in [
        (vec![], 1000),
        (block(&[("x-a", "b")]), 20_000),
        (vec![0; 1], 5000),
    ] {
        let mut victim = Victim::new(server_limits());
        victim.takes(&frame(HEADERS, 0, 1, &request_block(UNARY as usize)));
        let mut sent = 0;
        while victim.closed.is_none() && sent < most {
            victim.takes(&frame(CONTINUATION, 0, 1, &payload));
            sent += 1;
        }
        assert!(
            victim.closed.is_some(),
            "{} bytes each, {sent} frames",
            payload.len()
        );
        assert_eq!(victim.calls, 0);
    }
}

#[test]
fn pings_and_settings_without_end_stop_being_read() {
    for flood in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, b"")] {
        let mut victim = Victim::new(server_limits());
        victim.sends();
        let mut fed = 0;
        let batch = flood.repeat(100);
        while victim.server.wants_read() && victim.closed.is_none() {
            victim.takes(&batch);
            fed += batch.len();
            assert!(fed < 8 << 20, "input is bounded");
        }
        // The peer reads nothing, so what we hold for it is bounded as well.
        let before = victim.output.len();
        victim.sends();
        assert!(victim.output.len() - before < 4 << 20);
    }
}

#[test]
fn pings_that_are_read_cost_nothing_that_lasts() {
    let mut victim = Victim::new(server_limits());
    for _ in 0..10_000 {
        victim.takes(&frame(PING, 0, 0, &[1; 8]));
        victim.sends();
        victim.output.clear();
        if victim.closed.is_some() {
            break;
        }
    }
    assert!(victim.most_output < 1024, "{}", victim.most_output);
}

#[test]
fn empty_data_without_end_is_no_work_for_the_handler() {
    let mut victim = Victim::new(server_limits());
    victim.takes(&request(1, BIDI));
    let batch = frame(DATA, 0, 1, b"").repeat(100);
    for _ in 0..100 {
        victim.takes(&batch);
        victim.sends();
        assert!(victim.server.wants_read() || victim.closed.is_some());
    }
    assert!(victim.output.len() < 64 * 1024);
}

#[test]
fn a_header_list_beyond_the_limit_reaches_no_handler() {
    let mut victim = Victim::new(server_limits());
    let mut fields = request_block(UNARY as usize);
    let value = "v".repeat(100);
    for _ in 0..400 {
        fields.extend(block(&[("x-many", &value)]));
    }
    let mut pieces = fields.chunks(16_000);
    let mut bytes = frame(HEADERS, END_STREAM, 1, pieces.next().unwrap());
    let rest: Vec<_> = pieces.collect();
    for (index, piece) in rest.iter().enumerate() {
        let flags = if index + 1 == rest.len() {
            END_HEADERS
        } else {
            0
        };
        bytes.extend(frame(CONTINUATION, flags, 1, piece));
    }
    victim.takes(&bytes);
    victim.sends();
    assert_eq!(victim.calls, 0);
    victim.takes(&request(3, UNARY));
    assert!(victim.closed.is_some() || victim.calls == 1);
}

#[test]
fn a_peer_that_does_not_read_why_it_is_cut_off_is_not_read_either() {
    let mut victim = Victim::new(server_limits());
    for number in 0..1000 {
        let stream = 2 * number + 1;
        victim.takes(&[request(stream, UNARY), cancel(stream)].concat());
        victim.reap();
        if victim.server.is_finished() || victim.closed.is_some() {
            break;
        }
    }
    assert!(victim.closed.is_some());
    assert!(
        !victim.server.wants_read(),
        "before it has taken the GOAWAY"
    );
    victim.sends();
    assert!(victim.server.wants_read(), "while it gets time to leave");
}
