//! A client and a server connection, joined in memory: no socket, no clock, no other peer.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod abuse;
mod arrivals;
mod calls;
mod credit;
mod fuzz;
mod keepalive;
mod loss;
mod violations;

use bascule_wire::client::{ClientConnection, ClientEvent, ClientLimits, Outcome, Start};
use bascule_wire::grpc;
use bascule_wire::server::{ServerConfig, ServerConnection, ServerEvent, ServerLimits};
use bascule_wire::stats::CallTable;
use bytes::Bytes;
use http::HeaderMap;
use proptest::prelude::ProptestConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Replies with the request, metadata and all.
const UNARY: u32 = 0;
/// Replies with three messages.
const SERVER_STREAM: u32 = 1;
/// Replies with all requests in one message.
const CLIENT_STREAM: u32 = 2;
/// Replies to each request as it comes.
const BIDI: u32 = 3;
/// Fails.
const FAIL: u32 = 4;

const METHODS: [(&str, bool); 5] = [
    ("/t.T/Unary", true),
    ("/t.T/ServerStream", true),
    ("/t.T/ClientStream", false),
    ("/t.T/Bidi", false),
    ("/t.T/Fail", true),
];

/// As many cases, unless `FUZZ_CASES` asks for more. Not `PROPTEST_CASES`, which
/// holds for slower properties as well.
fn cases(least: u32) -> ProptestConfig {
    let asked = std::env::var("FUZZ_CASES").ok();
    let asked = asked.and_then(|cases| cases.parse().ok()).unwrap_or(0);
    ProptestConfig::with_cases(least.max(asked))
}

fn table() -> Arc<CallTable> {
    let table = CallTable::default();
    for (index, (path, unary)) in (0..).zip(METHODS) {
        assert_eq!(table.register(path, unary), Some(index));
    }
    Arc::new(table)
}

fn server_limits() -> ServerLimits {
    ServerLimits::default()
}

/// Both ends and the bytes between them. Nothing moves by itself.
struct Pair {
    client: ClientConnection,
    server: ServerConnection,
    now: Duration,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

fn size_is_even(data: &[u8]) -> bool {
    data.len().is_multiple_of(2)
}

impl Pair {
    fn new(client: ClientLimits, server: ServerLimits) -> Self {
        let now = Duration::from_secs(100);
        let config = ServerConfig {
            limits: server,
            grpc: Some(table()),
            ..ServerConfig::default()
        };
        Self {
            client: ClientConnection::new(table(), client, false, "test:1", "pair", now).unwrap(),
            server: ServerConnection::new(Arc::new(config), now),
            now,
            to_server: Vec::new(),
            to_client: Vec::new(),
        }
    }

    /// Moves what the machines have to say onto the wire.
    fn collect(&mut self) {
        while self
            .client
            .drain_output(|data| self.to_server.extend_from_slice(data))
            .is_some()
        {}
        while self
            .server
            .drain_output(|data| self.to_client.extend_from_slice(data))
            .is_some()
        {}
    }

    fn deliver_to_server(&mut self, size: usize) {
        let data: Vec<u8> = self
            .to_server
            .drain(..size.min(self.to_server.len()))
            .collect();
        // Either way of giving it is the same to who reads it, also when they alternate.
        if size_is_even(&data) {
            self.server.handle_bytes(data.into(), self.now);
        } else {
            self.server.handle_input(&data, self.now);
        }
    }

    fn deliver_to_client(&mut self, size: usize) {
        let data: Vec<u8> = self
            .to_client
            .drain(..size.min(self.to_client.len()))
            .collect();
        if size_is_even(&data) {
            self.client.handle_bytes(data.into(), self.now);
        } else {
            self.client.handle_input(&data, self.now);
        }
    }

    fn start(&mut self, method: u32, request: Option<&[u8]>, unary_reply: bool) -> u32 {
        self.try_start(method, request, unary_reply)
            .expect("the connection takes calls")
    }

