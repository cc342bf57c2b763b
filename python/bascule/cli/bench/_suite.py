"""Measures servers and clients in turn, each in a process of its own."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bascule.cli.bench._programs import Measured
from bascule.errors import BasculeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["BenchError", "Figure", "Plan", "Results", "machine_facts", "measure_all", "subjects"]

_MODULE = "bascule.cli.bench._programs"

#: Seconds beyond those of measuring that a client may take: imports, and a busy machine.
_PATIENCE = 60.0

_PACKAGES = ("bascule", "anyio", "trio", "uvloop", "grpclib", "grpcio", "protobuf", "h2")


class BenchError(BasculeError):
    """A program under test did not do what it should."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and for how long.

    :ivar subjects: stack and loop of each, in the order in which they take turns
    :ivar rounds: turns of each
    :ivar seconds: of each turn
    """

    subjects: Sequence[tuple[str, str]]
    rounds: int
    seconds: float


class Figure(msgspec.Struct):
    """Samples of one number, as ``make bench`` writes them too."""

    suite: str
    subject: str
    case: str
    metric: str
    unit: str
    command: str
    samples: list[float]
    median: float = 0.0
    min: float = 0.0
    max: float = 0.0


@dataclass(slots=True)
class Results:
    """What was measured."""

    figures: dict[tuple[str, str, str], Figure] = field(default_factory=dict)

    def add(
        self,
        suite: str,
        subject: str,
        case: str,
        values: dict[str, tuple[float, str]],
        command: str,
    ) -> None:
        """Add a sample to each of some figures: value and unit by metric."""
        for metric, (value, unit) in values.items():
            figure = self.figures.setdefault(
                (suite, subject, metric), Figure(suite, subject, case, metric, unit, command, [])
            )
            figure.samples.append(value)
            figure.median = statistics.median(figure.samples)
            figure.min, figure.max = min(figure.samples), max(figure.samples)


def subjects(loops: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Give what can be measured here: bascule on each loop, and the peers that are installed.

    :param loops: only these; all if empty
    """
    ours = [("bascule", "asyncio"), ("bascule", "uvloop"), ("bascule", "trio")]
    if find_spec("uvloop") is None:
        ours.remove(("bascule", "uvloop"))
    peers = [
        (stack, "asyncio")
        for stack, name in (("grpcio", "grpc"), ("grpclib", "grpclib"))
        if find_spec(name)
    ]
    return [each for each in (*ours, *peers) if not loops or each[1] in loops]


def measure_all(plan: Plan, told: Callable[[str], None]) -> Results:
    """Measure every subject as a server and as a client, in turn, so that noise hits all alike.

    Servers are called by bascule on asyncio, clients call bascule on asyncio: what is compared is one
    side at a time. What the other side cannot keep up with shows in calls a second, not in the CPU
    time of a call.

    :param told: called with what is measured now
    :raises BenchError: if a program fails
    """
    results = Results()
    for turn in range(plan.rounds):
        for stack, loop in plan.subjects:
            subject = stack if stack != "bascule" else f"bascule {loop}"
            told(f"round {turn + 1} of {plan.rounds}: {subject}")
            _one(results, subject, (stack, loop), plan.seconds)
    return results


def _one(results: Results, subject: str, which: tuple[str, str], seconds: float) -> None:
    usual = ("bascule", "asyncio")
    with _serving(*which) as server:
        before = server.cpu()
        measured = _calling(*usual, server.address, seconds)
        used = server.cpu() - before
    rate = (measured.calls / measured.seconds, "1/s")
    command = f"{_said('server', *which)} | {_said('client', *usual)}"
    values = {"calls_per_second": rate, "cpu_per_call": (used / measured.all_calls, "s")}
    results.add("server", subject, "100 in flight, from bascule asyncio", values, command)
    with _serving(*usual) as server:
        measured = _calling(*which, server.address, seconds)
    values = {
        "calls_per_second": (measured.calls / measured.seconds, "1/s"),
        "cpu_per_call": (measured.cpu / measured.calls, "s"),
        "sequential_p50": (measured.p50, "s"),
        "sequential_p99": (measured.p99, "s"),
    }
    command = f"{_said('server', *usual)} | {_said('client', *which)}"
    results.add("client", subject, "100 in flight, then 1, to bascule asyncio", values, command)


def _said(role: str, stack: str, loop: str) -> str:
    return f"python -m {_MODULE} {role} {stack} {loop}"


class _Server:
    """A server under test."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._line()

    def cpu(self) -> float:
        """Give the CPU seconds that it has used."""
        if self._process.stdin is None:
            raise BenchError("the server has no standard input")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        line = "" if self._process.stdout is None else self._process.stdout.readline().strip()
        if not line:
            self._process.kill()
            said = "" if self._process.stderr is None else self._process.stderr.read()
            raise BenchError(f"the server ended early: {_last(said)}")
        return line


@contextmanager
def _serving(stack: str, loop: str) -> Iterator[_Server]:
    with subprocess.Popen(  # noqa: S603 - a module of this package
        _command("server", stack, loop),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            _pin(process.pid, 0)
            yield _Server(process)
        finally:
            process.kill()


def _calling(stack: str, loop: str, target: str, seconds: float) -> Measured:
    with subprocess.Popen(  # noqa: S603 - a module of this package
        _command("client", stack, loop, target, str(seconds)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            _pin(process.pid, 1)
            said, errors = process.communicate(timeout=_PATIENCE + 3 * seconds)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{stack} on {loop} did not end") from error
        finally:
            process.kill()
    if process.returncode:
        raise BenchError(f"{stack} on {loop} failed: {_last(errors)}")
    return msgspec.json.decode(said, type=Measured)


def _command(role: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", _MODULE, role, *arguments]


def _pin(process: int, which: int) -> None:
    """Keep a process on a core of its own, where there are two and the system can do so."""
    cores = _cores()
    if len(cores) > 1:
        os.sched_setaffinity(process, {cores[which]})


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def machine_facts() -> dict[str, Any]:
    """Describe what figures mean nothing without."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "pinned": len(_cores()) > 1,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": packages,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": os.getloadavg()[0],
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
