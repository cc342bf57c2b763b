"""gRPC-Web and Connect, byte by byte, over both versions of HTTP."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.peers import END, MESSAGE, NOW, RESET, WRITABLE, frame, table
from tests.oracle.web import (
    ACCEPT,
    BIDI,
    CLIENT_STREAM,
    CONNECT_STREAM,
    CONNECT_UNARY,
    GRPC_WEB,
    JSON_CALL,
    SERVER_STREAM,
    TEXT,
    UNARY,
    VERSIONS,
    Answer,
    Http1,
    code_of,
    envelopes,
    plain,
    settings,
)

ENVELOPED = (*GRPC_WEB, *TEXT)
ALL = (*ENVELOPED, *CONNECT_UNARY, *CONNECT_STREAM)

both_versions = pytest.mark.parametrize("version", VERSIONS)


def wrapped(kind: str, *messages: bytes) -> bytes:
    """The body of a request with these messages."""
    if kind in CONNECT_UNARY:
        return b"".join(messages)
    if kind in TEXT:
        return b"".join(base64.b64encode(frame(message)) for message in messages)
    return b"".join(frame(message) for message in messages)


def canonical(kind: str) -> str:
    return kind if "+" in kind or kind in CONNECT_UNARY else f"{kind}+proto"


@both_versions
@pytest.mark.parametrize("kind", [*ENVELOPED, *CONNECT_UNARY])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, None])
def test_a_unary_call_is_answered_however_its_bytes_come(
    version: str, kind: str, chunk: int | None
) -> None:
    carrier = VERSIONS[version]()
    for chunked in (False, True):
        answer = carrier.send(
            UNARY, kind, wrapped(kind, b'{"a":"b"}'), chunk=chunk, chunked=chunked
        )
        assert answer.status == 200
        assert answer.headers["content-type"] == canonical(kind)
        assert answer.headers["x-initial"] == "1"
        if kind in CONNECT_UNARY:
            assert answer.body == b'{"a":"b"}'
            assert answer.headers["trailer-x-trailing-bin"] == "AP8"
            assert "grpc-status" not in answer.headers
        else:
            assert answer.messages == [b'{"a":"b"}']
            assert answer.trailers == {"grpc-status": "0", "x-trailing-bin": "AP8"}
    assert [event[0] == JSON_CALL for event in carrier.application.calls] == ["json" in kind] * 2


@both_versions
@pytest.mark.parametrize("kind", [*ENVELOPED, *CONNECT_STREAM])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, None])
def test_streams_are_answered_however_their_bytes_come(
    version: str, kind: str, chunk: int | None
) -> None:
    carrier = VERSIONS[version]()
    answer = carrier.send(SERVER_STREAM, kind, wrapped(kind, b"m"), chunk=chunk)
    assert (answer.status, answer.headers["x-initial"]) == (200, "1")
    assert answer.headers["content-type"] == canonical(kind)
    assert answer.messages == [b"m"] * 3 if kind not in CONNECT_STREAM else True
    if kind in CONNECT_STREAM:
        assert answer.envelopes()[:3] == [(0, b"m")] * 3
        assert answer.end == {"metadata": {"x-trailing-bin": ["AP8"]}}
    else:
        assert answer.trailers == {"grpc-status": "0", "x-trailing-bin": "AP8"}
    for method, expected in ((CLIENT_STREAM, [b"one++three"]), (BIDI, [b"one", b"", b"three"])):
        body = wrapped(kind, b"one", b"", b"three")
        answer = carrier.send(method, kind, body, chunk=chunk, chunked=True)
        assert answer.messages == expected if kind not in CONNECT_STREAM else True
        assert [content for flags, content in envelopes_of(answer) if flags == 0] == expected
        assert code_of(answer) in ("0", "ok")


def envelopes_of(answer: Answer) -> list[tuple[int, bytes]]:
    if "text" in answer.headers["content-type"]:
        return [(0, message) for message in answer.messages]
    return answer.envelopes()


#: A method, what is wrong with the body, and the code that says so, as gRPC has it and as Connect has it.
BROKEN = [
    (UNARY, b"\x01\0\0\0\1a", "13", "internal"),
    (UNARY, b"\x02\0\0\0\1a", "13", "internal"),
    (UNARY, b"\x80\0\0\0\1a", "13", "internal"),
    (UNARY, b"\0\0\0\0\2a", "13", "internal"),
    (UNARY, b"\0\0\0", "13", "internal"),
    (UNARY, frame(b"a") * 2, "13", "internal"),
    (UNARY, b"", "13", "internal"),
    (UNARY, b"\0\xff\xff\xff\xff", "8", "resource_exhausted"),
    (UNARY, frame(b"a" * 101), "8", "resource_exhausted"),
]


@both_versions
@pytest.mark.parametrize("kind", [*GRPC_WEB, *TEXT, *CONNECT_STREAM])
@pytest.mark.parametrize(("method", "body", "number", "name"), BROKEN)
def test_a_broken_envelope_ends_the_call_by_a_status(
    version: str, kind: str, method: str, body: bytes, number: str, name: str
) -> None:
    carrier = VERSIONS[version](max_message=100)
    # Connect has envelopes on streams only.
    target = SERVER_STREAM if kind in CONNECT_STREAM else method
    wire = base64.b64encode(body) if kind in TEXT else body
    answer = carrier.send(target, kind, wire)
    assert answer.status == 200
    assert code_of(answer) == (name if kind in CONNECT_STREAM else number)
    assert not carrier.application.calls


@both_versions
@pytest.mark.parametrize("body", [b"=AAA", b"A", b"AAAA!", b"AA=A", b"AAAAAA==A", b"\xff" * 8])
def test_what_is_no_base64_ends_the_call_by_a_status(version: str, body: bytes) -> None:
    carrier = VERSIONS[version]()
    answer = carrier.send(UNARY, TEXT[0], body)
    assert answer.trailers["grpc-status"] == "13"
    assert "base64" in answer.trailers["grpc-message"]


@both_versions
def test_a_bare_message_that_is_too_large_is_refused(version: str) -> None:
    carrier = VERSIONS[version](max_message=100)
    assert carrier.send(UNARY, "application/proto", b"a" * 100).status == 200
    answer = carrier.send(UNARY, "application/proto", b"a" * 101)
    assert (answer.status, answer.error["code"]) == (429, "resource_exhausted")


@both_versions
@pytest.mark.parametrize(
    ("kind", "extra", "code"),
    [
        ("application/json", {"connect-timeout-ms": "1.5"}, "invalid_argument"),
        ("application/json", {"connect-timeout-ms": "-1"}, "invalid_argument"),
        ("application/json", {"connect-timeout-ms": "12345678901"}, "invalid_argument"),
        ("application/json", {"connect-protocol-version": "2"}, "invalid_argument"),
        ("application/json", {"content-encoding": "lzma"}, "unimplemented"),
        ("application/grpc-web", {"grpc-timeout": "1x"}, "13"),
        ("application/grpc-web", {"grpc-encoding": "lzma"}, "12"),
    ],
)
def test_a_head_that_is_not_understood_is_refused(
    version: str, kind: str, extra: dict[str, str], code: str
) -> None:
    answer = VERSIONS[version]().send(UNARY, kind, wrapped(kind, b"m"), extra=extra)
    assert code_of(answer) == code


@both_versions
@pytest.mark.parametrize(
    ("kind", "extra", "timeout_ns"),
    [
        ("application/json", {"connect-timeout-ms": "1500"}, 1_500_000_000),
        ("application/grpc-web", {"grpc-timeout": "15S"}, 15_000_000_000),
        ("application/grpc-web", {"connect-timeout-ms": "1500"}, None),
    ],
)
def test_the_timeout_is_read_by_the_dialect(
    version: str, kind: str, extra: dict[str, str], timeout_ns: int | None
) -> None:
    carrier = VERSIONS[version]()
    carrier.send(UNARY, kind, wrapped(kind, b"m"), extra=extra)
    assert carrier.application.calls[0][4] == timeout_ns


@both_versions
def test_headers_of_the_protocols_are_no_metadata(version: str) -> None:
    carrier = VERSIONS[version]()
    extra = {
        "connect-protocol-version": "1",
        "connect-timeout-ms": "1000",
        "accept-encoding": "gzip",
        "x-grpc-web": "1",
        "x-own": "here",
        "x-own-bin": "AP8",
    }
    carrier.send(UNARY, "application/json", b"{}", extra=extra)
    items = dict(carrier.application.calls[0][3].items())
    assert {name: items[name] for name in items if name != "host"} == {
        "x-own": "here",
        "x-own-bin": b"\0\xff",
    }


@both_versions
@pytest.mark.parametrize(
    ("verb", "target", "kind", "status"),
    [
        ("GET", UNARY, None, 405),
        ("PUT", UNARY, "application/json", 405),
        ("OPTIONS", UNARY, None, 405),
        ("POST", UNARY, None, 415),
        ("POST", UNARY, "text/html", 415),
        ("POST", UNARY, "application/connect+json", 415),
        ("POST", SERVER_STREAM, "application/json", 415),
        ("POST", "/t.T/None", "application/json", 501),
        ("POST", "/t.T/None", "application/grpc-web", 200),
    ],
)
def test_what_is_no_call_is_told_so(
    version: str, verb: str, target: str, kind: str | None, status: int
) -> None:
    carrier = VERSIONS[version]()
    answer = carrier.send(target, kind, verb=verb)
    assert answer.status == status
    if status == 405:
        assert answer.headers["allow"] == "POST"
    elif status == 415:
        assert "application/grpc-web" in answer.headers["accept-post"]
    elif status == 501:
        assert answer.error["code"] == "unimplemented"
    else:
        assert answer.trailers["grpc-status"] == "12"
    assert carrier.send(UNARY, "application/json", b"{}").status == 200, "the connection lives"


@both_versions
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("connect=v1&encoding=json&message=%7B%22a%22%3A1%7D", 200),
        ("encoding=json&message=eyJhIjoxfQ&base64=1", 200),
        ("encoding=json&message=eyJhIjoxfQ==&base64=1", 200),
        ("encoding=proto&message=eyJhIjoxfQ&base64=1&compression=identity", 200),
        ("encoding=json", 400),
        ("connect=v2&encoding=json&message=", 400),
        ("encoding=json&message=%7", 400),
        ("encoding=json&message=!&base64=1", 400),
        ("encoding=json&message=&compression=lzma", 501),
        ("encoding=xml&message=", 415),
        ("message=", 415),
    ],
)
def test_what_has_no_side_effects_may_be_got(version: str, query: str, status: int) -> None:
    methods = table()[1]
    carrier = VERSIONS[version](web=settings(methods, safe=[methods[UNARY]]))
    answer = carrier.send(f"{UNARY}?{query}", None, verb="GET")
    assert answer.status == status
    if status == 200:
        assert answer.body == b'{"a":1}'


PREFLIGHT = {
    "origin": "https://app.example",
    "access-control-request-method": "POST",
    "access-control-request-headers": "content-type,x-own",
}


@both_versions
@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        ([], None),
        (["https://app.example"], "https://app.example"),
        (None, "*"),
        (["https://b"], None),
    ],
)
def test_a_preflight_is_granted_to_the_origins_that_are_allowed(
    version: str, origins: list[str] | None, allowed: str | None
) -> None:
    carrier = VERSIONS[version](web=settings(table()[1], origins=origins))
    answer = carrier.send(UNARY, None, verb="OPTIONS", extra=PREFLIGHT)
    assert answer.status == (403 if allowed is None else 204)
    assert answer.headers.get("access-control-allow-origin") == allowed
    if allowed is not None:
        assert answer.headers["access-control-allow-headers"] == "content-type,x-own"
        assert answer.headers["access-control-allow-methods"] == "POST, GET"
        assert answer.headers["access-control-max-age"] == "60"
        assert "access-control-allow-credentials" not in answer.headers
    assert ("vary" in answer.headers) == bool(origins)


@both_versions
@pytest.mark.parametrize("kind", ["application/grpc-web", "application/json"])
def test_a_page_may_read_what_its_call_was_answered(version: str, kind: str) -> None:
    origins = ["https://app.example"]
    carrier = VERSIONS[version](web=settings(table()[1], origins=origins, credentials=True))
    extra = {"origin": "https://app.example"}
    for target in (UNARY, "/t.T/None"):
        answer = carrier.send(target, kind, wrapped(kind, b"{}"), extra=extra)
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["vary"] == "origin"
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"grpc-status", "grpc-message"} <= set(exposed)
        assert ("x-initial" in exposed) == (target == UNARY)
    stranger = carrier.send(UNARY, kind, wrapped(kind, b"{}"), extra={"origin": "https://b"})
    assert "access-control-allow-origin" not in stranger.headers


@pytest.mark.parametrize("kind", ["application/grpc-web", "application/connect+proto"])
def test_http1_holds_a_sender_until_there_is_room(kind: str) -> None:
    carrier = Http1(answers=False)
    body = wrapped(kind, b"m")
    head = f"POST {SERVER_STREAM} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\n"
    carrier.feed(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    stream = carrier.events[-1][1]
    sent = 0
    while carrier.machine.send_message(stream, b"x" * 1000):
        sent += 1
        assert sent < 100
    assert sent >= 64
    carrier.settle()
    assert carrier.events[-1] == (WRITABLE, stream)
    assert carrier.machine.in_flight == 1
    carrier.machine.finish(stream, 0, None, None, None, NOW)
    assert carrier.machine.in_flight == 0


def test_http1_stops_reading_from_a_sender_that_outruns_its_handler() -> None:
    carrier = Http1(answers=False)
    kind = "application/connect+proto"
    head = f"POST {CLIENT_STREAM} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\n"
    carrier.feed(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
    message = frame(b"x" * 1000)
    chunk = f"{len(message):x}\r\n".encode() + message + b"\r\n"
    fed = 0
    while carrier.machine.wants_read:
        carrier.feed(chunk)
        fed += 1
        assert fed < 400
    assert fed == 261, "256 KiB, the window of a stream"
    stream = carrier.events[0][1]
    carrier.machine.consume(stream, len(message))
    assert carrier.machine.wants_read


def test_http1_cancels_the_handler_of_a_client_that_leaves() -> None:
    carrier = Http1(answers=False)
    carrier.feed(b"POST /t.T/Unary HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n")
    carrier.feed(b"content-length: 2\r\n\r\n{}")
    stream = carrier.events[-1][1]
    carrier.take(carrier.machine.receive_eof(NOW))
    assert [event[0] for event in carrier.events] == [JSON_CALL, 4, 6]
    carrier.machine.handler_ended(stream)
    carrier.machine.finish(stream, 0, None, None, None, NOW)
    carrier.settle()
    assert carrier.sent == b""
    assert carrier.machine.finished


@pytest.mark.parametrize("target", [UNARY, CLIENT_STREAM])
def test_http1_waits_for_a_whole_request_but_not_for_a_stream(target: str) -> None:
    carrier = Http1(answers=False)
    kind = "application/json" if target == UNARY else "application/connect+json"
    head = f"POST {target} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\ncontent-length: 9\r\n\r\n"
    carrier.feed(head.encode() + b"{")
    carrier.take(carrier.machine.tick(NOW + 16 * 10**9))
    carrier.settle()
    if target == UNARY:
        assert b"504 Gateway Timeout" in carrier.sent
        assert b"deadline_exceeded" in carrier.sent
    else:
        assert carrier.sent == b""


def test_http1_ends_a_stream_on_which_nothing_comes() -> None:
    carrier = Http1(answers=False)
    kind = "application/connect+json"
    head = f"POST {CLIENT_STREAM} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\n"
    carrier.feed(f"{head}content-length: 9\r\n\r\n".encode())
    stream = carrier.events[0][1]
    carrier.take(carrier.machine.tick(NOW + 301 * 10**9))
    carrier.settle()
    assert (RESET, stream) in carrier.events
    assert b"deadline_exceeded" in carrier.sent
    assert carrier.machine.in_flight == 1, "until the handler has ended"
    carrier.machine.handler_ended(stream)
    assert carrier.machine.in_flight == 0


@both_versions
@pytest.mark.parametrize("kind", [GRPC_WEB[0], CONNECT_UNARY[0]])
def test_a_call_too_many_is_told_so(version: str, kind: str) -> None:
    carrier = VERSIONS[version](max_calls=0)
    answer = carrier.send(UNARY, kind, wrapped(kind, b"m"))
    assert code_of(answer) in ("8", "resource_exhausted")
    assert not carrier.application.calls
    # Calls that end make room for others.
    carrier = VERSIONS[version](max_calls=1)
    for _ in range(3):
        assert carrier.send(UNARY, kind, wrapped(kind, b"m")).status == 200


def test_http1_answers_a_pipeline_in_order() -> None:
    carrier = Http1()
    one = b"POST /t.T/Unary HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    requests = b"".join(one + b"content-length: 1\r\n\r\n%d" % number for number in range(5))
    carrier.feed(requests)
    bodies = [part[-1:] for part in carrier.sent.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"0", b"1", b"2", b"3", b"4"]


def test_http1_keeps_the_order_of_an_early_answer() -> None:
    carrier = Http1(answers=False)
    kind = "application/connect+proto"
    head = f"POST {CLIENT_STREAM} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\n"
    carrier.feed(f"{head}content-length: 1000\r\n\r\n".encode() + frame(b"first"))
    stream = carrier.events[0][1]
    carrier.machine.finish(stream, 7, "enough", None, None, NOW)
    carrier.settle()
    assert b"connection: close" in carrier.sent
    assert b"permission_denied" in carrier.sent
    # What still comes is passed over, so that the answer is not lost by a reset.
    assert not carrier.machine.finished
    carrier.take(carrier.machine.tick(NOW + 2 * 10**9))
    assert carrier.machine.finished


def test_http1_breaks_off_where_a_reset_would_be() -> None:
    carrier = Http1(answers=False)
    body = wrapped("application/grpc-web", b"m")
    head = f"POST {SERVER_STREAM} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n"
    carrier.feed(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    stream = carrier.events[-1][1]
    carrier.machine.send_message(stream, b"part")
    carrier.machine.reset(stream, 8, NOW)
    carrier.settle()
    assert carrier.sent.endswith(b"part\r\n"), "no last chunk: the client sees that it is cut off"
    assert carrier.machine.finished


#: A message that is worth to be compressed.
LONG = b'"' + b"x" * 5000 + b'"'


def announced(kind: str) -> str:
    """The header that names the compression of messages."""
    if kind in CONNECT_UNARY:
        return "content-encoding"
    return "connect-content-encoding" if kind in CONNECT_STREAM else "grpc-encoding"


@both_versions
@pytest.mark.parametrize("kind", ALL)
def test_messages_are_compressed_both_ways(version: str, kind: str) -> None:
    carrier = VERSIONS[version](compression="gzip")
    packed = gzip.compress(LONG)
    body = packed if kind in CONNECT_UNARY else frame(packed, 1)
    body = base64.b64encode(body) if kind in TEXT else body
    target = SERVER_STREAM if kind in CONNECT_STREAM else UNARY
    answer = carrier.send(target, kind, body, extra={announced(kind): "gzip"} | ACCEPT)
    assert carrier.application.calls[0][5] == LONG
    assert (answer.status, answer.headers[announced(kind)]) == (200, "gzip")
    if kind in CONNECT_UNARY:
        assert gzip.decompress(answer.body) == LONG
    else:
        flags, first = next(iter(envelopes(plain(answer))))
        assert (flags, gzip.decompress(first)) == (1, LONG)
        assert code_of(answer) in ("0", "ok")
    # Who does not ask for it gets none.
    answer = carrier.send(target, kind, wrapped(kind, LONG))
    assert announced(kind) not in answer.headers


@both_versions
@pytest.mark.parametrize("kind", [GRPC_WEB[0], CONNECT_UNARY[0], CONNECT_STREAM[0]])
def test_a_bomb_and_a_fake_are_refused(version: str, kind: str) -> None:
    carrier = VERSIONS[version](max_message=10_000)
    target = SERVER_STREAM if kind in CONNECT_STREAM else UNARY
    for packed, codes in (
        (gzip.compress(b"x" * 10_001), ("8", "resource_exhausted")),
        (b"no gzip", ("13", "internal")),
    ):
        body = packed if kind in CONNECT_UNARY else frame(packed, 1)
        answer = carrier.send(target, kind, body, extra={announced(kind): "gzip"})
        assert code_of(answer) in codes


def test_http1_decompresses_no_more_than_a_handler_takes() -> None:
    carrier = Http1(answers=False)
    kind = "application/connect+proto"
    head = f"POST {CLIENT_STREAM} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\n"
    bodies = frame(gzip.compress(b"x" * 100_000), 1) * 10
    length = f"connect-content-encoding: gzip\r\ncontent-length: {len(bodies)}\r\n\r\n"
    carrier.feed((head + length).encode() + bodies)
    stream = carrier.events[0][1]
    for taken in range(10):
        messages = [event for event in carrier.events if event[0] == MESSAGE]
        assert len(messages) == min(3 + taken, 10), "256 KiB are passed with the third"
        assert (carrier.events[-1][0] == END) == (taken >= 8)
        carrier.machine.consume(stream, 5 + 100_000)
        carrier.settle()


def test_without_settings_only_grpc_is_served() -> None:
    from tests.oracle.peers import ClientPeer

    peer = ClientPeer()
    stream = peer.request(body=b"{}", replace={"content-type": "application/json"})
    peer.settle()
    assert dict(peer.streams[stream].headers[0])[":status"] == "415"


@both_versions
@given(
    kind=st.sampled_from(ALL),
    target=st.sampled_from([UNARY, SERVER_STREAM, CLIENT_STREAM, BIDI, "/x"]),
    body=st.one_of(
        st.binary(max_size=60),
        st.lists(
            st.builds(frame, st.binary(max_size=20), st.sampled_from([0, 0, 0, 1, 2, 128]))
        ).map(b"".join),
        st.binary(max_size=40).map(base64.b64encode),
    ),
    chunk=st.sampled_from([1, 3, 50, None]),
)
def test_any_body_gets_one_answer(
    version: str, kind: str, target: str, body: bytes, chunk: int | None
) -> None:
    carrier = VERSIONS[version](max_message=50)
    answer = carrier.send(target, kind, body, chunk=chunk)
    assert answer.status in (200, 415, 429, 501)
    if answer.status == 200:
        codes = ("ok", "internal", "resource_exhausted", "unimplemented", "0", "8", "12", "13")
        assert code_of(answer) in codes
    assert not carrier.application.running


@given(data=st.binary(max_size=200), chunk=st.sampled_from([1, 7, None]))
def test_any_bytes_instead_of_http1_end_cleanly(data: bytes, chunk: int | None) -> None:
    carrier = Http1()
    carrier.feed(data, chunk)
    carrier.take(carrier.machine.receive_eof(NOW))
    carrier.settle()
    assert not carrier.application.running


def test_a_connect_error_carries_details_and_metadata() -> None:
    carrier: Any = Http1(answers=False)
    carrier.feed(b"POST /t.T/Unary HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n")
    carrier.feed(b"content-length: 2\r\n\r\n{}")
    stream = carrier.events[-1][1]
    status = b"\x08\x05\x12\x01m\x1a\x0b\x0a\x05t/a.B\x12\x02\x08\x01"
    trailing = [("grpc-status-details-bin", status), ("x-own", "1"), ("x-own", "2")]
    carrier.machine.finish(stream, 5, "no \u00fcser", None, trailing, NOW)
    carrier.settle()
    head, _, body = carrier.sent.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert head.count(b"trailer-x-own: ") == 2
    assert b"details" not in head
    assert json.loads(body) == {
        "code": "not_found",
        "message": "no \u00fcser",
        "details": [{"type": "a.B", "value": "CAE"}],
    }
