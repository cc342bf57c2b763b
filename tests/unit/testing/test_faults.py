"""Faults between any two peers, on both loops: each one as the peers notice it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import grpc
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.generated.echo_pb2_grpc import EchoStub as GrpcioStub
from tests.interop.peers import grpcio_server
from tests.unit.rpc.services import Echo

from bascule.errors import RpcError, Status
from bascule.rpc import Channel, Server
from bascule.testing import FaultProxy, VirtualClock, virtual_backend

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def proxied(listen: str) -> AsyncIterator[tuple[FaultProxy, Channel]]:
    async with (
        Server([Echo()], listen=listen, grace=0) as server,
        FaultProxy(server.addresses[0]) as proxy,
        Channel(proxy.address) as channel,
    ):
        yield proxy, channel


async def ask(channel: Channel, text: str = "x", timeout: float = 20) -> EchoReply:
    return await EchoStub(channel).unary(EchoRequest(text=text), timeout=timeout)


listens = pytest.mark.parametrize("listen", ["127.0.0.1:0", "memory:behind-faults"])


@listens
async def test_without_a_fault_everything_passes(listen: str) -> None:
    payload = bytes(range(256)) * 4096
    async with proxied(listen) as (proxy, channel):
        stub = EchoStub(channel)
        assert (await stub.unary(EchoRequest(payload=payload))).payload == payload
        async with stub.server_stream(EchoRequest(payload=payload, replies=8)) as stream:
            assert [each.number async for each in stream] == list(range(8))
        assert (proxy.accepted, proxy.connections) == (1, 1)


@listens
async def test_a_reset_fails_the_calls_and_a_new_connection_works(listen: str) -> None:
    async with proxied(listen) as (proxy, channel):
        await ask(channel)
        async with anyio.create_task_group() as tasks:
            failed: list[RpcError] = []

            async def hang() -> None:
                with pytest.raises(RpcError) as caught:
                    await EchoStub(channel).unary(EchoRequest(hang=True), timeout=20)
                failed.append(caught.value)

            tasks.start_soon(hang)
            await anyio.wait_all_tasks_blocked()
            proxy.reset()
        assert [each.status for each in failed] == [Status.UNAVAILABLE]
        await channel.wait_ready()
        assert (await ask(channel, "again")).text == "again"
        assert proxy.accepted >= 2


@listens
async def test_a_partition_holds_everything_until_it_is_healed(listen: str) -> None:
    async with proxied(listen) as (proxy, channel):
        await ask(channel)
        proxy.partition()
        assert proxy.partitioned
        with pytest.raises(RpcError) as caught:
            await ask(channel, timeout=0.1)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        async with anyio.create_task_group() as tasks:
            replies: list[str] = []

            async def late() -> None:
                replies.append((await ask(channel, "late")).text)

            tasks.start_soon(late)
            await anyio.wait_all_tasks_blocked()
            assert replies == []
            proxy.heal()
        assert replies == ["late"]
        assert proxy.accepted == 1


@listens
async def test_what_was_dropped_never_comes(listen: str) -> None:
    async with proxied(listen) as (proxy, channel):
        await ask(channel)
        proxy.drop()
        proxy.heal()
        with pytest.raises(RpcError) as caught:
            await ask(channel, timeout=0.1)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        # A connection that is made later is well.
        async with Channel(proxy.address) as other:
            assert (await ask(other, "well")).text == "well"


@listens
async def test_new_connections_can_be_refused(listen: str) -> None:
    async with proxied(listen) as (proxy, channel):
        await ask(channel)
        proxy.refusing = True
        async with Channel(proxy.address) as other:
            with pytest.raises(RpcError) as caught:
                await ask(other)
            assert caught.value.status is Status.UNAVAILABLE
        assert (await ask(channel, "still")).text == "still"


async def test_a_target_that_is_not_there() -> None:
    async with FaultProxy("127.0.0.1:1") as proxy, Channel(proxy.address) as channel:
        with pytest.raises(RpcError) as caught:
            await ask(channel)
        assert caught.value.status is Status.UNAVAILABLE


async def test_grpcio_on_both_sides() -> None:
    def call(address: str, timeout: float) -> str:
        with grpc.insecure_channel(address) as channel:
            reply: str = GrpcioStub(channel).Unary(EchoRequest(text="y"), timeout=timeout).text
            return reply

    with grpcio_server() as peer:
        async with FaultProxy(peer.address) as proxy:
            assert await anyio.to_thread.run_sync(call, proxy.address, 20.0) == "y"
            proxy.partition()
            with pytest.raises(grpc.RpcError) as caught:
                await anyio.to_thread.run_sync(call, proxy.address, 0.2)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            proxy.heal()


@pytest.mark.parametrize(
    "anyio_backend",
    [pytest.param(virtual_backend(each), id=each) for each in ("asyncio", "trio")],
)
async def test_a_slow_link_in_virtual_time() -> None:
    async with proxied("memory:slow") as (proxy, channel):
        await ask(channel)
        async with VirtualClock() as clock, anyio.create_task_group() as tasks:
            came: list[float] = []

            async def note(payload: bytes) -> None:
                await EchoStub(channel).unary(EchoRequest(payload=payload), timeout=3600)
                came.append(clock.now())

            begun = clock.now()
            proxy.delay = 1.0
            tasks.start_soon(note, b"")
            await clock.advance(1.9)
            assert came == []
            await clock.advance(0.2)
            assert came == [pytest.approx(begun + 2.0)]

            proxy.delay, proxy.rate = 0.0, 1000.0
            begun = clock.now()
            tasks.start_soon(note, bytes(10_000))
            await clock.advance(19)
            assert len(came) == 1
            await clock.advance(3)
            # 10 kB each way at 1 kB a second, and some bytes for the headers.
            assert came[1:] == [pytest.approx(begun + 20, rel=0.05)]
