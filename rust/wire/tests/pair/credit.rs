//! Whatever happens to calls, no flow-control credit is lost.

use crate::{BIDI, CLIENT_STREAM, Pair, SERVER_STREAM, UNARY, server_limits};
use bascule_wire::client::{ClientEvent, ClientLimits};
use bascule_wire::grpc;
use bascule_wire::server::{ServerEvent, ServerLimits};
use h2::Reason;
use http::HeaderMap;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Small windows, so that little traffic fills them: four streams fill a connection.
const STREAM_WINDOW: usize = 32 * 1024;
const CONNECTION_WINDOW: usize = 4 * STREAM_WINDOW;

/// A framed message of a size that divides the windows and the frames.
const PIECE: usize = 1024;

#[derive(Clone, Debug)]
enum Step {
    Start(u32),
    ClientSends(usize, usize),
    ClientEnds(usize),
    ClientTakes(usize),
    ClientCancels(usize),
    ServerSends(usize, usize),
    ServerTakes(usize),
    ServerFinishes(usize, u32),
    ServerResets(usize),
    /// GOAWAY: at first of no stream in particular, then of the last one that came.
    ServerLeaves,
    ToServer(usize),
    ToClient(usize),
}

fn step() -> impl Strategy<Value = Step> {
    use Step::{
        ClientCancels, ClientEnds, ClientSends, ClientTakes, ServerFinishes, ServerResets,
        ServerSends, ServerTakes, Start, ToClient, ToServer,
    };
    let which = || 0_usize..8;
    let size = || prop_oneof![0_usize..3000, 0_usize..50_000];
    let bytes = || prop_oneof![0_usize..200, 0_usize..20_000, Just(usize::MAX)];
    let method = prop::sample::select(vec![UNARY, SERVER_STREAM, CLIENT_STREAM, BIDI, BIDI]);
    prop_oneof![
        3 => method.prop_map(Start),
        4 => (which(), size()).prop_map(|(call, size)| ClientSends(call, size)),
        1 => which().prop_map(ClientEnds),
        2 => which().prop_map(ClientTakes),
        1 => which().prop_map(ClientCancels),
        4 => (which(), size()).prop_map(|(call, size)| ServerSends(call, size)),
        2 => which().prop_map(ServerTakes),
        1 => (which(), prop::sample::select(vec![0, 5])).prop_map(|(c, s)| ServerFinishes(c, s)),
        1 => which().prop_map(ServerResets),
        6 => bytes().prop_map(ToServer),
        6 => bytes().prop_map(ToClient),
    ]
}

/// Two applications without a will of their own: they only remember what they
/// have not taken yet.
struct Hands {
    pair: Pair,
    /// Open calls of the client, with the sizes of messages not taken.
    calls: BTreeMap<u32, Vec<usize>>,
    /// The same for the server, and the streams whose handler runs.
    streams: BTreeMap<u32, Vec<usize>>,
    unary: BTreeSet<u32>,
    /// The first calls, that no step touches: what is left to measure by after a GOAWAY.
    probes: usize,
    from_client: usize,
    from_server: usize,
}

impl Hands {
    fn new() -> Self {
        let stream_window = u32::try_from(STREAM_WINDOW).unwrap();
        let connection_window = u32::try_from(CONNECTION_WINDOW).unwrap();
        let client = ClientLimits {
            stream_window,
            connection_window,
            ..ClientLimits::default()
        };
        let server = ServerLimits {
            stream_window,
            connection_window,
            ..server_limits()
        };
        Self {
            pair: Pair::new(client, server),
            calls: BTreeMap::new(),
            streams: BTreeMap::new(),
            unary: BTreeSet::new(),
            probes: 0,
            from_client: 0,
            from_server: 0,
        }
    }

    fn note_events(&mut self) {
        while let Some(event) = self.pair.server.poll_event() {
            match event {
                ServerEvent::Call {
                    stream, message, ..
                } => {
                    if message.is_some() {
                        self.unary.insert(stream);
                    }
                    self.streams.insert(stream, Vec::new());
                }
                ServerEvent::Message { stream, data } => {
                    let size = grpc::PREFIX + data.len();
                    self.from_client += size;
                    self.streams.get_mut(&stream).unwrap().push(size);
                }
                ServerEvent::Reset { stream } => {
                    assert!(self.streams.remove(&stream).is_some());
                    self.pair.server.handler_ended(stream);
                }
                ServerEvent::Closed { error: Some(error) } => {
                    panic!("the connection broke: {error}")
                }
                _ => {}
            }
        }
        while let Some(event) = self.pair.client.poll_event() {
            match event {
                ClientEvent::Message { call, data } => {
                    let size = grpc::PREFIX + data.len();
                    self.from_server += size;
                    self.calls.get_mut(&call).unwrap().push(size);
                }
                ClientEvent::Reply { call, .. } | ClientEvent::End { call, .. } => {
                    // Messages that were not taken before the end never are.
                    assert!(self.calls.remove(&call).is_some());
                }
                ClientEvent::Closed { error: Some(error) } => {
                    panic!("the connection broke: {error}")
                }
                _ => {}
            }
        }
    }

