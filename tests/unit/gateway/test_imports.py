"""What stays out of memory until somebody needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("httpx", "joserfc", "prometheus_client", "structlog")


@pytest.mark.parametrize("package", ["bascule", "bascule.observe", "bascule.gateway"])
def test_nothing_heavy_is_imported(package: str) -> None:
    script = f"import {package}, sys; print(*sorted({set(HEAVY)} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not done.stdout.split()
