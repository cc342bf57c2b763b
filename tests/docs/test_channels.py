"""The samples of docs/how-to/channels.md work as they stand there."""

from __future__ import annotations

import pytest
from tests.generated.echo_bascule import EchoBase
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.pages import load

pytestmark = pytest.mark.anyio


class Echo(EchoBase):
    async def unary(self, request: EchoRequest) -> EchoReply:
        return EchoReply(text=request.text)


load("docs/how-to/channels.md", globals())
