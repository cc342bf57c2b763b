"""The sample of docs/how-to/run-a-service.md works as it stands there."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_sample(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/run-a-service.md").read_text()
    sample = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    generated = [
        f"import sys; sys.path.insert(0, {str(ROOT)!r})",
        "from tests.generated.echo_bascule import EchoBase",
        "from tests.generated.echo_pb2 import EchoReply",
    ]
    (tmp_path / "my_service.py").write_text("\n".join([*generated, sample]))
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
