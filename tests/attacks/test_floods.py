"""Every flood against a whole server ends its connection by the right code, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from tests.attacks.attacker import (
    BIDI,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ECHO,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HEADERS,
    MAX_STREAMS,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    SLOW,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    attack,
    block,
    frame,
    literal,
    opening,
    request,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

CANCEL = (8).to_bytes(4, "big")

#: Seconds in which the first frames of a connection are forgiven, so that the limit is whole.
REFILL = 0.05

BIDI_OPEN = opening(1, BIDI.path)

#: What comes first, what is repeated, and how often: somewhat more than is allowed.
FLOODS: dict[str, tuple[bytes, bytes, int]] = {
    "ping": (b"", frame(PING, payload=bytes(8)), 1500),
    "settings": (b"", frame(SETTINGS, payload=b"\0\4\0\1\0\0"), 1500),
    "settings entries": (b"", frame(SETTINGS, payload=b"\0\4\0\1\0\0" * 33), 1),
    "priority": (b"", frame(PRIORITY, stream=1, payload=b"\0\0\0\3\1"), 1500),
    "window update": (b"", frame(WINDOW_UPDATE, payload=b"\0\0\0\1"), 1500),
    "window update of a stream": (BIDI_OPEN, frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), 1500),
    "unknown": (b"", frame(0xFA, payload=b"?"), 1500),
    "reset of what is over": (request(1, ECHO.path), frame(RST_STREAM, 0, 1, CANCEL), 1500),
    "empty data": (BIDI_OPEN, frame(DATA, 0, 1), 11),
    "dribbled data": (BIDI_OPEN + frame(DATA, 0, 1, b"\0\0\3\0\0"), frame(DATA, 0, 1, b"x"), 1500),
    "padded data": (
        BIDI_OPEN + frame(DATA, 0, 1, b"\0\0\3\0\0"),
        frame(DATA, PADDED, 1, b"\xffx" + bytes(255)),
        1500,
    ),
    "continuation": (opening(1, flags=0), frame(CONTINUATION, 0, 1, literal(b"x", b"y")), 9),
    "continuation of zero bytes": (opening(1, flags=0), frame(CONTINUATION, 0, 1), 2),
    "large continuation": (
        opening(1, flags=0),
        frame(CONTINUATION, 0, 1, literal(b"x", bytes(16_000).replace(b"\0", b"y"))),
        5,
    ),
    "many tiny headers": (
        b"",
        frame(HEADERS, END_HEADERS, 1, block() + literal(b"a", b"") * 3500),
        1,
    ),
    # One entry of 4,000 bytes in the table, and then a byte for each time it is used.
    "bomb of compressed headers": (
        b"",
        frame(
            HEADERS,
            END_HEADERS,
            1,
            block() + b"\x40" + literal(b"bomb", b"x" * 4000)[1:] + b"\xbe" * 10_000,
        ),
        1,
    ),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_ends_its_connection(name: str) -> None:
    first, flood, count = FLOODS[name]
    async with attack() as scene:
        await scene.attacker.send(first)
        await scene.attacker.send(flood * count)
        await scene.attacker.gone.wait()
        assert scene.attacker.goaway == ENHANCE_YOUR_CALM
        assert scene.service.most_running <= 1


#: How many of a flood's frames pass: 1,000 that nothing explains, what the server's SETTINGS (1)
#: and a stream (5) do explain, and the limits of those that have one of their own: a ping that is
#: allowed, and two that come too soon.
PASSING = {
    "ping": 3,
    "settings": 1000,
    "priority": 1001,
    "window update": 1001,
    "window update of a stream": 1006,
    "unknown": 1000,
    "empty data": 10,
    "continuation": 8,
    "continuation of zero bytes": 1,
}


@pytest.mark.parametrize("name", PASSING)
async def test_one_beyond_the_limit_ends_the_connection(name: str) -> None:
    first, flood, _ = FLOODS[name]
    async with attack() as scene:
        await scene.attacker.send(first)
        await anyio.sleep(REFILL)
        await scene.attacker.send(flood * (PASSING[name] + 1))
        await scene.attacker.gone.wait()
        assert scene.attacker.goaway == ENHANCE_YOUR_CALM


@pytest.mark.parametrize("name", [each for each in PASSING if "continuation" not in each])
async def test_what_is_within_the_limit_is_let_pass(name: str) -> None:
    first, flood, _ = FLOODS[name]
    async with attack() as scene:
        await scene.attacker.send(first)
        await anyio.sleep(REFILL)
        await scene.attacker.send(flood * PASSING[name] + request(3, ECHO.path))
        while not any(each.stream_id == 3 for each in scene.attacker.received):
            assert not scene.attacker.gone.is_set()
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("batch", [1, 7, 50])
async def test_rapid_reset_runs_few_handlers_and_ends(batch: int) -> None:
    async with attack() as scene:
        stream = 1
        while not scene.attacker.gone.is_set() and stream < 20_000:
            data = b""
            for _ in range(batch):
                data += request(stream) + frame(RST_STREAM, 0, stream, CANCEL)
                stream += 2
            await scene.attacker.send(data)
        await scene.attacker.gone.wait()
        assert scene.attacker.goaway in {ENHANCE_YOUR_CALM, None}, "None if the reset was faster"
        assert scene.service.started <= 400


def _after_end(stream: int) -> bytes:
    return request(stream) + frame(HEADERS, END_HEADERS | END_STREAM, stream, block())


#: The six ways to make a server reset a stream (CVE-2025-8671), and the codes by which the
#: connection may end: some of them are errors of the connection at once.
MADE: dict[str, tuple[Callable[[int], bytes], set[int]]] = {
    "window update of zero": (
        lambda stream: request(stream) + frame(WINDOW_UPDATE, 0, stream, bytes(4)),
        {PROTOCOL_ERROR, ENHANCE_YOUR_CALM},
    ),
    "window update beyond 2^31": (
        lambda stream: request(stream) + frame(WINDOW_UPDATE, 0, stream, b"\x7f\xff\xff\xff"),
        {ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR},
    ),
    "priority of the wrong size": (
        lambda stream: request(stream) + frame(PRIORITY, 0, stream, bytes(4)),
        {FRAME_SIZE_ERROR, PROTOCOL_ERROR, ENHANCE_YOUR_CALM},
    ),
    "priority below itself": (
        lambda stream: request(stream) + frame(PRIORITY, 0, stream, stream.to_bytes(4) + b"\1"),
        {ENHANCE_YOUR_CALM},
    ),
    "headers after the end": (_after_end, {ENHANCE_YOUR_CALM, STREAM_CLOSED, PROTOCOL_ERROR}),
    "data after the end": (
        lambda stream: request(stream) + frame(DATA, 0, stream, b"more"),
        {ENHANCE_YOUR_CALM, STREAM_CLOSED, PROTOCOL_ERROR},
    ),
}


@pytest.mark.parametrize("name", MADE)
async def test_resets_that_the_peer_provokes_are_counted(name: str) -> None:
    provoke, codes = MADE[name]
    async with attack() as scene:
        stream = 1
        while not scene.attacker.gone.is_set() and stream < 2_000:
            await scene.attacker.send(provoke(stream))
            stream += 2
        await scene.attacker.gone.wait()
        assert scene.attacker.goaway in codes | {None}, "None if the reset was faster"
        assert stream < 2_000
        assert scene.service.started <= 400


@pytest.mark.parametrize("acknowledged", [False, True])
async def test_streams_beyond_the_limit_are_refused_and_then_end_the_connection(
    acknowledged: bool,
) -> None:
    """Whether the server's SETTINGS are acknowledged or not (CVE-2026-47244)."""
    async with attack() as scene:
        if acknowledged:
            await scene.attacker.send(frame(SETTINGS, flags=1))
        for stream in range(1, 2 * MAX_STREAMS, 2):
            await scene.attacker.send(request(stream))
        extra = 2 * MAX_STREAMS + 1
        await scene.attacker.send(request(extra))
        while not scene.attacker.resets:
            await anyio.lowlevel.checkpoint()
        assert scene.attacker.resets[0] == REFUSED_STREAM
        assert scene.service.started <= MAX_STREAMS
        for stream in range(extra + 2, extra + 1000, 2):
            await scene.attacker.send(opening(stream, BIDI.path))
        await scene.attacker.gone.wait()
        assert scene.attacker.goaway in {ENHANCE_YOUR_CALM, None}
        assert scene.service.started <= MAX_STREAMS


