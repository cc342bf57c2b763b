"""What a channel does about resolvers that fail, endpoints that change and connections that go."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.listener import listening
from tests.unit.rpc.services import Echo

from bascule.discovery import Endpoint, MemoryRegistry
from bascule.errors import NoEndpointError, RpcError, Status
from bascule.rpc import Cardinality, Channel, ConnectivityState, Server, ServerLimits
from bascule.testing import memory_channel

pytestmark = pytest.mark.anyio


class Script:
    """A resolver that gives some lists and then fails, or never says anything."""

    def __init__(self, *lists: list[Endpoint], error: Exception | None = None) -> None:
        self.lists = lists
        self.error = error
        self.told = anyio.Event()

    @asynccontextmanager
    async def watch(self):
        async def states():
            for each in self.lists:
                yield each
            self.told.set()
            if self.error is not None:
                raise self.error
            await anyio.sleep_forever()

        yield states()


async def test_a_resolver_that_fails_is_named(caplog) -> None:
    resolver = Script(error=OSError("the registry burns"))
    async with Channel("db:1", resolver=resolver) as channel:
        with pytest.raises(RpcError, match="cannot resolve db:1: the registry burns") as raised:
            await EchoStub(channel).unary(EchoRequest())
        assert raised.value.status is Status.UNAVAILABLE
    assert "the last endpoints stay" in caplog.text


async def test_while_a_resolver_fails_its_last_list_holds(caplog) -> None:
    async with Server([Echo()], listen="memory:held"):
        resolver = Script([Endpoint("memory:held")], error=OSError("gone"))
        async with Channel("x:1", resolver=resolver) as channel:
            await resolver.told.wait()
            await anyio.wait_all_tasks_blocked()
            assert (await EchoStub(channel).unary(EchoRequest(text="on"))).text == "on"
    assert "the last endpoints stay" in caplog.text


@pytest.mark.parametrize("bad", ["nonsense", "a..b:80", "memory:"])
async def test_an_address_without_meaning_harms_no_other(bad) -> None:
    registry = MemoryRegistry()
    registry.register("echo", Endpoint(bad))
    async with (
        Server([Echo()], listen="memory:good"),
        Channel("memory:///echo", registry=registry) as channel,
    ):
        with pytest.raises(RpcError, match=bad) as raised:
            await EchoStub(channel).unary(EchoRequest())
        assert raised.value.status is Status.UNAVAILABLE
        registry.register("echo", Endpoint("memory:good"))
        await channel.wait_ready()
        for _ in range(3):
            await EchoStub(channel).unary(EchoRequest())


async def test_a_weight_may_change() -> None:
    registry = MemoryRegistry()
    registry.register("echo", Endpoint("memory:weighed", weight=1))
    async with (
        Server([Echo()], listen="memory:weighed"),
        Channel("memory:///echo", registry=registry) as channel,
    ):
        await channel.wait_ready()
        for weight in (0, 1, 0, 2):
            registry.register("echo", Endpoint("memory:weighed", weight=weight))
            await anyio.wait_all_tasks_blocked()
            if weight:
                await EchoStub(channel).unary(EchoRequest())
            else:
                with pytest.raises(NoEndpointError):
                    await EchoStub(channel).unary(EchoRequest())


async def test_a_server_that_closes_every_connection_is_not_hammered() -> None:
    accepted = []

    async def close(stream) -> None:
        accepted.append(True)
        await stream.receive()
        await stream.aclose()

    async with listening(close) as port, Channel(f"127.0.0.1:{port}") as channel:
        for _ in range(20):
            with pytest.raises(RpcError) as raised:
                await EchoStub(channel).unary(EchoRequest())
            assert raised.value.status is Status.UNAVAILABLE
    assert len(accepted) <= 2


async def test_a_connection_that_drains_is_left_in_the_same_turn() -> None:
    async with memory_channel(Echo()) as channel:
        await channel.wait_ready()
        subchannel = next(iter(channel._pool.subchannels.values()))
        assert subchannel.connection is not None
        subchannel.connection.handle_events([(5,)])
        assert subchannel.connection is None
        assert channel.state is not ConnectivityState.READY


async def test_a_channel_may_be_entered_again() -> None:
    async with Server([Echo()], listen="memory:again"):
        channel = Channel("memory:again")
        for _ in range(3):
            async with channel:
                assert (await EchoStub(channel).unary(EchoRequest(text="a"))).text == "a"


async def test_a_stream_that_could_not_start_says_so_to_its_reader() -> None:
    async with Channel("x:1", resolver=Script([])) as channel:
        async with EchoStub(channel).bidi() as call:
            with pytest.raises(NoEndpointError):
                await call.send_message(EchoRequest())
            with pytest.raises(RpcError, match="no endpoint"):
                await call.recv_message()


async def test_a_stream_may_be_cancelled_before_it_could_start() -> None:
    resolver = Script()
    async with Channel("x:1", resolver=resolver) as channel, anyio.create_task_group() as group:
        async with EchoStub(channel).bidi() as call:
            group.start_soon(call.send_message, EchoRequest())
            await anyio.wait_all_tasks_blocked()
            await call.cancel()
            with pytest.raises(RpcError) as raised:
                await call.recv_message()
            assert raised.value.status is Status.CANCELLED
            async with Server([Echo()], listen="memory:late"):
                channel._pool.update([Endpoint("memory:late")])
                await channel.wait_ready()
                await anyio.wait_all_tasks_blocked()
                assert [each.in_flight for each in channel.snapshot().subchannels] == [0]


@pytest.mark.parametrize("timeout", [float("inf"), 1e30])
async def test_a_timeout_may_be_endless(timeout) -> None:
    async with memory_channel(Echo()) as channel:
        assert (await EchoStub(channel).unary(EchoRequest(text="t"), timeout=timeout)).text == "t"
        with anyio.move_on_after(1e12):
            await EchoStub(channel).unary(EchoRequest())
        async with EchoStub(channel).bidi(timeout=timeout) as call:
            await call.send_message(EchoRequest(text="u", replies=1))
            assert await call.recv_message() is not None


async def test_stubs_that_make_a_method_for_each_call_share_it() -> None:
    async with memory_channel(Echo()) as channel:
        for _ in range(50):
            async with channel.request(
                "/echo.Echo/Unary", Cardinality.UNARY_UNARY, EchoRequest, EchoReply
            ) as call:
                await call.send_message(EchoRequest(), end=True)
                assert await call.recv_message() is not None
        assert len(channel._methods) == 1


async def test_a_sender_that_waits_for_a_stream_is_told_when_there_is_room() -> None:
    limits = ServerLimits(max_streams=1)
    async with (
        Server([Echo()], listen="memory:one", limits=limits),
        Channel("memory:one") as channel,
        anyio.create_task_group() as group,
    ):
        stub = EchoStub(channel)
        await stub.unary(EchoRequest())  # the server's settings have come
        replies = []

        async def send() -> None:
            async with stub.client_stream() as call:
                await call.send_message(EchoRequest(payload=bytes(70_000)))
                await call.send_message(EchoRequest(text="after"), end=True)
                replies.append(await call.recv_message())

        async with stub.bidi() as first:
            await first.send_message(EchoRequest(text="x", replies=1))
            await first.recv_message()
            group.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            await first.end()
            assert await first.recv_message() is None
    assert len(replies) == 1
