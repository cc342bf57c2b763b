"""The samples of docs/how-to/metrics-and-alerts.md work as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml
from tests.servers import need
from tests.tools import tool

from bascule.testing.servers import PrometheusServer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/metrics-and-alerts.md").read_text()


def samples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands():
    """All but the cases of the alerts, which have tests of their own and take longest."""
    (text,) = samples("sh")
    for line in text.splitlines():
        program, *arguments = line.split()
        tool(program)
        if arguments[0] == "test":
            assert list(ROOT.glob(arguments[-1]))
            continue
        ran = subprocess.run(
            [program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_job_is_the_one_that_is_shipped():
    (text,) = samples("yaml")
    (job,) = yaml.safe_load(text)
    shipped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert job in shipped["scrape_configs"]


def test_the_tables_name_every_file():
    named = re.findall(r"^\| `([\w-]+\.(?:yml|json))` \|", PAGE, re.MULTILINE)
    there = [*(ROOT / "deploy/prometheus/rules").iterdir()]
    there += (ROOT / "deploy/grafana/dashboards").iterdir()
    assert sorted([*named, "recording.yml"]) == sorted(path.name for path in there)


def test_the_test(tmp_path: Path):
    need(PrometheusServer)
    (text,) = samples("python")
    file = tmp_path / "test_samples.py"
    file.write_text(text.replace("async def test_", "@pytest.mark.anyio\nasync def test_"))
    file.write_text("import pytest\n" + file.read_text())
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *options, "--confcutdir", str(tmp_path)),
            *("-k", "asyncio", str(file)),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr
