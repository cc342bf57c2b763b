"""``bascule saga check``: what keeps its promises passes, what does not is found; by killed processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# A process may be killed hundreds of times, on machines that do other things too.
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]


def check(name: str, *options: str, **variables: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-c", "from bascule.cli import main; main()", "saga", "check"]
    command += [f"tests.integration.saga_checks:{name}", "--json", *options]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert ended.returncode in {0, 1}, ended.stderr
    return ended.returncode, json.loads(ended.stdout)


def test_a_saga_survives_a_kill_at_every_write_and_every_reply() -> None:
    """0 lost, 0 doubled, undone in reverse, over 200 kills."""
    code, report = check("undoing")
    assert (code, report["ok"], report["violations"]) == (0, True, [])
    assert report["kills"] >= 200
    assert report["trials"] == sum(report["outcomes"].values())
    assert set(report["outcomes"]) == {"completed", "undone"}
    moments = {point.partition(":")[0] for point in report["points"]}
    assert {"before the log has", "after the log has", "when payment has replied"} <= moments


def test_the_shops_saga_survives_a_kill_at_every_write_and_every_reply() -> None:
    """With its real stores: order, stock, payment and event balance, whatever fails and is killed."""
    code, report = check("shop")
    assert (code, report["ok"], report["violations"]) == (0, True, [])
    assert report["kills"] >= 140
    assert set(report["outcomes"]) == {"completed", "undone"}
    steps = ("order", "inventory", "payment", "confirm")
    assert {f"when {step} has replied" for step in steps} <= report["points"].keys()
    assert {f"when undoing {step} has replied" for step in steps[:3]} <= report["points"].keys()


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_saga_that_goes_on_survives_kills_in_its_recovery_too(loop: str) -> None:
    code, report = check("repeating", "--depth", "2", "--limit", "15", "--loop", loop)
    assert (code, report["violations"]) == (0, [])
    # Of two kills in a row, the second one is of the recovery.
    assert report["kills"] > 15 + 15
    assert report["outcomes"]["completed"] > 0


def test_a_saga_survives_kills_on_mariadb(mariadb_url: str) -> None:
    """At points spread over all of them; 100 more are in the test of the order service's processes."""
    code, report = check(
        "undoing", "--limit", "100", "--database", mariadb_url, SAGA_CHECK_WORLD=mariadb_url
    )
    assert (code, report["violations"]) == (0, [])
    # Steps of a group that end together have one point less: then the last one is not come to.
    assert report["kills"] >= 95


def test_what_is_done_twice_is_found() -> None:
    code, report = check("careless", "--limit", "12")
    assert (code, report["ok"]) == (1, False)
    assert any("not each step once" in each["problem"] for each in report["violations"])


def test_what_is_not_undone_is_found_and_can_be_tried_alone() -> None:
    code, report = check("forgetful", "--limit", "12")
    assert code == 1
    violation = next(each for each in report["violations"] if each["kills"])
    assert "done and undone are not the same" in violation["problem"]
    assert violation["journal"][0] == "started"
    code, again = check("forgetful", "--only", violation["trial"])
    assert (code, again["trials"]) == (1, 1)
    assert again["violations"] == [violation | {"journal": again["violations"][0]["journal"]}]
