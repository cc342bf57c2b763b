"""docs/how-to/embed.md is followed: in FastAPI under uvicorn, in trio, in asyncio."""

from __future__ import annotations

from pathlib import Path

from tests.pages import Session


def test_the_page(tmp_path: Path, greeter: list[Path]) -> None:
    with Session(tmp_path, ports=(50051, 8000)) as session:
        session.give(*greeter)
        session.walk("docs/how-to/embed.md", background={"uvicorn": "running on"})
