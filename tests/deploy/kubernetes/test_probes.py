"""The pods' processes answer the kubelet's probes: started by the manifests' own commands and environment."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from tests.deploy.kubernetes.cluster import cluster_of
from tests.deploy.kubernetes.manifests import ROOT, built
from tests.integration.shop_processes import eventually

from bascule.errors import RpcError
from bascule.rpc import Channel
from bascule.rpc._generated.health_pb2 import HealthCheckRequest, HealthCheckResponse
from bascule.rpc._health import HEALTH_CHECK
from bascule_shop._services import CALLED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.certificates import Certificates

    from bascule.testing.servers import KubeApiServer

pytestmark = pytest.mark.anyio

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")

LEAVING = {"startupProbe": True, "livenessProbe": True, "readinessProbe": False}

Document = dict[str, Any]


class Pod:
    """A container of production's manifests as a process on this machine.

    :param port: where its probes lead
    """

    def __init__(
        self, process: subprocess.Popen[bytes], container: Document, port: int, log: Path
    ) -> None:
        self.process = process
        self._container = container
        self._port = port
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def probe(self, kind: str) -> bool:
        """Ask as the kubelet does: on a connection of its own, and what is not a clear yes is a no.

        Source: Kubernetes' documentation, "Configure Liveness, Readiness and Startup Probes".
        """
        asked = self._container[kind]
        try:
            if "grpc" in asked:
                return await self._asked_by_grpc(asked["grpc"]["service"])
            return await self._asked_by_http(asked["httpGet"]["path"])
        except (RpcError, httpx.TransportError):
            return False

    async def _asked_by_grpc(self, service: str) -> bool:
        async with Channel(f"static:///127.0.0.1:{self._port}") as channel:
            answer = await channel.unary(
                HEALTH_CHECK,
                HealthCheckRequest(service=service),
                timeout=10.0,
                metadata={"user-agent": "kube-probe/1.36"},
            )
        return bool(answer.status == HealthCheckResponse.SERVING)

    async def _asked_by_http(self, path: str) -> bool:
        async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:
            answer = await client.get(f"http://127.0.0.1:{self._port}{path}")
        return answer.is_success or answer.is_redirect

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

    async def ended_at_once(self) -> int:
        """Tell it to end for the second time, which ends the wait for whoever has yet to learn of it."""
        self.process.send_signal(signal.SIGTERM)
        return await anyio.to_thread.run_sync(lambda: self.process.wait(60))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def started(
    folder: Path, container: Document, port: int, environment: dict[str, str], *arguments: str
) -> Iterator[Pod]:
    """Run a container's command, with what stands for the files and addresses of the pod."""
    log = folder / "log"
    (program,) = container["command"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name(program), *container["args"], *arguments],
            cwd=ROOT,
            # Nobody takes its traces here.
            env={**os.environ, **environment, "OTEL_SDK_DISABLED": "true"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield Pod(process, container, port, log)
    finally:
        process.kill()
        process.wait()


@contextmanager
def service(folder: Path, loop: str, name: str, database: str, **changed: str) -> Iterator[Pod]:
    manifests = built("prod")
    container = manifests.shop()[name].container
    port = free_port()
    said = manifests.environment(container)
    said |= {"SHOP_LISTEN": f"127.0.0.1:{port}", "SHOP_OPERATIONS": "127.0.0.1:0", **changed}
    # Events stay in the process; the database's URL is a file, as in the pod.
    said.pop("SHOP_EVENTS_FILE", None)
    secret = folder / "database"
    secret.write_text(f"{database}\n")
    said[f"SHOP_DATABASE_{name.upper()}_FILE"] = str(secret)
    with started(folder, container, port, said, f"--loop={loop}") as pod:
        yield pod


async def test_startup_waits_for_the_first_attempt_and_not_for_the_database(
    tmp_path: Path, anyio_backend: str
) -> None:
    """While it is tried there is no startup; when it is away the pod is started, lives, and is not ready.

    Otherwise a database that is away for long would have every pod restarted again and again.
    """
    # It lets clients connect, and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mysql://shop:secret@127.0.0.1:{silent.getsockname()[1]}/user"
        with service(tmp_path, anyio_backend, "user", url) as pod:
            await pod.until_said("operations are served")
            # An attempt takes 5 s: a machine that is busy for as long may see its end here.
            assert not await pod.probe("startupProbe") or "could not be opened" in pod.log
            silent.close()
            await pod.until(lambda: pod.probe("startupProbe"))
            assert await pod.probes() == LEAVING
            assert "secret" not in pod.log


async def test_readiness_follows_the_database_and_the_end(
    tmp_path: Path, anyio_backend: str
) -> None:
    """Ready once the database is there; told to end, not ready at once, while it lives and takes calls on."""
    late = tmp_path / "late"
    url = f"sqlite:///{late}/user.db"
    with service(tmp_path, anyio_backend, "user", url, SHOP_PROPAGATION="600") as pod:
        await pod.until(lambda: pod.probe("startupProbe"))
        assert not await pod.probe("readinessProbe")
        late.mkdir()
        await pod.until(lambda: pod.probe("readinessProbe"))
        pod.process.send_signal(signal.SIGTERM)
        await pod.until_said("leaving")
        assert await pod.probes() == LEAVING
        assert await pod.ended_at_once() == 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def account(kube_server: KubeApiServer) -> Callable[[str, Path], str]:
    """Write what a service account of production sees of the API server, for KUBECONFIG."""

    def write(name: str, folder: Path) -> str:
        manifests = built("prod")
        with cluster_of(kube_server) as cluster:
            for document in manifests.documents:
                if document["kind"] in {"Namespace", "ServiceAccount", "Role", "RoleBinding"}:
                    cluster.apply(document).raise_for_status()
            token = cluster.token("shop", name)
        config = json.loads(kube_server.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        config["contexts"][0]["context"]["namespace"] = "shop"
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config))
        return str(path)

    return write


