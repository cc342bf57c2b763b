"""How large messages may be, at the last byte, in each direction and on either side."""

from __future__ import annotations

import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.interop.echo import BasculeGoogle, Behaviour

from bascule.errors import ConfigurationError
from bascule.rpc import Channel, KeepaliveSettings, RpcError, Server, ServerLimits, Status

pytestmark = pytest.mark.anyio

#: A message of 1,000 bytes, and its fields' share of them.
EXACT = EchoRequest(payload=bytes(997))
OVER = EchoRequest(payload=bytes(998))


@pytest.mark.parametrize(
    ("server", "channel", "who"),
    [
        (ServerLimits(max_message=1000, max_send_message=2000), {}, "message of 1001 bytes"),
        (ServerLimits(max_message=2000, max_send_message=1000), {}, "reply of 1001 bytes"),
        (ServerLimits(), {"max_send_message": 1000}, "request of 1001 bytes"),
        (ServerLimits(), {"max_message": 1000, "max_send_message": 2000}, "message of 1001 bytes"),
    ],
)
async def test_the_last_byte_counts(
    server: ServerLimits, channel: dict[str, int], who: str
) -> None:
    assert (EXACT.ByteSize(), OVER.ByteSize()) == (1000, 1001)
    async with (
        Server([BasculeGoogle(Behaviour())], limits=server) as serving,
        Channel(serving.addresses[0], **channel) as calling,
    ):
        stub = EchoStub(calling)
        assert await stub.unary(EXACT) == EchoReply(payload=EXACT.payload)
        with pytest.raises(RpcError, match=who) as raised:
            await stub.unary(OVER)
        assert raised.value.status is Status.RESOURCE_EXHAUSTED
        assert await stub.unary(EXACT) == EchoReply(payload=EXACT.payload)


def test_what_cannot_be_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigurationError, match="identity, gzip, deflate, zstd"):
        Channel("localhost:1", compression="br")
    with pytest.raises(ConfigurationError, match="'GZIP'"):
        Server([BasculeGoogle(Behaviour())], compression="GZIP")
    for times in ((0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)):
        with pytest.raises(ConfigurationError, match="positive"):
            KeepaliveSettings(*times)