    fn try_start(&mut self, method: u32, request: Option<&[u8]>, unary_reply: bool) -> Option<u32> {
        let start = Start {
            method,
            metadata: HeaderMap::new(),
            deadline: None,
            request: request.map(|message| grpc::frame(message).into()),
            unary_reply,
        };
        self.client.start(start, self.now)
    }
}

/// What each call saw, in its own order: how calls interleave depends on how
/// the bytes arrive, what one call sees does not.
type Log = BTreeMap<u32, Vec<String>>;

/// A server application that reacts to events alone.
#[derive(Default)]
struct Application {
    log: Log,
    methods: BTreeMap<u32, u32>,
    collected: BTreeMap<u32, Vec<u8>>,
    running: BTreeSet<u32>,
    most_running: usize,
    closed: usize,
}

impl Application {
    fn handle(&mut self, server: &mut ServerConnection, event: ServerEvent, now: Duration) {
        match event {
            ServerEvent::Call {
                stream,
                method,
                headers,
                timeout,
                message,
                ..
            } => {
                let metadata = grpc::metadata(&headers);
                self.note(
                    stream,
                    format!("call {method} {metadata:?} {timeout:?} {message:?}"),
                );
                self.methods.insert(stream, method);
                assert!(self.running.insert(stream), "one call, one event");
                self.most_running = self.most_running.max(self.running.len());
                if let Some(message) = message {
                    self.answer(server, stream, method, &message, metadata_of(&headers), now);
                }
            }
            ServerEvent::Message { stream, data } => {
                self.note(stream, format!("message {data:?}"));
                server.consume(stream, grpc::PREFIX + data.len());
                if self.methods[&stream] == BIDI {
                    server.send_message(stream, grpc::frame(&data));
                } else {
                    self.collected
                        .entry(stream)
                        .or_default()
                        .extend_from_slice(&data);
                }
            }
            ServerEvent::End { stream } => {
                self.note(stream, "end".to_owned());
                self.running.remove(&stream);
                if self.methods[&stream] == BIDI {
                    server.finish(stream, 0, None, HeaderMap::new(), HeaderMap::new(), now);
                } else {
                    let all = grpc::frame(&self.collected.remove(&stream).unwrap_or_default());
                    server.respond(stream, all, HeaderMap::new(), HeaderMap::new(), now);
                }
            }
            ServerEvent::Reset { stream } => {
                self.note(stream, "reset".to_owned());
                assert!(self.running.remove(&stream), "only what runs is reset");
                server.handler_ended(stream);
            }
            ServerEvent::Closed { .. } => self.closed += 1,
            _ => {}
        }
    }

    fn answer(
        &mut self,
        server: &mut ServerConnection,
        stream: u32,
        method: u32,
        message: &Bytes,
        metadata: HeaderMap,
        now: Duration,
    ) {
        self.running.remove(&stream);
        match method {
            UNARY => {
                let trailing = metadata.clone();
                server.respond(stream, grpc::frame(message), metadata, trailing, now);
            }
            SERVER_STREAM => {
                server.send_headers(stream, metadata.clone());
                for part in [&message[..], b"", &[b'x'; 100]] {
                    server.send_message(stream, grpc::frame(part));
                }
                server.finish(stream, 0, None, HeaderMap::new(), metadata, now);
            }
            _ => {
                let why = Some("no \u{2603} here\n");
                server.finish(stream, 5, why, metadata.clone(), metadata, now);
            }
        }
    }

    fn note(&mut self, stream: u32, what: String) {
        self.log.entry(stream).or_default().push(what);
    }
}

fn metadata_of(headers: &HeaderMap) -> HeaderMap {
    let mut found = HeaderMap::new();
    for (name, value) in grpc::metadata(headers) {
        if name.starts_with("x-") {
            grpc::append_metadata(&mut found, name, &value).unwrap();
        }
    }
    found
}

/// What the client's application sees; it takes messages at once.
#[derive(Default)]
struct Caller {
    log: Log,
    ended: BTreeMap<u32, u32>,
    draining: usize,
    closed: usize,
}

impl Caller {
    fn handle(&mut self, client: &mut ClientConnection, event: ClientEvent) {
        match event {
            ClientEvent::Reply {
                call,
                headers,
                message,
                outcome,
            } => {
                let metadata = grpc::metadata(&headers);
                self.note(
                    call,
                    format!("reply {metadata:?} {message:?} {}", shown(&outcome)),
                );
                self.end(call, &outcome);
            }
            ClientEvent::Headers { call, headers } => {
                self.note(call, format!("headers {:?}", grpc::metadata(&headers)));
            }
            ClientEvent::Message { call, data } => {
                self.note(call, format!("message {data:?}"));
                client.consume(call, grpc::PREFIX + data.len());
            }
            ClientEvent::End { call, outcome } => {
                self.note(call, format!("end {}", shown(&outcome)));
                self.end(call, &outcome);
            }
            ClientEvent::Draining => self.draining += 1,
            ClientEvent::Closed { .. } => self.closed += 1,
            _ => {}
        }
    }

