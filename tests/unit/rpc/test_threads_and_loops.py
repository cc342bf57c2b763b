"""A channel is for the event loop that entered it: what works besides, and what says so."""

from __future__ import annotations

import asyncio

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.unit.rpc.services import Echo

from bascule.errors import BasculeError, RpcError, WrongLoopError
from bascule.rpc import Cardinality, Channel, ConnectivityState, Method, Server

UNARY = Method("/echo.Echo/Unary", Cardinality.UNARY_UNARY, EchoRequest, EchoReply)
BOTH = ["asyncio", "trio"]


@pytest.mark.anyio
@pytest.mark.parametrize("other", BOTH)
async def test_another_threads_loop_is_told_what_to_do(other) -> None:
    async with Server([Echo()]) as server, Channel(server.addresses[0]) as channel:
        await channel.unary(UNARY, EchoRequest())

        async def use() -> list[str]:
            told = []
            for call in (
                channel.unary(UNARY, EchoRequest()),
                channel.stream(UNARY).__aenter__(),
                channel.wait_ready(),
                channel.wait_for_state(ConnectivityState.IDLE),
            ):
                with pytest.raises(WrongLoopError, match="another thread") as raised:
                    await call
                told.append(str(raised.value))
            with pytest.raises(WrongLoopError, match="another thread"):
                channel.reset_backoff()
            return told

        told = await anyio.to_thread.run_sync(lambda: anyio.run(use, backend=other))
        assert all("one channel in each event loop" in each for each in told)
        assert isinstance(WrongLoopError(), BasculeError)
        # It still works where it belongs.
        assert (await channel.unary(UNARY, EchoRequest(text="x"))).text == "x"


@pytest.mark.anyio
@pytest.mark.parametrize("other", BOTH)
async def test_a_server_in_memory_is_for_its_own_loop(other) -> None:
    """Two loops that shared a connection would change each other's tasks."""

    async def call() -> EchoReply:
        async with Channel("memory:one loop") as channel:
            return await channel.unary(UNARY, EchoRequest(text="x"), timeout=30.0)

    async with Server([Echo()], listen="memory:one loop"):
        with pytest.raises(RpcError, match="its server belongs to another event loop"):
            await anyio.to_thread.run_sync(lambda: anyio.run(call, backend=other))
        assert (await call()).text == "x"


@pytest.mark.anyio
async def test_a_thread_calls_through_the_loop() -> None:
    async with Server([Echo()]) as server, Channel(server.addresses[0]) as channel:

        def work(text: str) -> str:
            reply = anyio.from_thread.run(channel.unary, UNARY, EchoRequest(text=text))
            return str(reply.text)

        replies: list[str] = []

        async def run(text: str) -> None:
            replies.append(await anyio.to_thread.run_sync(work, text))

        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(run, str(number))
        assert sorted(replies) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("first", BOTH)
@pytest.mark.parametrize("second", BOTH)
def test_a_channel_for_each_loop(first, second) -> None:
    """Two threads, each with its own loop and its own channel, and one server's loop."""
    replies: list[str] = []

    async def client(address: str, name: str) -> None:
        async with Channel(address) as channel:
            for _ in range(20):
                reply = await channel.unary(UNARY, EchoRequest(text=name))
                replies.append(reply.text)

    async def main() -> None:
        async with Server([Echo()]) as server, anyio.create_task_group() as group:
            for name, backend in (("a", first), ("b", second)):

                def run(name: str = name, backend: str = backend) -> None:
                    anyio.run(client, server.addresses[0], name, backend=backend)

                group.start_soon(anyio.to_thread.run_sync, run)

    anyio.run(main)
    assert sorted(replies) == ["a"] * 20 + ["b"] * 20


def test_another_loop_of_the_same_thread_is_told_what_to_do() -> None:
    """Only asyncio can have two loops in turn, with objects of the first one still open."""
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    server = Server([Echo()])
    try:
        first.run_until_complete(server.__aenter__())
        channel = Channel(server.addresses[0])
        first.run_until_complete(channel.__aenter__())
        first.run_until_complete(channel.unary(UNARY, EchoRequest()))
        with pytest.raises(WrongLoopError, match="another event loop"):
            second.run_until_complete(channel.unary(UNARY, EchoRequest()))
        first.run_until_complete(channel.unary(UNARY, EchoRequest()))
        first.run_until_complete(channel.__aexit__(None, None, None))
        first.run_until_complete(server.__aexit__(None, None, None))
    finally:
        first.close()
        second.close()
