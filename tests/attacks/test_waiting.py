"""Peers that let us wait: none of them holds what it has for longer than it may."""

from __future__ import annotations

import math

import anyio
import pytest
from hpack import Decoder
from hyperframe.frame import DataFrame, HeadersFrame
from tests.attacks.attacker import (
    BIDI,
    DATA,
    ECHO,
    END_HEADERS,
    ENHANCE_YOUR_CALM,
    HEADERS,
    LARGE,
    PING,
    PREFACE,
    SETTINGS,
    SLOW,
    Attacker,
    Service,
    attack,
    block,
    dial,
    frame,
    opening,
    request,
)

from bascule.errors import ConfigurationError
from bascule.net import HttpLimits, HttpRequest, HttpResponse, HttpServer
from bascule.rpc import Channel, HealthService, RpcError, Server, ServerLimits, Status
from bascule.rpc._generated.health_pb2 import HealthCheckRequest, HealthCheckResponse
from bascule.rpc._health import HEALTH_CHECK

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("sent", [b"", PREFACE[:1], PREFACE[:-1]])
async def test_a_preface_that_does_not_come_ends_the_connection(sent: bytes) -> None:
    async with attack(ServerLimits(handshake_timeout=0.1), opens=False) as scene:
        await scene.attacker.send(sent)
        await scene.attacker.gone.wait()


@pytest.mark.parametrize(
    "head",
    [
        opening(1, flags=0),
        # A frame of 8,000 bytes, of which few come.
        frame(HEADERS, END_HEADERS, 1, block() + bytes(8000))[:100],
    ],
)
async def test_headers_that_do_not_end_end_the_connection(head: bytes) -> None:
    async with attack(ServerLimits(handshake_timeout=0.1)) as scene:
        await scene.attacker.send(head)
        await scene.attacker.gone.wait()
        assert scene.attacker.goaway == ENHANCE_YOUR_CALM
        assert scene.service.started == 0


async def test_a_streaming_request_on_which_nothing_happens_is_ended() -> None:
    async with attack(ServerLimits(stream_idle_timeout=0.1)) as scene:
        await scene.attacker.send(opening(1, BIDI.path))
        while not any(isinstance(each, HeadersFrame) for each in scene.attacker.received):
            await anyio.lowlevel.checkpoint()
        assert scene.service.started == 1


async def test_a_streaming_request_may_be_allowed_to_wait() -> None:
    async with attack(ServerLimits(stream_idle_timeout=math.inf)) as scene:
        await scene.attacker.send(opening(1, BIDI.path))
        with anyio.move_on_after(1.5):  # longer than a tick
            await scene.attacker.gone.wait()
        assert not scene.attacker.gone.is_set()
        assert not any(each.stream_id == 1 for each in scene.attacker.received)


async def test_replies_that_the_peer_has_no_room_for_are_reset() -> None:
    """A window of zero that is held open (CVE-2019-9517)."""
    async with attack(ServerLimits(blocked_timeout=0.1)) as scene:
        await scene.attacker.send(frame(SETTINGS, payload=b"\0\4" + bytes(4)))
        streams = range(1, 21, 2)
        for stream in streams:
            await scene.attacker.send(request(stream, LARGE.path))
        while len(scene.attacker.resets) < len(streams):
            await anyio.lowlevel.checkpoint()
        assert not any(isinstance(each, DataFrame) for each in scene.attacker.received)


async def test_a_peer_that_never_reads_costs_little() -> None:
    """Windows wide open and the socket left full (CVE-2019-9517), with pings for replies."""
    wide = frame(SETTINGS, payload=b"\0\4\x7f\xff\xff\xff") + frame(8, payload=b"\x7f\xff\0\0")
    async with attack(reads=False) as scene:
        await scene.attacker.send(wide)
        # The kernel alone takes up to 10 MB; this is 66.
        for first in range(1, 1_000_001, 100):
            batch = b"".join(request(first + n, LARGE.path) for n in range(0, 100, 2))
            with anyio.move_on_after(0.5) as scope:
                await scene.attacker.send(batch + frame(PING, payload=bytes(8)))
            if scope.cancelled_caught or scene.attacker.gone.is_set():
                break
        else:
            pytest.fail("all was read, though nothing of the replies was")


