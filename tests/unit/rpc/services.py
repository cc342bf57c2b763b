"""The echo service that tests of the server and the channel call."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
from tests.generated.echo_bascule import EchoBase
from tests.generated.echo_pb2 import EchoReply, EchoRequest

from bascule.errors import RpcError, Status
from bascule.rpc import call_context


class Echo(EchoBase):
    """Answers, and lets a test see when handlers begin and how they end."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.sent = 0
        self.changed = anyio.Event()

    async def unary(self, request: EchoRequest) -> EchoReply:
        call = call_context()
        await self._hang_if_asked(request)
        if request.failure.code:
            raise RpcError(Status(request.failure.code), request.failure.message)
        call.trailing_metadata.add("x-handled-by", "echo")
        return EchoReply(text=request.text, payload=request.payload)

    async def server_stream(self, request: EchoRequest) -> AsyncIterator[EchoReply]:
        await self._hang_if_asked(request)
        for number in range(request.replies):
            self.sent = number
            yield EchoReply(text=request.text, payload=request.payload, number=number)
            self._tell()

    async def client_stream(self, requests: AsyncIterator[EchoRequest]) -> EchoReply:
        texts = []
        async for request in requests:
            await self._hang_if_asked(request)
            texts.append(request.text)
        return EchoReply(text=" ".join(texts))

    async def bidi(self, requests: AsyncIterator[EchoRequest]) -> AsyncIterator[EchoReply]:
        async for request in requests:
            await self._hang_if_asked(request)
            for number in range(request.replies):
                yield EchoReply(text=request.text, number=number)

    async def until(self, begun: int = 0, cancelled: int = 0) -> None:
        """Wait for handlers to have begun, or to have been cancelled."""
        while self.begun < begun or self.cancelled < cancelled:
            await self.changed.wait()

    async def _hang_if_asked(self, request: EchoRequest) -> None:
        self.begun += 1
        self._tell()
        if request.hang:
            try:
                await anyio.sleep_forever()
            finally:
                self.cancelled += 1
                self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()
