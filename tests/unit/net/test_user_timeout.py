"""With keepalive, the system gives up a peer that acknowledges nothing as early as keepalive does (gRFC A18)."""

from __future__ import annotations

import socket
import sys

import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoRequest
from tests.unit.rpc.services import Echo

from bascule.rpc import Channel, KeepaliveSettings, Server, ServerLimits

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="others have no TCP_USER_TIMEOUT"),
]


async def timeouts(
    client: KeepaliveSettings | None, server: KeepaliveSettings | None
) -> tuple[int, int]:
    """What both ends of a connection have, in milliseconds."""
    limits = ServerLimits(keepalive=server)
    async with (
        Server([Echo()], limits=limits, grace=0.0) as serving,
        Channel(serving.addresses[0], keepalive=client) as channel,
    ):
        await EchoStub(channel).unary(EchoRequest())
        (subchannel,) = channel._pool.subchannels.values()
        (session,) = serving.serving._sessions
        assert subchannel.connection is not None
        ends = (subchannel.connection.link, session.link)
        found = [each.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) for each in ends]
        return found[0], found[1]


async def test_keepalive_sets_it_on_either_side() -> None:
    assert await timeouts(KeepaliveSettings(60, 7.5), None) == (7500, 0)
    assert await timeouts(None, KeepaliveSettings(60, 0.0001)) == (0, 1)


async def test_servers_have_it_by_default() -> None:
    assert await timeouts(None, ServerLimits().keepalive) == (0, 20_000)


@pytest.mark.parametrize("address", ["unix:{}/s", "memory:user-timeout"])
async def test_without_tcp_nothing_is_set(address: str, tmp_path) -> None:
    keepalive = KeepaliveSettings(60, 7)
    listen = address.format(tmp_path)
    async with (
        Server([Echo()], listen=listen, limits=ServerLimits(keepalive=keepalive)),
        Channel(listen, keepalive=keepalive) as channel,
    ):
        await EchoStub(channel).unary(EchoRequest())
