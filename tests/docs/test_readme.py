"""What the README shows works as it stands there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.pages import ROOT, Session


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_readme(loop: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    (tmp_path / "out").mkdir()
    with Session(tmp_path, loop=loop) as session:
        said = session.walk("README.md")
    assert said == "Hello, world!\n"
    made = {path.name for path in (tmp_path / "out").rglob("*.py*")}
    assert {"user_pb2.py", "user_pb2.pyi", "user_bascule.py"} <= made


def test_the_handler_page(tmp_path: Path, echo: list[Path]) -> None:
    with Session(tmp_path) as session:
        session.give(*echo)
        session.walk("docs/how-to/handlers.md")
