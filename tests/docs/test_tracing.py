"""The samples of docs/how-to/tracing.md work as they stand there."""

from __future__ import annotations

import pytest
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.pages import load

pytestmark = pytest.mark.anyio

load("docs/how-to/tracing.md", globals())
