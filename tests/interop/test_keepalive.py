"""Pings, their enforcement and the age of connections, with grpcio as client and as server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import grpc
import pytest
from anyio.abc import SocketStream
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.generated.echo_pb2_grpc import EchoStub as GrpcioStub
from tests.interop.echo import BasculeGoogle, Behaviour
from tests.interop.peers import grpcio_server
from tests.listener import listening

from bascule.rpc import (
    Channel,
    KeepaliveSettings,
    RpcError,
    Server,
    ServerLimits,
    Status,
    call_context,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

#: A client of grpcio's that pings as often as it can, whether or not there is data.
EAGER = [
    ("grpc.keepalive_time_ms", 50),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


class Road:
    """A proxy between two peers that can be cut without either noticing."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.is_cut = False
        self.address = ""

    async def carry(self, client: SocketStream) -> None:
        host, _, port = self._target.rpartition(":")
        async with client, await anyio.connect_tcp(host, int(port)) as server:
            async with anyio.create_task_group() as group:
                group.start_soon(self._copy, client, server)
                group.start_soon(self._copy, server, client)

    async def _copy(self, source: SocketStream, sink: SocketStream) -> None:
        try:
            async for data in source:
                if not self.is_cut:
                    await sink.send(data)
            await sink.send_eof()
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return


@asynccontextmanager
async def road(target: str) -> AsyncIterator[Road]:
    found = Road(target)
    async with listening(found.carry) as port:
        found.address = f"127.0.0.1:{port}"
        yield found


async def hang(stub: Any, ends: list[RpcError]) -> None:
    """A call that no server answers, and how it ended."""
    with pytest.raises(RpcError) as raised:
        await stub.unary(EchoRequest(hang=True))
    ends.append(raised.value)


async def test_a_server_that_is_gone_is_found_by_pings() -> None:
    keepalive = KeepaliveSettings(time=0.2, timeout=0.3)
    ends: list[RpcError] = []
    with grpcio_server(options=[("grpc.http2.min_ping_interval_without_data_ms", 10)]) as peer:
        async with road(peer.address) as way, Channel(way.address, keepalive=keepalive) as channel:
            stub = EchoStub(channel)
            assert await stub.unary(EchoRequest(text="a")) == EchoReply(text="a")
            with anyio.fail_after(20):
                async with anyio.create_task_group() as group:
                    group.start_soon(hang, stub, ends)
                    await anyio.to_thread.run_sync(peer.wait, peer.started)
                    # It answers pings: this takes several of them.
                    await anyio.sleep(1.0)
                    assert not ends
                    way.is_cut = True
    assert ends[0].status is Status.UNAVAILABLE
    assert "no answer to a ping" in str(ends[0])


async def test_a_client_that_is_gone_loses_its_calls() -> None:
    behaviour = Behaviour()
    limits = ServerLimits(keepalive=KeepaliveSettings(time=0.5, timeout=0.5))

    def play(address: str) -> None:
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
            GrpcioStub(channel).Unary(EchoRequest(hang=True), timeout=20.0)

    async with (
        Server([BasculeGoogle(behaviour)], limits=limits) as server,
        road(server.addresses[0]) as way,
        anyio.create_task_group() as group,
    ):
        group.start_soon(anyio.to_thread.run_sync, play, way.address)
        with anyio.fail_after(15):
            await behaviour.started.wait()
            way.is_cut = True
            # Long before the client's own deadline.
            await behaviour.cancelled.wait()


async def test_grpcios_client_is_cut_off_if_it_pings_too_often() -> None:
    behaviour = Behaviour()

    def play(address: str) -> str:
        with grpc.insecure_channel(address, EAGER) as channel:
            with pytest.raises(grpc.RpcError) as raised:
                GrpcioStub(channel).Unary(EchoRequest(hang=True), timeout=20.0)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            details: str = raised.value.details()
            return details

    async with Server([BasculeGoogle(behaviour)]) as server:
        details = await anyio.to_thread.run_sync(play, server.addresses[0])
        assert behaviour.cancelled.is_set()
    assert "too_many_pings" in details or "Too many pings" in details


async def test_grpcios_client_may_ping_as_often_as_the_server_allows() -> None:
    behaviour = Behaviour()

    def play(address: str) -> None:
        with grpc.insecure_channel(address, EAGER) as channel:
            with pytest.raises(grpc.RpcError) as raised:
                GrpcioStub(channel).Unary(EchoRequest(hang=True), timeout=2.0)
            assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    limits = ServerLimits(min_ping_interval=0.001, pings_without_calls=True)
    async with Server([BasculeGoogle(behaviour)], limits=limits) as server:
        await anyio.to_thread.run_sync(play, server.addresses[0])


async def test_a_channel_that_grpcios_server_cuts_off_slows_down() -> None:
    # The fourth ping is one too many, after 1.6 s; then, at half the pace, after 3.2 s.
    keepalive = KeepaliveSettings(time=0.4, timeout=10.0)
    with grpcio_server() as peer, anyio.fail_after(20):
        async with Channel(peer.address, keepalive=keepalive) as channel:
            await channel.wait_ready()
            with pytest.raises(RpcError, match="pings") as raised:
                await EchoStub(channel).unary(EchoRequest(hang=True), timeout=10.0)
            assert raised.value.status is Status.UNAVAILABLE
            await channel.wait_ready()
            with pytest.raises(RpcError) as raised:
                await EchoStub(channel).unary(EchoRequest(hang=True), timeout=2.4)
            assert raised.value.status is Status.DEADLINE_EXCEEDED


class Peers(BasculeGoogle):
    """Notes the connections that calls come on."""

    def __init__(self) -> None:
        super().__init__(Behaviour())
        self.peers: set[str] = set()

    async def unary(self, request: EchoRequest) -> EchoReply:
        self.peers.add(call_context().peer)
        return await super().unary(request)


async def test_no_call_of_ours_fails_while_connections_age() -> None:
    service = Peers()
    limits = ServerLimits(max_connection_age=1.5, max_connection_age_grace=20.0)
    async with (
        Server([service], limits=limits) as server,
        Channel(server.addresses[0]) as channel,
    ):
        stub = EchoStub(channel)
        with anyio.fail_after(30):
            while len(service.peers) < 3:
                assert await stub.unary(EchoRequest(text="a")) == EchoReply(text="a")


async def test_no_call_of_grpcios_fails_while_connections_age() -> None:
    service = Peers()
    limits = ServerLimits(max_connection_age=1.5, max_connection_age_grace=20.0)

    def play(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            stub = GrpcioStub(channel)
            while len(service.peers) < 3:
                assert stub.Unary(EchoRequest(text="a"), timeout=20.0).text == "a"

    async with Server([service], limits=limits) as server:
        with anyio.fail_after(30):
            await anyio.to_thread.run_sync(play, server.addresses[0], abandon_on_cancel=True)


async def test_what_outlives_an_old_connection_is_cancelled_after_the_grace() -> None:
    behaviour = Behaviour()
    ends: list[RpcError] = []
    limits = ServerLimits(max_connection_age=1.0, max_connection_age_grace=0.5)
    async with (
        Server([BasculeGoogle(behaviour)], limits=limits) as server,
        Channel(server.addresses[0]) as channel,
    ):
        with anyio.fail_after(15):
            await hang(EchoStub(channel), ends)
            await behaviour.cancelled.wait()
    assert ends[0].status is Status.UNAVAILABLE
