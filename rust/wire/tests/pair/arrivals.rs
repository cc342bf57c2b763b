//! Requests that are not whole hold a bounded amount, and each becomes whole in the end.

use crate::abuse::{block, frame, request_block};
use crate::{CLIENT_STREAM, UNARY, table};
use bascule_wire::compress::Encoding;
use bascule_wire::grpc;
use bascule_wire::server::{ServerConfig, ServerConnection, ServerEvent, ServerLimits};
use http::HeaderMap;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NOW: Duration = Duration::from_secs(100);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const STREAMS: usize = 20;
const STREAM_WINDOW: usize = 8 * 1024;
const CONNECTION_WINDOW: usize = 64 * 1024;
const MESSAGE: usize = 48 * 1024;
const LIMIT: usize = 128 * 1024;
const FRAME: usize = 16 * 1024;
/// Smaller frames are rationed; this is not their test.
const LEAST: usize = 256;

struct Upload {
    /// What is left to send, prefix included.
    rest: Vec<u8>,
    window: usize,
}

/// A peer that keeps to flow control, and to nothing else.
struct Peer {
    server: ServerConnection,
    config: Arc<ServerConfig>,
    next: u32,
    window: usize,
    uploads: BTreeMap<u32, Upload>,
    most_held: usize,
    whole: usize,
    refused: usize,
    /// Messages that were not taken, if they are not taken at once.
    untaken: Option<Vec<(u32, usize)>>,
}

impl Peer {
    fn new(limits: ServerLimits) -> Self {
        let config = Arc::new(ServerConfig {
            limits,
            grpc: Some(table()),
            ..ServerConfig::default()
        });
        Self::on(config)
    }

    fn on(config: Arc<ServerConfig>) -> Self {
        let mut peer = Self {
            server: ServerConnection::new(Arc::clone(&config), NOW),
            config,
            next: 1,
            window: 65_535,
            uploads: BTreeMap::new(),
            most_held: 0,
            whole: 0,
            refused: 0,
            untaken: None,
        };
        peer.sends(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat());
        peer.sends(&frame(SETTINGS, ACK, 0, b""));
        peer
    }

    fn sends(&mut self, data: &[u8]) {
        self.server.handle_input(data, NOW);
        self.react();
        let mut output = Vec::new();
        while self
            .server
            .drain_output(|data| output.extend_from_slice(data))
            .is_some()
        {
            self.react();
        }
        self.most_held = self.most_held.max(self.server.incomplete());
        self.reads(&output);
    }

    fn react(&mut self) {
        let none = HeaderMap::new;
        while let Some(event) = self.server.poll_event() {
            match event {
                ServerEvent::Call {
                    stream,
                    message: Some(_),
                    ..
                }
                | ServerEvent::End { stream } => {
                    self.whole += 1;
                    let reply = grpc::frame(b"done");
                    self.server.respond(stream, reply, none(), none(), NOW);
                }
                ServerEvent::Message { stream, data } => {
                    let size = grpc::PREFIX + data.len();
                    match &mut self.untaken {
                        None => self.server.consume(stream, size),
                        Some(untaken) => untaken.push((stream, size)),
                    }
                }
                ServerEvent::Reset { stream } => self.server.handler_ended(stream),
                ServerEvent::Closed { error } => panic!("the connection broke: {error:?}"),
                _ => {}
            }
        }
    }

    fn reads(&mut self, mut output: &[u8]) {
        while let Some((head, rest)) = output.split_at_checked(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let (payload, next) = rest.split_at(length);
            output = next;
            match head[3] {
                WINDOW_UPDATE => {
                    let more = u32::from_be_bytes(payload.try_into().unwrap()) as usize;
                    if stream == 0 {
                        self.window += more;
                    } else if let Some(upload) = self.uploads.get_mut(&stream) {
                        upload.window += more;
                    }
                }
                // Answered before all was sent.
                HEADERS | RST_STREAM => {
                    self.refused += usize::from(self.uploads.remove(&stream).is_some());
                }
                _ => {}
            }
        }
    }

    fn opens(&mut self, method: u32, size: usize) {
        if self.uploads.len() == STREAMS {
            return;
        }
        let stream = self.next;
        self.next += 2;
        let upload = Upload {
            rest: grpc::frame(&vec![7; size]).to_vec(),
            window: self.config.limits.stream_window as usize,
        };
        self.uploads.insert(stream, upload);
        let block = request_block(method as usize);
        self.sends(&frame(HEADERS, END_HEADERS, stream, &block));
    }

