"""docs/how-to/tls.md is followed, from its certificates on."""

from __future__ import annotations

from pathlib import Path

from tests.pages import Session


def test_the_page(tmp_path: Path, greeter: list[Path]) -> None:
    with Session(tmp_path) as session:
        session.give(*greeter)
        session.walk("docs/how-to/tls.md")
        session.on("trio", "mutual.py")
