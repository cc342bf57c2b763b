"""Plain HTTP over our HTTP/2 server connection, judged by the `h2` library as its client."""

from __future__ import annotations

from typing import Any

import h2.errors
import pytest
from h2.settings import SettingCodes
from tests.oracle.peers import HTTP, NOW, RESET, Peer, Seen

from bascule import _core

SECOND = 1_000_000_000


class Browser(Peer):
    """The `h2` library as a client of our listener for plain HTTP; the test answers."""

    def __init__(self, settings: dict[Any, int] | None = None, **limits: int) -> None:
        config = _core.ServerConfig(
            http_max_body=limits.pop("max_body", 1000),
            http_max_headers=limits.pop("max_headers", 10),
            http_body_timeout_ns=15 * SECOND,
            **limits,  # type: ignore[arg-type]
        )
        machine = _core.ServerConnection(config, NOW)
        super().__init__(client=True, machine=machine, settings=settings)

    def send(
        self,
        method: str = "GET",
        path: str = "/",
        body: bytes | None = None,
        extra: dict[str, str] | None = None,
    ) -> int:
        """Send a request; answer its stream."""
        stream = self.h2.get_next_available_stream_id()
        headers = [
            (":method", method),
            (":scheme", "https"),
            (":path", path),
            (":authority", "shop.example:8443"),
            *(extra or {}).items(),
        ]
        self.h2.send_headers(stream, headers, end_stream=body is None)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=True)
        return stream

    def request(self, stream: int) -> tuple[Any, ...]:
        """The one request event of a stream."""
        (event,) = self.of_kind(HTTP, stream)
        return event

    def answer(
        self, stream: int, status: int = 200, body: bytes = b"", *headers: tuple[str, str]
    ) -> Seen:
        """Answer a stream and let it arrive."""
        self.machine.respond_http(stream, status, list(headers), body, NOW)
        self.settle()
        return self.streams[stream]


def test_a_request_is_one_event_and_its_answer_one_call() -> None:
    browser = Browser()
    stream = browser.send("POST", "/users?x=%2F&y", b"hello", {"x-one": "1"})
    browser.settle()
    _, _, method, target, headers, body, problem, version = browser.request(stream)
    assert (method, target, body, problem, version) == (
        "POST",
        "/users?x=%2F&y",
        b"hello",
        None,
        "2",
    )
    assert ("host", "shop.example:8443") in headers
    assert ("x-one", "1") in headers
    assert not any(name.startswith(":") for name, _ in headers)
    seen = browser.answer(
        stream, 201, b"made", ("location", "/users/1"), ("connection", "close"), ("upgrade", "x")
    )
    fields = dict(seen.headers[0])
    assert (fields[":status"], fields["location"], fields["content-length"]) == (
        "201",
        "/users/1",
        "4",
    )
    assert "connection" not in fields
    assert "upgrade" not in fields
    assert (seen.data, seen.ended, seen.reset) == (b"made", True, None)
    assert browser.machine.in_flight == 0


@pytest.mark.parametrize(
    ("method", "status", "length", "data"),
    [
        ("GET", 200, "4", b"body"),
        ("HEAD", 200, "4", b""),
        ("GET", 204, None, b""),
        ("GET", 304, None, b""),
    ],
)
def test_answers_have_a_body_only_where_http_has_one(
    method: str, status: int, length: str | None, data: bytes
) -> None:
    browser = Browser()
    stream = browser.send(method)
    browser.settle()
    seen = browser.answer(stream, status, b"body")
    assert dict(seen.headers[0]).get("content-length") == length
    assert (seen.data, seen.ended) == (data, True)


@pytest.mark.parametrize("size", [1000, 1001, 50_000])
def test_a_body_is_limited_and_the_connection_lives_on(size: int) -> None:
    browser = Browser()
    stream = browser.send("POST", "/", bytes(size) if size <= 16_384 else bytes(16_384))
    browser.settle()
    problem = None if size <= 1000 else "body_too_large"
    event = browser.request(stream)
    assert event[6] == problem
    assert event[5] == (bytes(size) if problem is None else b"")
    seen = browser.answer(stream, 413)
    assert dict(seen.headers[0])[":status"] == "413"
    assert seen.reset in {None, h2.errors.ErrorCodes.NO_ERROR}
    again = browser.send()
    browser.settle()
    assert browser.request(again)[6] is None


