"""Echo servers of other libraries, each in threads of its own."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import grpclib.server
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status as RichStatus
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.generated.echo_grpc import EchoBase
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.generated.echo_pb2_grpc import EchoServicer, add_EchoServicer_to_server
from tests.interop.echo import ECHOED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Peer:
    """A running server, and what its handlers saw."""

    def __init__(self) -> None:
        self.address = ""
        self.started = threading.Event()
        self.cancelled = threading.Event()
        self.time_left: float | None = None
        self.clients: set[str] = set()
        #: What handlers of requests with the text "held" wait for.
        self.hold: threading.Event | None = None
        #: Take no new calls and let those in progress end.
        self.drain: Callable[[], object] = lambda: None
        self.stop: Callable[[], object] = lambda: None

    def wait(self, event: threading.Event) -> None:
        """Block until a handler has set ``event``."""
        assert event.wait(10.0)


def violation(field: str) -> BadRequest:
    return BadRequest(field_violations=[BadRequest.FieldViolation(field=field)])


class _Refusal(NamedTuple):
    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, bytes], ...]


class _Refused(_Refusal, grpc.Status):
    pass


class GrpcioEcho(EchoServicer):
    """grpcio's service, one thread for each call."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def _act(self, request: EchoRequest, context: Any) -> None:
        trailing = tuple(
            (key, value) for key, value in context.invocation_metadata() if key in ECHOED
        )
        self._peer.time_left = context.time_remaining()
        self._peer.clients.add(context.peer())
        if self._peer.hold is not None and request.text == "held":
            self._peer.started.set()
            self._peer.wait(self._peer.hold)
        if request.hang:
            over = threading.Event()
            context.add_callback(over.set)
            self._peer.started.set()
            if over.wait(30.0):
                self._peer.cancelled.set()
        if request.failure.code:
            if request.failure.field:
                rich = RichStatus(code=request.failure.code, message=request.failure.message)
                rich.details.add().Pack(violation(request.failure.field))
                trailing += (("grpc-status-details-bin", rich.SerializeToString()),)
            codes = {code.value[0]: code for code in grpc.StatusCode}
            context.abort_with_status(
                _Refused(codes[request.failure.code], request.failure.message, trailing)
            )
        context.set_trailing_metadata(trailing)

    def Unary(self, request: EchoRequest, context: Any) -> EchoReply:
        self._act(request, context)
        return EchoReply(text=request.text, payload=request.payload)

    def ServerStream(self, request: EchoRequest, context: Any) -> Iterator[EchoReply]:
        context.send_initial_metadata((("x-initial", "here"),))
        for number in range(request.replies):
            yield EchoReply(text=request.text, payload=request.payload, number=number)
        self._act(request, context)

    def ClientStream(self, request_iterator: Iterator[EchoRequest], context: Any) -> EchoReply:
        reply = EchoReply()
        for request in request_iterator:
            reply.text += request.text
            reply.payload += request.payload
            self._act(request, context)
        return reply

    def Bidi(self, request_iterator: Iterator[EchoRequest], context: Any) -> Iterator[EchoReply]:
        for request in request_iterator:
            for number in range(request.replies):
                yield EchoReply(text=request.text, payload=request.payload, number=number)
            self._act(request, context)


class GrpclibEcho(EchoBase):
    """grpclib's service on asyncio."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def _act(self, request: EchoRequest, stream: Any) -> None:
        self._peer.time_left = stream.deadline and stream.deadline.time_remaining()
        if request.hang:
            self._peer.started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self._peer.cancelled.set()
                raise
        if request.failure.code:
            details = [violation(request.failure.field)] if request.failure.field else None
            raise GRPCError(Status(request.failure.code), request.failure.message, details)

    @staticmethod
    async def _end(stream: Any) -> None:
        echoed = [(key, value) for key, value in stream.metadata.items() if key in ECHOED]
        await stream.send_trailing_metadata(metadata=echoed)

    async def Unary(self, stream: Any) -> None:
        request = await stream.recv_message()
        await self._act(request, stream)
        await stream.send_message(EchoReply(text=request.text, payload=request.payload))
        await self._end(stream)

    async def ServerStream(self, stream: Any) -> None:
        await stream.send_initial_metadata(metadata={"x-initial": "here"})
        request = await stream.recv_message()
        for number in range(request.replies):
            await stream.send_message(
                EchoReply(text=request.text, payload=request.payload, number=number)
            )
        await self._act(request, stream)
        await self._end(stream)

    async def ClientStream(self, stream: Any) -> None:
        reply = EchoReply()
        async for request in stream:
            reply.text += request.text
            reply.payload += request.payload
            await self._act(request, stream)
        await stream.send_message(reply)

    async def Bidi(self, stream: Any) -> None:
        async for request in stream:
            for number in range(request.replies):
                await stream.send_message(
                    EchoReply(text=request.text, payload=request.payload, number=number)
                )
            await self._act(request, stream)

    async def Missing(self, stream: Any) -> None:
        raise GRPCError(Status.UNIMPLEMENTED)


@contextmanager
def grpcio_server(
    *,
    listen: str = "127.0.0.1:0",
    credentials: Any = None,
    options: Any = (),
    compression: grpc.Compression | None = None,
) -> Iterator[Peer]:
    """Run grpcio's server."""
    peer = Peer()
    with ThreadPoolExecutor(32) as threads:
        server = grpc.server(threads, options=options, compression=compression)
        add_EchoServicer_to_server(GrpcioEcho(peer), server)
        if credentials is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, credentials)
        peer.address = f"127.0.0.1:{port}"
        peer.drain = lambda: server.stop(30.0)
        peer.stop = lambda: server.stop(0).wait()
        server.start()
        try:
            yield peer
        finally:
            peer.stop()


@contextmanager
def grpclib_server() -> Iterator[Peer]:
    """Run grpclib's server in a thread with an event loop."""
    peer = Peer()
    ready: Future[asyncio.AbstractEventLoop] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        server = grpclib.server.Server([GrpclibEcho(peer)])
        await server.start("127.0.0.1", 0)
        assert server._server is not None
        peer.address = f"127.0.0.1:{server._server.sockets[0].getsockname()[1]}"
        ready.set_result(asyncio.get_running_loop())
        await stop.wait()
        server.close()
        await server.wait_closed()

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, serve())
        loop = ready.result(10.0)
        try:
            yield peer
        finally:
            loop.call_soon_threadsafe(stop.set)
            running.result(10.0)


SERVERS = {"grpcio": grpcio_server, "grpclib": grpclib_server}
