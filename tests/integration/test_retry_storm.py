"""A failing leaf under three tiers that retry: the load that reaches it stays near the offered one.

The caller, A and B each make up to three attempts. Without a bound, one call would be 27 at the
leaf. What holds it: each channel's bucket (gRFC A6) stops retries where attempts fail, and a server
whose own call was given up tells its client not to repeat it, so that only B retries.
"""

from __future__ import annotations

import contextlib
import itertools
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.unit.rpc.scripted import configured

from bascule.errors import RpcError, Status
from bascule.rpc import Channel, MethodConfig, RetryPolicy, Server

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

CONFIG = MethodConfig(retry=RetryPolicy(3, initial_backoff=0.001, max_backoff=0.004))

#: Calls in progress at a time, and in all: steady load of some seconds' length.
WORKERS, CALLS = 8, 800


class Leaf(EchoBase):
    """Counts what reaches it; fails those calls that a test says."""

    def __init__(self, fails: Callable[[int], bool]) -> None:
        self.load = 0
        self._fails = fails

    async def unary(self, request: EchoRequest) -> EchoReply:
        self.load += 1
        if self._fails(request.replies):
            raise RpcError(Status.UNAVAILABLE, "the leaf is dead")
        return EchoReply(text=request.text)


class Tier(EchoBase):
    """Answers by asking the next tier."""

    def __init__(self, channel: Channel) -> None:
        self._next = EchoStub(channel)

    async def unary(self, request: EchoRequest) -> EchoReply:
        return await self._next.unary(request)


async def storm(fails: Callable[[int], bool]) -> tuple[float, int, list[Channel]]:
    """Leaf load as a multiple of the offered one, calls that succeeded, the channels."""
    leaf = Leaf(fails)
    channels: list[Channel] = []
    async with AsyncExitStack() as stack:
        service: EchoBase = leaf
        for _ in range(3):
            server = await stack.enter_async_context(Server([service]))
            channel = await stack.enter_async_context(Channel(server.addresses[0]))
            channels.append(configured(channel, CONFIG))
            service = Tier(channel)
        caller, succeeded = EchoStub(channels[-1]), 0
        numbers = itertools.count()

        async def work() -> None:
            nonlocal succeeded
            for _ in range(CALLS // WORKERS):
                with contextlib.suppress(RpcError):
                    await caller.unary(EchoRequest(text="x", replies=next(numbers)))
                    succeeded += 1

        async with anyio.create_task_group() as group:
            for _ in range(WORKERS):
                group.start_soon(work)
    return leaf.load / CALLS, succeeded, channels


async def test_a_dead_leaf() -> None:
    load, succeeded, channels = await storm(lambda number: True)
    assert succeeded == 0
    assert 1 <= load <= 1.2
    # Only the tier next to the leaf has repeated anything.
    to_leaf, to_b, to_a = channels
    assert to_leaf.attempts.retries > 0
    assert to_leaf.attempts.throttled > 0
    assert to_b.attempts.retries == to_a.attempts.retries == 0


@pytest.mark.parametrize("share", [2, 5, 10, 30, 100])
async def test_a_leaf_that_fails_some_calls_however_often_they_are_repeated(share) -> None:
    load, succeeded, channels = await storm(lambda number: number % share == 0)
    assert 1 <= load <= 1.2
    assert succeeded == CALLS - CALLS / share if CALLS % share == 0 else succeeded < CALLS
    assert channels[1].attempts.retries == channels[2].attempts.retries == 0


async def test_a_leaf_that_dies_and_recovers() -> None:
    load, succeeded, _ = await storm(lambda number: number % 400 >= 200)
    assert 1 <= load <= 1.2
    assert succeeded >= CALLS / 2


async def test_rare_failures_are_repaired() -> None:
    """What retries are for: a twentieth of the attempts fails, nearly no call does."""
    attempts = itertools.count()
    load, succeeded, channels = await storm(lambda number: next(attempts) % 20 == 7)
    assert load <= 1.2
    assert succeeded >= CALLS * 0.99
    assert channels[0].attempts.retries > CALLS / 40