# The loops differ in nothing that these three look at: one of them each.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_order_follows_the_others_by_the_targets_of_its_manifest(
    tmp_path: Path,
    anyio_backend: str,
    kube_server: KubeApiServer,
    account: Callable[[str, Path], str],
) -> None:
    """It watches their EndpointSlices with the rights of its account, and is ready without any of them."""
    url = f"sqlite:///{tmp_path}/order.db"
    config = account("order", tmp_path)
    with cluster_of(kube_server) as cluster:

        async def watches() -> int:
            return await anyio.to_thread.run_sync(cluster.watches, "endpointslices")

        async def followed() -> bool:
            return await watches() == len(CALLED)

        async def left() -> bool:
            return await watches() == 0

        await eventually(left, within=60)  # by processes that were ended
        with service(tmp_path, anyio_backend, "order", url, KUBECONFIG=config) as pod:
            await pod.until(followed)
            await pod.until(lambda: pod.probe("readinessProbe"))
            assert "stay" not in pod.log  # said of the last endpoints while there are no new ones


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_who_has_no_role_is_told_so(
    tmp_path: Path, anyio_backend: str, account: Callable[[str, Path], str]
) -> None:
    """Without the RoleBinding, the log of order says what is missing, for each service."""
    url = f"sqlite:///{tmp_path}/order.db"
    config = account("payment", tmp_path)
    with service(tmp_path, anyio_backend, "order", url, KUBECONFIG=config) as pod:

        async def told() -> bool:
            log = pod.log
            return all(re.search(rf"{name}\.shop\.svc: .*403", log) for name in CALLED)

        await pod.until(told)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_the_gateway_starts_by_the_file_of_its_config_map(
    tmp_path: Path,
    anyio_backend: str,
    certificates: Certificates,
    account: Callable[[str, Path], str],
) -> None:
    """Ready without the services; told to end, not ready at once, while it lives and takes requests on."""
    manifests = built("prod")
    container = dict(manifests.shop()["gateway"].container)
    port = free_port()
    said = manifests.environment(container)
    said["KUBECONFIG"] = account("gateway", tmp_path)
    text = manifests.gateway_toml.replace("propagation = 5", "propagation = 600")
    for there, here in {
        "0.0.0.0:8443": "127.0.0.1:0",
        "0.0.0.0:9464": f"127.0.0.1:{port}",
        "/etc/stores/redis": str(tmp_path / "redis"),
    }.items():
        assert there in text
        text = text.replace(there, here)
    (tmp_path / "gateway.toml").write_text(text)
    (tmp_path / "redis").write_text("redis://127.0.0.1:1/0\n")
    said |= {
        "SHOP_TLS_CERTIFICATE": str(certificates.certificate),
        "SHOP_TLS_KEY": str(certificates.key),
    }
    container["args"] = [*container["args"][:-1], str(tmp_path / "gateway.toml")]
    loop = f"--loop={anyio_backend}"
    with started(tmp_path, container, port, said, loop) as pod:
        await pod.until(lambda: pod.probe("readinessProbe"))
        assert all((await pod.probes()).values())
        pod.process.send_signal(signal.SIGTERM)
        await pod.until_said("leaving")
        assert await pod.probes() == LEAVING
        assert await pod.ended_at_once() == 128 + signal.SIGTERM
