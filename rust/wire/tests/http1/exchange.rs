//! Requests and their answers.

use crate::{START, answer, connection, output, request, verdict};
use bascule_wire::{HttpEvent, Problem};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

#[test]
fn a_request_is_delivered_whole_and_answered() {
    let mut connection = connection();
    let input = b"POST /users?x=%2F HTTP/1.1\r\nHost: a\r\nX-Many: 1\r\nx-many: 2\r\n\
        Content-Length: 5\r\n\r\nhello";
    connection.handle_input(input, START);
    let request = request(&mut connection);
    assert_eq!(request.method, Method::POST);
    assert_eq!(request.target, "/users?x=%2F");
    assert_eq!(request.body, "hello");
    assert_eq!(request.problem, None);
    let many: Vec<_> = request.headers.get_all("x-many").iter().collect();
    assert_eq!(many, ["1", "2"]);
    assert!(connection.poll_event().is_none());

    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("text/plain"));
    headers.append("x-two", HeaderValue::from_static("1"));
    headers.append("x-two", HeaderValue::from_static("2"));
    // What the machine owns is not the handler's to say.
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("999"));
    headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
    headers.insert("upgrade", HeaderValue::from_static("h2c"));
    headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
    let body = Bytes::from_static(b"done");
    connection.respond(request.stream, StatusCode::CREATED, &headers, body, START);
    assert_eq!(
        output(&mut connection),
        "HTTP/1.1 201 Created\r\ncontent-type: text/plain\r\nx-two: 1\r\nx-two: 2\r\n\
         content-length: 4\r\n\r\ndone"
    );
    assert!(!connection.is_finished());
}

#[test]
fn pipelined_requests_are_answered_in_order_one_at_a_time() {
    let mut connection = connection();
    let input = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    connection.handle_input(input, START);
    let first = request(&mut connection);
    assert!(connection.poll_event().is_none(), "the second waits");
    connection.respond(
        first.stream,
        StatusCode::OK,
        &HeaderMap::new(),
        Bytes::new(),
        START,
    );
    assert!(
        connection.poll_event().is_none(),
        "the answer has not left yet"
    );
    assert!(output(&mut connection).starts_with("HTTP/1.1 200 OK\r\n"));
    let second = request(&mut connection);
    assert_eq!(
        (first.target.as_str(), second.target.as_str()),
        ("/1", "/2")
    );
    assert_ne!(first.stream, second.stream);
    assert_eq!(
        answer(&mut connection, first.stream, "late"),
        "",
        "already answered"
    );
    assert!(answer(&mut connection, second.stream, "2").ends_with("\r\n\r\n2"));
}

#[test]
fn a_peer_that_never_reads_stops_being_read() {
    let mut connection = connection();
    let one = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut sent = 0;
    while connection.wants_read() {
        connection.handle_input(one, START);
        sent += one.len();
        assert!(sent < 32 * 1024, "read-ahead is bounded");
    }
    let first = request(&mut connection);
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    connection.respond(first.stream, StatusCode::OK, &HeaderMap::new(), body, START);
    assert!(
        connection.poll_event().is_none(),
        "one answer is held at most"
    );
    assert!(!connection.wants_read());
    output(&mut connection);
    request(&mut connection);
}

#[test]
fn a_body_that_is_too_large_is_refused_early_and_skipped_if_that_is_cheap() {
    for body in [
        format!("Content-Length: 256\r\n\r\n{}", "x".repeat(256)),
        format!(
            "Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
            format!("40\r\n{}\r\n", "x".repeat(64)).repeat(4)
        ),
    ] {
        let mut connection = connection();
        let head = "POST /big HTTP/1.1\r\nHost: a\r\n";
        let next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
        let input = format!("{head}{body}{next}").into_bytes();
        let (begin, rest) = input.split_at(200);
        connection.handle_input(begin, START);
        connection.handle_input(&rest[..1], START);
        let refused = loop {
            // A body in chunks shows only later that it is too large.
            if let Some(HttpEvent::Request(request)) = connection.poll_event() {
                break request;
            }
        };
        assert_eq!(refused.problem, Some(Problem::BodyTooLarge));
        assert_eq!((refused.target.as_str(), refused.body.len()), ("/big", 0));
        let early = answer(&mut connection, refused.stream, "no");
        assert!(early.ends_with("content-length: 2\r\n\r\nno"), "{early}");
        connection.handle_input(&rest[1..], START);
        assert_eq!(request(&mut connection).target, "/next");
    }
}