    fn end(&mut self, call: u32, outcome: &Outcome) {
        assert_eq!(
            self.ended.insert(call, outcome.status),
            None,
            "call {call} ended twice"
        );
    }

    fn note(&mut self, call: u32, what: String) {
        assert!(
            !self.ended.contains_key(&call),
            "call {call} goes on after its end: {what}"
        );
        self.log.entry(call).or_default().push(what);
    }
}

fn shown(outcome: &Outcome) -> String {
    let Outcome {
        status,
        message,
        trailers,
        unprocessed,
        ..
    } = outcome;
    format!(
        "{status} {message:?} {:?} {unprocessed}",
        grpc::metadata(trailers)
    )
}

/// Both applications on both machines.
struct Stage {
    pair: Pair,
    application: Application,
    caller: Caller,
}

impl Stage {
    fn new() -> Self {
        Self::with(ClientLimits::default(), server_limits())
    }

    fn with(client: ClientLimits, server: ServerLimits) -> Self {
        Self {
            pair: Pair::new(client, server),
            application: Application::default(),
            caller: Caller::default(),
        }
    }

    fn react(&mut self) {
        while let Some(event) = self.pair.server.poll_event() {
            self.application
                .handle(&mut self.pair.server, event, self.pair.now);
        }
        while let Some(event) = self.pair.client.poll_event() {
            self.caller.handle(&mut self.pair.client, event);
        }
    }

    /// Moves bytes and reacts until nothing moves any more.
    fn settle(&mut self) {
        self.settle_in_chunks(usize::MAX, usize::MAX);
    }

    fn settle_in_chunks(&mut self, to_server: usize, to_client: usize) {
        loop {
            self.react();
            self.pair.collect();
            self.react();
            if self.pair.to_server.is_empty() && self.pair.to_client.is_empty() {
                return;
            }
            if !self.pair.to_server.is_empty() {
                self.pair.deliver_to_server(to_server);
            }
            if !self.pair.to_client.is_empty() {
                self.pair.deliver_to_client(to_client);
            }
        }
    }

    /// Starts one call of each kind, with all their requests.
    fn start_all_kinds(&mut self) -> Vec<u32> {
        let pair = &mut self.pair;
        let mut metadata = HeaderMap::new();
        let text = grpc::MetadataValue::Text("one value".into());
        let binary = grpc::MetadataValue::Binary(vec![0, 1, 0xff]);
        grpc::append_metadata(&mut metadata, "x-text", &text).unwrap();
        grpc::append_metadata(&mut metadata, "x-more-bin", &binary).unwrap();
        let deadline = pair.now + Duration::from_secs(5);
        let mut calls = Vec::new();
        for (method, unary_reply) in [(UNARY, true), (SERVER_STREAM, false), (FAIL, true)] {
            let start = Start {
                method,
                metadata: metadata.clone(),
                deadline: Some(deadline),
                request: Some(grpc::frame(b"request").into()),
                unary_reply,
            };
            calls.push(pair.client.start(start, pair.now).unwrap());
        }
        for (method, unary_reply) in [(CLIENT_STREAM, true), (BIDI, false)] {
            let call = pair.start(method, None, unary_reply);
            for message in [&b"first"[..], b"", &[b'y'; 70]] {
                pair.client.send_message(call, grpc::frame(message));
            }
            pair.client.end(call);
            calls.push(call);
        }
        calls
    }
}
