"""The samples of docs/how-to/consul.md work as they stand there, on a real Consul."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from bascule.testing.servers import ConsulServer

ROOT = Path(__file__).parents[2]

BEFORE = """
import os
import pytest
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
def consul_url():
    return os.environ["CONSUL_URL"]


class Greeter(EchoBase):
    async def unary(self, request):
        return EchoReply(text=f"Hello, {request.text}")
"""


def test_the_samples(tmp_path: Path, consul_server: ConsulServer) -> None:
    page = (ROOT / "docs/how-to/consul.md").read_text()
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
        env={**os.environ, "CONSUL_URL": consul_server.url},
    )
    tests = len(re.findall(r"^async def test_", page, re.MULTILINE))
    assert f"{2 * tests} passed" in ran.stdout, ran.stdout + ran.stderr
