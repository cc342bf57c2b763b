"""A service that fails as a test says, and a channel whose methods have a configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
from tests.generated.echo_bascule import EchoBase
from tests.generated.echo_pb2 import EchoReply, EchoRequest

from bascule.errors import RpcError, Status
from bascule.rpc import Channel, MethodConfig, call_context


@dataclass(frozen=True)
class Step:
    """How one attempt goes: hang, fail with a status, or answer."""

    status: Status = Status.OK
    pushback: str | None = None
    hang: bool = False
    #: Seconds before it does anything.
    delay: float = 0.0
    #: Replies of a stream before it fails.
    replies: int = 0


FAIL = Step(Status.UNAVAILABLE)
HANG = Step(hang=True)
ANSWER = Step()


class Scripted(EchoBase):
    """Takes one step of the script for each attempt; the last one again and again.

    :ivar previous: ``grpc-previous-rpc-attempts`` of each attempt, as it came
    :ivar received: texts that each attempt of a streaming request brought
    """

    def __init__(self, *script: Step) -> None:
        self.script = script
        self.previous: list[str | None] = []
        self.received: list[list[str]] = []
        self.times: list[float] = []
        self.cancelled = 0
        self.live = 0

    async def _step(self) -> Step:
        call = call_context()
        step = self.script[min(len(self.previous), len(self.script) - 1)]
        self.previous.append(call.metadata.get("grpc-previous-rpc-attempts"))
        self.times.append(anyio.current_time())
        self.live += 1
        try:
            await anyio.sleep(step.delay)
            if step.hang:
                await anyio.sleep_forever()
        except BaseException:
            self.cancelled += 1
            raise
        finally:
            self.live -= 1
        if step.pushback is not None:
            call.trailing_metadata["grpc-retry-pushback-ms"] = step.pushback
        return step

    def _check(self, step: Step) -> None:
        if step.status is not Status.OK:
            raise RpcError(step.status, f"attempt {len(self.previous)}")

    async def unary(self, request: EchoRequest) -> EchoReply:
        self._check(await self._step())
        return EchoReply(text=request.text, number=len(self.previous))

    async def server_stream(self, request: EchoRequest) -> AsyncIterator[EchoReply]:
        step = await self._step()
        for number in range(step.replies):
            yield EchoReply(text=request.text, number=number)
        self._check(step)
        for number in range(step.replies, request.replies):
            yield EchoReply(text=request.text, number=number)

    async def client_stream(self, requests: AsyncIterator[EchoRequest]) -> EchoReply:
        texts: list[str] = []
        self.received.append(texts)
        step = await self._step()
        async for request in requests:
            texts.append(request.text)  # noqa: PERF401 - a test looks while it grows
        self._check(step)
        return EchoReply(text=" ".join(texts), number=len(self.previous))

    async def bidi(self, requests: AsyncIterator[EchoRequest]) -> AsyncIterator[EchoReply]:
        texts: list[str] = []
        self.received.append(texts)
        step = await self._step()
        async for request in requests:
            texts.append(request.text)
            if len(texts) > step.replies:
                self._check(step)
            yield EchoReply(text=request.text, number=len(texts))


def configured(channel: Channel, config: MethodConfig) -> Channel:
    """Give all methods of a channel one configuration."""
    prepare = channel.prepare
    channel.prepare = lambda method: (*prepare(method)[:3], config)  # type: ignore[method-assign]
    return channel
