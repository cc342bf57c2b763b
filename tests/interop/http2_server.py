"""A server on the `h2` library that answers TestService/UnaryCall the way that a test wants it: badly, mostly.

Source: the gRPC project's "Negative HTTP/2 Interop Test Case Descriptions". Its own server is not packaged.
"""

from __future__ import annotations

import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import anyio
import h2.config
import h2.connection
import h2.events
import h2.settings
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame
from tests.generated.interop.testing_pb2 import Payload, SimpleRequest, SimpleResponse
from tests.listener import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.abc import ByteStream

MAX_STREAMS = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS

#: gRPC's prefix of a message: whether it is compressed, and its length.
PREFIX = struct.Struct("!BI")

HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
TRAILERS = [("grpc-status", "0")]


class Request(NamedTuple):
    """One attempt of a client, as it reached the server."""

    connection: Connection
    stream: int
    message: SimpleRequest

    @property
    def number(self) -> int:
        """How many came before it, on any connection."""
        return self.connection.server.requests.index(self)

    @property
    def reply(self) -> bytes:
        """What a good server would answer."""
        body = Payload(body=bytes(self.message.response_size))
        message = SimpleResponse(payload=body).SerializeToString()
        return PREFIX.pack(0, len(message)) + message

    async def answer(self, chunk: int = 16_384, padding: int | None = None) -> None:
        """Do what a good server would.

        :param chunk: most bytes of the message in a frame
        :param padding: bytes that are added to each frame
        """
        await self.send_headers()
        await self.send_data(self.reply, chunk, padding)
        await self.send_trailers()

    async def send_headers(self) -> None:
        self.connection.h2.send_headers(self.stream, HEADERS)
        await self.connection.flush()

    async def send_data(self, data: bytes, chunk: int = 16_384, padding: int | None = None) -> None:
        """Send as the client's windows allow; padding counts against them, and so does its length."""
        extra = 0 if padding is None else padding + 1
        while data:
            room = self.connection.h2.local_flow_control_window(self.stream) - extra
            if room <= 0:
                await self.connection.more_room()
                continue
            part = data[: min(room, chunk)]
            self.connection.h2.send_data(self.stream, part, pad_length=padding)
            await self.connection.flush()
            data = data[len(part) :]

    async def send_trailers(self) -> None:
        self.connection.h2.send_headers(self.stream, TRAILERS, end_stream=True)
        await self.connection.flush()

    async def reset(self, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        self.connection.h2.reset_stream(self.stream, code)
        await self.connection.flush()

    async def goaway(self, last: int) -> None:
        """Announce that no stream after ``last`` was or will be processed."""
        # Not by `h2`, which would say nothing more on the streams before it.
        await self.connection.flush(GoAwayFrame(last_stream_id=last).serialize())


class Connection:
    """One connection of a client."""

    def __init__(self, server: Http2Server, stream: ByteStream) -> None:
        self.server = server
        #: Pings that the client has not acknowledged.
        self.pings = 0
        self.open_streams = 0
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self._stream = stream
        self._lock = anyio.Lock()
        self._changed = anyio.Event()

    async def ping(self) -> None:
        """Ask the client for a sign of life."""
        self.pings += 1
        self.h2.ping(struct.pack("!Q", self.pings))
        await self.flush()

    async def limit_streams(self, most: int) -> None:
        """Allow the client so many streams from now on; `h2` is strict about it."""
        self.h2.update_settings({MAX_STREAMS: most})
        await self.flush()

    async def flush(self, more: bytes = b"") -> None:
        """Send what `h2` has to say, in its order, and more after it."""
        async with self._lock:
            if data := self.h2.data_to_send() + more:
                await self._stream.send(data)

    async def close(self) -> None:
        """Leave without a word."""
        await self._stream.aclose()

    async def more_room(self) -> None:
        """Wait until the client may have widened a window."""
        await self._changed.wait()

    async def quiet(self) -> None:
        """Wait until every ping is acknowledged."""
        while self.pings:
            await self._changed.wait()

    async def run(self) -> None:
        """Serve until the client leaves."""
        self.h2.initiate_connection()
        bodies: dict[int, bytes] = {}
        async with anyio.create_task_group() as answers:
            try:
                await self.flush()
                while True:
                    for event in self.h2.receive_data(await self._stream.receive()):
                        self._take(event, bodies, answers.start_soon)
                    await self.flush()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                answers.cancel_scope.cancel()

    def _take(
        self, event: h2.events.Event, bodies: dict[int, bytes], start: Callable[..., None]
    ) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.open_streams += 1
            self.server.most_streams = max(self.server.most_streams, self.open_streams)
            bodies[event.stream_id] = b""
        elif isinstance(event, h2.events.DataReceived):
            bodies[event.stream_id] += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            message = SimpleRequest.FromString(bodies.pop(event.stream_id)[PREFIX.size :])
            request = Request(self, event.stream_id, message)
            self.server.requests.append(request)
            start(self._answer, request)
        elif isinstance(event, h2.events.PingAckReceived):
            self.pings -= 1
            self._change()
        elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _answer(self, request: Request) -> None:
        await self.server.behaviour(request)
        self.open_streams -= 1


class Http2Server:
    """Where clients connect, and what it saw of them."""

    def __init__(self, behaviour: Callable[[Request], Awaitable[None]]) -> None:
        self.behaviour = behaviour
        self.address = ""
        self.connections: list[Connection] = []
        self.requests: list[Request] = []
        #: Most streams of a connection that were open at once.
        self.most_streams = 0

    async def serve(self, stream: ByteStream) -> None:
        """Serve one client."""
        connection = Connection(self, stream)
        self.connections.append(connection)
        async with stream:
            await connection.run()


@asynccontextmanager
async def http2_server(
    behaviour: Callable[[Request], Awaitable[None]],
) -> AsyncIterator[Http2Server]:
    """Run a server that treats every request by ``behaviour``, once it has come whole."""
    server = Http2Server(behaviour)
    async with listening(server.serve) as port:
        server.address = f"127.0.0.1:{port}"
        yield server
