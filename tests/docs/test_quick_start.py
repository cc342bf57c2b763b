"""The Chinese quick start is followed from its first line to its last."""

from __future__ import annotations

from pathlib import Path

from tests.pages import Session


def test_the_page(tmp_path: Path) -> None:
    with Session(tmp_path, ports=(50051, 8080)) as session:
        background = {"bascule serve": "ready", "python gateway.py": "serving"}
        session.walk("docs/zh/quick-start.md", background=background)
        session.on("trio", "client.py")
