"""Read by mypy, never run: how generated stubs and bases look to a type checker."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from tests.generated import echo_bascule, echo_pb2
from tests.generated.better import echo
from tests.generated.better.echo import services

from bascule.rpc import Channel, Method, Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

assert_type(echo_bascule.ECHO_UNARY, Method[echo_pb2.EchoRequest, echo_pb2.EchoReply])
assert_type(services.ECHO_BIDI, Method[echo.EchoRequest, echo.EchoReply])


async def call_google(channel: Channel) -> None:
    stub = echo_bascule.EchoStub(channel)
    assert_type(await stub.unary(echo_pb2.EchoRequest(text="a"), timeout=1.0), echo_pb2.EchoReply)
    async with stub.server_stream(
        echo_pb2.EchoRequest(replies=2), metadata={"key": "value"}
    ) as stream:
        assert_type(stream, Stream[echo_pb2.EchoRequest, echo_pb2.EchoReply])
        async for reply in stream:
            assert_type(reply, echo_pb2.EchoReply)
    async with stub.client_stream() as stream:
        await stream.send_message(echo_pb2.EchoRequest(), end=True)
        assert_type(await stream.recv_message(), echo_pb2.EchoReply | None)
    async with stub.bidi() as stream:
        await stream.send_message(echo.EchoRequest())  # type: ignore[arg-type]
    await stub.unary(echo.EchoRequest())  # type: ignore[arg-type]


async def call_betterproto2(channel: Channel) -> None:
    stub = services.EchoStub(channel)
    assert_type(await stub.unary(echo.EchoRequest(text="a")), echo.EchoReply)
    async with stub.bidi(timeout=1.0) as stream:
        assert_type(stream, Stream[echo.EchoRequest, echo.EchoReply])


class GoogleEcho(echo_bascule.EchoBase):
    async def unary(self, request: echo_pb2.EchoRequest) -> echo_pb2.EchoReply:
        return echo_pb2.EchoReply(text=request.text)

    async def server_stream(
        self, request: echo_pb2.EchoRequest
    ) -> AsyncIterator[echo_pb2.EchoReply]:
        for number in range(request.replies):
            yield echo_pb2.EchoReply(number=number)

    async def client_stream(
        self, requests: AsyncIterator[echo_pb2.EchoRequest]
    ) -> echo_pb2.EchoReply:
        return echo_pb2.EchoReply(text="".join([request.text async for request in requests]))

    def bidi(
        self, requests: AsyncIterator[echo_pb2.EchoRequest]
    ) -> AsyncIterator[echo_pb2.EchoReply]:
        return (echo_pb2.EchoReply(text=request.text) async for request in requests)


class WrongEcho(services.EchoBase):
    async def unary(self, request: echo.EchoReply) -> echo.EchoReply:  # type: ignore[override]
        return request
