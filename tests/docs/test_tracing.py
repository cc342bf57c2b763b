"""The samples of docs/how-to/tracing.md work as they stand there."""

from __future__ import annotations

import pytest
from tests.generated import echo_bascule, echo_pb2
from tests.pages import load

pytestmark = pytest.mark.anyio

# What the page takes for granted.
EchoBase, EchoStub = echo_bascule.EchoBase, echo_bascule.EchoStub
EchoReply, EchoRequest = echo_pb2.EchoReply, echo_pb2.EchoRequest

load("docs/how-to/tracing.md", globals())
