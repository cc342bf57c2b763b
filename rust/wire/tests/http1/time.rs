//! Time-outs, peers that leave, and orderly ends.

use crate::{START, answer, connection, limits, output, request};
use bascule_wire::{HttpEvent, Problem};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::time::Duration;

#[test]
fn a_slow_head_times_out() {
    let mut connection = connection();
    let later = START + Duration::from_secs(60);
    assert_eq!(
        connection.poll_timeout(),
        Some(START + limits().idle_timeout)
    );
    connection.handle_input(b"G", later);
    let end = later + limits().header_timeout;
    connection.handle_input(b"ET", later + Duration::from_secs(9));
    assert_eq!(
        connection.poll_timeout(),
        Some(end),
        "more bytes buy no more time"
    );
    connection.handle_timeout(later + Duration::from_secs(9));
    assert!(connection.poll_event().is_none());
    connection.handle_timeout(end);
    let refused = request(&mut connection);
    assert_eq!(refused.problem, Some(Problem::Timeout));
    assert!(answer(&mut connection, refused.stream, "slow").contains("connection: close"));
    assert!(connection.is_finished());
}

#[test]
fn a_slow_body_times_out() {
    let mut connection = connection();
    let head = b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx";
    connection.handle_input(head, START);
    let end = START + limits().body_timeout;
    assert_eq!(connection.poll_timeout(), Some(end));
    connection.handle_timeout(end);
    let refused = request(&mut connection);
    assert_eq!(refused.problem, Some(Problem::Timeout));
    assert_eq!(refused.target, "/slow");
    answer(&mut connection, refused.stream, "slow");
    assert!(connection.is_finished());
}

#[test]
fn the_rest_of_a_refused_body_times_out() {
    for answered in [true, false] {
        let mut connection = connection();
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx";
        connection.handle_input(head, START);
        let stream = request(&mut connection).stream;
        if answered {
            answer(&mut connection, stream, "no");
        }
        connection.handle_timeout(START + limits().body_timeout);
        assert!(connection.poll_event().is_none(), "one request, one event");
        if !answered {
            assert!(answer(&mut connection, stream, "no").contains("connection: close"));
            connection.handle_eof();
        }
        assert!(connection.is_finished());
    }
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let mut connection = connection();
    connection.handle_input(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", START);
    assert_eq!(
        connection.poll_timeout(),
        None,
        "the handler has its own deadline"
    );
    let stream = request(&mut connection).stream;
    let later = START + Duration::from_secs(5);
    connection.respond(
        stream,
        StatusCode::OK,
        &HeaderMap::new(),
        Bytes::new(),
        later,
    );
    output(&mut connection);
    let end = later + limits().idle_timeout;
    assert_eq!(connection.poll_timeout(), Some(end));
    connection.handle_timeout(end);
    assert!(connection.is_finished());
    assert!(connection.poll_event().is_none());
}

#[test]
fn a_peer_that_leaves_resets_its_request() {
    let mut connection = connection();
    connection.handle_input(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", START);
    let stream = request(&mut connection).stream;
    connection.handle_eof();
    let event = connection.poll_event();
    assert!(matches!(event, Some(HttpEvent::Reset { stream: reset }) if reset == stream));
    assert!(connection.is_finished());
    assert_eq!(answer(&mut connection, stream, "late"), "");
}

#[test]
fn a_peer_that_leaves_early_is_forgotten() {
    for input in [
        "",
        "GET",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx",
    ] {
        let mut connection = connection();
        connection.handle_input(input.as_bytes(), START);
        connection.handle_eof();
        assert!(connection.poll_event().is_none(), "{input:?}");
        assert!(connection.is_finished(), "{input:?}");
        assert!(!connection.wants_read(), "{input:?}");
    }
}

#[test]
fn shutdown_closes_an_idle_connection_at_once() {
    let mut connection = connection();
    connection.shutdown();
    assert!(connection.is_finished());
}

#[test]
fn shutdown_lets_a_request_finish() {
    for (before, after) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""),
        ("GET / HT", "TP/1.1\r\nHost: a\r\n\r\n"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na",
            "b",
        ),
    ] {
        let mut connection = connection();
        connection.handle_input(before.as_bytes(), START);
        connection.shutdown();
        assert!(!connection.is_finished());
        connection.handle_input(after.as_bytes(), START);
        let stream = request(&mut connection).stream;
        let answer = answer(&mut connection, stream, "x");
        assert!(answer.contains("connection: close"));
        assert!(connection.is_finished());
    }
}
