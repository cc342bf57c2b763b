//! What is a request and what is refused.

use crate::{START, answer, connection, request, verdict};
use bascule_wire::Problem;

#[test]
fn bodies_come_by_length_and_in_chunks() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    for (rest, body) in [
        ("Content-Length: 0\r\n\r\n", ""),
        ("Content-Length: 003\r\n\r\nabc", "abc"),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""),
        (
            "Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n00002\r\nde\r\n0\r\n\r\n",
            "abcde",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n1;a;b=c;d=\"e;\\\"\"\r\nx\r\n0;z\r\n\r\n",
            "x",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
            "x",
        ),
    ] {
        let expected = format!("POST / at a [{body}]");
        assert_eq!(verdict(&format!("{head}{rest}")), expected, "{rest:?}");
    }
}

#[test]
fn targets_are_reduced_to_path_and_host() {
    for (line, expected) in [
        (
            "GET /a//b/../c%2f?q=1&{x}|\\^\" HTTP/1.1",
            "GET /a//b/../c%2f?q=1&{x}|\\^\" at h []",
        ),
        (
            "GET http://Other:80/p?q HTTP/1.1",
            "GET /p?q at Other:80 []",
        ),
        ("GET HTTPS://[::1]:8443 HTTP/1.1", "GET / at [::1]:8443 []"),
        ("GET http://o?q HTTP/1.1", "GET /?q at o []"),
        ("OPTIONS http://o HTTP/1.1", "OPTIONS * at o []"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * at h []"),
        ("GET * HTTP/1.1", "Malformed, close"),
        ("GET p HTTP/1.1", "Malformed, close"),
        ("GET ftp://o/ HTTP/1.1", "Malformed, close"),
        ("GET http:///p HTTP/1.1", "Malformed, close"),
        ("GET http://user@o/ HTTP/1.1", "Malformed, close"),
        ("GET http://o:x/ HTTP/1.1", "Malformed, close"),
        ("GET http://[::1/ HTTP/1.1", "Malformed, close"),
        ("GET /a#b HTTP/1.1", "Malformed, close"),
        ("GET /a<b HTTP/1.1", "Malformed, close"),
        ("GET /\u{e4} HTTP/1.1", "Malformed, close"),
        ("CONNECT o:443 HTTP/1.1", "Malformed, close"),
        ("CONNECT / HTTP/1.1", "Malformed, close"),
    ] {
        assert_eq!(
            verdict(&format!("{line}\r\nHost: h\r\n\r\n")),
            expected,
            "{line}"
        );
    }
}

#[test]
fn what_two_servers_could_read_in_two_ways_is_refused() {
    let post = "POST / HTTP/1.1\r\nHost: a\r\n";
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long_extension = format!("{chunked}1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(300));
    let many_extensions = format!(
        "{chunked}{}",
        "1;aaaaaaaaaaaaaaaaaaaa=".to_owned()
            + &"b".repeat(200)
            + "\r\nx\r\n"
            + &format!("1;{}\r\nx\r\n", "c".repeat(220)).repeat(20)
    );
    for (input, why) in [
        (
            format!("{post}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            "both",
        ),
        (
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"),
            "both",
        ),
        (
            format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
            "two lengths",
        ),
        (
            format!("{post}Content-Length: 1\r\nContent-Length: 1\r\n\r\na"),
            "one length twice",
        ),
        (
            format!("{post}Content-Length: 1, 1\r\n\r\na"),
            "a list of lengths",
        ),
        (format!("{post}Content-Length: +1\r\n\r\na"), "a sign"),
        (format!("{post}Content-Length: -1\r\n\r\n"), "a sign"),
        (
            format!("{post}Content-Length: 0x1\r\n\r\na"),
            "hexadecimal length",
        ),
        (
            format!("{post}Content-Length: 1 1\r\n\r\na"),
            "a space in the length",
        ),
        (format!("{post}Content-Length:\r\n\r\n"), "an empty length"),
        (
            format!("{post}Transfer-Encoding: gzip\r\n\r\n"),
            "coding that does not end",
        ),
        (
            format!("{post}Transfer-Encoding: chunked, gzip\r\n\r\n"),
            "chunked is not last",
        ),
        (
            format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n"),
            "unknown coding",
        ),
        (
            format!("{post}Transfer-Encoding: xchunked\r\n\r\n"),
            "unknown coding",
        ),
        (
            format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
            "twice",
        ),
        (
            format!("{post}Transfer-Encoding: chunked;x\r\n\r\n"),
            "a parameter",
        ),
        (
            format!("{post}Transfer-Encoding:\r\n\r\n"),
            "an empty coding",
        ),
        (
            format!("{post}Transfer-Encoding : chunked\r\n\r\n"),
            "space before the colon",
        ),
        (
            format!("{post}Content-Length\t: 1\r\n\r\na"),
            "tab before the colon",
        ),
        (format!("{post}X: a\r\n b\r\n\r\n"), "a folded line"),
        (format!("{post}X: a\r\n\tb\r\n\r\n"), "a folded line"),
        (
            format!("{post} X: a\r\n\r\n"),
            "a line that begins with a space",
        ),
        (
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(),
            "a first line that begins with a space",
        ),
        (format!("{post}X: a\nY: b\r\n\r\n"), "a bare LF"),
        (format!("{post}X: a\rY: b\r\n\r\n"), "a bare CR"),
        (format!("{post}X: a\r\r\n\r\n"), "CR before the line end"),
        ("GET / HTTP/1.1\nHost: a\n\n".into(), "bare LF throughout"),
        (format!("{post}X: a\0b\r\n\r\n"), "NUL"),
        (format!("{post}X: a\x0bb\r\n\r\n"), "a control character"),
        (format!("{post}X: a\x7fb\r\n\r\n"), "DEL"),
        (format!("{post}X\r\n\r\n"), "no colon"),
        (format!("{post}: x\r\n\r\n"), "no name"),
        (format!("{post}X Y: x\r\n\r\n"), "a space in a name"),
        (format!("{post}X\u{e4}: x\r\n\r\n"), "a name beyond ASCII"),
        ("GET / HTTP/1.1\r\n\r\n".into(), "no host"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".into(),
            "two hosts",
        ),
        (
            "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".into(),
            "two hosts",
        ),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), "an empty host"),
        (
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(),
            "a space in the host",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(),
            "a path in the host",
        ),
        (
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into(),
            "a user in the host",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a:123456\r\n\r\n".into(),
            "no such port",
        ),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "two spaces"),
        ("GET /\tHTTP/1.1\r\nHost: a\r\n\r\n".into(), "a tab"),
        (
            "GET / a HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            "a space in the target",
        ),
        (
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n".into(),
            "a space after the version",
        ),
        ("GET /\r\n\r\n".into(), "no version"),
        (
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(),
            "another version",
        ),
        (
            "GET / http/1.1\r\nHost: a\r\n\r\n".into(),
            "a lower-case version",
        ),
        (
            "GET / HTTP/1.10\r\nHost: a\r\n\r\n".into(),
            "another version",
        ),
        (
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
            "the preface of HTTP/2",
        ),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "no token"),
        (
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            "chunks in 1.0",
        ),
        (format!("{chunked}\r\n"), "no size"),
        (format!("{chunked}x\r\n"), "no digits"),
        (format!("{chunked}0x1\r\na\r\n"), "a prefix"),
        (format!("{chunked}+1\r\na\r\n"), "a sign"),
        (format!("{chunked}-1\r\n"), "a sign"),
        (format!("{chunked} 1\r\na\r\n"), "a space before the size"),
        (format!("{chunked}1 \r\na\r\n"), "a space after the size"),
        (format!("{chunked}1\na\r\n"), "a bare LF after the size"),
        (format!("{chunked}1\r\naa\r\n"), "more than announced"),
        (
            format!("{chunked}1\r\na\n0\r\n\r\n"),
            "a bare LF after the content",
        ),
        (format!("{chunked}1\r\na\r0"), "a bare CR after the content"),
        (
            format!("{chunked}1;\r\na\r\n"),
            "an extension without a name",
        ),
        (
            format!("{chunked}1;a=\r\na\r\n"),
            "an extension without its value",
        ),
        (
            format!("{chunked}1;a=\"\r\na\r\n"),
            "a line end in a quoted string",
        ),
        (
            format!("{chunked}1;a=\"b\nc\"\r\na\r\n"),
            "a bare LF in a quoted string",
        ),
        (
            format!("{chunked}1;a=\"b\rc\"\r\na\r\n"),
            "a bare CR in a quoted string",
        ),
        (
            format!("{chunked}1;a=\"b\\\r\nc\"\r\na\r\n"),
            "an escaped line end",
        ),
        (
            format!("{chunked}1;a=\"b\"c\r\na\r\n"),
            "text after a quoted string",
        ),
        (
            format!("{chunked}1;\ra\r\na\r\n"),
            "a bare CR in an extension",
        ),
        (format!("{chunked}1;a\0\r\na\r\n"), "NUL in an extension"),
        (
            format!("{chunked}00000000000000001\r\na\r\n"),
            "too many digits",
        ),
        (
            format!("{chunked}11111111111111111111\r\na\r\n"),
            "too many digits",
        ),
        (long_extension, "an extension without end"),
        (many_extensions, "extensions without end"),
        (
            format!("{chunked}0\r\nX : 1\r\n\r\n"),
            "space before the colon of a trailer",
        ),
        (
            format!("{chunked}0\r\nX: 1\n\r\n"),
            "a bare LF in a trailer",
        ),
        (format!("{chunked}0\r\n X: 1\r\n\r\n"), "a folded trailer"),
        (
            format!("{chunked}0\r\nX\r\n\r\n"),
            "a trailer without a colon",
        ),
    ] {
        assert_eq!(verdict(&input), "Malformed, close", "{why}: {input:?}");
    }
}

