//! The kinds of calls, backpressure, time, and orderly ends.

use crate::{BIDI, CLIENT_STREAM, FAIL, Pair, Stage, UNARY, server_limits};
use bascule_wire::client::{ClientEvent, ClientLimits, Start};
use bascule_wire::grpc;
use bascule_wire::server::{ServerEvent, ServerLimits};
use bytes::Bytes;
use http::HeaderMap;
use std::time::Duration;

#[test]
fn calls_of_all_kinds_carry_messages_metadata_and_status() {
    let mut stage = Stage::new();
    let calls = stage.start_all_kinds();
    stage.settle();
    let log = &stage.caller.log;
    let x = "x".repeat(100);
    let y = "y".repeat(70);
    let metadata = r#"[("x-text", Text("one value")), ("x-more-bin", Binary([0, 1, 255]))]"#;
    let fine = format!("0 None {metadata} false");
    assert_eq!(
        log[&calls[0]],
        [format!("reply {metadata} Some(b\"request\") {fine}")]
    );
    assert_eq!(
        log[&calls[1]],
        [
            format!("headers {metadata}"),
            "message b\"request\"".into(),
            "message b\"\"".into(),
            format!("message b\"{x}\""),
            format!("end {fine}"),
        ]
    );
    let text = r#"("x-text", Text("one value"))"#;
    let binary = r#"("x-more-bin", Binary([0, 1, 255]))"#;
    assert_eq!(
        log[&calls[2]],
        [format!(
            "reply [] None 5 Some(\"no \u{2603} here\\n\") [{text}, {text}, {binary}, {binary}] false"
        )]
    );
    assert_eq!(
        log[&calls[3]],
        [format!("reply [] Some(b\"first{y}\") 0 None [] false")]
    );
    assert_eq!(
        log[&calls[4]],
        [
            "headers []".into(),
            "message b\"first\"".into(),
            "message b\"\"".into(),
            format!("message b\"{y}\""),
            "end 0 None [] false".to_owned(),
        ]
    );
    let seen = &stage.application.log[&1][0];
    assert!(
        seen.starts_with("call 0 [(\"user-agent\", Text(\"pair\"))"),
        "{seen}"
    );
    assert!(seen.ends_with("Some(5s) Some(b\"request\")"), "{seen}");
    assert_eq!(stage.pair.client.in_flight(), 0);
    assert_eq!(stage.pair.server.in_flight(), 0);
}

#[test]
fn where_the_bytes_are_split_makes_no_difference() {
    let mut whole = Stage::new();
    whole.start_all_kinds();
    whole.pair.collect();
    let length = whole.pair.to_server.len();
    whole.settle();
    for size in (1..64).chain([100, 1000]) {
        for (to_server, to_client) in [(size, usize::MAX), (usize::MAX, size), (size, size)] {
            let mut stage = Stage::new();
            stage.start_all_kinds();
            stage.settle_in_chunks(to_server, to_client);
            assert_eq!(
                stage.application.log, whole.application.log,
                "pieces of {size}"
            );
            assert_eq!(stage.caller.log, whole.caller.log, "pieces of {size}");
        }
    }
    for cut in 0..=length {
        let mut stage = Stage::new();
        stage.start_all_kinds();
        stage.pair.collect();
        stage.pair.deliver_to_server(cut);
        stage.settle();
        assert_eq!(stage.application.log, whole.application.log, "cut at {cut}");
        assert_eq!(stage.caller.log, whole.caller.log, "cut at {cut}");
    }
    for cut in 0..2000 {
        let mut stage = Stage::new();
        stage.start_all_kinds();
        stage.pair.collect();
        stage.pair.deliver_to_server(usize::MAX);
        stage.react();
        stage.pair.collect();
        stage.pair.deliver_to_client(cut);
        let was_last = stage.pair.to_client.is_empty();
        stage.settle();
        assert_eq!(stage.caller.log, whole.caller.log, "cut at {cut}");
        if was_last {
            return;
        }
    }
    panic!("the answer is short");
}

