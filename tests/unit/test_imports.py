"""What ``import bascule.rpc`` brings along, and what it costs."""

from __future__ import annotations

import re
import subprocess
import sys

#: Each of these takes longer to import than bascule itself.
HEAVY = ("betterproto2", "cryptography", "google.protobuf", "httpx", "pydantic", "sqlalchemy")

#: Seconds; a fifth of a second less than when the libraries above came along.
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
    def seconds() -> float:
        told = run("-X", "importtime", "-c", "import bascule.rpc").stderr
        (micros,) = re.findall(r"\| +(\d+) \| bascule\.rpc$", told, re.MULTILINE)
        return int(micros) / 1e6

    # The best of several: the others waited for a busy machine.
    assert min(seconds() for _ in range(5)) < MOST
