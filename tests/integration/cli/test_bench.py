"""``bascule bench``: every program under test does its work, and what it took is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bascule.cli._main import app
from bascule.cli.bench._suite import BenchError, Plan, measure_all, subjects


@pytest.mark.parametrize("stack", ["grpclib", "grpcio"])
def test_peers_are_measured_alike(stack: str) -> None:
    results = measure_all(Plan([(stack, "asyncio")], 1, 0.1), lambda _: None)

    assert {each.subject for each in results.figures.values()} == {stack}
    assert len(results.figures) == 6


def test_what_fails_is_said_with_its_last_words() -> None:
    with pytest.raises(BenchError, match="KeyError: 'nobody'"):
        measure_all(Plan([("nobody", "asyncio")], 1, 0.1), lambda _: None)


def test_subjects_are_those_that_are_installed() -> None:
    everything = subjects()

    assert {("bascule", "asyncio"), ("bascule", "trio"), ("grpclib", "asyncio")} <= set(everything)
    assert subjects(["trio"]) == [("bascule", "trio")]


def test_the_whole_suite_needs_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    ran = CliRunner().invoke(app, ["bench", "--full"])

    assert ran.exit_code == 2
    assert "in a checkout" in ran.stderr
