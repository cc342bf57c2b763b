"""The tutorial on the shop is followed from its first line to its last."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.pages import Session
from tests.tools import lacking


@pytest.mark.timeout(300)
def test_the_tutorial(tmp_path: Path) -> None:
    """It starts five processes and kills one, which takes some seconds: that is what the page is about."""
    if shutil.which("promtool") is None:
        lacking("needs promtool: apt-get install prometheus")
    ports = (50051, 50052, 50053, 50054, 8080, 9101, 9102, 9103, 9104)
    with Session(tmp_path, ports=ports) as session:
        session.walk("docs/tutorials/shop.md", background={"python gateway.py": "serving"})
