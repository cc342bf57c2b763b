"""The samples of docs/how-to/run-a-service.md work as they stand there."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from tests.pages import blocks, load

page = load("docs/how-to/run-a-service.md", globals())


def test_as_a_process(tmp_path: Path, echo: list[Path]) -> None:
    sample = next(each.text for each in blocks("docs/how-to/run-a-service.md") if each.sample)
    for file in echo:
        shutil.copy(file, tmp_path)
    (tmp_path / "my_service.py").write_text(sample)
    (tmp_path / "greeting.txt").write_text("Hello, ")
    command = "from bascule.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", command, "serve", "my_service:app", "--loop", "trio"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        try:
            assert process.stderr is not None
            events = []
            for line in process.stderr:
                events.append(json.loads(line)["event"])
                if events[-1] == "ready":
                    process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0, events
        finally:
            process.kill()
    assert events[-4:] == ["leaving", "draining", "stopped", "ended"]


@pytest.mark.anyio
async def test_beside_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "greeting.txt").write_text("Hello, ")
    monkeypatch.chdir(tmp_path)
    with anyio.fail_after(60):
        await page.two()
    assert "127.0.0.1" in capsys.readouterr().out