    fn nth(&self, n: usize) -> Option<u32> {
        self.uploads
            .keys()
            .nth(n % self.uploads.len().max(1))
            .copied()
    }

    /// Sends as much as asked for and allowed; false if that is nothing.
    fn uploads(&mut self, stream: u32, size: usize, padding: u8) -> bool {
        let Some(upload) = self.uploads.get_mut(&stream) else {
            return false;
        };
        let padded = usize::from(padding > 0) + usize::from(padding);
        let room = upload
            .window
            .min(self.window)
            .min(FRAME)
            .saturating_sub(padded);
        let size = size.min(room).min(upload.rest.len());
        let is_last = size == upload.rest.len();
        if size < LEAST && !is_last {
            return false;
        }
        upload.window -= size + padded;
        self.window -= size + padded;
        let data: Vec<u8> = upload.rest.drain(..size).collect();
        let mut payload = data;
        let mut flags = 0;
        if padding > 0 {
            flags |= PADDED;
            payload.insert(0, padding);
            payload.resize(payload.len() + usize::from(padding), 0);
        }
        if is_last {
            flags |= END_STREAM;
            self.uploads.remove(&stream);
        }
        self.sends(&frame(DATA, flags, stream, &payload));
        true
    }

    fn resets(&mut self, stream: u32) {
        self.uploads.remove(&stream);
        self.sends(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }

    /// The server's application takes a message.
    fn takes(&mut self, n: usize) {
        if let Some(untaken) = &mut self.untaken
            && !untaken.is_empty()
        {
            let (stream, size) = untaken.remove(n % untaken.len());
            self.server.consume(stream, size);
            self.sends(&[]);
        }
    }

    /// Sends in turns, until nothing more may be sent but the last byte of each.
    fn sends_all_but_last(&mut self, padding: u8) {
        let mut any = true;
        while std::mem::take(&mut any) {
            for stream in self.uploads.keys().copied().collect::<Vec<_>>() {
                let size = self.uploads[&stream].rest.len() - 1;
                any |= size > 0 && self.uploads(stream, size, padding);
            }
        }
    }

    /// Sends whatever may be sent, in turns, until nothing may.
    fn sends_all(&mut self) {
        loop {
            let mut any = false;
            for stream in self.uploads.keys().copied().collect::<Vec<_>>() {
                any |= self.uploads(stream, FRAME, 0);
            }
            if !any {
                return;
            }
        }
    }
}

fn limits() -> ServerLimits {
    ServerLimits {
        max_streams: u32::try_from(STREAMS).unwrap(),
        max_message: MESSAGE,
        stream_window: u32::try_from(STREAM_WINDOW).unwrap(),
        connection_window: u32::try_from(CONNECTION_WINDOW).unwrap(),
        max_incomplete: LIMIT,
        ..ServerLimits::default()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Opens(u32, usize),
    Uploads(usize, usize, u8),
    /// All but the last byte: what an attacker does.
    AllButLast(usize),
    Resets(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let which = || 0..STREAMS;
    let method = prop::sample::select(vec![UNARY, UNARY, CLIENT_STREAM]);
    let size = prop_oneof![4 => Just(MESSAGE), 1 => 0..MESSAGE];
    prop_oneof![
        3 => (method, size).prop_map(|(method, size)| Step::Opens(method, size)),
        6 => (which(), 300..FRAME, prop_oneof![2 => Just(0), 1 => any::<u8>()])
            .prop_map(|(n, size, padding)| Step::Uploads(n, size, padding)),
        3 => which().prop_map(Step::AllButLast),
        1 => which().prop_map(Step::Resets),
    ]
}

impl Peer {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Opens(method, size) => self.opens(method, size),
            Step::Uploads(n, size, padding) => {
                if let Some(stream) = self.nth(n) {
                    self.uploads(stream, size, padding);
                }
            }
            Step::AllButLast(n) => {
                if let Some(stream) = self.nth(n) {
                    while let Some(upload) = self.uploads.get(&stream)
                        && upload.rest.len() > LEAST
                        && self.uploads(stream, upload.rest.len() - 1, 0)
                    {}
                }
            }
            Step::Resets(n) => {
                if let Some(stream) = self.nth(n) {
                    self.resets(stream);
                }
            }
        }
        // Each stream may send its window unasked.
        let bound = self.config.limits.max_incomplete + STREAMS * STREAM_WINDOW;
        let held = self.most_held;
        assert!(held <= bound, "{held} bytes are held, {bound} at most");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_is_bounded_and_becomes_whole(
        steps in prop::collection::vec(step(), 0..200)
    ) {
        let mut peer = Peer::new(limits());
        for step in &steps {
            peer.apply(step);
        }
        peer.sends_all();
        prop_assert!(peer.uploads.is_empty(), "{} wait for ever", peer.uploads.len());
        prop_assert_eq!(peer.refused, 0);
        prop_assert_eq!(peer.server.incomplete(), 0);
        prop_assert_eq!(peer.config.incomplete.load(Ordering::Relaxed), 0);
        // Nothing is lost of the connection's window, and nothing left over.
        // h2 announces credit once it is half of what is left.
        prop_assert!(
            (CONNECTION_WINDOW / 3..=CONNECTION_WINDOW).contains(&peer.window),
            "{} bytes of window",
            peer.window
        );
    }
}

/// Opens all streams and sends, in this order, as much as is ever allowed but the last byte.
fn hoards(peer: &mut Peer, order: &[usize]) {
    for _ in 0..STREAMS {
        peer.opens(UNARY, MESSAGE);
    }
    for _ in 0..20 {
        for &n in order {
            peer.apply(&Step::AllButLast(n));
        }
    }
}

#[test]
fn a_peer_that_never_ends_its_requests_holds_a_bounded_amount() {
    let mut order: Vec<usize> = (0..STREAMS).collect();
    let mut forwards = Peer::new(limits());
    hoards(&mut forwards, &order);
    let mut backwards = Peer::new(limits());
    order.reverse();
    hoards(&mut backwards, &order);
    for peer in [&mut forwards, &mut backwards] {
        assert!(peer.most_held > LIMIT / 2, "the limit was not come to");
        assert!(peer.most_held < STREAMS * MESSAGE / 2);
        peer.sends_all();
        assert_eq!((peer.whole, peer.server.incomplete()), (STREAMS, 0));
    }
}

#[test]
fn nobody_waits_below_the_limit() {
    let mut peer = Peer::new(ServerLimits {
        max_incomplete: 2 * STREAMS * MESSAGE,
        ..limits()
    });
    hoards(&mut peer, &(0..STREAMS).collect::<Vec<_>>());
    assert!(peer.most_held > STREAMS * (MESSAGE - LEAST));
}

#[test]
fn a_whole_request_that_is_not_ended_counts() {
    let mut peer = Peer::new(limits());
    for _ in 0..3 {
        peer.opens(UNARY, MESSAGE);
        let stream = peer.next - 2;
        let upload = peer.uploads.get_mut(&stream).unwrap();
        // One byte more than the message, that never comes.
        upload.rest.push(0);
        while peer
            .uploads
            .get(&stream)
            .is_some_and(|upload| upload.rest.len() > 1)
            && peer.uploads(stream, FRAME.min(peer.uploads[&stream].rest.len() - 1), 0)
        {}
    }
    assert!(peer.server.incomplete() >= MESSAGE);
    assert_eq!(peer.whole, 0);
}

#[test]
fn what_all_connections_hold_is_bounded_and_the_next_large_call_is_refused() {
    let limits = ServerLimits {
        max_incomplete_of_all: 3 * MESSAGE,
        ..limits()
    };
    let mut first = Peer::new(limits);
    let mut others: Vec<Peer> = (0..10)
        .map(|_| Peer::on(Arc::clone(&first.config)))
        .collect();
    for peer in &mut others {
        peer.opens(UNARY, MESSAGE);
        peer.apply(&Step::AllButLast(0));
    }
    let held = first.config.incomplete.load(Ordering::Relaxed);
    assert!(held <= 3 * MESSAGE + 10 * FRAME, "{held}");
    let refused: usize = others.iter().map(|peer| peer.refused).sum();
    assert_eq!(refused, 10 - 3, "all but those that had room");
    // Small calls go on, and large ones do when there is room.
    first.opens(UNARY, STREAM_WINDOW / 2);
    first.sends_all();
    assert_eq!(first.whole, 1);
    drop(others);
    assert_eq!(first.config.incomplete.load(Ordering::Relaxed), 0);
    first.opens(UNARY, MESSAGE);
    first.sends_all();
    assert_eq!((first.whole, first.refused), (2, 0));
}

#[test]
fn a_compressed_request_is_held_as_it_came() {
    let mut peer = Peer::new(ServerLimits {
        max_message: 1 << 20,
        ..limits()
    });
    let mut fields = request_block(UNARY as usize);
    fields.extend(block(&[("grpc-encoding", "gzip")]));
    peer.sends(&frame(HEADERS, END_HEADERS, 1, &fields));
    let packed = Encoding::Gzip.compress(grpc::frame(&vec![0; 1 << 20]));
    assert!(packed.len() < 4096);
    peer.sends(&frame(DATA, 0, 1, &packed));
    assert_eq!(peer.server.incomplete(), packed.len());
    peer.sends(&frame(DATA, END_STREAM, 1, b""));
    assert_eq!((peer.whole, peer.server.incomplete()), (1, 0));

    // A second message is refused before anything is decompressed.
    peer.uploads.insert(
        3,
        Upload {
            rest: Vec::new(),
            window: 0,
        },
    );
    peer.sends(&frame(HEADERS, END_HEADERS, 3, &fields));
    peer.sends(&frame(DATA, 0, 3, &[&packed[..], &packed].concat()));
    assert_eq!((peer.refused, peer.server.incomplete()), (1, 0));
}

#[test]
fn the_oldest_goes_on_however_low_the_limit() {
    let mut peer = Peer::new(ServerLimits {
        max_incomplete: STREAM_WINDOW,
        ..limits()
    });
    for _ in 0..STREAMS {
        peer.opens(UNARY, MESSAGE);
    }
    peer.sends_all();
    assert_eq!((peer.whole, peer.server.incomplete()), (STREAMS, 0));
    assert!(peer.most_held <= MESSAGE + STREAMS * STREAM_WINDOW);
}

/// What has padding (RFC 9113, 6.1), taken by an application that takes its time.
#[derive(Clone, Debug)]
enum Padded {
    Opens(u32, usize),
    Uploads(usize, usize, u8),
    Takes(usize),
    Resets(usize),
}

fn padded() -> impl Strategy<Value = Padded> {
    let which = || 0..STREAMS;
    let method = prop::sample::select(vec![UNARY, CLIENT_STREAM, CLIENT_STREAM]);
    prop_oneof![
        2 => (method, 0..STREAM_WINDOW).prop_map(|(method, size)| Padded::Opens(method, size)),
        5 => (which(), 300..FRAME, any::<u8>())
            .prop_map(|(n, size, padding)| Padded::Uploads(n, size, padding)),
        2 => which().prop_map(Padded::Takes),
        1 => which().prop_map(Padded::Resets),
    ]
}

proptest! {
    #[test]
    fn credit_is_conserved_over_padding(
        steps in prop::collection::vec(padded(), 0..100),
        padding in 1_u8..,
    ) {
        let mut peer = Peer::new(limits());
        peer.untaken = Some(Vec::new());
        for step in &steps {
            match *step {
                Padded::Opens(method, size) => peer.opens(method, size),
                Padded::Uploads(n, size, padding) => {
                    if let Some(stream) = peer.nth(n) {
                        peer.uploads(stream, size, padding);
                    }
                }
                Padded::Takes(n) => peer.takes(n),
                Padded::Resets(n) => {
                    if let Some(stream) = peer.nth(n) {
                        peer.resets(stream);
                    }
                }
            }
        }
        for stream in peer.uploads.keys().copied().collect::<Vec<_>>() {
            peer.resets(stream);
        }
        // h2 announces credit in lots: filling what is announced brings out the
        // rest. The first time by padded frames, whose padding comes back at once.
        for padding in [padding, 0] {
            while peer.untaken.as_ref().is_some_and(|untaken| !untaken.is_empty()) {
                peer.takes(0);
            }
            for _ in 0..CONNECTION_WINDOW / STREAM_WINDOW {
                peer.opens(CLIENT_STREAM, 0);
                let upload = peer.uploads.get_mut(&(peer.next - 2)).unwrap();
                let piece = grpc::frame(&[7; 1024 - grpc::PREFIX]);
                // One byte is left, so that the stream does not end.
                upload.rest = [piece.repeat(STREAM_WINDOW / 1024), vec![0]].concat();
            }
            peer.sends_all_but_last(padding);
            let left: usize = peer.uploads.values().map(|upload| upload.rest.len() - 1).sum();
            if padding == 0 {
                prop_assert_eq!((left, peer.window), (0, 0));
            }
            for stream in peer.uploads.keys().copied().collect::<Vec<_>>() {
                peer.resets(stream);
            }
        }
    }
}