/// Moves bytes until nothing moves, and drops all events but those `keep` takes.
fn exchange(
    pair: &mut Pair,
    mut on_server: impl FnMut(ServerEvent),
    mut on_client: impl FnMut(ClientEvent),
) {
    loop {
        pair.collect();
        while let Some(event) = pair.server.poll_event() {
            on_server(event);
        }
        while let Some(event) = pair.client.poll_event() {
            on_client(event);
        }
        pair.collect();
        if pair.to_server.is_empty() && pair.to_client.is_empty() {
            return;
        }
        pair.deliver_to_server(usize::MAX);
        pair.deliver_to_client(usize::MAX);
    }
}

#[test]
fn a_server_that_does_not_read_stops_the_client() {
    let mut pair = Pair::new(ClientLimits::default(), server_limits());
    let call = pair.start(BIDI, None, false);
    let message = grpc::frame(&[7; 10_000]);
    let (mut sent, mut received, mut writable, mut room) = (0, Vec::new(), 0, true);
    loop {
        while room {
            room = pair.client.send_message(call, message.clone());
            sent += message.len();
            assert!(sent < 1 << 20, "the sender is stopped");
        }
        let before = received.len();
        exchange(
            &mut pair,
            |event| {
                if let ServerEvent::Message { stream, data } = event {
                    received.push((stream, grpc::PREFIX + data.len()));
                }
            },
            |event| {
                if let ClientEvent::Writable { .. } = event {
                    writable += 1;
                    room = true;
                }
            },
        );
        if received.len() == before {
            break;
        }
    }
    let window = server_limits().stream_window as usize;
    let held: usize = received.iter().map(|(_, size)| size).sum();
    assert!(held <= window && held > window - message.len(), "{held}");
    assert!(sent <= window + 64 * 1024 + message.len(), "{sent}");
    // Taking what came lets the sender go on.
    assert!(!room && writable > 0);
    for (stream, size) in received.drain(..) {
        pair.server.consume(stream, size);
    }
    exchange(
        &mut pair,
        |_| {},
        |event| room |= matches!(event, ClientEvent::Writable { .. }),
    );
    assert!(room);
}

#[test]
fn a_client_that_does_not_read_stops_the_server() {
    let mut pair = Pair::new(ClientLimits::default(), server_limits());
    pair.start(BIDI, None, false);
    let mut stream = 0;
    exchange(
        &mut pair,
        |event| {
            if let ServerEvent::Call { stream: id, .. } = event {
                stream = id;
            }
        },
        |_| {},
    );
    let message = grpc::frame(&[7; 10_000]);
    let (mut sent, mut held, mut room) = (0, 0, true);
    let mut calls = Vec::new();
    loop {
        while room {
            room = pair.server.send_message(stream, message.clone());
            sent += message.len();
            assert!(sent < 1 << 20, "the sender is stopped");
        }
        let before = held;
        exchange(
            &mut pair,
            |event| room |= matches!(event, ServerEvent::Writable { .. }),
            |event| {
                if let ClientEvent::Message { call, data } = event {
                    held += grpc::PREFIX + data.len();
                    calls.push((call, grpc::PREFIX + data.len()));
                }
            },
        );
        if held == before {
            break;
        }
    }
    let window = ClientLimits::default().stream_window as usize;
    assert!(held <= window && held > window - message.len(), "{held}");
    for (call, size) in calls {
        pair.client.consume(call, size);
    }
    exchange(
        &mut pair,
        |event| room |= matches!(event, ServerEvent::Writable { .. }),
        |_| {},
    );
    assert!(room);
}

