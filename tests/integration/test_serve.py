"""``bascule serve`` as a process: probes, signals, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoRequest

from bascule.errors import RpcError
from bascule.rpc import Channel
from bascule.rpc._generated.health_pb2 import HealthCheckRequest, HealthCheckResponse
from bascule.rpc._health import HEALTH_CHECK

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from bascule.cli import main; main()", "serve"]
APP = "tests.integration.serve_echo:app"

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


class Process:
    """A running ``bascule serve``, and what it has logged."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.events: list[str] = []

    def until(self, event: str) -> dict[str, Any]:
        """Read the log up to an event."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("{"):
                entry: dict[str, Any] = json.loads(line)
                self.events.append(entry["event"])
                if entry["event"] == event:
                    return entry
            else:
                self.events.append(line.strip())
        raise AssertionError(f"it ended without {event!r}: {self.events}")

    def end(self) -> int:
        """Read the rest, and return the exit code."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.events.append(json.loads(line)["event"] if line.startswith("{") else line.strip())
        return self.process.wait(10)


@contextmanager
def serving(loop: str, file: Path) -> Iterator[Process]:
    environment = {**os.environ, "ECHO_FILE": str(file), "PYTHONWARNINGS": "error"}
    with subprocess.Popen(
        [*COMMAND, APP, "--loop", loop],
        env=environment,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Process(process)
        finally:
            process.kill()


async def call(address: str, seconds: str) -> str:
    async with Channel(address) as channel:
        reply = await EchoStub(channel).unary(EchoRequest(text=seconds))
    return reply.text


async def probe(address: str) -> dict[str, bool]:
    """What Kubernetes' three probes would say."""
    async with Channel(address) as channel:
        answers = {}
        for name in ("startup", "liveness", "readiness"):
            answer = await channel.unary(HEALTH_CHECK, HealthCheckRequest(service=name))
            answers[name] = answer.status == HealthCheckResponse.SERVING
    return answers


@LOOPS
def test_a_signal_ends_it_in_order_and_with_0(tmp_path: Path, loop: str) -> None:
    """The call in progress is answered; resources are closed after it."""
    file = tmp_path / "greeting"
    file.write_text("hello")
    with serving(loop, file) as it:
        (address,) = it.until("serving")["addresses"]

        async def stop_during_a_call() -> str:
            answers: list[str] = []

            async def slow() -> None:
                answers.append(await call(address, "1"))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(slow)
                assert await probe(address) == dict.fromkeys(
                    ("startup", "liveness", "readiness"), True
                )
                it.process.send_signal(signal.SIGTERM)
            return answers[0]

        assert anyio.run(stop_during_a_call) == "hello"
        assert it.end() == 0
    assert it.events[-6:] == [
        "told to stop",
        "leaving",
        "draining",
        "closed greeting",
        "stopped",
        "ended",
    ]


@LOOPS
def test_a_second_signal_does_not_wait(tmp_path: Path, loop: str) -> None:
    file = tmp_path / "greeting"
    file.write_text("hello")
    with serving(loop, file) as it:
        (address,) = it.until("serving")["addresses"]

        async def stop_twice() -> None:
            async def slow() -> None:
                with pytest.raises(RpcError):
                    await call(address, "3600")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(slow)
                await probe(address)
                it.process.send_signal(signal.SIGINT)
                await anyio.to_thread.run_sync(it.until, "draining")
                it.process.send_signal(signal.SIGINT)

        with_deadline(stop_twice)
        assert it.end() == 128 + signal.SIGINT
    assert "closed greeting" in it.events


def with_deadline(main: Any) -> None:
    async def run() -> None:
        with anyio.fail_after(15):
            await main()

    anyio.run(run)


@LOOPS
def test_it_starts_without_what_it_needs_and_is_ready_later(tmp_path: Path, loop: str) -> None:
    file = tmp_path / "greeting"
    with serving(loop, file) as it:
        (address,) = it.until("serving")["addresses"]
        missing = it.until("not ready")["missing"]
        assert "FileNotFoundError" in missing["file"]
        assert anyio.run(probe, address) == {"startup": True, "liveness": True, "readiness": False}
        file.write_text("hello")
        it.until("ready")
        assert anyio.run(probe, address)["readiness"]
        assert anyio.run(call, address, "0") == "hello"
        it.process.send_signal(signal.SIGTERM)
        assert it.end() == 0


@LOOPS
def test_a_signal_before_it_serves_ends_it_with_0(tmp_path: Path, loop: str) -> None:
    with serving(loop, tmp_path / "none") as it:
        it.until("starting")
        it.process.send_signal(signal.SIGTERM)
        assert it.end() == 0


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("tests.integration.serve_echo", "expected MODULE:APP"),
        ("tests.integration.nothing:app", "no module 'tests.integration.nothing'"),
        ("tests.integration.serve_echo:nothing", "has no 'nothing'"),
        ("tests.integration.serve_echo:file", "is Resource, not a bascule.app.App"),
    ],
)
def test_a_target_that_is_no_app_is_said_in_one_line(target: str, said: str) -> None:
    ran = subprocess.run(
        [*COMMAND, target], capture_output=True, text=True, timeout=30, check=False, cwd=ROOT
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith("bascule serve: ")
    assert said in line
