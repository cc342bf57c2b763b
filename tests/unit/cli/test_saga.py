"""``bascule saga list``, ``show``, ``retry`` and ``resolve`` on a log in SQLite."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from bascule.cli._main import app
from bascule.saga import (
    Backoff,
    Saga,
    SagaCoordinator,
    SagaError,
    SqlSagaLog,
    StepCall,
    saga_tables,
)
from bascule.sql import Database

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


class Context(msgspec.Struct, frozen=True):
    total: int = 7


async def act(_context: Context, _call: StepCall) -> None:
    pass


async def refuse(_context: Context, call: StepCall) -> None:
    raise ValueError(f"no {call.step}\x1b[31m")


GOOD = Saga("good", Context).step("a", act)
STUCK = Saga("stuck", Context).step("a", act, act).step("b", act, refuse).step("c", refuse)


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'log.db'}"

    async def fill() -> None:
        metadata = sa.MetaData()
        tables = saga_tables(metadata)
        async with Database(url, metadata) as database:
            coordinator = SagaCoordinator(
                SqlSagaLog(database, tables), backoff=Backoff(attempts=1), owner="test"
            )
            for number in range(3):
                await coordinator.run(GOOD, Context(), saga_id=f"good-{number}")
            with pytest.raises(SagaError, match="parked"):
                await coordinator.run(STUCK, Context(), saga_id="stuck-1", idempotency_key="key-1")

    anyio.run(fill)
    return url


def saga(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["saga", *arguments, "--database", url])


def document(url: str, *arguments: str) -> Any:
    result = saga(url, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_lists_by_state_and_page_by_page(url: str) -> None:
    listed = document(url, "list", "--limit", "3")
    assert [run["saga_id"] for run in listed["runs"]] == ["good-0", "good-1", "good-2"]
    rest = document(url, "list", "--after", listed["after"])
    assert [run["saga_id"] for run in rest["runs"]] == ["stuck-1"]
    assert [run["name"] for run in document(url, "list", "--state", "parked")["runs"]] == ["stuck"]
    assert document(url, "list", "--name", "none") == {"runs": [], "after": None}
    assert document(url, "list", "--idle", "3600")["runs"] == []
    shown = saga(url, "list", "--limit", "1").stdout
    assert "good-0" in shown
    assert "--after" in shown
    assert "no such run" in saga(url, "list", "--state", "undoing").stdout


def test_shows_a_run_with_its_journal_in_safe_characters(url: str) -> None:
    shown = document(url, "show", "stuck-1")
    assert (shown["state"], shown["step"], shown["context"]) == ("parked", "b", {"total": 7})
    assert [record["event"] for record in shown["records"]][-2:] == ["failed", "parked"]
    text = saga(url, "show", "stuck-1").stdout
    assert "key-1" in text
    assert "parked" in text
    assert "\x1b[31m" not in text


def test_a_parked_run_is_sent_on_once(url: str) -> None:
    sent = document(url, "retry", "stuck-1", "--by", "ann", "--why", "mended")
    assert (sent["state"], sent["owner"]) == ("undoing", None)
    assert sent["records"][-1] | {"at": 0} == {
        "sequence": sent["sequence"] - 1,
        "event": "retried",
        "at": 0,
        "by": "ann",
        "step": None,
        "note": "mended",
    }
    again = saga(url, "retry", "stuck-1")
    assert again.exit_code == 1
    assert "only a parked one" in again.stderr


def test_a_step_is_resolved_the_way_the_run_goes(url: str) -> None:
    wrong = saga(url, "resolve", "stuck-1", "done", "--why", "no")
    assert wrong.exit_code == 1
    assert "'undone' only" in wrong.stderr
    resolved = document(url, "resolve", "stuck-1", "undone", "--why", "by hand", "--by", "ann")
    last = resolved["records"][-1]
    assert (last["event"], last["step"], last["by"], last["note"]) == (
        "compensated", "b", "ann", "by hand",
    )  # fmt: skip


def test_what_cannot_be_done_is_said_in_one_line(url: str, tmp_path: Path) -> None:
    for result, code, text in (
        (saga(url, "show", "unknown"), 1, "no run has this id"),
        (saga(f"sqlite:///{tmp_path}/none.db", "list"), 1, "no such table"),
        (saga(f"sqlite:///{tmp_path}/none/none.db", "list"), 1, "unavailable"),
        (saga("nonsense", "list"), 2, "URL"),
        (saga(url, "list", "--prefix", "other_"), 1, "no such table"),
    ):
        assert result.exit_code == code
        assert text in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("target", ["nowhere", "nowhere:x", "tests.integration.saga_checks:none"])
def test_a_check_that_is_not_there_is_a_mistake(target: str) -> None:
    result = CliRunner().invoke(app, ["saga", "check", target])
    assert result.exit_code == 2
    assert target in result.stderr
