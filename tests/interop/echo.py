"""The echo service by each generator, with one behaviour, for the tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from google.rpc.error_details_pb2 import BadRequest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.generated import echo_bascule, echo_grpc, echo_pb2
from tests.generated.better import echo as echo_better
from tests.generated.better.echo import services as echo_better_bascule

from bascule.rpc import RpcError, call_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Request metadata under these names is sent back as trailing metadata.
ECHOED = ("x-echo", "x-echo-bin")


class Behaviour:
    """What every kind of handler does with a request, and what the test may wait for."""

    def __init__(self) -> None:
        self.started = anyio.Event()
        self.cancelled = anyio.Event()
        self.ended = anyio.Event()

    async def act(self, request: Any) -> None:
        """Send metadata back, then hang or fail if asked to."""
        context = call_context()
        for name, value in context.metadata.items():
            if name in ECHOED:
                context.trailing_metadata.add(name, value)
        if request.hang:
            self.started.set()
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                self.cancelled.set()
                raise
        failure = request.failure
        if failure is not None and failure.code:
            details = None
            if failure.field:
                details = [
                    BadRequest(field_violations=[BadRequest.FieldViolation(field=failure.field)])
                ]
            raise RpcError(Status(failure.code), failure.message, details)


class BasculeGoogle(echo_bascule.EchoBase):
    """On bascule's bases, with google's messages."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    async def unary(self, request: echo_pb2.EchoRequest) -> echo_pb2.EchoReply:
        await self.behaviour.act(request)
        return echo_pb2.EchoReply(text=request.text, payload=request.payload)

    async def server_stream(
        self, request: echo_pb2.EchoRequest
    ) -> AsyncIterator[echo_pb2.EchoReply]:
        for number in range(request.replies):
            yield echo_pb2.EchoReply(text=request.text, payload=request.payload, number=number)
        await self.behaviour.act(request)

    async def client_stream(
        self, requests: AsyncIterator[echo_pb2.EchoRequest]
    ) -> echo_pb2.EchoReply:
        reply = echo_pb2.EchoReply()
        async for request in requests:
            reply.text += request.text
            reply.payload += request.payload
            await self.behaviour.act(request)
        self.behaviour.ended.set()
        return reply

    async def bidi(
        self, requests: AsyncIterator[echo_pb2.EchoRequest]
    ) -> AsyncIterator[echo_pb2.EchoReply]:
        async for request in requests:
            for number in range(request.replies):
                yield echo_pb2.EchoReply(text=request.text, payload=request.payload, number=number)
            await self.behaviour.act(request)
        self.behaviour.ended.set()


class BasculeBetterproto2(echo_better_bascule.EchoBase):
    """On bascule's bases, with betterproto2's messages."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    async def unary(self, request: echo_better.EchoRequest) -> echo_better.EchoReply:
        await self.behaviour.act(request)
        return echo_better.EchoReply(text=request.text, payload=request.payload)

    async def server_stream(
        self, request: echo_better.EchoRequest
    ) -> AsyncIterator[echo_better.EchoReply]:
        for number in range(request.replies):
            yield echo_better.EchoReply(text=request.text, payload=request.payload, number=number)
        await self.behaviour.act(request)

    async def client_stream(
        self, requests: AsyncIterator[echo_better.EchoRequest]
    ) -> echo_better.EchoReply:
        reply = echo_better.EchoReply()
        async for request in requests:
            reply.text += request.text
            reply.payload += request.payload
            await self.behaviour.act(request)
        self.behaviour.ended.set()
        return reply

    async def bidi(
        self, requests: AsyncIterator[echo_better.EchoRequest]
    ) -> AsyncIterator[echo_better.EchoReply]:
        async for request in requests:
            for number in range(request.replies):
                yield echo_better.EchoReply(
                    text=request.text, payload=request.payload, number=number
                )
            await self.behaviour.act(request)
        self.behaviour.ended.set()


class Betterproto2(echo_better.EchoBase):
    """On betterproto2's own bases."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    async def unary(self, message: echo_better.EchoRequest) -> echo_better.EchoReply:
        await self.behaviour.act(message)
        return echo_better.EchoReply(text=message.text, payload=message.payload)

    async def server_stream(
        self, message: echo_better.EchoRequest
    ) -> AsyncIterator[echo_better.EchoReply]:
        for number in range(message.replies):
            yield echo_better.EchoReply(text=message.text, payload=message.payload, number=number)
        await self.behaviour.act(message)

    async def client_stream(
        self, messages: AsyncIterator[echo_better.EchoRequest]
    ) -> echo_better.EchoReply:
        reply = echo_better.EchoReply()
        async for request in messages:
            reply.text += request.text
            reply.payload += request.payload
            await self.behaviour.act(request)
        self.behaviour.ended.set()
        return reply

    async def bidi(
        self, messages: AsyncIterator[echo_better.EchoRequest]
    ) -> AsyncIterator[echo_better.EchoReply]:
        async for request in messages:
            for number in range(request.replies):
                yield echo_better.EchoReply(
                    text=request.text, payload=request.payload, number=number
                )
            await self.behaviour.act(request)
        self.behaviour.ended.set()


class Grpclib(echo_grpc.EchoBase):
    """On grpclib's bases, with google's messages."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    async def Unary(self, stream: Any) -> None:
        request = await stream.recv_message()
        await self.behaviour.act(request)
        await stream.send_message(echo_pb2.EchoReply(text=request.text, payload=request.payload))

    async def ServerStream(self, stream: Any) -> None:
        request = await stream.recv_message()
        for number in range(request.replies):
            await stream.send_message(
                echo_pb2.EchoReply(text=request.text, payload=request.payload, number=number)
            )
        await self.behaviour.act(request)

    async def ClientStream(self, stream: Any) -> None:
        reply = echo_pb2.EchoReply()
        async for request in stream:
            reply.text += request.text
            reply.payload += request.payload
            await self.behaviour.act(request)
        self.behaviour.ended.set()
        await stream.send_message(reply)

    async def Bidi(self, stream: Any) -> None:
        async for request in stream:
            for number in range(request.replies):
                await stream.send_message(
                    echo_pb2.EchoReply(text=request.text, payload=request.payload, number=number)
                )
            await self.behaviour.act(request)
        self.behaviour.ended.set()

    async def Missing(self, stream: Any) -> None:
        raise GRPCError(Status.UNIMPLEMENTED, "/echo.Echo/Missing is not implemented")


SERVICES = [BasculeGoogle, BasculeBetterproto2, Betterproto2, Grpclib]
