"""The pods' processes answer the kubelet's probes: started by the manifests' own arguments and environment."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.deploy.kubernetes.manifests import ROOT, built

from bascule.errors import RpcError
from bascule.rpc import Channel
from bascule.rpc._generated.health_pb2 import HealthCheckRequest, HealthCheckResponse
from bascule.rpc._health import HEALTH_CHECK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


class Pod:
    """A container of production's manifests as a process on this machine."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def probe(self, kind: str) -> bool:
        """Ask as the kubelet does: on a connection of its own, and whatever is not SERVING is a no.

        Source: Kubernetes, "Configure Liveness, Readiness and Startup Probes", and pkg/probe/grpc.
        """
        asked = built("prod").shop()["user"].container[kind]
        request = HealthCheckRequest(service=asked["grpc"]["service"])
        try:
            async with Channel(f"static:///127.0.0.1:{self.port}") as channel:
                answer = await channel.unary(
                    HEALTH_CHECK, request, timeout=10.0, metadata={"user-agent": "kube-probe/1.36"}
                )
        except RpcError:
            return False
        return bool(answer.status == HealthCheckResponse.SERVING)

    async def probes(self) -> dict[str, bool]:
        return {kind: await self.probe(kind) for kind in PROBES}

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Wait for what the process brings about."""
        with anyio.move_on_after(90):
            while not await holds():
                assert self.process.poll() is None, self.log
                await anyio.sleep(0.05)
            return
        raise AssertionError(f"it did not come to it: {self.log}")

    async def until_said(self, event: str) -> None:
        async def said() -> bool:
            return f'"event": "{event}"' in self.log

        await self.until(said)


@contextmanager
def started(folder: Path, loop: str, database: str, **changed: str) -> Iterator[Pod]:
    manifests = built("prod")
    container = manifests.shop()["user"].container
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = manifests.environment(container)
    said |= {"SHOP_LISTEN": f"127.0.0.1:{port}", "SHOP_OPERATIONS": "127.0.0.1:0", **changed}
    # Events stay in the process; the database's URL is a file, as in the pod.
    del said["SHOP_EVENTS_FILE"]
    secret = folder / "database"
    secret.write_text(f"{database}\n")
    said["SHOP_DATABASE_USER_FILE"] = str(secret)
    said |= {"OTEL_SDK_DISABLED": "true"}  # nobody takes its traces here
    log = folder / "log"
    assert container["command"] == ["bascule_shop"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *container["command"], *container["args"], f"--loop={loop}"],
            cwd=ROOT,
            env={**os.environ, **said, "PYTHONWARNINGS": "error"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield Pod(process, port, log)
    finally:
        process.kill()
        process.wait()


async def test_startup_waits_for_the_first_attempt_and_not_for_the_database(
    tmp_path: Path, anyio_backend: str
) -> None:
    """While it is tried there is no startup; when it is away the pod is started, lives, and is not ready.

    Otherwise a database that is away for long would have every pod restarted again and again.
    """
    # It lets clients connect, and says nothing.
    silent = socket.create_server(("127.0.0.1", 0))
    with silent:
        url = f"mysql://shop:secret@127.0.0.1:{silent.getsockname()[1]}/user"
        with started(tmp_path, anyio_backend, url) as pod:
            await pod.until_said("operations are served")
            assert not await pod.probe("startupProbe")
            silent.close()
            await pod.until(lambda: pod.probe("startupProbe"))
            assert await pod.probes() == {
                "startupProbe": True,
                "livenessProbe": True,
                "readinessProbe": False,
            }
            assert "secret" not in pod.log


async def test_readiness_follows_the_database_and_the_end(
    tmp_path: Path, anyio_backend: str
) -> None:
    """Ready once the database is there; told to end, not ready at once, while it lives and takes calls on."""
    late = tmp_path / "late"
    url = f"sqlite:///{late}/user.db"
    with started(tmp_path, anyio_backend, url, SHOP_PROPAGATION="600") as pod:
        await pod.until(lambda: pod.probe("startupProbe"))
        assert not await pod.probe("readinessProbe")
        late.mkdir()
        await pod.until(lambda: pod.probe("readinessProbe"))
        pod.process.send_signal(signal.SIGTERM)
        await pod.until_said("leaving")
        assert await pod.probes() == {
            "startupProbe": True,
            "livenessProbe": True,
            "readinessProbe": False,
        }
        # A second one ends the wait for whoever has yet to learn of it.
        pod.process.send_signal(signal.SIGTERM)
        code = await anyio.to_thread.run_sync(lambda: pod.process.wait(60))
        assert code == 128 + signal.SIGTERM
