//! What the client is told when its request breaks a rule after the answer has begun.

use crate::abuse::{block, frame};
use crate::{BIDI, METHODS, Pair, server_limits, table};
use bascule_wire::client::{ClientEvent, ClientLimits};
use bascule_wire::compress::Encoding;
use bascule_wire::grpc;
use bascule_wire::server::{ServerConfig, ServerConnection, ServerEvent, ServerLimits};
use bytes::Bytes;
use http::HeaderMap;
use std::sync::Arc;
use std::time::Duration;

const NOW: Duration = Duration::from_secs(100);
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

fn settle(pair: &mut Pair) {
    loop {
        pair.collect();
        if pair.to_server.is_empty() && pair.to_client.is_empty() {
            return;
        }
        pair.deliver_to_server(usize::MAX);
        pair.deliver_to_client(usize::MAX);
    }
}

/// What a client sees of an answer of so many messages when it then sends
/// `request`: messages, status and message.
fn after(sent: usize, request: &[u8]) -> (usize, u32, String) {
    let limits = ServerLimits {
        max_message: 1000,
        ..server_limits()
    };
    let client = ClientLimits {
        stream_window: 65_535,
        ..ClientLimits::default()
    };
    let mut pair = Pair::new(client, limits);
    let call = pair.start(BIDI, None, false);
    settle(&mut pair);
    let Some(ServerEvent::Call { stream, .. }) = pair.server.poll_event() else {
        panic!("no call");
    };
    pair.server.send_headers(stream, HeaderMap::new());
    for _ in 0..sent {
        pair.server.send_message(stream, grpc::frame(&[1; 1000]));
    }
    settle(&mut pair);
    pair.client
        .send_message(call, Bytes::copy_from_slice(request));
    settle(&mut pair);
    assert!(matches!(
        pair.server.poll_event(),
        Some(ServerEvent::Reset { .. })
    ));
    assert!(pair.server.poll_event().is_none());
    // What a handler does before it knows changes nothing.
    assert!(pair.server.send_message(stream, grpc::frame(b"late")));
    pair.server.consume(stream, 5);
    let (initial, trailing) = (HeaderMap::new(), HeaderMap::new());
    pair.server
        .finish(stream, 0, None, initial, trailing, pair.now);
    let mut received = 0;
    loop {
        settle(&mut pair);
        match pair.client.poll_event() {
            Some(ClientEvent::Message { data, .. }) => {
                received += 1;
                pair.client.consume(call, grpc::PREFIX + data.len());
            }
            Some(ClientEvent::End { outcome, .. }) => {
                assert_eq!((pair.client.in_flight(), pair.server.in_flight()), (0, 0));
                let message = outcome.message.unwrap_or_default();
                return (received, outcome.status, message);
            }
            Some(ClientEvent::Headers { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_status_of_a_violation_follows_what_was_sent() {
    let large = grpc::frame(&[0; 1001]);
    let why = "message of 1001 bytes is larger than the limit of 1000 bytes";
    // The last answer is larger than the window: most of it waits.
    for sent in [0, 5, 300] {
        assert_eq!(after(sent, &large), (sent, 8, why.to_owned()));
    }
    let (_, status, message) = after(5, b"\x01\0\0\0\x01x");
    assert_eq!(status, 13);
    assert!(message.contains("compressed flag"), "{message}");
    let (_, status, message) = after(5, b"\x07\0\0\0\x01x");
    assert_eq!(status, 13);
    assert!(message.contains("flag 7"), "{message}");
}

/// Kinds of the frames of stream 1 in `output`, with the first four bytes of each.
fn frames(mut output: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((head, rest)) = output.split_at_checked(9) {
        let size = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (payload, rest) = rest.split_at(size);
        if head[8] == 1 {
            found.push((head[3], payload[..size.min(4)].to_vec()));
        }
        output = rest;
    }
    found
}

#[test]
fn what_waited_for_a_handler_that_has_answered_disturbs_nothing() {
    let config = ServerConfig {
        limits: ServerLimits {
            stream_window: 16_384,
            ..server_limits()
        },
        grpc: Some(table()),
        ..ServerConfig::default()
    };
    let mut server = ServerConnection::new(Arc::new(config), NOW);
    let head = block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", METHODS[BIDI as usize].0),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("grpc-encoding", "gzip"),
        ("te", "trailers"),
    ]);
    let expanding = Encoding::Gzip.compress(grpc::frame(&vec![0; 40_000]));
    // The first fills the window, the others wait: one is right, one is not.
    let messages = [&expanding[..], &grpc::frame(b"x")[..], b"\x07\0\0\0\0"].concat();
    let input = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]), // nothing may be sent on a stream
        &frame(HEADERS, 4, 1, &head),
        &frame(DATA, 0, 1, &messages),
    ];
    server.handle_input(&input.concat(), NOW);
    let mut events = Vec::new();
    let mut output = Vec::new();
    events.extend(std::iter::from_fn(|| server.poll_event()));
    assert_eq!(events.len(), 2, "{events:?}");
    server.send_message(1, grpc::frame(b"reply"));
    server.finish(1, 0, None, HeaderMap::new(), HeaderMap::new(), NOW);
    while server
        .drain_output(|data| output.extend_from_slice(data))
        .is_some()
    {}
    server.handle_input(&frame(WINDOW_UPDATE, 0, 1, &1000_u32.to_be_bytes()), NOW);
    while server
        .drain_output(|data| output.extend_from_slice(data))
        .is_some()
    {}
    events.clear();
    events.extend(std::iter::from_fn(|| server.poll_event()));
    assert_eq!(events.len(), 0, "{events:?}");
    let shown: Vec<_> = frames(&output);
    let kinds: Vec<_> = shown
        .iter()
        .map(|(kind, _)| *kind)
        .filter(|kind| *kind != WINDOW_UPDATE)
        .collect();
    // All of the answer, then that no more of the request is wanted: NO_ERROR.
    assert_eq!(kinds, [HEADERS, DATA, HEADERS, RST_STREAM]);
    assert_eq!(shown.last().unwrap().1, [0; 4]);
    assert_eq!(server.in_flight(), 0);
}
