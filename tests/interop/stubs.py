"""The stubs of each generator behind one interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.generated import echo_bascule, echo_grpc, echo_pb2
from tests.generated.better import echo as echo_better
from tests.generated.better.echo import services as echo_better_bascule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from bascule.rpc import Channel


class BasculeGoogle:
    """bascule's stub, google's messages."""

    messages: Any = echo_pb2
    stub: Any = echo_bascule.EchoStub

    def __init__(self, channel: Channel) -> None:
        self._stub = self.stub(channel)

    async def unary(self, request: Any, **options: Any) -> Any:
        return await self._stub.unary(request, **options)

    async def server_stream(self, request: Any, **options: Any) -> AsyncIterator[Any]:
        async with self._stub.server_stream(request, **options) as stream:
            async for reply in stream:
                yield reply

    async def client_stream(self, requests: Iterable[Any], **options: Any) -> Any:
        async with self._stub.client_stream(**options) as stream:
            for request in requests:
                await stream.send_message(request)
            await stream.end()
            return await stream.recv_message()

    async def bidi(self, requests: Iterable[Any], **options: Any) -> AsyncIterator[Any]:
        """Send a request when the replies to the one before have come."""
        async with self._stub.bidi(**options) as stream:
            for request in requests:
                await stream.send_message(request)
                for _ in range(request.replies):
                    yield await stream.recv_message()
            await stream.end()
            assert await stream.recv_message() is None


class BasculeBetterproto2(BasculeGoogle):
    """bascule's stub, betterproto2's messages."""

    messages = echo_better
    stub = echo_better_bascule.EchoStub


class Grpclib(BasculeGoogle):
    """grpclib's stub, google's messages."""

    def __init__(self, channel: Any) -> None:
        self._stub = echo_grpc.EchoStub(channel)

    async def unary(self, request: Any, **options: Any) -> Any:
        return await self._stub.Unary(request, **options)

    async def server_stream(self, request: Any, **options: Any) -> AsyncIterator[Any]:
        async with self._stub.ServerStream.open(**options) as stream:
            await stream.send_message(request, end=True)
            async for reply in stream:
                yield reply

    async def client_stream(self, requests: Iterable[Any], **options: Any) -> Any:
        return await self._stub.ClientStream([*requests], **options)

    async def bidi(self, requests: Iterable[Any], **options: Any) -> AsyncIterator[Any]:
        async with self._stub.Bidi.open(**options) as stream:
            for request in requests:
                await stream.send_message(request)
                for _ in range(request.replies):
                    yield await stream.recv_message()
            await stream.end()
            assert await stream.recv_message() is None


class Betterproto2(BasculeGoogle):
    """betterproto2's stub and messages. Its bidi starts an asyncio task: it works there only."""

    messages = echo_better
    stub = echo_better.EchoStub

    def server_stream(self, request: Any, **options: Any) -> AsyncIterator[Any]:
        return self._stub.server_stream(request, **options)  # type: ignore[no-any-return]

    async def client_stream(self, requests: Iterable[Any], **options: Any) -> Any:
        return await self._stub.client_stream(requests, **options)

    def bidi(self, requests: Iterable[Any], **options: Any) -> AsyncIterator[Any]:
        return self._stub.bidi(requests, **options)  # type: ignore[no-any-return]


STUBS = [BasculeGoogle, BasculeBetterproto2, Grpclib, Betterproto2]
ON_TRIO_TOO = [BasculeGoogle, BasculeBetterproto2, Grpclib]
