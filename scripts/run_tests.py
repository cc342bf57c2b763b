#!/usr/bin/env python3
"""Run the Python tests as two processes side by side: many of them wait most of their time.

What fails while the other half keeps the machine busy is run once more when it is quiet. That decides, and the
names of what has passed only then are printed: a test that needs a quiet machine deserves a look.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent

#: What each process runs; the second one has all that the first one has not.
HALVES = {
    "integration": ["tests/integration"],
    "others": ["tests", "--ignore=tests/integration"],
}

#: How pytest ends when all went well, and when tests have failed.
PASSED, FAILED = 0, 1

_printing = threading.Lock()


def main() -> int:
    """Run both halves, and again what has failed."""
    arguments = sys.argv[1:]
    # A shell ignores it for what runs in the background, and so would all that the tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    running = {name: _start(name, [*paths, *arguments]) for name, paths in HALVES.items()}
    readers = [threading.Thread(target=_show, args=(each.stdout,)) for each in running.values()]
    for reader in readers:
        reader.start()
    codes = {name: process.wait() for name, process in running.items()}
    for reader in readers:
        reader.join()
    for name, code in codes.items():
        print(f"{name}: pytest ended with {code}", flush=True)
    if set(codes.values()) - {PASSED, FAILED}:
        return max(codes.values())
    unsteady: list[str] = []
    for name in (name for name, code in codes.items() if code == FAILED):
        failed = _failed(name)
        print(f"\nonce more, alone: {', '.join(failed)}\n", flush=True)
        again = _start(name, ["--last-failed", *HALVES[name], *arguments])
        _show(again.stdout)
        if again.wait() != PASSED:
            return FAILED
        unsteady += failed
    if unsteady:
        print("\nfailed beside others, and passed alone:", *unsteady, sep="\n  ", flush=True)
    return PASSED


def _start(name: str, arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={_cache(name)}", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _show(lines: IO[str] | None) -> None:
    for line in lines or ():
        with _printing:
            print(line, end="", flush=True)


def _cache(name: str) -> Path:
    return ROOT / ".pytest_cache" / name


def _failed(name: str) -> list[str]:
    import json

    file = _cache(name) / "v/cache/lastfailed"
    return sorted(json.loads(file.read_text())) if file.is_file() else []


if __name__ == "__main__":
    sys.exit(main())