    fn apply(&mut self, step: &Step) {
        let now = self.pair.now;
        let probes = self.probes;
        let nth = |open: &BTreeMap<u32, Vec<usize>>, n: usize| {
            let count = (open.len() - probes).max(1);
            open.keys().nth(probes + n % count).copied()
        };
        match *step {
            Step::Start(method) => {
                let large = vec![1; 20_000];
                let request = (method < CLIENT_STREAM).then_some(&large[..]);
                let unary_reply = matches!(method, UNARY | CLIENT_STREAM);
                if let Some(call) = self.pair.try_start(method, request, unary_reply) {
                    self.calls.insert(call, Vec::new());
                }
            }
            Step::ClientSends(n, size) => {
                if let Some(call) = nth(&self.calls, n) {
                    self.pair
                        .client
                        .send_message(call, grpc::frame(&vec![2; size]));
                }
            }
            Step::ClientEnds(n) => {
                if let Some(call) = nth(&self.calls, n) {
                    self.pair.client.end(call);
                }
            }
            Step::ClientTakes(n) => {
                if let Some(call) = nth(&self.calls, n)
                    && let Some(size) = self.calls.get_mut(&call).and_then(Vec::pop)
                {
                    self.pair.client.consume(call, size);
                }
            }
            Step::ClientCancels(n) => {
                if let Some(call) = nth(&self.calls, n) {
                    self.pair.client.cancel(call, now);
                    self.calls.remove(&call);
                }
            }
            Step::ServerSends(n, size) => {
                if let Some(stream) = nth(&self.streams, n) {
                    self.pair
                        .server
                        .send_message(stream, grpc::frame(&vec![3; size]));
                }
            }
            Step::ServerTakes(n) => {
                if let Some(stream) = nth(&self.streams, n)
                    && let Some(size) = self.streams.get_mut(&stream).and_then(Vec::pop)
                {
                    self.pair.server.consume(stream, size);
                }
            }
            Step::ServerFinishes(n, status) => {
                if let Some(stream) = nth(&self.streams, n) {
                    let none = HeaderMap::new();
                    self.pair
                        .server
                        .finish(stream, status, None, none.clone(), none, now);
                    self.streams.remove(&stream);
                }
            }
            Step::ServerResets(n) => {
                if let Some(stream) = nth(&self.streams, n) {
                    self.pair.server.reset(stream, Reason::INTERNAL_ERROR, now);
                    self.streams.remove(&stream);
                }
            }
            Step::ServerLeaves => self.pair.server.shutdown(),
            Step::ToServer(size) => {
                self.pair.collect();
                self.pair.deliver_to_server(size);
            }
            Step::ToClient(size) => {
                self.pair.collect();
                self.pair.deliver_to_client(size);
            }
        }
        self.note_events();
    }

    fn settle(&mut self) {
        loop {
            self.pair.collect();
            self.note_events();
            if self.pair.to_server.is_empty() && self.pair.to_client.is_empty() {
                return;
            }
            self.pair.deliver_to_server(usize::MAX);
            self.pair.deliver_to_client(usize::MAX);
            self.note_events();
        }
    }

    /// Ends whatever is open.
    fn end_all(&mut self) {
        self.settle();
        while self.calls.len() > self.probes {
            self.apply(&Step::ClientCancels(0));
        }
        self.settle();
        while self.streams.len() > self.probes {
            self.apply(&Step::ServerFinishes(0, 0));
        }
        self.settle();
        assert_eq!(
            (self.pair.client.in_flight(), self.pair.server.in_flight()),
            (self.probes, self.probes)
        );
    }

    /// How much can be sent each way before anything is taken, over fresh calls.
    fn fill(&mut self) -> (usize, usize) {
        (self.from_client, self.from_server) = (0, 0);
        if self.probes == 0 {
            self.start_four();
        }
        let piece = grpc::frame(&[4; PIECE - grpc::PREFIX]);
        for _ in 0..STREAM_WINDOW / PIECE {
            for &call in self.calls.keys() {
                self.pair.client.send_message(call, piece.clone());
            }
            for &stream in self.streams.keys() {
                self.pair.server.send_message(stream, piece.clone());
            }
        }
        self.settle();
        let filled = (self.from_client, self.from_server);
        for (&call, sizes) in &mut self.calls {
            self.pair.client.consume(call, sizes.drain(..).sum());
        }
        for (&stream, sizes) in &mut self.streams {
            self.pair.server.consume(stream, sizes.drain(..).sum());
        }
        self.settle();
        filled
    }

    fn start_four(&mut self) {
        for _ in 0..4 {
            self.apply(&Step::Start(BIDI));
        }
        self.settle();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn credit_is_conserved(steps in prop::collection::vec(step(), 0..60)) {
        let mut hands = Hands::new();
        for step in &steps {
            hands.apply(step);
        }
        // h2 announces credit in lots, so some may be on its way for long. Filling
        // what is announced, and taking it, brings out all the rest.
        hands.end_all();
        hands.fill();
        hands.end_all();
        // Resets are rationed; this is not their test.
        hands.pair.now += Duration::from_secs(60);
        prop_assert_eq!(hands.fill(), (CONNECTION_WINDOW, CONNECTION_WINDOW));
    }

    #[test]
    fn credit_is_conserved_over_a_goaway(
        before in prop::collection::vec(step(), 0..30),
        after in prop::collection::vec(step(), 0..30),
        more_goaways in prop::collection::vec(0_usize..30, 0..3),
    ) {
        let mut hands = Hands::new();
        hands.start_four();
        hands.probes = 4;
        for step in before.iter().chain([&Step::ServerLeaves]) {
            hands.apply(step);
        }
        for (n, step) in after.iter().enumerate() {
            hands.apply(step);
            if more_goaways.contains(&n) {
                hands.apply(&Step::ServerLeaves);
            }
        }
        hands.end_all();
        hands.fill();
        prop_assert_eq!(hands.fill(), (CONNECTION_WINDOW, CONNECTION_WINDOW));
        prop_assert!(hands.pair.client.is_draining());
        hands.probes = 0;
        hands.end_all();
    }
}
