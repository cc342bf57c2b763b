"""The sample of docs/how-to/threads-and-loops.md works as it stands there."""

from __future__ import annotations

import pytest
from tests.generated.echo_bascule import EchoBase
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.pages import load

from bascule.rpc import Server

pytestmark = pytest.mark.anyio

page = load("docs/how-to/threads-and-loops.md", globals())


class Echo(EchoBase):
    async def unary(self, request: EchoRequest) -> EchoReply:
        return EchoReply(text=request.text)


async def test_a_thread_calls_through_its_loop() -> None:
    async with Server([Echo()]) as server:
        assert await page.ask_from_a_thread(server.addresses[0]) == "from a thread"
