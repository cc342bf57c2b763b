//! Frames in any order, right and wrong, in any pieces: no panic, each call
//! ends once, and the connection ends when the peer does.

use crate::abuse::{frame, request_block};
use crate::{Application, BIDI, CLIENT_STREAM, Caller, Pair, SERVER_STREAM, UNARY, server_limits};
use bascule_wire::client::ClientLimits;
use bascule_wire::grpc;
use proptest::prelude::*;
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0_usize..5).prop_map(request_block),
        3 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|data| grpc::frame(&data).to_vec()),
        1 => Just(answer_block()),
        1 => prop::sample::select(vec![vec![0x88], vec![0; 4], vec![0; 8], vec![0, 0, 0, 8]]),
        2 => (0_u16..8, any::<u32>()).prop_map(|(name, value)| {
            [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
        }),
        2 => prop::collection::vec(any::<u8>(), 0..60),
    ]
}

/// `:status: 200` and the rest of an answer's head.
fn answer_block() -> Vec<u8> {
    let mut block = vec![0x88];
    for (name, value) in [("content-type", "application/grpc"), ("grpc-status", "0")] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![4 => 0_u8..2, 4 => 0_u8..10, 1 => any::<u8>()];
    let flags = prop_oneof![4 => prop::sample::select(vec![0_u8, 1, 4, 5]), 1 => any::<u8>()];
    let stream = prop_oneof![6 => (0_u32..6).prop_map(|n| 2 * n + 1), 1 => 0_u32..12];
    (kind, flags, stream, payload())
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
}

fn input() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let settings = Just(frame(4, 0, 0, b""));
    let frames = prop::collection::vec(any_frame(), 0..30).prop_map(|frames| frames.concat());
    (settings, frames, 1_usize..200)
        .prop_map(|(settings, frames, size)| ([settings, frames].concat(), size))
}

proptest! {
    #![proptest_config(crate::cases(1500))]

    #[test]
    fn a_server_survives_any_frames((bytes, size) in input(), seconds in 0_u64..30) {
        let mut pair = Pair::new(ClientLimits::default(), server_limits());
        let mut application = Application::default();
        pair.server.handle_input(PREFACE, pair.now);
        for piece in bytes.chunks(size) {
            pair.server.handle_input(piece, pair.now);
            while let Some(event) = pair.server.poll_event() {
                application.handle(&mut pair.server, event, pair.now);
            }
            while pair.server.drain_output(|_| {}).is_some() {}
        }
        pair.now += Duration::from_secs(seconds);
        pair.server.handle_timeout(pair.now);
        pair.server.handle_eof(pair.now);
        while let Some(event) = pair.server.poll_event() {
            application.handle(&mut pair.server, event, pair.now);
        }
        while pair.server.drain_output(|_| {}).is_some() {}
        prop_assert!(pair.server.is_finished());
        prop_assert_eq!(application.closed, 1);
        prop_assert!(application.running.is_empty());
        prop_assert_eq!(pair.server.in_flight(), 0);
    }

    #[test]
    fn a_client_survives_any_frames((bytes, size) in input()) {
        let mut pair = Pair::new(ClientLimits::default(), server_limits());
        let mut caller = Caller::default();
        let mut calls = Vec::new();
        for (method, unary_reply) in [(UNARY, true), (SERVER_STREAM, false), (CLIENT_STREAM, true), (BIDI, false)] {
            let request = (method < CLIENT_STREAM).then_some(&b"x"[..]);
            calls.push(pair.start(method, request, unary_reply));
        }
        for piece in bytes.chunks(size) {
            while pair.client.drain_output(|_| {}).is_some() {}
            pair.client.handle_input(piece, pair.now);
            while let Some(event) = pair.client.poll_event() {
                caller.handle(&mut pair.client, event);
            }
        }
        pair.client.handle_eof(pair.now);
        while let Some(event) = pair.client.poll_event() {
            caller.handle(&mut pair.client, event);
        }
        while pair.client.drain_output(|_| {}).is_some() {}
        prop_assert!(pair.client.is_finished());
        prop_assert_eq!(caller.closed, 1);
        prop_assert_eq!(caller.ended.len(), calls.len());
        prop_assert_eq!(pair.client.in_flight(), 0);
    }
}
