"""The samples of docs/how-to/databases.md work as they stand there."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pages import Session, load

pytestmark = pytest.mark.anyio

page = load("docs/how-to/databases.md", globals())


async def test_the_sample_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    await page.main()


def test_the_commands(tmp_path: Path) -> None:
    with Session(tmp_path) as session:
        session.replace("mysql://shop:secret@db/orders", f"sqlite:///{tmp_path}/order.db")
        assert session.walk("docs/how-to/databases.md") == "order: up to date\n"