#[test]
fn a_message_apart_from_its_frame_arrives_as_one() {
    for size in [0, 1, 5, 16_384, 65_531, 65_536, 300_001, 3_000_000] {
        let mut pair = Pair::new(ClientLimits::default(), server_limits());
        let call = pair.start(BIDI, None, false);
        let payload: Bytes = (0..=250).cycle().take(size).collect();
        for _ in 0..2 {
            let framed = grpc::Framed::apart(payload.clone());
            pair.client.send_message(call, framed);
        }
        pair.client.end(call);
        let (mut came, mut stream) = (Vec::new(), 0);
        for _ in 0..3 {
            let before = came.len();
            exchange(
                &mut pair,
                |event| match event {
                    ServerEvent::Call { stream: id, .. } => stream = id,
                    ServerEvent::Message { data, .. } => came.push(data),
                    _ => {}
                },
                |_| {},
            );
            for message in &came[before..] {
                pair.server.consume(stream, grpc::PREFIX + message.len());
            }
        }
        assert!(came == [&payload, &payload], "{size} bytes");
    }
}

#[test]
fn many_large_messages_lose_no_credit() {
    for message in [100, 16_384, 100_000, 300_000, 1_500_000] {
        let mut stage = Stage::new();
        let call = stage.pair.start(BIDI, None, false);
        let payload = vec![1; message];
        for _ in 0..(8_000_000 / message).min(200) {
            stage.pair.client.send_message(call, grpc::frame(&payload));
            stage.settle();
        }
        stage.pair.client.end(call);
        stage.settle();
        assert_eq!(
            stage.caller.ended.get(&call),
            Some(&0),
            "messages of {message} bytes"
        );
    }
}

#[test]
fn a_message_over_the_limit_ends_its_call_only() {
    let limits = ServerLimits {
        max_message: 1000,
        ..server_limits()
    };
    let mut stage = Stage::with(
        ClientLimits {
            max_message: 500,
            ..ClientLimits::default()
        },
        limits,
    );
    let too_large = stage.pair.start(UNARY, Some(&[0; 1001]), true);
    let streamed = stage.pair.start(BIDI, None, false);
    stage
        .pair
        .client
        .send_message(streamed, grpc::frame(&[0; 1001]));
    let reply_too_large = stage.pair.start(UNARY, Some(&[0; 501]), true);
    let fits = stage.pair.start(UNARY, Some(&[0; 500]), true);
    stage.settle();
    let ended = &stage.caller.ended;
    assert_eq!(ended[&too_large], 8, "RESOURCE_EXHAUSTED");
    assert_eq!(ended[&streamed], 8);
    assert_eq!(ended[&reply_too_large], 8);
    assert_eq!(ended[&fits], 0);
    assert_eq!(stage.application.running.len(), 0);
    assert_eq!(stage.pair.server.in_flight(), 0);
    assert_eq!(stage.pair.client.in_flight(), 0);
}

#[test]
fn a_deadline_ends_the_call_and_resets_the_handler() {
    let mut stage = Stage::new();
    let start = Start {
        method: CLIENT_STREAM,
        metadata: HeaderMap::new(),
        deadline: Some(stage.pair.now + Duration::from_millis(250)),
        request: None,
        unary_reply: true,
    };
    let call = stage.pair.client.start(start, stage.pair.now).unwrap();
    stage.settle();
    assert_eq!(stage.application.running.len(), 1);
    let due = stage.pair.client.poll_timeout().unwrap();
    assert_eq!(due, stage.pair.now + Duration::from_millis(250));
    stage.pair.client.handle_timeout(due);
    stage.settle();
    assert_eq!(stage.caller.ended[&call], 4, "DEADLINE_EXCEEDED");
    assert_eq!(stage.application.running.len(), 0, "the handler was reset");
    assert_eq!(stage.pair.client.poll_timeout(), None);
}

#[test]
fn a_cancelled_call_is_silent_here_and_reset_there() {
    let mut stage = Stage::new();
    let call = stage.pair.start(BIDI, None, false);
    stage.settle();
    stage.pair.client.cancel(call, stage.pair.now);
    stage.settle();
    assert!(stage.caller.ended.is_empty());
    assert_eq!(stage.application.log[&1].last().unwrap(), "reset");
    assert_eq!(stage.pair.server.in_flight(), 0);
}

