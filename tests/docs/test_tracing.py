"""The samples of docs/how-to/tracing.md work as they stand there."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.generated import echo_bascule, echo_pb2
from tests.pages import Session, load

pytestmark = pytest.mark.anyio

# What the page takes for granted.
EchoBase, EchoStub = echo_bascule.EchoBase, echo_bascule.EchoStub
EchoReply, EchoRequest = echo_pb2.EchoReply, echo_pb2.EchoRequest

load("docs/how-to/tracing.md", globals())


def test_a_service_starts_whether_or_not_there_is_a_collector(
    tmp_path: Path, greeter: list[Path]
) -> None:
    with Session(tmp_path, ports=(50051, 4318)) as session:
        session.give(*greeter)
        service = tmp_path / "greeter.py"
        service.write_text(session.text(service.read_text()))
        session.walk("docs/how-to/tracing.md", background={"bascule serve": "ready"})
