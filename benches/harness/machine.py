"""The facts of the machine that a figure means nothing without, and the cores to pin to."""

import os
import platform
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bascule.testing.servers import (
    ConsulServer,
    LocalServer,
    MariaDBServer,
    MissingProgramError,
    RedisServer,
)

_PACKAGES = (
    "anyio",
    "betterproto2",
    "grpcio",
    "grpclib",
    "protobuf",
    "trio",
    "uvloop",
    "aiolimiter",
    "limits",
    "purgatory",
    "pybreaker",
    "sqlalchemy",
    "PyMySQL",
    "coredis",
    "dbos",
)
_SERVERS: tuple[type[LocalServer], ...] = (ConsulServer, MariaDBServer, RedisServer)


def cores() -> tuple[int | None, int | None]:
    """Answer with a core for the subject and one for its load; None where nothing is pinned."""
    if shutil.which("taskset") is None or not hasattr(os, "sched_getaffinity"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


def facts() -> dict[str, object]:
    """Describe the machine and the versions of everything that takes part."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "pinned": None not in cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _installed(name))},
        "go": _first_line("go", "version"),
        "rust": _first_line("rustc", "--version"),
        "servers": [line for server in _SERVERS if (line := _server(server))],
        "h2load": _first_line("h2load", "--version"),
        "commit": _first_line("git", "describe", "--always", "--dirty"),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": os.getloadavg()[0],
        "executable": sys.executable,
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _server(server: type[LocalServer]) -> str | None:
    try:
        program = server.find()
    except MissingProgramError:
        return None
    version = re.search(r"\d+(\.\d+)+", _first_line(str(program), "--version") or "")
    return version and f"{server.program} {version[0]}"


def _first_line(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.partition("\n")[0] or None
