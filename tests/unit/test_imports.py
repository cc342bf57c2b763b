"""What ``import bascule.rpc`` brings along, and what it costs."""

from __future__ import annotations

import subprocess
import sys

#: Each of these takes longer to import than bascule itself.
HEAVY = (
    *("betterproto2", "cryptography", "google.protobuf", "httpx", "opentelemetry", "pydantic"),
    *("msgspec", "sqlalchemy", "typing_extensions"),
)

#: Seconds: twice what it takes on a common machine, and less than it took with those libraries.
MOST = 0.25


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=True
    )


def test_heavy_libraries_wait_until_they_are_used() -> None:
    program = "import bascule.rpc, bascule.net, sys; print(*sys.modules)"
    loaded = run("-c", program).stdout.split()
    assert "bascule.rpc._channel" in loaded
    assert [name for name in loaded if name.startswith(HEAVY)] == []


def test_what_is_lazy_is_there_when_it_is_asked_for() -> None:
    program = (
        "from bascule.net import development_certificate; import bascule.rpc as r;"
        "assert r.HealthService and r.ReflectionService and not hasattr(r, 'Nothing')"
    )
    assert run("-W", "error", "-c", program).stderr == ""


def test_the_import_takes_little_time() -> None:
    # Processor time, and the best of several: a busy machine makes others wait, and caches cold.
    program = (
        "import time; t = time.process_time(); import bascule.rpc; print(time.process_time() - t)"
    )
    assert min(float(run("-c", program).stdout) for _ in range(5)) < MOST
