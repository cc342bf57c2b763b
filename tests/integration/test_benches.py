"""The benchmarks run: every client of the comparison makes its calls, and what was measured is written."""

import json
import subprocess
import sys
from pathlib import Path

from benches.peers import ROOT


def test_a_quick_run_measures_every_client(tmp_path: Path) -> None:
    output = tmp_path / "latest.json"
    command = [
        sys.executable,
        "-m",
        "benches",
        "--quick",
        "--no-gate",
        "--only",
        "client",
        "--output",
        str(output),
    ]

    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(output.read_text())
    assert {figure["subject"] for figure in report["figures"]} == {
        "bascule asyncio",
        "bascule uvloop",
        "bascule trio",
        "grpcio.aio",
        "grpclib",
    }
    assert all(figure["median"] > 0 for figure in report["figures"])
