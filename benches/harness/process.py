"""Programs under test: on a core of their own, watched from outside, stopped by their id."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benches.peers import ROOT

_STOP_SECONDS = 5.0
_NOTE_CHARACTERS = 4000  #: of what a failed program said, from its end


@dataclass(frozen=True)
class Running:
    """A server under test that listens."""

    address: str
    command: str
    pid: int

    def cpu_seconds(self) -> float:
        """Answer with the CPU time that it has used so far, kernel's included, in seconds."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


def python(module: str, *arguments: object) -> list[str]:
    """Answer with the command that runs a module of this checkout in this interpreter."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def pinned(command: Sequence[str], core: int | None) -> list[str]:
    """Answer with the command that runs on one core only, if there is one to give."""
    return list(command) if core is None else ["taskset", "-c", str(core), *command]


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Start what is started in the block on one core only, if there is one to give."""
    if core is None:
        yield
        return
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


@contextmanager
def serving(command: Sequence[str], core: int | None, **environment: str) -> Iterator[Running]:
    """Run a server until the block ends; it says "ready ADDRESS" when it listens.

    :raises RuntimeError: if it ends without having said so
    """
    full = pinned(command, core)
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            full,
            cwd=ROOT,
            env=_environment(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
        try:
            yield Running(_address(process, full), _readable(full), process.pid)
        except Exception as error:
            complaints.seek(0)
            error.add_note(f"{_readable(full)} said:\n{complaints.read()[-_NOTE_CHARACTERS:]}")
            raise
        finally:
            _stop(process)


def run(
    command: Sequence[str], core: int | None, timeout: float, **environment: str
) -> tuple[str, str]:
    """Run a command to its end; answer with its output and with itself as text.

    :param timeout: seconds after which it is killed
    :raises RuntimeError: if it fails
    :raises subprocess.TimeoutExpired: if it takes longer
    """
    full = pinned(command, core)
    result = subprocess.run(
        full,
        cwd=ROOT,
        env=_environment(environment),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if result.returncode:
        said = (result.stdout + result.stderr)[-_NOTE_CHARACTERS:]
        message = f"{_readable(full)} failed with exit code {result.returncode}:\n{said}"
        raise RuntimeError(message)
    return result.stdout, _readable(full)


def _address(process: "subprocess.Popen[str]", command: Sequence[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        word, _, address = line.strip().partition(" ")
        if word == "ready":
            return address
    message = f"{_readable(command)} ended with exit code {process.wait()} before it was ready"
    raise RuntimeError(message)


def _stop(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    # One core each: a Go program must not count on a second thread that runs in parallel.
    return {**os.environ, "GOMAXPROCS": "1", **extra}


def _readable(command: Sequence[str]) -> str:
    """Answer with the command as text, without what is different on every machine."""
    home = str(Path.home())
    words = [
        "python" if word == sys.executable else word.replace(f"{ROOT}/", "").replace(home, "~")
        for word in command
    ]
    return " ".join(words)
