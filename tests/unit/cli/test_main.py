"""The command as a whole: it reads alike and ends alike, whatever subcommand it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from bascule.cli._ending import ending
from bascule.cli._main import app
from bascule.errors import ClosedError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def commands() -> Iterator[tuple[str, Any]]:
    def walk(group: Any, under: str) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            yield f"{under}{name}", command
            if hasattr(command, "commands"):
                yield from walk(command, f"{under}{name} ")

    yield from walk(typer.main.get_command(app), "")


ALL = dict(commands())


@pytest.mark.parametrize("name", ALL)
def test_its_help_begins_with_what_it_does(name: str) -> None:
    """One sentence, that fits where completions and lists show it."""
    first, *_ = (ALL[name].help or "").splitlines()
    assert first.endswith(".")
    assert first[0].isupper()
    assert len(first) <= 100


@pytest.mark.parametrize("name", ALL)
def test_every_option_says_what_it_is_for(name: str) -> None:
    for each in ALL[name].params:
        if each.name != "help":
            assert (each.help or "").strip(), each.name
        if {"--backend", "--loop"} & set(each.opts):
            assert "--loop" in each.opts, "the loop is called the same everywhere"


@pytest.mark.parametrize(
    "arguments",
    [
        ["gateway", "-c", "none.toml"],
        ["new", "Bad"],
        ["serve", "none"],
        ["call", "nowhere://x", "A/B"],
        ["config", "get", "--source", "none"],
        ["saga", "list", "--database", "none"],
        ["demo", "--with", "oracle"],
    ],
)
def test_what_cannot_work_is_a_line_and_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(app, arguments)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"bascule {arguments[0]}")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigurationError("a setting"), 2, "bascule it: a setting\n"),
        (ClosedError("it is closed"), 1, "bascule it: it is closed\n"),
        (FileNotFoundError("no file"), 1, "bascule it: no file\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_have_exit_codes(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, ending("it"):
        raise error
    assert (caught.value.exit_code, capsys.readouterr().err) == (code, said)


def test_a_mistake_of_ours_is_shown_in_full() -> None:
    with pytest.raises(ZeroDivisionError), ending("it"):
        raise ZeroDivisionError


def test_the_groups_and_the_version() -> None:
    ran = CliRunner().invoke(app, ["--help"])
    for title in ("Begin", "Run", "Look and steer", "Measure"):
        assert f" {title} " in ran.stdout
    ran = CliRunner().invoke(app, ["--version"])
    assert (ran.exit_code, ran.stdout.split()[0]) == (0, "bascule")
