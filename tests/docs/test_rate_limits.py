"""The samples of docs/how-to/rate-limits.md work as they stand there."""

from __future__ import annotations

import pytest
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.pages import load

from bascule.errors import RateLimitedError
from bascule.rpc import Channel, RpcError, Server, Status

pytestmark = pytest.mark.anyio

load("docs/how-to/rate-limits.md", globals())


async def test_what_a_service_may_ask_of_others_is_no_fault_of_its_client() -> None:
    """As the page says of a RateLimitedError that leaves a handler."""

    class Mails(EchoBase):
        async def unary(self, request: EchoRequest) -> EchoReply:
            raise RateLimitedError("mails", 3.0)

    async with Server([Mails()]) as server, Channel(server.addresses[0]) as channel:
        with pytest.raises(RpcError) as refusal:
            await EchoStub(channel).unary(EchoRequest())
    assert refusal.value.status is Status.UNAVAILABLE
