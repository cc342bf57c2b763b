"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.pages import ROOT, Session, blocks
from tests.tools import tool


def test_the_readme(tmp_path: Path) -> None:
    tool("promtool")
    for folder in ("protos", "deploy/prometheus"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "out").mkdir()
    with Session(tmp_path, loop="trio") as session:
        said = session.walk("README.md")
    assert "Hello, world!\n" in said
    assert re.search(r"^\d+ passed", said, re.MULTILINE), "the new project's own tests"
    assert said.count("  SUCCESS") == len(list((ROOT / "deploy/prometheus/tests").glob("*.yml")))
    made = {path.name for path in (tmp_path / "out").rglob("*.py*")}
    assert {"user_pb2.py", "user_pb2.pyi", "user_bascule.py"} <= made


def test_its_program_on_the_other_loop(tmp_path: Path) -> None:
    (program,) = [block for block in blocks("README.md") if block.program]
    with Session(tmp_path, loop="asyncio") as session:
        assert session.program(program) == "Hello, world!\n"


def test_the_handler_page(tmp_path: Path, echo: list[Path]) -> None:
    with Session(tmp_path) as session:
        session.give(*echo)
        session.walk("docs/how-to/handlers.md")
