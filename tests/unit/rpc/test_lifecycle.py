"""Who owns what: nothing that a server or channel started outlives its ``async with``."""

from __future__ import annotations

import anyio
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoRequest
from tests.unit.rpc.services import Echo

from bascule.errors import ClosedError, ConfigurationError, RpcError, Status, TransportError
from bascule.rpc import Channel, Server
from bascule.testing import memory_channel

pytestmark = pytest.mark.anyio

TRANSPORTS = pytest.mark.parametrize("transport", ["tcp", "unix", "memory"])


@pytest.fixture
def address(transport, tmp_path) -> str:
    return {
        "tcp": "127.0.0.1:0",
        "unix": f"unix:{tmp_path / 'socket'}",
        "memory": f"memory:{tmp_path.name}",
    }[transport]


@TRANSPORTS
async def test_every_kind_of_call_on_every_transport(address) -> None:
    async with Server([Echo()], listen=address) as server, Channel(server.addresses[0]) as channel:
        stub = EchoStub(channel)
        assert (await stub.unary(EchoRequest(text="a"))).text == "a"
        async with stub.server_stream(EchoRequest(replies=3)) as replies:
            assert [reply.number async for reply in replies] == [0, 1, 2]
        async with stub.client_stream() as call:
            await call.send_message(EchoRequest(text="x"))
            await call.send_message(EchoRequest(text="y"), end=True)
            assert (await call.recv_message()).text == "x y"
        async with stub.bidi() as call:
            for text in ("p", "q"):
                await call.send_message(EchoRequest(text=text, replies=1))
                assert (await call.recv_message()).text == text
            await call.end()
            assert await call.recv_message() is None


@TRANSPORTS
async def test_an_address_is_free_again_after_the_server(address) -> None:
    async with Server([Echo()], listen=address) as server:
        bound = server.addresses[0]
    async with Server([Echo()], listen=bound), Channel(bound) as channel:
        assert (await EchoStub(channel).unary(EchoRequest(text="again"))).text == "again"


async def test_an_address_in_use_is_named() -> None:
    async with Server([Echo()]) as server:
        taken = server.addresses[0]
        with pytest.raises(TransportError, match=taken):
            async with Server([Echo()], listen=taken):
                raise AssertionError("the body must not run")


async def test_the_drain_lets_calls_end_and_refuses_new_ones() -> None:
    echo = Echo()
    async with Server([echo], grace=10.0) as server, Channel(server.addresses[0]) as channel:
        stub = EchoStub(channel)
        async with stub.bidi() as call, anyio.create_task_group() as group:
            await call.send_message(EchoRequest(text="before", replies=1))
            assert (await call.recv_message()).text == "before"
            group.start_soon(server.drain)
            await call.send_message(EchoRequest(text="during", replies=1))
            assert (await call.recv_message()).text == "during"
            await call.end()
            assert await call.recv_message() is None
        with pytest.raises(RpcError) as raised:
            await stub.unary(EchoRequest(text="after"))
        assert raised.value.status is Status.UNAVAILABLE


async def test_after_the_grace_the_rest_is_cancelled() -> None:
    echo = Echo()
    async with Channel("memory:grace") as channel:
        async with anyio.create_task_group() as group:
            async with Server([echo], listen="memory:grace", grace=0.0):

                async def call() -> None:
                    with pytest.raises(RpcError) as raised:
                        await EchoStub(channel).unary(EchoRequest(hang=True))
                    assert raised.value.status is Status.UNAVAILABLE

                group.start_soon(call)
                await echo.until(begun=1)
            assert echo.cancelled == 1


async def test_an_exception_in_the_body_cancels_at_once() -> None:
    echo = Echo()
    async with Channel("memory:body") as channel, anyio.create_task_group() as group:
        with pytest.raises(ValueError, match="mine"):
            async with Server([echo], listen="memory:body", grace=1000.0):
                group.start_soon(_ignore_status, EchoStub(channel))
                await echo.until(begun=1)
                raise ValueError("mine")
        assert echo.cancelled == 1


async def _ignore_status(stub: EchoStub) -> None:
    with pytest.raises(RpcError):
        await stub.unary(EchoRequest(hang=True))


async def test_a_channel_ends_its_calls() -> None:
    echo = Echo()
    async with Server([echo], listen="memory:ends") as _, anyio.create_task_group() as group:
        async with Channel("memory:ends") as channel:
            group.start_soon(_ignore_status, EchoStub(channel))
            await echo.until(begun=1)
        await echo.until(cancelled=1)


async def test_a_channel_out_of_its_block_says_so() -> None:
    channel = Channel("127.0.0.1:1")
    with pytest.raises(ClosedError, match="async with"):
        await EchoStub(channel).unary(EchoRequest())


async def test_nobody_listening_is_unavailable_with_the_address() -> None:
    async with Server([Echo()]) as server:
        gone = server.addresses[0]
    async with Channel(gone) as channel:
        with pytest.raises(RpcError, match=gone) as raised:
            await EchoStub(channel).unary(EchoRequest())
        assert raised.value.status is Status.UNAVAILABLE


async def test_a_channel_reconnects_when_its_server_is_back() -> None:
    async with Server([Echo()]) as server, Channel(server.addresses[0]) as channel:
        stub = EchoStub(channel)
        await stub.unary(EchoRequest())
        await server.drain()
        async with Server([Echo()], listen=server.addresses[0]):
            with anyio.fail_after(20):
                await channel.wait_ready()
            assert (await stub.unary(EchoRequest(text="back"))).text == "back"


def test_a_method_that_is_served_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="/echo.Echo/Unary"):
        Server([Echo(), Echo()])


@pytest.mark.parametrize("target", ["", "nowhere", "host:99999", "ftp:///x", "consul:///"])
def test_a_target_without_meaning_is_refused(target: str) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        Channel(target)


async def test_a_thousand_calls_leave_nothing_behind() -> None:
    echo = Echo()
    async with memory_channel(echo) as channel:
        stub = EchoStub(channel)

        async def some() -> None:
            for number in range(100):
                with anyio.move_on_after(0 if number % 3 == 0 else 10):
                    await stub.unary(EchoRequest(text="x"))

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(some)
        assert [each.in_flight for each in channel.snapshot().subchannels] == [0]
        subchannel = next(iter(channel._pool.subchannels.values()))
        assert subchannel.connection is not None
        assert subchannel.connection.replies == {}
        assert subchannel.connection.machine.in_flight == 0
