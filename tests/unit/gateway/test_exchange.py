"""What is taken from a request's headers, and what is not believed."""

from __future__ import annotations

import pytest

from bascule.gateway import Exchange
from bascule.net import HttpRequest

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def exchange(*headers: tuple[str, str]) -> Exchange:
    return Exchange(HttpRequest("GET", "/", list(headers), b"", "127.0.0.1:1", "https", "2"))


@pytest.mark.parametrize("value", ["a", "7f0c-11_x.Y:z/+=", "a" * 128])
def test_a_sane_request_id_is_kept(value: str) -> None:
    assert exchange(("x-request-id", value)).request_id == value


@pytest.mark.parametrize(
    "value", ["", "a" * 129, "a b", "a\nb", "a\r", "\x1b[2J", "\u00e9", "a,b", '"', "<script>"]
)
def test_another_one_is_replaced(value: str) -> None:
    made = exchange(("x-request-id", value)).request_id
    assert len(made) == 32
    assert not made.strip("0123456789abcdef")


def test_without_both_the_request_id_is_the_trace_id() -> None:
    alone = exchange()
    assert alone.request_id == alone.trace.trace_id
    assert exchange().request_id != alone.request_id


def test_a_trace_is_continued_and_a_malformed_one_begun_anew() -> None:
    continued = exchange(("traceparent", PARENT), ("tracestate", "v=1"))
    assert continued.trace.traceparent == PARENT
    assert continued.trace.state == "v=1"
    assert continued.request_id != continued.trace.trace_id
    assert exchange(("traceparent", "00-nonsense")).trace.traceparent != "00-nonsense"


def test_repeated_headers_are_joined_but_those_that_stand_alone_are_void() -> None:
    one = exchange(
        ("accept-language", "de"),
        ("authorization", "Bearer a"),
        ("accept-language", "en"),
        ("authorization", "Bearer b"),
        ("x-request-id", "a"),
        ("x-request-id", "b"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    )
    assert one.headers["accept-language"] == "de, en"
    assert one.headers["cookie"] == "a=1; b=2"
    assert one.headers["authorization"] not in {"Bearer a", "Bearer b"}
    assert one.request_id not in {"a", "b"}
