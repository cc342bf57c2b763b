"""What calls leave behind when they are over: nothing, however they ended."""

from __future__ import annotations

import gc
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import psutil
import pytest

from bascule.rpc import Cardinality, Channel, Method, MethodHandler, RpcError, Server, Status
from bascule.rpc._server_call import ServerSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.anyio

UNARY: Method[bytes, bytes] = Method("/t.T/Unary", Cardinality.UNARY_UNARY, bytes, bytes)
BIDI: Method[bytes, bytes] = Method("/t.T/Bidi", Cardinality.STREAM_STREAM, bytes, bytes)


class Service:
    async def unary(self, request: bytes) -> bytes:
        if request == b"hang":
            await anyio.sleep_forever()
        if request == b"fail":
            raise RpcError(Status.NOT_FOUND, "nothing")
        return request

    async def bidi(self, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    def __mapping__(self) -> dict[str, Any]:
        return {
            UNARY.path: MethodHandler.unary(UNARY, self.unary),
            BIDI.path: MethodHandler.bidi(BIDI, self.bidi),
        }


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Server, Channel]]:
    async with Server([Service()], listen="127.0.0.1:0", grace=1.0) as server:
        # Failures are what is tested here: no breaker that would stop them.
        async with Channel(server.addresses[0], breaker=None) as channel:
            yield server, channel


async def answered(channel: Channel) -> None:
    assert await channel.unary(UNARY, b"x") == b"x"


async def failed(channel: Channel) -> None:
    assert await status_of(channel.unary(UNARY, b"fail")) is Status.NOT_FOUND


async def cancelled(channel: Channel) -> None:
    with anyio.move_on_after(0.001):
        await channel.unary(UNARY, b"hang")


async def timed_out(channel: Channel) -> None:
    reply = channel.unary(UNARY, b"hang", timeout=0.001)
    assert await status_of(reply) is Status.DEADLINE_EXCEEDED


async def status_of(reply: Awaitable[bytes]) -> Status:
    """The status that a call fails with; `pytest.raises` would keep frames alive."""
    try:
        await reply
    except RpcError as error:
        return error.status
    raise AssertionError("the call did not fail")


async def streamed(channel: Channel) -> None:
    async with channel.stream(BIDI) as stream:
        await stream.send_message(b"1")
        await stream.send_message(b"2", end=True)
        assert [reply async for reply in stream] == [b"1", b"2"]


async def left(channel: Channel) -> None:
    async with channel.stream(BIDI) as stream:
        await stream.send_message(b"1")
        assert await stream.recv_message() == b"1"


async def stopped(channel: Channel) -> None:
    async with channel.stream(BIDI) as stream:
        await stream.send_message(b"1")
        await stream.cancel()


WAYS = [answered, failed, cancelled, timed_out, streamed, left, stopped]


async def until_idle(server: Server) -> None:
    """Wait for the server to have noticed the end of every call."""
    with anyio.fail_after(10):
        while any(session.machine.in_flight for session in server.serving._sessions):
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("way", WAYS)
async def test_a_finished_call_is_freed_without_the_collector(
    way: Callable[[Channel], Awaitable[None]],
) -> None:
    calls = 120
    async with served() as (server, channel):
        for _ in range(20):
            await way(channel)
        await until_idle(server)
        gc.collect()
        gc.disable()
        try:
            before = len(gc.get_objects())
            for _ in range(calls):
                await way(channel)
            await until_idle(server)
            grown = len(gc.get_objects()) - before
        finally:
            gc.enable()
        # Timers that were cancelled stay for a while, two objects each; a call is a dozen.
        assert grown < 3 * calls, f"{grown} objects for {calls} calls"


async def test_many_calls_that_end_in_all_ways_leave_the_baseline() -> None:
    chance = random.Random(7)
    process = psutil.Process()
    async with served() as (server, channel):

        async def some(count: int) -> None:
            for _ in range(count):
                # Most are answered, and a third is cancelled in some way.
                way = chance.choice([*WAYS, answered, answered, streamed])
                await way(channel)

        async def many() -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(40):
                    tasks.start_soon(some, 25)
            await until_idle(server)

        await many()
        gc.collect()
        memory, files = process.memory_info().rss, process.num_fds()
        for _ in range(3):
            await many()
        gc.collect()
        assert process.memory_info().rss - memory < 4 << 20
        assert process.num_fds() == files
        (session,) = server.serving._sessions
        assert isinstance(session, ServerSession)
        assert session.calls == {}
        assert await channel.unary(UNARY, b"fine") == b"fine"
