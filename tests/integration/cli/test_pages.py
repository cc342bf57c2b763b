"""The commands of the pages on doctor, top and bench run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import typer
from tests.generated.echo_bascule import EchoBase
from tests.generated.echo_pb2 import EchoReply, EchoRequest

from bascule.app._operations import operations_server
from bascule.cli._main import app
from bascule.observe import Metrics
from bascule.rpc import ReflectionService, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.certificates import Certificates

    from bascule.testing.servers import ConsulServer, RedisServer

ROOT = Path(__file__).parents[3]


def commands(page: str) -> list[str]:
    """Each command of a page."""
    text = (ROOT / "docs/how-to" / page).read_text()
    return [
        line
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]


def run(command: str, folder: Path, **replaced: str) -> str:
    """Run a command, with addresses of ours for those of the page."""
    for old, new in replaced.items():
        command = command.replace(old, new)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-c", f"set -e -o pipefail; {command}"],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


def test_doctor(
    tmp_path: Path,
    consul_server: ConsulServer,
    redis_server: RedisServer,
    certificates: Certificates,
    free_tcp_port: int,
) -> None:
    for file in (certificates.certificate, certificates.key):
        shutil.copy(file, tmp_path)
    shutil.copy(certificates.ca, tmp_path / "ca.pem")
    ours = {
        "127.0.0.1:8500": consul_server.address,
        "redis://127.0.0.1:6379/0": redis_server.url,
        "50051": str(free_tcp_port),
        "bascule doctor": "bascule doctor --timeout 30",  # machines that run tests are busy
    }

    alone, *others = commands("doctor.md")
    said = [run(command, tmp_path, **ours) for command in others]

    assert alone == "bascule doctor"  # the others do all that it does
    assert "is free" in said[0]
    assert "a chain of" in said[1]


def test_top(tmp_path: Path) -> None:
    @asynccontextmanager
    async def serving() -> AsyncIterator[str]:
        async with operations_server("127.0.0.1:0", Metrics(), lambda: True, dict) as server:
            yield server.addresses[0]

    async def follow() -> list[str]:
        async with serving() as one, serving() as other:

            def all_of_them() -> list[str]:
                ours = {"127.0.0.1:9102": one, "127.0.0.1:9103": other}
                return [run(command, tmp_path, **ours) for command in commands("top.md")]

            return await anyio.to_thread.run_sync(all_of_them)

    frame, line = anyio.run(follow)

    assert "2 of 2 answer" in frame
    assert json.loads(line)["processes"]


async def with_load(command: str, folder: Path) -> str:
    """Run a command against the echo service."""
    echo = Echo()
    services = [echo, ReflectionService([echo])]
    async with Server(services, listen="127.0.0.1:0", grace=0.0) as server:
        ours = {"127.0.0.1:50051": server.addresses[0]}
        return await anyio.to_thread.run_sync(lambda: run(command, folder, **ours))


class Echo(EchoBase):
    async def unary(self, request: EchoRequest) -> EchoReply:
        return EchoReply(text=request.text)


def test_bench(tmp_path: Path) -> None:
    """Four processes are started one after the other, which takes most of the time."""
    command, load = commands("bench.md")

    assert "bascule trio" in run(command, tmp_path)
    assert "OK " in anyio.run(with_load, load, tmp_path)

    document = json.loads((tmp_path / "figures.json").read_text())
    found = {(each["suite"], each["metric"]): each for each in document["figures"]}
    assert set(found) == {
        ("server", "calls_per_second"),
        ("server", "cpu_per_call"),
        ("client", "calls_per_second"),
        ("client", "cpu_per_call"),
        ("client", "sequential_p50"),
        ("client", "sequential_p99"),
    }
    assert all(each["samples"] == [each["median"]] for each in found.values())
    assert all(each["median"] > 0 for each in found.values())
    assert document["machine"]["packages"]["trio"]


def test_pages_name_options_that_exist() -> None:
    group: Any = typer.main.get_command(app)
    for name in ("doctor", "top", "bench"):
        page = (ROOT / f"docs/how-to/{name}.md").read_text()
        known = {option for each in group.commands[name].params for option in each.opts}
        mentioned = set(re.findall(r"`[^`]*?(--[a-z][a-z-]+)", page)) - {"--operations"}
        assert mentioned <= known, name
