"""A relay that reads along: which messages on a connection are compressed."""

from __future__ import annotations

from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from hyperframe.frame import DataFrame, Frame
from tests.listener import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import ByteStream

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Reader:
    """One direction of a connection."""

    def __init__(self, preface: bytes = b"") -> None:
        #: The flag of each gRPC message, in the order of their ends.
        self.compressed: list[bool] = []
        self._skip = len(preface)
        self._bytes = bytearray()
        self._bodies: dict[int, bytearray] = defaultdict(bytearray)

    def take(self, data: bytes) -> None:
        self._bytes += data
        del self._bytes[: (skipped := min(self._skip, len(self._bytes)))]
        self._skip -= skipped
        while len(self._bytes) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(bytes(self._bytes[:9])))
            if len(self._bytes) < 9 + length:
                return
            frame.parse_body(memoryview(bytes(self._bytes[9 : 9 + length])))
            del self._bytes[: 9 + length]
            if isinstance(frame, DataFrame):
                self._read(self._bodies[frame.stream_id], frame.data)

    def _read(self, body: bytearray, data: bytes) -> None:
        body += data
        while len(body) >= 5 and len(body) >= (end := 5 + int.from_bytes(body[1:5], "big")):
            self.compressed.append(body[0] == 1)
            del body[:end]


class Tap:
    """Both directions of all connections through it."""

    def __init__(self) -> None:
        self.address = ""
        self.requests = Reader(PREFACE)
        self.replies = Reader()


@asynccontextmanager
async def tap(target: str) -> AsyncIterator[Tap]:
    """Relay one connection to ``host:port``."""
    found = Tap()
    host, _, port = target.rpartition(":")

    async def carry(source: ByteStream, sink: ByteStream, reader: Reader) -> None:
        try:
            async for data in source:
                reader.take(data)
                await sink.send(data)
            await sink.send_eof()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # whoever left does not want the rest

    async def relay(client: ByteStream) -> None:
        async with client, await anyio.connect_tcp(host, int(port)) as server:
            async with anyio.create_task_group() as group:
                group.start_soon(carry, client, server, found.requests)
                group.start_soon(carry, server, client, found.replies)

    async with listening(relay) as own_port:
        found.address = f"127.0.0.1:{own_port}"
        yield found
