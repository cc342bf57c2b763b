"""Where the shop's command takes URLs from: secrets are files."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from bascule.errors import ConfigurationError
from bascule_shop import process
from bascule_shop.cli import app

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    """The exit code, and what was said to standard error."""
    ran = CliRunner().invoke(app, arguments, env=environment)
    return ran.exit_code, ran.stderr


def test_a_database_is_named_by_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"sqlite:///{tmp_path / 'here.db'}\n")
    assert run("migrate", "user", SHOP_DATABASE_USER_FILE=str(file)) == (0, "")
    assert (tmp_path / "here.db").exists()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"SHOP_DATABASE_USER": "sqlite://"},
            "SHOP_DATABASE_USER and SHOP_DATABASE_USER_FILE are both set",
        ),
        ({}, "SHOP_DATABASE_USER_FILE '{file}' is empty"),
        ({"SHOP_DATABASE_USER_FILE": "/nowhere"}, "SHOP_DATABASE_USER_FILE '/nowhere': "),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error(
    tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    """It must not fall back to a fresh SQLite file: whoever names a file means a database that is there."""
    file = tmp_path / "url"
    file.write_text("\n")
    code, text = run("migrate", "user", **{"SHOP_DATABASE_USER_FILE": str(file), **environment})
    assert code == 1
    assert said.format(file=file) in text


def test_a_service_is_told_its_redis_and_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[process.ProcessSettings] = []

    def enough(settings: process.ProcessSettings) -> None:
        found.append(settings)
        raise ConfigurationError("enough")

    monkeypatch.setattr(process, "shop_app", enough)
    file = tmp_path / "url"
    file.write_text("redis://:secret@redis:6379/0")
    arguments = ["--advertise={host}:50051", f"--data={tmp_path}"]
    code, text = run("serve", "user", *arguments, SHOP_EVENTS_FILE=str(file))
    assert (code, text) == (2, "bascule_shop: enough\n")
    assert found[0].events == "redis://:secret@redis:6379/0"
    assert found[0].advertise == f"{socket.gethostname()}:50051"
