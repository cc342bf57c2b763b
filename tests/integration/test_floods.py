"""Hostile peers against a whole server: what they cost stays bounded, and others are served."""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from bascule.rpc import Cardinality, Channel, Method, MethodHandler, Server, ServerLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import SocketStream, TaskStatus

pytestmark = pytest.mark.anyio

SLOW: Method[bytes, bytes] = Method("/t.T/Slow", Cardinality.UNARY_UNARY, bytes, bytes)
ECHO: Method[bytes, bytes] = Method("/t.T/Echo", Cardinality.UNARY_UNARY, bytes, bytes)

ENHANCE_YOUR_CALM = 11
MAX_STREAMS = 20


class Service:
    """One handler that waits until it is cancelled, one that echoes."""

    def __init__(self) -> None:
        self.running = 0
        self.most_running = 0
        self.started = 0

    async def slow(self, request: bytes) -> bytes:
        self.started += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await anyio.sleep_forever()
        finally:
            # A handler that cleans up for a while still counts.
            with anyio.CancelScope(shield=True):
                for _ in range(10):
                    await anyio.lowlevel.checkpoint()
            self.running -= 1
        return request

    async def echo(self, request: bytes) -> bytes:
        return request

    def __mapping__(self) -> dict[str, Any]:
        return {
            SLOW.path: MethodHandler.unary(SLOW, self.slow),
            ECHO.path: MethodHandler.unary(ECHO, self.echo),
        }


class Attacker:
    """A raw connection that speaks HTTP/2 frame by frame."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self.received: list[Frame] = []
        self.gone = False

    async def send(self, *frames: Frame) -> None:
        """Send frames, unless the server is gone already."""
        await self.send_raw(b"".join(frame.serialize() for frame in frames))

    async def send_raw(self, data: bytes) -> None:
        """Send bytes, unless the server is gone already."""
        if not self.gone:
            try:
                await self.stream.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self.gone = True

    async def read(self, *, task_status: TaskStatus[None]) -> None:
        """Read all that comes until the end."""
        task_status.started()
        pending = b""
        while True:
            try:
                pending += await self.stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                self.gone = True
                return
            while len(pending) >= 9:
                frame, length = Frame.parse_frame_header(memoryview(pending)[:9])
                if len(pending) < 9 + length:
                    break
                frame.parse_body(memoryview(pending)[9 : 9 + length])
                if isinstance(frame, (GoAwayFrame, RstStreamFrame)):
                    self.received.append(frame)
                pending = pending[9 + length :]

    async def until_gone(self) -> None:
        """Wait for the server to end the connection."""
        while not self.gone:
            await anyio.lowlevel.checkpoint()
            await self.send(PingFrame(0, b"are you?"))

    @property
    def goaway(self) -> int | None:
        """The error code of the last GOAWAY."""
        codes = [frame.error_code for frame in self.received if isinstance(frame, GoAwayFrame)]
        return codes[-1] if codes else None


def request(stream: int, path: str = SLOW.path, *, message: bytes = bytes(5)) -> list[Frame]:
    """A whole unary request, an empty message unless told otherwise."""
    block = Encoder().encode(
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "victim"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ],
        huffman=False,
    )
    headers = HeadersFrame(stream, block, flags=["END_HEADERS"])
    return [headers, DataFrame(stream, message, flags=["END_STREAM"])]


@asynccontextmanager
async def attack() -> AsyncIterator[tuple[Attacker, Service, Channel]]:
    """A server under attack, the attacker, and a client in good faith."""
    service = Service()
    limits = ServerLimits(max_streams=MAX_STREAMS)
    async with Server([service], listen="127.0.0.1:0", limits=limits, grace=0.0) as server:
        host, port = server.addresses[0].rsplit(":", 1)
        async with (
            Channel(server.addresses[0]) as channel,
            await anyio.connect_tcp(host, int(port)) as stream,
            anyio.create_task_group() as tasks,
        ):
            assert await channel.unary(ECHO, b"before") == b"before"
            attacker = Attacker(stream)
            await attacker.send_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            await attacker.send(SettingsFrame(0))
            await tasks.start(attacker.read)
            with anyio.fail_after(60):
                yield attacker, service, channel
                assert await channel.unary(ECHO, b"after") == b"after"
            tasks.cancel_scope.cancel()
        with anyio.fail_after(10):
            while service.running:
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("batch", [1, 7, 50])
async def test_rapid_reset_runs_few_handlers_and_ends(batch: int) -> None:
    async with attack() as (attacker, service, channel):
        stream = 1
        while not attacker.gone and stream < 20_000:
            frames: list[Frame] = []
            for _ in range(batch):
                frames += [*request(stream), RstStreamFrame(stream, 8)]
                stream += 2
            await attacker.send(*frames)
            if stream % 16 == 1:
                assert await channel.unary(ECHO, b"meanwhile") == b"meanwhile"
        await attacker.until_gone()
        assert attacker.goaway in {ENHANCE_YOUR_CALM, None}, "None if the reset was faster"
        assert service.most_running <= MAX_STREAMS
        assert service.started <= 400


async def test_requests_beyond_the_limit_are_refused_and_run_nothing() -> None:
    async with attack() as (attacker, service, _):
        for stream in range(1, 2 * MAX_STREAMS, 2):
            await attacker.send(*request(stream))
        while service.running < MAX_STREAMS:
            await anyio.lowlevel.checkpoint()
        extra = 2 * MAX_STREAMS + 1
        await attacker.send(*request(extra))
        while (
            not any(isinstance(f, RstStreamFrame) for f in attacker.received) and not attacker.gone
        ):
            await anyio.lowlevel.checkpoint()
        assert service.started == MAX_STREAMS


def continuations() -> list[Frame]:
    return [ContinuationFrame(1, b"") for _ in range(200)]


def pings() -> list[Frame]:
    return [PingFrame(0, b"12345678") for _ in range(200)]


def settings() -> list[Frame]:
    return [SettingsFrame(0) for _ in range(200)]


def empty_data() -> list[Frame]:
    return [DataFrame(1, b"") for _ in range(200)]


def tiny_data() -> list[Frame]:
    return [DataFrame(1, b"\0", flags=["PADDED"], pad_length=200) for _ in range(50)]


def window_updates() -> list[Frame]:
    return [WindowUpdateFrame(0, window_increment=1) for _ in range(200)]


@pytest.mark.parametrize(
    "flood", [continuations, pings, settings, empty_data, tiny_data, window_updates]
)
async def test_floods_leave_others_served_and_memory_bounded(
    flood: Callable[[], list[Frame]],
) -> None:
    import psutil

    process = psutil.Process()
    async with attack() as (attacker, service, channel):
        opening, _ = request(1)
        if flood is continuations:
            opening.flags.discard("END_HEADERS")
        await attacker.send(opening)
        data = b"".join(frame.serialize() for frame in flood())
        gc.collect()
        before = process.memory_info().rss
        for turn in range(300):
            # A peer that is no longer read blocks here: that is an answer, too.
            with anyio.move_on_after(0.2) as scope:
                await attacker.send_raw(data)
            if attacker.gone or scope.cancelled_caught:
                break
            if turn % 50 == 0:
                assert await channel.unary(ECHO, b"meanwhile") == b"meanwhile"
        grown = process.memory_info().rss - before
        assert grown < 16 << 20, f"{grown} bytes more"
        assert service.most_running <= 1
        if flood is continuations:
            await attacker.until_gone()
