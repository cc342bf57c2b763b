"""The tutorial on a first service is followed from its first line to its last."""

from __future__ import annotations

from pathlib import Path

from tests.pages import Session


def test_the_tutorial(tmp_path: Path) -> None:
    with Session(tmp_path, ports=(50051,)) as session:
        session.walk("docs/tutorials/first-service.md", background={"bascule serve": "ready"})
        session.on("trio", "client.py", "deadline.py")