async def test_connections_beyond_the_limit_are_closed_and_counted() -> None:
    limits = ServerLimits(max_connections=2)
    async with (
        Server([Service()], limits=limits, grace=0.0) as server,
        Channel(server.addresses[0]) as channel,
    ):
        assert await channel.unary(ECHO, b"x") == b"x"
        async with await dial(server) as second:
            await second.send(PREFACE + frame(SETTINGS))
            assert await second.receive()
            for _ in range(3):
                async with await dial(server) as extra:
                    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                        await extra.receive()
            assert server.serving.refused == 3
        assert await channel.unary(ECHO, b"y") == b"y"
        # There is room again.
        with anyio.fail_after(10):
            while server.serving.connections > 1:
                await anyio.lowlevel.checkpoint()
        async with await dial(server) as third:
            await third.send(PREFACE + frame(SETTINGS))
            assert await third.receive()


async def test_calls_beyond_the_limit_of_all_connections_are_shed() -> None:
    service = Service()
    async with (
        Server([service, HealthService()], limits=ServerLimits(max_calls=3), grace=0.0) as server,
        Channel(server.addresses[0]) as one,
        Channel(server.addresses[0]) as other,
        anyio.create_task_group() as tasks,
    ):
        for channel in (one, one, other):
            tasks.start_soon(channel.unary, SLOW, b"")
        with anyio.fail_after(10):
            while service.running < 3:
                await anyio.lowlevel.checkpoint()
        for channel in (one, other):
            with pytest.raises(RpcError) as refused:
                await channel.unary(ECHO, b"x")
            assert refused.value.status is Status.RESOURCE_EXHAUSTED
        assert service.started == 3
        # Busy is not dead, and whoever asks would end what is busy.
        health = await one.unary(HEALTH_CHECK, HealthCheckRequest())
        assert health.status == HealthCheckResponse.SERVING
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True), anyio.fail_after(10):
            while service.running:
                await anyio.lowlevel.checkpoint()
            while True:
                try:
                    assert await other.unary(ECHO, b"x") == b"x"
                    break
                except RpcError:
                    await anyio.lowlevel.checkpoint()


async def test_the_refusal_says_when_to_come_back() -> None:
    service = Service()
    async with (
        Server([service], limits=ServerLimits(max_calls=1), grace=0.0) as server,
        await dial(server) as stream,
        anyio.create_task_group() as tasks,
    ):
        attacker = Attacker(stream)
        await tasks.start(attacker.read)
        await attacker.send(PREFACE + frame(SETTINGS) + request(1) + request(3))
        with anyio.fail_after(20):
            while not any(each.stream_id == 3 for each in attacker.received):
                await anyio.lowlevel.checkpoint()
        (refusal,) = (each for each in attacker.received if each.stream_id == 3)
        assert isinstance(refusal, HeadersFrame)
        fields = dict(Decoder().decode(refusal.data))
        assert fields["grpc-status"] == "8"
        assert 500 <= int(fields["grpc-retry-pushback-ms"]) < 1500
        assert service.started <= 1
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("limits", [{"max_calls": 0}, {"max_connections": 0}])
def test_a_server_without_room_is_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="room for 1"):
        ServerLimits(**limits)


async def test_a_plain_http_server_ends_floods_and_waits_as_well() -> None:
    async def handle(request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, body=request.body)

    floods = [
        frame(PING, payload=bytes(8)) * 1500,
        frame(SETTINGS) * 1500,
        opening(1, "/", flags=0) + frame(9, 0, 1) * 2,
        opening(1, "/") + frame(DATA, 0, 1) * 11,
        opening(1, "/") + frame(DATA, 0, 1, b"x") * 1500,
        opening(1, "/", flags=0),
    ]
    limits = HttpLimits(header_timeout=0.1, max_connections=1)
    async with HttpServer(handle, listen="127.0.0.1:0", limits=limits, grace=0.0) as server:
        host, port = server.addresses[0].rsplit(":", 1)
        for flood in floods:
            with anyio.fail_after(20):
                async with (
                    await anyio.connect_tcp(host, int(port)) as stream,
                    anyio.create_task_group() as tasks,
                ):
                    attacker = Attacker(stream)
                    await tasks.start(attacker.read)
                    await attacker.send(PREFACE + frame(SETTINGS) + flood)
                    await attacker.gone.wait()
                    assert attacker.goaway == ENHANCE_YOUR_CALM
                while server.serving.connections:
                    await anyio.lowlevel.checkpoint()
