"""Kubernetes' EndpointSlices from a real API server. Nothing can be called there: it takes no addresses of loopback."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import anyio.to_thread
import httpx
import pytest

from bascule.discovery import ResolverState
from bascule.discovery.kubernetes import GoneError, KubernetesResolver, KubernetesSettings
from bascule.discovery.kubernetes import _api as api_module

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bascule.testing.servers import KubeApiServer

pytestmark = pytest.mark.anyio


class Cluster:
    """Writes to the API server as a controller would."""

    def __init__(self, server: KubeApiServer, client: httpx.AsyncClient) -> None:
        self.server = server
        self.namespace = f"shop-{uuid4().hex[:8]}"
        self._client = client
        self._path = f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"

    @property
    def settings(self) -> KubernetesSettings:
        return KubernetesSettings.of_kubeconfig(self.server.kubeconfig)

    def resolver(self) -> KubernetesResolver:
        return KubernetesResolver("user", self.namespace, port="grpc", settings=self.settings)

    async def _do(self, method: str, path: str, body: Any = None) -> None:
        answer = await self._client.request(method, path, json=body)
        answer.raise_for_status()

    async def make_namespace(self) -> None:
        await self._do("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})

    def _slice(self, name: str, addresses: list[str], **fields: Any) -> dict[str, Any]:
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "user"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": [each], "conditions": {"ready": True}, **fields} for each in addresses
            ],
            "ports": [{"name": "grpc", "port": 50051, "protocol": "TCP"}],
        }

    async def create(self, name: str, *addresses: str, **fields: Any) -> None:
        await self._do("POST", self._path, self._slice(name, list(addresses), **fields))

    async def update(self, name: str, *addresses: str, **fields: Any) -> None:
        body = self._slice(name, list(addresses), **fields)
        await self._do("PUT", f"{self._path}/{name}", body)

    async def delete(self, name: str) -> None:
        await self._do("DELETE", f"{self._path}/{name}")


@asynccontextmanager
async def cluster_of(server: KubeApiServer) -> AsyncIterator[Cluster]:
    trust = ssl.create_default_context(cafile=server.certificate)
    async with httpx.AsyncClient(
        base_url=server.url,
        verify=trust,
        headers={"authorization": f"Bearer {server.token}"},
        trust_env=False,
        timeout=30.0,
    ) as client:
        cluster = Cluster(server, client)
        await cluster.make_namespace()
        yield cluster


@pytest.fixture
async def cluster(kube_server: KubeApiServer) -> AsyncIterator[Cluster]:
    async with cluster_of(kube_server) as made:
        yield made


async def until(states: AsyncIterator[ResolverState], *hosts: str) -> float:
    """Wait for exactly these, without a problem: the seconds that it took."""
    begun = anyio.current_time()
    with anyio.fail_after(30):
        async for state in states:
            found = [each.address.rpartition(":")[0] for each in state.endpoints]
            if found == list(hosts) and state.problem is None:
                return anyio.current_time() - begun
    raise AssertionError("unreachable")


async def test_changes_arrive_at_once(cluster: Cluster) -> None:
    async with cluster.resolver().watch() as states:
        await until(states)
        await anyio.sleep(0.5)  # for the watch, which nobody but the server sees
        took = []
        await cluster.create("user-a", "10.0.0.1", "10.0.0.2")
        took.append(await until(states, "10.0.0.1", "10.0.0.2"))
        await cluster.create("user-b", "10.0.0.2", "10.0.0.3")
        took.append(await until(states, "10.0.0.1", "10.0.0.2", "10.0.0.3"))
        await cluster.update("user-a", "10.0.0.1", conditions={"ready": False})
        took.append(await until(states, "10.0.0.2", "10.0.0.3"))
        await cluster.delete("user-b")
        took.append(await until(states))
    assert max(took) < 2.0, took


async def test_what_kubernetes_knows_comes_along(cluster: Cluster) -> None:
    hints = {"forZones": [{"name": "z1"}]}
    await cluster.create("user-a", "10.0.0.1", zone="z1", nodeName="n1", hints=hints)
    async with cluster.resolver().watch() as states:
        (found,) = (await anext(states)).endpoints
    assert found.metadata == {"zone": "z1", "node": "n1", "zones": "z1"}
    assert found.authority == f"user.{cluster.namespace}.svc"


async def test_a_list_of_several_pages_is_read_to_its_end(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "PAGE", 2)
    for number in range(5):
        await cluster.create(f"user-{number}", f"10.0.0.{number}")
    async with cluster.resolver().watch() as states:
        await until(states, *(f"10.0.0.{number}" for number in range(5)))


async def test_who_may_not_is_told_so(cluster: Cluster) -> None:
    settings = KubernetesSettings(cluster.settings.url, token="wrong", ca=cluster.settings.ca)
    resolver = KubernetesResolver("user", cluster.namespace, settings=settings)
    async with resolver.watch() as states:
        state = await anext(states)
    assert state.problem is not None
    assert "401" in state.problem


async def test_a_server_that_restarts_is_followed_again(own_kube: KubeApiServer) -> None:
    async with cluster_of(own_kube) as cluster:
        await cluster.create("user-a", "10.0.0.1")
        async with cluster.resolver().watch() as states:
            await until(states, "10.0.0.1")
            await anyio.to_thread.run_sync(own_kube.kill)
            with anyio.fail_after(30):
                async for state in states:
                    assert [each.address for each in state.endpoints] == ["10.0.0.1:50051"]
                    if state.problem is not None:
                        break
            await anyio.to_thread.run_sync(own_kube.start)
            await cluster.update("user-a", "10.0.0.7")
            await until(states, "10.0.0.7")
        # What a server says that does not remember: as the resolver understands it.
        context = cluster.settings.context()
        assert context is not None
        async with httpx.AsyncClient(
            base_url=own_kube.url, verify=context, trust_env=False
        ) as client:
            api = api_module.Api(client, cluster.settings, cluster.namespace, "user")
            with anyio.fail_after(30), pytest.raises(GoneError, match="410"):
                await api.watch("1", lambda: None, lambda *_: None)