#[test]
fn heads_are_limited() {
    let fields = |count: usize| "x: 1\r\n".repeat(count);
    let padded = |length: usize| {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nx: ";
        format!("{head}{}\r\n\r\n", "x".repeat(length - head.len() - 4))
    };
    let start = "GET / HTTP/1.1\r\nHost: a\r\n";
    assert_eq!(
        verdict(&format!("{start}{}\r\n", fields(7))),
        "GET / at a []"
    );
    assert_eq!(
        verdict(&format!("{start}{}\r\n", fields(8))),
        "HeadersTooLarge, close"
    );
    assert_eq!(verdict(&padded(512)), "GET / at a []");
    assert_eq!(verdict(&padded(513)), "HeadersTooLarge, close");
    assert_eq!(
        verdict(&"x".repeat(513)),
        "HeadersTooLarge, close",
        "no end in sight"
    );

    let chunked = format!("{start}Transfer-Encoding: chunked\r\n\r\n0\r\n");
    assert_eq!(
        verdict(&format!("{chunked}{}\r\n", fields(8))),
        "GET / at a []"
    );
    assert_eq!(
        verdict(&format!("{chunked}{}\r\n", fields(9))),
        "HeadersTooLarge, close"
    );
    assert_eq!(
        verdict(&format!("{chunked}x: {}", "x".repeat(512))),
        "HeadersTooLarge, close"
    );
}

#[test]
fn what_is_no_http_at_all_gets_no_answer() {
    for input in [
        "\x16\x03\x01\x02",
        "\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n\r\n",
        "INVALID CONNECTION PREFACE\r\n\r\n",
        "PRI\r\n\r\n",
        "nothing\0",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut connection = connection();
        connection.handle_input(input.as_bytes(), START);
        assert!(connection.poll_event().is_none(), "{input:?}");
        assert!(connection.is_finished(), "{input:?}");
    }
    // After a request there is no doubt about the protocol.
    let mut connection = connection();
    connection.handle_input(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nnothing\0", START);
    let first = request(&mut connection);
    answer(&mut connection, first.stream, "");
    let second = request(&mut connection);
    assert_eq!(second.problem, Some(Problem::Malformed));
}