@pytest.mark.parametrize(
    ("head", "codes"),
    [
        (literal(b"", b"nameless"), {PROTOCOL_ERROR, COMPRESSION_ERROR}),
        (b"\xff\xff\xff\xff\xff\x0f", {PROTOCOL_ERROR, COMPRESSION_ERROR}),
        (b"\x80", {PROTOCOL_ERROR, COMPRESSION_ERROR}),
    ],
)
async def test_headers_that_cannot_be_decoded_end_the_connection(
    head: bytes, codes: set[int]
) -> None:
    async with attack() as scene:
        await scene.attacker.send(frame(HEADERS, END_HEADERS, 1, block() + head))
        await scene.attacker.gone.wait()
        assert scene.attacker.goaway in codes
        assert scene.service.started == 0


@pytest.mark.parametrize("path", ["t.T/Slow", "", "*", "//t.T/Slow", "/t.T/Slow/", "/t.t/slow"])
async def test_a_path_that_is_not_a_methods_reaches_none(path: str) -> None:
    """CVE-2026-33186: a path without its slash was matched by one layer and not by the next."""
    async with attack() as scene:
        await scene.attacker.send(request(1, path) + request(3, ECHO.path))
        while not any(each.stream_id == 3 for each in scene.attacker.received):
            await anyio.lowlevel.checkpoint()
        assert scene.service.started == 0
        assert any(each.stream_id == 1 for each in scene.attacker.received)


async def test_the_last_stream_of_all_is_served() -> None:
    async with attack() as scene:
        last = 2**31 - 1
        await scene.attacker.send(request(last, ECHO.path))
        while not any(each.stream_id == last for each in scene.attacker.received):
            await anyio.lowlevel.checkpoint()
        await scene.attacker.send(request(1, SLOW.path))
        await scene.attacker.gone.wait()
        assert scene.service.started == 0
