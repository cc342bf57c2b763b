"""The samples of docs/how-to/test-with-real-servers.md work as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.servers import need

from bascule.testing.servers import MariaDBServer, RedisServer

ROOT = Path(__file__).parents[2]


def test_the_samples(tmp_path: Path) -> None:
    need(RedisServer)
    need(MariaDBServer)
    page = (ROOT / "docs/how-to/test-with-real-servers.md").read_text()
    file = tmp_path / "test_samples.py"
    file.write_text("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)))
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--confcutdir", str(tmp_path), str(file)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
    )
    asynchronous = len(re.findall(r"^async def test_", page, re.MULTILINE))
    plain = len(re.findall(r"^def test_", page, re.MULTILINE))
    assert f"{2 * asynchronous + plain} passed" in ran.stdout, ran.stdout + ran.stderr
