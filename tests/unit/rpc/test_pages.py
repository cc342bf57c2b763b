"""The samples of pages about channels work as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

BEFORE = """
import pytest
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest


class Echo(EchoBase):
    async def unary(self, request):
        return EchoReply(text=request.text)


pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param
"""


@pytest.mark.parametrize("name", ["channels", "retries", "tracing"])
def test_the_samples(name: str, tmp_path: Path) -> None:
    page = (ROOT / f"docs/how-to/{name}.md").read_text()
    samples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "test_samples.py"
    file.write_text("\n".join([BEFORE, *samples]))
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--confcutdir", str(tmp_path), str(file)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
    )
    tests = len(re.findall(r"^async def test_", page, re.MULTILINE))
    assert f"{2 * tests} passed" in ran.stdout, ran.stdout + ran.stderr
