"""The benchmarks run: every client of the comparison makes its calls, and what was measured is written."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benches.peers import ROOT

from bascule.testing.servers import LocalServer, MariaDBServer, MissingProgramError, RedisServer


def quick_run(suites: str, output: Path) -> dict[str, Any]:
    """Answer with the report of a run that shows that the harness works."""
    command = [
        *(sys.executable, "-m", "benches", "--quick", "--no-gate"),
        *("--only", suites, "--output", str(output)),
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "mean nothing" in output.with_suffix(".html").read_text()
    report: dict[str, Any] = json.loads(output.read_text())
    return report


def test_a_quick_run_measures_every_client(tmp_path: Path) -> None:
    report = quick_run("client", tmp_path / "latest.json")

    assert {figure["subject"] for figure in report["figures"]} == {
        "bascule asyncio",
        "bascule uvloop",
        "bascule trio",
        "grpcio.aio",
        "grpclib",
    }
    assert all(figure["median"] > 0 for figure in report["figures"])


@pytest.mark.parametrize(
    ("suite", "cases", "servers"),
    [
        ("sagas", {"1 at a time"}, ()),
        ("orders", {"SQLite", "MariaDB"}, (MariaDBServer,)),
        ("events", {"Redis in memory", "Redis with fsync"}, (RedisServer,)),
    ],
)
def test_a_quick_run_measures_what_lasts(
    suite: str, cases: set[str], servers: tuple[type[LocalServer], ...], tmp_path: Path
) -> None:
    """What a suite needs is there or named: nothing is left out of a run without a word."""
    for server in servers:
        try:
            server.find()
        except MissingProgramError as error:
            pytest.skip(str(error))

    report = quick_run(suite, tmp_path / "latest.json")

    assert report["not_measured"] == {}
    assert {figure["case"].partition(", ")[0] for figure in report["figures"]} == cases
    assert {figure["subject"] for figure in report["figures"]} >= {
        "bascule asyncio",
        "bascule trio",
    }
    assert all(figure["median"] > 0 for figure in report["figures"])