#[test]
fn a_body_that_is_much_too_large_costs_the_connection() {
    let chunked = format!(
        "Transfer-Encoding: chunked\r\n\r\n{}",
        format!("40\r\n{}\r\n", "x".repeat(64)).repeat(5)
    );
    for (body, expected) in [
        (
            "Content-Length: 257\r\n\r\n".to_owned(),
            "BodyTooLarge, close",
        ),
        (
            "Content-Length: 99999999999999999999999\r\n\r\n".to_owned(),
            "BodyTooLarge, close",
        ),
        (
            "Content-Length: 65\r\nExpect: 100-continue\r\n\r\n".to_owned(),
            "BodyTooLarge, close",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n101\r\n".to_owned(),
            "BodyTooLarge, close",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_owned(),
            "BodyTooLarge, close",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n41\r\n".to_owned(),
            "BodyTooLarge",
        ),
        (chunked, "BodyTooLarge, close"),
    ] {
        let input = format!("POST / HTTP/1.1\r\nHost: a\r\n{body}");
        assert_eq!(verdict(&input), expected, "{body:?}");
    }
}

#[test]
fn after_a_refusal_the_rest_is_swallowed_for_a_moment() {
    let mut connection = connection();
    connection.handle_input(b"GET / \0", START);
    let refused = request(&mut connection);
    assert_eq!(connection.poll_timeout(), None);
    assert!(answer(&mut connection, refused.stream, "no").contains("connection: close"));
    assert!(
        !connection.is_finished(),
        "a reset would destroy the answer"
    );
    assert!(connection.wants_read());
    connection.handle_input(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", START);
    assert!(connection.poll_event().is_none());
    let end = connection.poll_timeout().unwrap();
    connection.handle_timeout(end);
    assert!(connection.is_finished());
    assert_eq!(connection.poll_timeout(), None);
}

#[test]
fn after_a_refusal_the_end_of_the_peer_is_the_end() {
    let mut connection = connection();
    connection.handle_input(b"GET / \0", START);
    let refused = request(&mut connection);
    connection.handle_eof();
    assert!(connection.poll_event().is_none(), "nothing to cancel");
    assert!(answer(&mut connection, refused.stream, "no").ends_with("no"));
    assert!(connection.is_finished());
}

#[test]
fn continue_is_sent_when_a_body_is_awaited() {
    let mut connection = connection();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n";
    connection.handle_input(head, START);
    assert_eq!(output(&mut connection), "HTTP/1.1 100 Continue\r\n\r\n");
    connection.handle_input(b"x", START);
    assert_eq!(request(&mut connection).body, "x");

    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: more\r\nContent-Length: 1\r\n\r\nx",
    ] {
        let mut connection = self::connection();
        connection.handle_input(head.as_bytes(), START);
        assert_eq!(output(&mut connection), "", "{head}");
    }
}

#[test]
fn the_connection_lives_as_long_as_both_agree() {
    for (head, kept) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n",
            false,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n\r\n",
            false,
        ),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
            false,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            true,
        ),
    ] {
        let mut connection = connection();
        connection.handle_input(head.as_bytes(), START);
        let stream = request(&mut connection).stream;
        let answer = answer(&mut connection, stream, "x");
        assert_eq!(connection.is_finished(), !kept, "{head}");
        assert_eq!(answer.contains("connection: close"), !kept, "{head}");
        let named = head.contains("HTTP/1.0") && kept;
        assert_eq!(answer.contains("connection: keep-alive"), named, "{head}");
    }
}

#[test]
fn a_handler_can_close_the_connection() {
    let mut connection = connection();
    connection.handle_input(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", START);
    let stream = request(&mut connection).stream;
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    connection.respond(stream, StatusCode::OK, &headers, Bytes::new(), START);
    assert_eq!(
        output(&mut connection),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    assert!(connection.is_finished());
}

#[test]
fn answers_have_a_body_only_where_http_has_one() {
    for (method, status, expected) in [
        ("HEAD", 200, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"),
        ("GET", 204, "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", 304, "HTTP/1.1 304 Not Modified\r\n\r\n"),
        (
            "GET",
            205,
            "HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n",
        ),
        ("GET", 299, "HTTP/1.1 299 \r\ncontent-length: 4\r\n\r\nbody"),
        // Not a final answer, so not one that a handler can give.
        (
            "GET",
            101,
            "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\nbody",
        ),
    ] {
        let mut connection = connection();
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        connection.handle_input(head.as_bytes(), START);
        let stream = request(&mut connection).stream;
        let status = StatusCode::from_u16(status).unwrap();
        let body = Bytes::from_static(b"body");
        connection.respond(stream, status, &HeaderMap::new(), body, START);
        assert_eq!(output(&mut connection), expected);
    }
}
