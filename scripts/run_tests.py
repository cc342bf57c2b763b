#!/usr/bin/env python3
"""Run the Python tests in parts, some side by side: many of them wait most of their time.

Every file of tests is in one part. The parts begin in the order in which they stand, ``AT_ONCE`` of them at a time.
What only computes runs beside them from the beginning and steps back for them: it takes what they leave of the
machine, and costs them next to nothing.

What fails while the others keep the machine busy is run once more when it is quiet. That decides, and the names of
what has passed only then are printed: a test that needs a quiet machine deserves a look.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: How many of the parts that wait run at a time. More would gain little beside what computes, and disturb each other.
AT_ONCE = 2

#: How far what computes steps back, of 19; a test of it may then take as many seconds as follow.
NICENESS, PATIENCE = 10, 900

#: How pytest ends when all went well, and when tests have failed.
PASSED, FAILED = 0, 1

_printing = threading.Lock()


@dataclass(frozen=True)
class Part:
    """What one pytest runs: files that match, in any folder below, and that are in no part before."""

    name: str
    patterns: tuple[str, ...]
    computes: bool = False


#: The longest come first, so that none is left over at the end.
PARTS = (
    Part(
        "searches",
        (
            "tests/fuzz/*",
            "tests/oracle/*",
            "tests/stateful/*",
            "tests/unit/cli/test_top.py",
            "tests/unit/gateway/test_*fuzz.py",
            "tests/unit/gateway/test_transcode_*",
            "tests/unit/rpc/codec/*",
        ),
        computes=True,
    ),
    Part(
        "shop",
        (
            "tests/integration/test_benches.py",
            "tests/integration/test_component_restarts.py",
            "tests/integration/test_demo.py",
            "tests/integration/test_order*",
            "tests/integration/test_product*",
            "tests/integration/test_shop*",
        ),
    ),
    Part("integration", ("tests/integration/*",)),
    Part("pages", ("tests/deploy/*", "tests/docs/*", "tests/release/*")),
    Part("peers", ("tests/attacks/*", "tests/conformance/*", "tests/interop/*")),
    Part("units", ("tests/*",)),
)


def main() -> int:
    """Run every part, and again what has failed."""
    arguments = sys.argv[1:]
    # A shell ignores it for what runs in the background, and so would all that the tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    files = files_of_parts()
    with ThreadPoolExecutor() as beside, ThreadPoolExecutor(AT_ONCE) as in_turn:
        runs = {
            part: (beside if part.computes else in_turn).submit(
                _run, part, [*files[part], *arguments]
            )
            for part in PARTS
        }
        codes = {part: run.result() for part, run in runs.items()}
    if set(codes.values()) - {PASSED, FAILED}:
        return max(codes.values())
    unsteady: list[str] = []
    for part in (part for part, code in codes.items() if code == FAILED):
        failed = _failed(part)
        print(f"\nonce more, alone: {', '.join(failed)}\n", flush=True)
        if _run(part, ["--last-failed", *files[part], *arguments]) != PASSED:
            return FAILED
        unsteady += failed
    if unsteady:
        print("\nfailed beside others, and passed alone:", *unsteady, sep="\n  ", flush=True)
    return PASSED


def files_of_parts() -> dict[Part, list[str]]:
    """Tell which files each part runs."""
    files: dict[Part, list[str]] = {part: [] for part in PARTS}
    for path in sorted(ROOT.glob("tests/**/test_*.py")):
        file = str(path.relative_to(ROOT))
        files[part_of(file)].append(file)
    return files


def part_of(file: str) -> Part:
    """Tell which part has a file of tests."""
    return next(part for part in PARTS if any(fnmatch(file, pattern) for pattern in part.patterns))


def _run(part: Part, arguments: list[str]) -> int:
    """Run pytest for a part, print what it says, and tell how it ended."""
    command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={_cache(part)}", *arguments]
    if part.computes:
        command = ["nice", "-n", str(NICENESS), *command, f"--timeout={PATIENCE}"]
    start = time.monotonic()
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        for line in process.stdout or ():
            _print(line)
    _print(
        f"{part.name}: pytest ended with {process.returncode}, after {time.monotonic() - start:.0f} s\n"
    )
    return process.returncode


def _print(text: str) -> None:
    with _printing:
        print(text, end="", flush=True)


def _cache(part: Part) -> Path:
    return ROOT / ".pytest_cache" / part.name


def _failed(part: Part) -> list[str]:
    file = _cache(part) / "v/cache/lastfailed"
    return sorted(json.loads(file.read_text())) if file.is_file() else []


if __name__ == "__main__":
    sys.exit(main())
