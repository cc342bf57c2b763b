"""A peer that speaks HTTP/2 frame by frame, as badly as it likes, and its victim."""

from __future__ import annotations

import ctypes
import gc
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import sniffio
from hyperframe.frame import Frame, GoAwayFrame, RstStreamFrame

from bascule.rpc import Cardinality, Channel, Method, MethodHandler, RpcError, Server, ServerLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import psutil
    from anyio.abc import SocketStream, TaskStatus

SLOW: Method[bytes, bytes] = Method("/t.T/Slow", Cardinality.UNARY_UNARY, bytes, bytes)
ECHO: Method[bytes, bytes] = Method("/t.T/Echo", Cardinality.UNARY_UNARY, bytes, bytes)
LARGE: Method[bytes, bytes] = Method("/t.T/Large", Cardinality.UNARY_UNARY, bytes, bytes)
BIDI: Method[bytes, bytes] = Method("/t.T/Bidi", Cardinality.STREAM_STREAM, bytes, bytes)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

(DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY) = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8

PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, COMPRESSION_ERROR = 1, 3, 6, 9
STREAM_CLOSED, REFUSED_STREAM, ENHANCE_YOUR_CALM = 5, 7, 11

#: Streams that the victim allows.
MAX_STREAMS = 20


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame of any kind, right or wrong (RFC 9113, 4.1)."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without tables or Huffman coding (RFC 7541, 6.2.2)."""
    return b"\0" + b"".join(_integer(len(each), 7) + each for each in (name, value))


def _integer(value: int, bits: int) -> bytes:
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([value])
    value -= limit
    out = [limit]
    while value >= 128:
        out.append(128 | value % 128)
        value //= 128
    return bytes([*out, value])


def block(path: str = SLOW.path, **extra: str) -> bytes:
    """The head of a gRPC request."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "victim",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    return b"".join(literal(n.encode(), v.encode()) for n, v in (fields | extra).items())


def opening(stream: int, path: str = SLOW.path, flags: int = END_HEADERS) -> bytes:
    """A request that goes on."""
    return frame(HEADERS, flags, stream, block(path))


def request(stream: int, path: str = SLOW.path, message: bytes = bytes(5)) -> bytes:
    """A whole unary request, an empty message unless told otherwise."""
    return opening(stream, path) + frame(DATA, END_STREAM, stream, message)


class Service:
    """Handlers that wait until they are cancelled, answer, or answer much."""

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

    async def large(self, request: bytes) -> bytes:
        return bytes(50_000)

    async def bidi(self, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self.started += 1
        async for message in requests:
            yield message

    def __mapping__(self) -> dict[str, Any]:
        return {
            SLOW.path: MethodHandler.unary(SLOW, self.slow),
            ECHO.path: MethodHandler.unary(ECHO, self.echo),
            LARGE.path: MethodHandler.unary(LARGE, self.large),
            BIDI.path: MethodHandler.bidi(BIDI, self.bidi),
        }


class Attacker:
    """A raw connection."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self.received: list[Frame] = []
        self.bytes_read = 0
        self.gone = anyio.Event()

    async def send(self, data: bytes) -> None:
        """Send bytes, unless the server is gone already."""
        if not self.gone.is_set():
            try:
                await self.stream.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self.gone.set()

    async def read(self, *, task_status: TaskStatus[None]) -> None:
        """Read all that comes until the end."""
        task_status.started()
        pending = b""
        while True:
            try:
                data = await self.stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                self.gone.set()
                return
            self.bytes_read += len(data)
            pending += data
            while len(pending) >= 9:
                parsed, length = Frame.parse_frame_header(memoryview(pending)[:9])
                if len(pending) < 9 + length:
                    break
                parsed.parse_body(memoryview(pending)[9 : 9 + length])
                self.received.append(parsed)
                pending = pending[9 + length :]

    @property
    def goaway(self) -> int | None:
        """The error code of the last GOAWAY."""
        codes = [each.error_code for each in self.received if isinstance(each, GoAwayFrame)]
        return codes[-1] if codes else None

    @property
    def resets(self) -> list[int]:
        """The error codes of the streams that were reset."""
        return [each.error_code for each in self.received if isinstance(each, RstStreamFrame)]


@dataclass
class Probe:
    """A client in good faith, on a connection of its own."""

    channel: Channel
    served: int = 0
    failed: list[RpcError] = field(default_factory=list)

    async def run(self) -> None:
        """Call without a pause."""
        while True:
            try:
                await self.channel.unary(ECHO, b"meanwhile")
                self.served += 1
            except RpcError as error:
                self.failed.append(error)


@dataclass
class Scene:
    """Who takes part in an attack."""

    attacker: Attacker
    service: Service
    server: Server
    probe: Probe


def living_tasks(server: Server) -> int:
    """Tasks of the event loop, but for those that the server keeps for the next call."""
    return _all_tasks() - len(getattr(server.serving._driver, "_parked", ()))


def _all_tasks() -> int:
    if sniffio.current_async_library() == "trio":
        import trio

        return trio.lowlevel.current_statistics().tasks_living
    import asyncio

    return len(asyncio.all_tasks())


async def dial(server: Server) -> SocketStream:
    """A bare connection to the server."""
    host, port = server.addresses[0].rsplit(":", 1)
    return await anyio.connect_tcp(host, int(port))


@asynccontextmanager
async def attack(
    limits: ServerLimits | None = None,
    *,
    opens: bool = True,
    reads: bool = True,
    costs: int = 8 << 20,
) -> AsyncIterator[Scene]:
    """A server under attack. Afterwards, all that the attack has cost is given back.

    :param opens: send a preface and SETTINGS
    :param reads: read what the server sends
    :param costs: bytes that the process may grow by meanwhile
    """
    import psutil

    process = psutil.Process()
    service = Service()
    limits = limits or ServerLimits(max_streams=MAX_STREAMS)
    async with Server([service], listen="127.0.0.1:0", limits=limits, grace=0.0) as server:
        async with Channel(server.addresses[0]) as channel:
            assert await channel.unary(ECHO, b"before") == b"before"
            probe = Probe(channel)
            baseline = living_tasks(server)
            gc.collect()
            before = _memory_in_use(process)
            async with await dial(server) as stream, anyio.create_task_group() as tasks:
                attacker = Attacker(stream)
                if opens:
                    await attacker.send(PREFACE + frame(SETTINGS))
                if reads:
                    await tasks.start(attacker.read)
                tasks.start_soon(probe.run)
                with anyio.fail_after(60):
                    yield Scene(attacker, service, server, probe)
                    enough = probe.served + 3
                    while probe.served < enough:
                        await anyio.lowlevel.checkpoint()
                grown = _memory_in_use(process) - before
                tasks.cancel_scope.cancel()
            assert len(probe.failed) <= probe.served / 100, probe.failed[:3]
            assert service.most_running <= limits.max_streams
            assert grown < costs, f"{grown} bytes more"
            with anyio.fail_after(1):
                while service.running or living_tasks(server) > baseline:
                    await anyio.lowlevel.checkpoint()


def _memory_in_use(process: psutil.Process) -> int:
    """Bytes that a process holds, without those that glibc keeps of what was freed.

    Once large messages have passed, those are up to 32 MiB (see decision 009): no attack changes that.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return int(process.memory_info().rss)