/// Deadlines pass on both sides at once: the answer is on its way when the call is cancelled.
#[test]
fn answers_that_cross_a_cancellation_do_no_harm() {
    let mut stage = Stage::new();
    for _ in 0..50 {
        let calls: Vec<_> = (0..100)
            .map(|_| stage.pair.start(FAIL, Some(b"x"), true))
            .collect();
        stage.pair.collect();
        stage.pair.deliver_to_server(usize::MAX);
        stage.react();
        stage.pair.collect();
        for call in calls {
            stage.pair.client.cancel(call, stage.pair.now);
        }
        stage.settle();
    }
    assert_eq!((stage.caller.closed, stage.application.closed), (0, 0));
    let last = stage.pair.start(UNARY, Some(b"x"), true);
    stage.settle();
    assert_eq!(stage.caller.ended[&last], 0);
}

/// The other way round: requests go on after the server has answered them.
#[test]
fn requests_that_cross_an_early_answer_do_no_harm() {
    let mut pair = Pair::new(ClientLimits::default(), server_limits());
    for _ in 0..50 {
        let calls: Vec<_> = (0..100)
            .map(|_| pair.start(CLIENT_STREAM, None, true))
            .collect();
        pair.collect();
        pair.deliver_to_server(usize::MAX);
        while let Some(event) = pair.server.poll_event() {
            if let ServerEvent::Call { stream, .. } = event {
                let none = HeaderMap::new();
                pair.server
                    .finish(stream, 7, None, none.clone(), none, pair.now);
            }
        }
        for call in calls {
            pair.client
                .send_message(call, grpc::frame(b"still sending"));
            pair.client.end(call);
        }
        let closed = |closed: Option<String>| assert!(closed.is_none(), "{closed:?}");
        exchange(
            &mut pair,
            |event| {
                if let ServerEvent::Closed { error } = event {
                    closed(error);
                }
            },
            |event| {
                if let ClientEvent::Closed { error } = event {
                    closed(error);
                }
            },
        );
    }
    assert_eq!((pair.client.in_flight(), pair.server.in_flight()), (0, 0));
}

/// A caller loses interest while small messages are on their way.
#[test]
fn messages_that_cross_a_cancellation_do_no_harm() {
    let mut pair = Pair::new(ClientLimits::default(), server_limits());
    for _ in 0..40 {
        let calls: Vec<_> = (0..50).map(|_| pair.start(BIDI, None, false)).collect();
        pair.collect();
        pair.deliver_to_server(usize::MAX);
        while let Some(event) = pair.server.poll_event() {
            if let ServerEvent::Call { stream, .. } = event {
                for _ in 0..5 {
                    pair.server.send_message(stream, grpc::frame(b"tick"));
                }
            }
        }
        pair.collect();
        for call in calls {
            pair.client.cancel(call, pair.now);
        }
        let mut reset = Vec::new();
        exchange(
            &mut pair,
            |event| match event {
                ServerEvent::Reset { stream } => reset.push(stream),
                other => assert!(!matches!(other, ServerEvent::Closed { .. }), "{other:?}"),
            },
            |event| assert!(!matches!(event, ClientEvent::Closed { .. }), "{event:?}"),
        );
        for stream in reset {
            pair.server.handler_ended(stream);
        }
    }
    assert_eq!((pair.client.in_flight(), pair.server.in_flight()), (0, 0));
}

