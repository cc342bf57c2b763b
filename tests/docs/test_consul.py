"""The samples of docs/how-to/consul.md work as they stand there, on a real Consul."""

from __future__ import annotations

import pytest
from tests.generated.echo_bascule import EchoBase
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.pages import load

from bascule.testing.servers import ConsulServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def consul_url(consul_server: ConsulServer) -> str:
    return consul_server.url


class Greeter(EchoBase):
    async def unary(self, request: EchoRequest) -> EchoReply:
        return EchoReply(text=f"Hello, {request.text}")


load("docs/how-to/consul.md", globals())
