//! What holds for any bytes, in any pieces, and for any order of calls.

use crate::{START, connection, output};
use bascule_wire::HttpEvent;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;
use std::time::Duration;

/// Everything that a driver sees when `input` comes in these pieces and each
/// request is answered as soon as it is there.
fn trace(input: &[u8], cuts: &[usize]) -> (Vec<String>, String, bool) {
    let mut connection = connection();
    let (mut events, mut sent, mut start) = (Vec::new(), String::new(), 0);
    for &end in cuts.iter().chain([&input.len()]) {
        connection.handle_input(&input[start..end], START);
        start = end;
        loop {
            sent += &output(&mut connection);
            let Some(event) = connection.poll_event() else {
                break;
            };
            if let HttpEvent::Request(request) = &event {
                let headers = HeaderMap::new();
                let body = Bytes::from_static(b"ok");
                connection.respond(request.stream, StatusCode::OK, &headers, body, START);
            }
            events.push(format!("{event:?}"));
        }
    }
    connection.handle_eof();
    events.extend(std::iter::from_fn(|| connection.poll_event()).map(|event| format!("{event:?}")));
    // Whether an early answer says so depends on what has come before it.
    let sent = sent.replace("connection: close\r\n", "");
    (events, sent, connection.is_finished())
}

const CONVERSATIONS: &[&str] = &[
    "\r\nPOST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
     \r\nGET http://b/2 HTTP/1.1\r\nHost: a\r\n\r\n\
     POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n\
     3;x=\"y\"\r\nabc\r\n0\r\nT: 1\r\n\r\nHEAD /4 HTTP/1.0\r\n\r\n",
    "POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 70\r\n\r\n\
     0123456789012345678901234567890123456789012345678901234567890123456789\
     GET /next HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\n",
    "POST /big HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
     23\r\n01234567890123456789012345678901234\r\n23\r\n01234567890123456789012345678901234\r\n\
     0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nrest",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nx: 1\r\nx: 1\r\nx: 1\r\nx: 1\r\nx: 1\r\nx: 1\r\nx: 1\r\nx: 1\r\n\r\n",
];

#[test]
fn where_the_bytes_are_split_makes_no_difference() {
    for conversation in CONVERSATIONS {
        let input = conversation.as_bytes();
        let whole = trace(input, &[]);
        assert!(!whole.0.is_empty() && whole.2, "{whole:?}");
        for cut in 0..=input.len() {
            assert_eq!(trace(input, &[cut]), whole, "cut at {cut}");
        }
        let each: Vec<_> = (0..input.len()).collect();
        assert_eq!(trace(input, &each), whole, "each byte alone");
    }
}

fn chunking(length: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..=length, 0..12).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts
    })
}

/// Bytes that come close to being requests, and often are none.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop::sample::select(vec![
        "GET ",
        "POST ",
        "/",
        "/a?b",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "Host: a\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 70\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Expect: 100-continue\r\n",
        "x: y\r\n",
        "\r\n",
        "\r",
        "\n",
        "3\r\nabc\r\n",
        "46\r\n",
        "0\r\n\r\n",
        "abc",
        ";a=\"b",
        " ",
        ":",
        "\0",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    ]);
    prop::collection::vec(fragment, 0..24).prop_map(|parts| parts.concat().into_bytes())
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => fragments(),
        1 => prop::collection::vec(any::<u8>(), 0..600),
        2 => (prop::sample::select(CONVERSATIONS), any::<prop::sample::Index>(), any::<u8>())
            .prop_map(|(conversation, index, byte)| {
                let mut bytes = conversation.as_bytes().to_vec();
                let position = index.index(bytes.len());
                bytes[position] = byte;
                bytes
            }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_bytes_in_any_pieces_give_the_same_events(
        (input, cuts) in input().prop_flat_map(|input| {
            let length = input.len();
            (Just(input), chunking(length))
        })
    ) {
        prop_assert_eq!(trace(&input, &cuts), trace(&input, &[]));
    }

    /// Whatever a driver does, in whatever order: no panic, bounded memory,
    /// one event for each request and none after the end.
    #[test]
    fn no_order_of_calls_breaks_the_machine(
        steps in prop::collection::vec((0_u8..8, input(), 0_u64..40), 0..40)
    ) {
        let mut connection = connection();
        let mut now = START;
        let mut open = None;
        for (step, bytes, seconds) in steps {
            match step {
                0..=2 => connection.handle_input(&bytes, now),
                3 => match connection.poll_event() {
                    Some(HttpEvent::Request(request)) => {
                        prop_assert_eq!(open, None);
                        open = Some(request.stream);
                    }
                    Some(HttpEvent::Reset { .. }) => open = None,
                    _ => {}
                },
                4 => if let Some(stream) = open.take() {
                    let body = Bytes::from(bytes);
                    connection.respond(stream, StatusCode::OK, &HeaderMap::new(), body, now);
                },
                5 => while connection.poll_output().is_some() {},
                6 => {
                    now += Duration::from_secs(seconds);
                    connection.handle_timeout(now);
                    prop_assert!(connection.poll_timeout().is_none_or(|due| due > now));
                }
                _ if seconds == 0 => connection.handle_eof(),
                _ if seconds == 1 => connection.shutdown(),
                _ => connection.respond(7, StatusCode::OK, &HeaderMap::new(), Bytes::new(), now),
            }
            if connection.is_finished() {
                prop_assert!(!connection.wants_read());
                prop_assert_eq!(connection.poll_timeout(), None);
                prop_assert!(connection.poll_output().is_none());
            }
        }
    }
}