def test_a_body_too_large_is_refused_before_it_ends() -> None:
    browser = Browser()
    stream = browser.h2.get_next_available_stream_id()
    browser.h2.send_headers(
        stream, [(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", "a")]
    )
    browser.h2.send_data(stream, bytes(1001))
    browser.settle()
    assert browser.request(stream)[6] == "body_too_large"
    seen = browser.answer(stream, 413)
    assert seen.ended
    assert seen.reset is None, "clients that send all before they read are let to"
    # More of it is neither kept nor reported, takes no credit for good, and has an end.
    sent = 0
    while seen.reset is None:
        browser.h2.send_data(stream, bytes(16_000))
        browser.settle()
        sent += 16_000
        assert sent < 10 << 20
    assert seen.reset == h2.errors.ErrorCodes.NO_ERROR
    assert len(browser.of_kind(HTTP)) == 1
    assert browser.h2.outbound_flow_control_window > 500_000
    assert browser.machine.in_flight == 0


def test_headers_are_limited_in_number_and_in_size() -> None:
    browser = Browser()
    many = browser.send(extra={f"x-{n}": "1" for n in range(11)})
    large = browser.send(extra={"x-large": "x" * 17_000})
    fine = browser.send()
    browser.settle()
    assert browser.request(many)[6] == "headers_too_large"
    assert browser.of_kind(HTTP, large) == []
    assert dict(browser.streams[large].headers[0])[":status"] == "431"
    assert browser.request(fine)[6] is None


def test_a_slow_body_times_out_once() -> None:
    browser = Browser()
    stream = browser.h2.get_next_available_stream_id()
    browser.h2.send_headers(
        stream, [(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", "a")]
    )
    browser.settle()
    browser.take(browser.machine.tick(NOW + 15 * SECOND))
    assert browser.of_kind(HTTP) == []
    for n in range(1, 5):
        browser.take(browser.machine.tick(NOW + 15 * SECOND + n))
    assert browser.request(stream)[6] == "timeout"
    assert browser.answer(stream, 408).ended


def test_a_client_that_reads_slowly_gets_one_answer_however_long_it_takes() -> None:
    browser = Browser(settings={SettingCodes.INITIAL_WINDOW_SIZE: 10})
    browser.reads = False
    stream = browser.send()
    browser.settle()
    browser.answer(stream, 200, bytes(200_000))
    browser.take(browser.machine.tick(NOW + 3600 * SECOND))
    browser.settle()
    browser.h2.increment_flow_control_window(300_000)
    browser.h2.increment_flow_control_window(300_000, stream)
    browser.settle()
    assert len(browser.of_kind(HTTP)) == 1
    assert browser.streams[stream].data == bytes(200_000)
    assert browser.streams[stream].ended


def test_a_reset_cancels_the_handler() -> None:
    browser = Browser()
    stream = browser.send()
    browser.settle()
    browser.h2.reset_stream(stream, 8)
    browser.settle()
    assert len(browser.of_kind(RESET, stream)) == 1
    browser.machine.reset(stream, 8, NOW)
    assert browser.machine.in_flight == 0


def test_grpc_is_not_served_here() -> None:
    browser = Browser()
    stream = browser.send("POST", "/t.T/Unary", b"\0\0\0\0\0", {"content-type": "application/grpc"})
    browser.settle()
    assert browser.request(stream)[2:4] == ("POST", "/t.T/Unary")


@pytest.mark.parametrize(
    "headers",
    [
        [(":method", "GET"), (":scheme", "https"), (":path", "")],
        [(":method", "GET"), (":scheme", "https"), (":path", "relative")],
        [(":method", "GET"), (":scheme", "https")],
        [(":method", "GET"), (":path", "/")],
        [(":scheme", "https"), (":path", "/")],
        [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":path", "/")],
        [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":nope", "x")],
        [(":method", "GET"), (":scheme", "https"), ("x", "y"), (":path", "/")],
        [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("X-Upper", "y")],
        [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("connection", "close")],
        [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/"),
            ("transfer-encoding", "chunked"),
        ],
        [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("te", "gzip")],
        [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("x", "a\r\nb: c")],
        [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("x", "a\0")],
        [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("", "x")],
        [(":method", "GET"), (":scheme", "https"), (":path", "/\r\nx")],
        [(":method", "GET"), (":scheme", "https"), (":path", "/ x")],
        [(":method", "CONNECT"), (":authority", "a:1")],
        [(":method", "GET"), (":scheme", "https"), (":path", "*")],
        [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "b")],
        [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "a"), ("host", "b")],
    ],
)
def test_malformed_requests_reach_no_handler(headers: list[tuple[str, str]]) -> None:
    browser = Browser()
    if not any(name == ":authority" for name, _ in headers):
        position = next((i for i, (name, _) in enumerate(headers) if name[:1] != ":"), len(headers))
        headers = [*headers[:position], (":authority", "a"), *headers[position:]]
    stream = browser.h2.get_next_available_stream_id()
    browser.h2.send_headers(stream, headers, end_stream=True)
    browser.settle()
    served = [event for event in browser.of_kind(HTTP) if event[6] is None]
    assert served == []
