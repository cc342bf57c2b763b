"""The tutorial on the shop is followed from its first line to its last."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pages import Session
from tests.tools import tool

from bascule.testing.servers import JaegerServer

PORTS = (50051, 50052, 50053, 50054, 8080, 9101, 9102, 9103, 9104)


@pytest.mark.timeout(300)
def test_the_tutorial(tmp_path: Path, jaeger_server: JaegerServer) -> None:
    """It starts five processes and kills one, which takes some seconds: that is what the page is about."""
    tool("promtool")
    with Session(tmp_path, ports=PORTS) as session:
        session.replace("http://127.0.0.1:4318", jaeger_server.endpoint)
        session.replace("http://127.0.0.1:16686", jaeger_server.url)
        session.walk("docs/tutorials/shop.md", background={"python gateway.py": "serving"})
