"""Requests that do not become whole hold a bounded amount, and many large ones all become whole."""

from __future__ import annotations

import anyio
import pytest
from hpack import Decoder
from hyperframe.frame import HeadersFrame, WindowUpdateFrame
from tests.attacks.attacker import (
    ACK,
    BIDI,
    DATA,
    SETTINGS,
    SLOW,
    Attacker,
    attack,
    frame,
    opening,
)

from bascule.rpc import Cardinality, Channel, Method, MethodHandler, Server, ServerLimits

pytestmark = pytest.mark.anyio

MIB = 1 << 20
MESSAGE = 4 * MIB
STREAM_WINDOW = 256 * 1024
STREAMS = range(1, 200, 2)

SIZE: Method[bytes, bytes] = Method("/t.T/Size", Cardinality.UNARY_UNARY, bytes, bytes)


class Uploader:
    """Sends as much of each request as flow control ever allows, but never the end of one."""

    def __init__(self, attacker: Attacker) -> None:
        self.attacker = attacker
        self.windows = {0: 65_535} | dict.fromkeys(STREAMS, STREAM_WINDOW)
        self.rest = dict.fromkeys(STREAMS, MESSAGE - 1)
        self.seen = 0

    async def begin(self, path: str) -> None:
        """Open every stream, and announce a message on it."""
        prefix = b"\0" + MESSAGE.to_bytes(4)
        await self.attacker.send(frame(SETTINGS, ACK))
        for stream in STREAMS:
            await self.attacker.send(opening(stream, path) + frame(DATA, 0, stream, prefix))
            self.windows[0] -= len(prefix)
            self.windows[stream] -= len(prefix)

    def room(self, stream: int) -> int:
        received = self.attacker.received
        for each in received[self.seen :]:
            if isinstance(each, WindowUpdateFrame) and each.stream_id in self.windows:
                self.windows[each.stream_id] += each.window_increment
            elif isinstance(each, HeadersFrame):
                self.rest[each.stream_id] = 0  # it was refused
        self.seen = len(received)
        return min(self.windows[0], self.windows[stream], self.rest[stream], 16_384)

    async def send(self, stream: int) -> bool:
        """Send one frame; False if none is allowed."""
        size = self.room(stream)
        if size < 256:  # smaller ones are rationed
            return False
        for each in (0, stream):
            self.windows[each] -= size
        self.rest[stream] -= size
        await self.attacker.send(frame(DATA, 0, stream, bytes(size)))
        return True

    async def send_all(self) -> None:
        """Go on until nothing more was allowed for a while."""
        quiet = 0
        while quiet < 50 and not self.attacker.gone.is_set():
            sent = [await self.send(stream) for stream in STREAMS]
            quiet = 0 if any(sent) else quiet + 1
            await anyio.sleep(0.005 if quiet else 0)


@pytest.mark.parametrize("path", [SLOW.path, BIDI.path])
async def test_uploads_that_never_end_hold_a_bounded_amount(path: str) -> None:
    """100 streams of 4 MiB each, none of them whole: 400 MiB, were it not for the limit."""
    limits = ServerLimits()
    bound = limits.max_incomplete + limits.max_streams * STREAM_WINDOW
    async with attack(limits, costs=bound + 16 * MIB) as scene:
        uploader = Uploader(scene.attacker)
        await uploader.begin(path)
        await uploader.send_all()
        held = scene.server.config.incomplete
        assert limits.max_incomplete / 2 < held <= bound
        # Two whole messages fit into the half of the limit that is for the oldest.
        assert sum(rest < 256 for rest in uploader.rest.values()) <= 3
        server = scene.server
    assert server.config.incomplete == 0, "the connection is gone"


async def test_many_large_calls_on_one_connection_all_end_well() -> None:
    async def size(request: bytes) -> bytes:
        return len(request).to_bytes(4)

    class Sizes:
        def __mapping__(self) -> dict[str, MethodHandler]:
            return {SIZE.path: MethodHandler.unary(SIZE, size)}

    replies: list[bytes] = []

    async def call(channel: Channel) -> None:
        replies.append(await channel.unary(SIZE, bytes(MESSAGE)))

    async with (
        Server([Sizes()]) as server,
        Channel(server.addresses[0]) as channel,
    ):
        async with anyio.create_task_group() as tasks:
            for _ in STREAMS:
                tasks.start_soon(call, channel)
        assert server.serving.connections == 1
        assert server.config.incomplete == 0
    assert replies == [MESSAGE.to_bytes(4)] * len(STREAMS)


async def test_what_all_connections_hold_is_bounded() -> None:
    """Beyond it large calls are refused, and small ones are not."""
    limits = ServerLimits(max_incomplete_of_all=10 * MIB)
    async with attack(limits, costs=24 * MIB) as scene:
        uploader = Uploader(scene.attacker)
        await uploader.begin(SLOW.path)
        await uploader.send_all()
        assert scene.attacker.goaway is None
        # Those that hold no more than a frame are let be.
        held = scene.server.config.incomplete
        assert MESSAGE < held <= limits.max_incomplete_of_all + len(STREAMS) * 16_384
        decoder = Decoder()
        refused = [each for each in scene.attacker.received if isinstance(each, HeadersFrame)]
        assert {dict(decoder.decode(each.data))["grpc-status"] for each in refused} == {"8"}
