"""The way of a new user: ``bascule new``, its own checks, its service and gateway as processes, calls through both."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.tools import lacking

from bascule.testing.servers import MissingProgramError
from bascule.testing.servers._program import find_program

if TYPE_CHECKING:
    from collections.abc import Iterator

BASCULE = [sys.executable, "-c", "from bascule.cli import main; main()"]
FOLDER = Path(sys.executable).parent

#: Seconds that a busy machine may need for what takes some.
PATIENCE = 90.0


@pytest.fixture(scope="module")
def demo1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was just made."""
    home = tmp_path_factory.mktemp("new")
    ran = subprocess.run(
        [*BASCULE, "new", "demo1"], cwd=home, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "README.md tells the rest."
    return home / "demo1"


def check(folder: Path, *command: str | Path) -> str:
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


# Strict types of a whole project, from nothing: 15 s on a machine that has time.
@pytest.mark.timeout(400)
def test_its_own_checks_pass_at_once(demo1: Path) -> None:
    """Tests on both loops, style, strict types, the gateway's file."""
    ran = check(demo1, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert " passed" in ran
    assert "skipped" not in ran
    check(demo1, FOLDER / "ruff", "format", "--check", ".")
    check(demo1, FOLDER / "ruff", "check", ".")
    check(demo1, FOLDER / "mypy")
    routes = check(demo1, *BASCULE, "gateway", "-c", "gateway.toml", "--check")
    assert len(routes.splitlines()) == 4


def test_its_alerts_are_tested(demo1: Path) -> None:
    promtool = program("promtool", "apt-get install prometheus")
    check(demo1 / "deploy", promtool, "check", "config", "--syntax-only", "prometheus.yml")
    check(demo1 / "deploy", promtool, "check", "rules", "rules.yml")
    check(demo1 / "deploy", promtool, "test", "rules", "rules_test.yml")


def test_its_containers_are_described_validly(demo1: Path) -> None:
    compose = program("docker-compose", "python3 scripts/provision.py docker-compose")
    check(demo1, compose, "-f", "compose.yaml", "config", "-q")


def program(name: str, hint: str) -> Path:
    try:
        return find_program(name, hint)
    except MissingProgramError as error:
        lacking(str(error))


class Process:
    """A process that logs lines of JSON. Use it within :func:`running`."""

    def __init__(self, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._log = log

    def until(self, event: str) -> dict[str, Any]:
        """Wait until it has logged an event."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for line in self._log.read_text().rpartition("\n")[0].splitlines():
                entry: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
                if entry.get("event") == event:
                    return entry
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"no {event!r}: {self._log.read_text()}")

    def ended(self) -> None:
        assert self.process.wait(PATIENCE) == 0, self._log.read_text()


@contextmanager
def running(folder: Path, *arguments: str, **environment: str) -> Iterator[Process]:
    log = folder / f"{arguments[0]}.log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [*BASCULE, *arguments],
            cwd=folder,
            env={**os.environ, **environment, "PYTHONWARNINGS": "error"},
            stdout=file,
            stderr=file,
        ) as process,
    ):
        try:
            yield Process(log, process)
        finally:
            process.kill()


@pytest.mark.timeout(400)
def test_it_serves_by_grpc_and_through_its_gateway(demo1: Path, tmp_path: Path) -> None:
    """On one loop: its own tests run on both, and so do those of ``serve`` and ``gateway``."""
    with ExitStack() as stack:
        service = stack.enter_context(
            running(
                demo1,
                *("serve", "demo1.app:make_app", "--loop", "trio"),
                DEMO1_LISTEN="127.0.0.1:0",
                DEMO1_OPERATIONS="127.0.0.1:0",
            )
        )
        (address,) = service.until("serving")["addresses"]
        environment = {
            "GATEWAY_LISTEN": "127.0.0.1:0",
            "GATEWAY_TARGET": f"static:///{address}",
            "GATEWAY_STATE": str(tmp_path),
        }
        gateway = stack.enter_context(
            running(demo1, "gateway", "-c", "gateway.toml", "--loop", "trio", **environment)
        )
        (listening,) = gateway.until("serving")["addresses"]
        token = subprocess.run(
            [*BASCULE, "gateway", "-c", "gateway.toml", "--token", "me"],
            cwd=demo1,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        with httpx.Client(
            base_url=f"https://{listening}",
            verify=ssl.create_default_context(cafile=tmp_path / "localhost.pem"),
            http2=True,
            trust_env=False,
            timeout=PATIENCE,
        ) as client:
            left = client.post(
                "/api/v1/notes",
                json={"text": "hello"},
                headers={"authorization": f"Bearer {token}"},
            )
            assert (left.http_version, left.status_code) == ("HTTP/2", 201)
        listed = check(demo1, *BASCULE, "call", address, "Demo1Service/ListNotes", "{}")
        assert json.loads(listed)["notes"] == [left.json()]
        for each in (gateway, service):
            each.process.send_signal(signal.SIGTERM)
        gateway.ended()
        service.ended()
