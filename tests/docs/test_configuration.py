"""The samples of docs/how-to/configuration.md work as they stand there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from tests.pages import Session, load

from bascule.testing.servers import ConsulServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def page() -> SimpleNamespace:
    return load("docs/how-to/configuration.md")


async def test_the_sample(
    page: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP_PORT", "8080")
    await page.main()
    assert capsys.readouterr().out == "8080 sqlite:///shop.db none\n"


async def test_it_is_followed(
    page: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    said = ""
    async with page.config, anyio.create_task_group() as tasks:
        tasks.start_soon(page.follow)
        await anyio.wait_all_tasks_blocked()
        (tmp_path / "shop.json").write_text('{"port": 7}')
        with anyio.fail_after(30):
            while "port=7" not in said:
                await anyio.sleep(0.05)
                said += capsys.readouterr().out
        tasks.cancel_scope.cancel()


def test_the_commands(tmp_path: Path, consul_server: ConsulServer) -> None:
    with Session(tmp_path, environment={"CONSUL_HTTP_ADDR": consul_server.url}) as session:
        (tmp_path / "defaults.json").write_text('{"server": {"port": 1}}')
        said = session.walk(
            "docs/how-to/configuration.md", background={"bascule config watch": "8080"}
        )
    assert '"port": 8081' in said