#[test]
fn a_server_that_leaves_finishes_its_calls_first() {
    let mut stage = Stage::new();
    let open = stage.pair.start(BIDI, None, false);
    stage.settle();
    stage.pair.server.shutdown();
    stage.settle();
    assert_eq!(stage.caller.draining, 1);
    assert!(stage.pair.client.is_draining());
    assert_eq!(stage.caller.closed, 0, "a call is open");
    let none = Start {
        method: UNARY,
        metadata: HeaderMap::new(),
        deadline: None,
        request: None,
        unary_reply: true,
    };
    assert_eq!(stage.pair.client.start(none, stage.pair.now), None);
    stage
        .pair
        .client
        .send_message(open, grpc::frame(b"still here"));
    stage.pair.client.end(open);
    stage.settle();
    assert_eq!(stage.caller.ended[&open], 0);
    assert_eq!((stage.application.closed, stage.caller.closed), (1, 1));
    assert!(stage.pair.server.is_finished() && stage.pair.client.is_finished());
}

#[test]
fn a_client_that_leaves_finishes_its_calls_first() {
    let mut stage = Stage::new();
    let open = stage.pair.start(BIDI, None, false);
    stage.settle();
    stage.pair.client.shutdown();
    stage.settle();
    assert_eq!(stage.caller.closed, 0, "a call is open");
    stage.pair.client.end(open);
    stage.settle();
    assert_eq!(stage.caller.ended[&open], 0);
    assert_eq!(stage.caller.closed, 1);
    assert!(stage.pair.client.is_finished());
    stage.pair.server.handle_eof(stage.pair.now);
    stage.settle();
    assert!(stage.pair.server.is_finished());
}

#[test]
fn calls_beyond_the_servers_limit_wait_their_turn() {
    let mut stage = Stage::with(
        ClientLimits {
            max_waiting: 3,
            ..ClientLimits::default()
        },
        ServerLimits {
            max_streams: 2,
            ..server_limits()
        },
    );
    stage.settle();
    let calls: Vec<_> = (0..5)
        .map(|_| stage.pair.start(BIDI, None, false))
        .collect();
    let none = Start {
        method: UNARY,
        metadata: HeaderMap::new(),
        deadline: None,
        request: None,
        unary_reply: true,
    };
    assert_eq!(
        stage.pair.client.start(none, stage.pair.now),
        None,
        "three wait already"
    );
    for &call in &calls {
        stage.pair.client.send_message(call, grpc::frame(b"queued"));
        stage.pair.client.end(call);
    }
    stage.settle();
    assert!(
        calls
            .iter()
            .all(|call| stage.caller.ended.get(call) == Some(&0))
    );
    assert!(stage.application.most_running <= 2);
}

#[test]
fn a_hundred_streams_at_most_are_opened_before_the_server_has_told_its_limit() {
    let mut stage = Stage::new();
    let calls: Vec<_> = (0..150)
        .map(|_| stage.pair.start(UNARY, Some(b"early"), true))
        .collect();
    stage.pair.collect();
    let mut rest = &stage.pair.to_server["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len()..];
    let mut opened = 0;
    while let Some((head, tail)) = rest.split_at_checked(9) {
        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        opened += usize::from(head[3] == 1); // HEADERS
        rest = &tail[size..];
    }
    assert_eq!(opened, 100);
    stage.settle();
    assert!(
        calls
            .iter()
            .all(|call| stage.caller.ended.get(call) == Some(&0))
    );
}

#[test]
fn a_server_that_leaves_before_the_preface_answers_what_is_on_its_way() {
    let mut stage = Stage::new();
    let call = stage.pair.start(UNARY, Some(b"early"), true);
    stage.pair.server.shutdown();
    stage.settle();
    assert_eq!(stage.caller.ended.get(&call), Some(&0));
    assert_eq!(stage.application.closed, 1);
}

#[test]
fn a_server_that_leaves_does_not_wait_long_for_a_preface() {
    let mut stage = Stage::new();
    stage.pair.server.shutdown();
    stage
        .pair
        .server
        .handle_timeout(stage.pair.now + Duration::from_millis(900));
    stage.react();
    assert_eq!(stage.application.closed, 0);
    stage
        .pair
        .server
        .handle_timeout(stage.pair.now + Duration::from_millis(1100));
    stage.react();
    assert_eq!(stage.application.closed, 1);
}
