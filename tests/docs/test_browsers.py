"""The samples of docs/how-to/browsers.md work as they stand there; tests/interop has its clients on Node."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pages import Session, load

page = load("docs/how-to/browsers.md", globals())


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_page_is_served(loop: str, tmp_path: Path, greeter: list[Path]) -> None:
    with Session(tmp_path, ports=(8080,), loop=loop) as session:
        session.give(*greeter)
        session.walk("docs/how-to/browsers.md", background={"python serve_web.py": "serving"})


def test_origins_are_named() -> None:
    assert page.web.allow_origins == ("https://app.example", "http://localhost:5173")
