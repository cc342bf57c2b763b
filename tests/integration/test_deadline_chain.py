"""A calls B, B calls C: each hop has less time than the one before, and the end of A is C's too."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.unit.rpc.scripted import configured

from bascule.errors import RpcError, Status
from bascule.rpc import Channel, HedgingPolicy, MethodConfig, RetryPolicy, Server, call_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


class Hop(EchoBase):
    """Notes the time that it is given; asks the next one, or hangs at the end of the chain."""

    def __init__(self, onward: Channel | None) -> None:
        self._next = None if onward is None else EchoStub(onward)
        self.time_left: list[float] = []
        self.live = 0
        self.reached = anyio.Event()

    async def unary(self, request: EchoRequest) -> EchoReply:
        self.time_left.append(call_context().time_left)
        self.live += 1
        self.reached.set()
        try:
            if self._next is None:
                if request.hang:
                    await anyio.sleep_forever()
                return EchoReply(text=request.text)
            return await self._next.unary(request)
        finally:
            self.live -= 1


CONFIGS = [
    pytest.param(None, id="plain"),
    pytest.param(MethodConfig(retry=RetryPolicy()), id="retry"),
    pytest.param(MethodConfig(hedging=HedgingPolicy(2, 0)), id="hedging"),
]


@asynccontextmanager
async def chain(config: MethodConfig | None) -> AsyncIterator[tuple[EchoStub, list[Hop]]]:
    """The client's stub, and the hops from the nearest to the farthest."""
    hops: list[Hop] = []
    channel: Channel | None = None
    async with AsyncExitStack() as stack:
        for _ in range(3):
            hops.insert(0, Hop(channel))
            server = await stack.enter_async_context(Server([hops[0]]))
            channel = await stack.enter_async_context(Channel(server.addresses[0]))
            if config is not None:
                configured(channel, config)
        assert channel is not None
        yield EchoStub(channel), hops


async def all_ended(hops: list[Hop]) -> None:
    with anyio.fail_after(5):
        while any(hop.live for hop in hops):  # noqa: ASYNC110 - resets are on their way
            await anyio.sleep(0.001)


@pytest.mark.parametrize("config", CONFIGS)
async def test_each_hop_has_less_time(config) -> None:
    async with chain(config) as (stub, hops):
        await stub.unary(EchoRequest(text="x"), timeout=50)
        first, middle, leaf = (hop.time_left[0] for hop in hops)
        assert 50 > first > middle > leaf > 0
        with anyio.fail_after(40):
            await stub.unary(EchoRequest(text="x"))
        first, middle, leaf = (hop.time_left[-1] for hop in hops)
        assert 40 > first > middle > leaf > 0
        await all_ended(hops)


async def test_without_deadline_no_hop_has_one() -> None:
    async with chain(None) as (stub, hops):
        await stub.unary(EchoRequest(text="x"))
        assert [hop.time_left for hop in hops] == [[math.inf]] * 3


@pytest.mark.parametrize("config", CONFIGS)
async def test_a_deadline_ends_every_hop(config) -> None:
    async with chain(config) as (stub, hops):
        with pytest.raises(RpcError) as caught:
            await stub.unary(EchoRequest(hang=True), timeout=0.3)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        await all_ended(hops)
        assert all(hop.time_left for hop in hops)


@pytest.mark.parametrize("config", CONFIGS)
async def test_cancelling_the_first_call_cancels_the_last(config) -> None:
    async with chain(config) as (stub, hops):
        async with anyio.create_task_group() as group:
            group.start_soon(stub.unary, EchoRequest(hang=True))
            await hops[-1].reached.wait()
            assert [hop.live > 0 for hop in hops] == [True] * 3
            group.cancel_scope.cancel()
        await all_ended(hops)
