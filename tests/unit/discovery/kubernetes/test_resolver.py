"""List and watch by the rules of the Kubernetes API, against a server that breaks them on demand."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.unit.discovery.kubernetes.fake import FakeKube, endpoint, endpoint_slice, fake_kube

from bascule.discovery import Endpoint, ResolverState
from bascule.discovery.kubernetes import (
    KubernetesResolver,
    KubernetesSettings,
    kubernetes_target,
)
from bascule.discovery.kubernetes import _resolver as resolver_module
from bascule.errors import ConfigurationError
from bascule.rpc import Channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pauses, a tenth as long."""
    for name in ("LEAST_PAUSE", "MOST_PAUSE", "LEAST_WATCH"):
        monkeypatch.setattr(resolver_module, name, getattr(resolver_module, name) / 10)


class Watcher:
    def __init__(self, states: AsyncIterator[ResolverState]) -> None:
        self._states = states

    async def next(self) -> ResolverState:
        with anyio.fail_after(20):
            return await anext(self._states)

    async def addresses(self) -> list[str]:
        state = await self.next()
        assert state.problem is None
        return [each.address for each in state.endpoints]


@asynccontextmanager
async def watching(fake: FakeKube, port: str = "grpc", **settings: Any) -> AsyncIterator[Watcher]:
    made = KubernetesSettings(fake.url, **settings)
    resolver = KubernetesResolver("user", "shop", port=port, settings=made)
    async with resolver.watch() as states:
        yield Watcher(states)


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with fake_kube() as fake:
        fake.slices = [endpoint_slice("user-a", endpoint("10.0.0.1"))]
        yield fake


async def test_it_lists_then_watches_from_the_version_of_the_list(kube: FakeKube) -> None:
    async with watching(kube) as watcher:
        assert await watcher.addresses() == ["10.0.0.1:50051"]
        await kube.until_watched(1)
        await kube.send("ADDED", endpoint_slice("user-b", endpoint("10.0.0.2"), version="101"))
        assert await watcher.addresses() == ["10.0.0.1:50051", "10.0.0.2:50051"]
        await kube.send("MODIFIED", endpoint_slice("user-b", endpoint("10.0.0.3"), version="102"))
        assert await watcher.addresses() == ["10.0.0.1:50051", "10.0.0.3:50051"]
        await kube.send("DELETED", endpoint_slice("user-a", version="103"))
        assert await watcher.addresses() == ["10.0.0.3:50051"]
        await kube.send("DELETED", endpoint_slice("user-b", version="104"))
        assert await watcher.addresses() == [], "no pods is a state"
    queries = [query for query, _ in kube.requests]
    assert {each["labelSelector"] for each in queries} == {"kubernetes.io/service-name=user"}
    assert kube.watched_from == ["100"]
    assert queries[1]["allowWatchBookmarks"] == "true"


async def test_a_watch_that_ends_goes_on_from_the_last_event_or_bookmark(kube: FakeKube) -> None:
    async with watching(kube) as watcher:
        await watcher.addresses()
        await kube.until_watched(1)
        await kube.send("ADDED", endpoint_slice("user-b", endpoint("10.0.0.2"), version="107"))
        await watcher.addresses()
        await kube.end_watches()
        await kube.until_watched(2)
        await kube.send("BOOKMARK", {"metadata": {"resourceVersion": "190"}})
        await anyio.sleep(0.1)
        await kube.drop()
        await kube.until_watched(3)
        assert kube.watched_from == ["100", "107", "190"]
        assert kube.listed == 1, "what ends or breaks a watch is no reason to list again"


@pytest.mark.parametrize(
    "gone",
    [
        (200, [{"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}]),
        (410, [{"kind": "Status", "code": 410, "message": "too old resource version"}]),
    ],
)
async def test_gone_means_to_list_again(kube: FakeKube, gone: tuple[int, list[Any]]) -> None:
    kube.watches = [gone]
    async with watching(kube) as watcher:
        assert await watcher.addresses() == ["10.0.0.1:50051"]
        kube.slices = [endpoint_slice("user-c", endpoint("10.0.0.9"))]
        kube.version = "500"
        assert await watcher.addresses() == ["10.0.0.9:50051"]
        await kube.until_watched(2)
    assert kube.watched_from == ["100", "500"]


async def test_a_page_that_is_gone_begins_the_list_anew(kube: FakeKube) -> None:
    more = {"metadata": {"resourceVersion": "1", "continue": "page2"}, "items": kube.slices}
    last = {
        "metadata": {"resourceVersion": "1"},
        "items": [endpoint_slice("user-b", endpoint("10.0.0.2"))],
    }
    kube.lists = [(200, more), (410, {"code": 410}), (200, more), (200, last)]
    async with watching(kube) as watcher:
        assert await watcher.addresses() == ["10.0.0.1:50051", "10.0.0.2:50051"]
    assert [query.get("continue") for query, _ in kube.requests[:4]] == [None, "page2"] * 2


@pytest.mark.parametrize(
    "fault",
    [
        (500, []),
        (403, [{"message": "forbidden", "code": 403}]),
        (200, [b"garbage\n"]),
        (200, [b"[" * 100_000 + b"\n"]),
        (200, [{"type": "ERROR", "object": {"code": 500, "message": "etcd is gone"}}]),
        (200, [{"type": "ADDED", "object": {"metadata": 1}}]),
        (200, [b'{"type": "ADDED"}\n']),
    ],
)
async def test_what_was_known_stays_while_watches_fail(kube: FakeKube, fault: Any) -> None:
    kube.watches = [fault] * 3
    async with watching(kube) as watcher:
        assert await watcher.addresses() == ["10.0.0.1:50051"]
        await kube.until_watched(4)
        await kube.send("MODIFIED", endpoint_slice("user-a", endpoint("10.0.0.2"), version="300"))
        while True:
            state = await watcher.next()
            assert len(state.endpoints) == 1, "never fewer than what was known"
            if state.endpoints[0].address == "10.0.0.2:50051":
                break


async def test_a_server_that_is_away_is_told_and_found_again(kube: FakeKube) -> None:
    kube.refusing = True
    async with watching(kube) as watcher:
        state = await watcher.next()
        assert state.endpoints == ()
        assert state.problem is not None
        assert "does not answer" in state.problem
        kube.refusing = False
        assert await watcher.addresses() == ["10.0.0.1:50051"]
        await kube.until_watched(1)
        kube.refusing = True
        await kube.drop()
        state = await watcher.next()
        assert [each.address for each in state.endpoints] == ["10.0.0.1:50051"]
        assert state.problem is not None
        kube.refusing = False
        assert await watcher.addresses() == ["10.0.0.1:50051"]


async def test_a_server_that_always_fails_is_not_knocked_at_all_the_time(kube: FakeKube) -> None:
    """At most 2 requests a second, and fewer and fewer; the pauses here are a tenth."""
    kube.lists = [(500, b"")] * 1000
    async with watching(kube):
        await anyio.sleep(2.0)
    assert 2 <= len(kube.requests) <= 20


async def test_a_server_that_is_always_gone_is_not_knocked_at_all_the_time(kube: FakeKube) -> None:
    kube.watches = [(410, [])] * 1000
    async with watching(kube):
        await anyio.sleep(2.0)
    assert 4 <= len(kube.requests) <= 40


async def test_a_server_that_ends_watches_at_once_is_not_asked_all_the_time(kube: FakeKube) -> None:
    kube.watches = [(200, [])] * 1000
    async with watching(kube):
        await anyio.sleep(1.0)
    assert 2 <= len(kube.requests) <= 12


async def test_events_that_come_in_pieces_or_together(kube: FakeKube) -> None:
    async with watching(kube) as watcher:
        await watcher.addresses()
        await kube.until_watched(1)
        # A line separator of Unicode ends no line of JSON.
        odd = endpoint("10.0.0.2", zone="a\u2028b")
        events = b"".join(
            json.dumps({"type": "ADDED", "object": each}, ensure_ascii=False).encode() + b"\n"
            for each in (endpoint_slice("b", odd), endpoint_slice("c", endpoint("10.0.0.3")))
        )
        for start in range(0, len(events), 50):
            await kube.send_raw(events[start : start + 50])
        found: list[str] = []
        while len(found) < 3:
            found = await watcher.addresses()
        assert found == ["10.0.0.1:50051", "10.0.0.2:50051", "10.0.0.3:50051"]


@pytest.mark.parametrize(
    ("slices", "port", "expected"),
    [
        pytest.param(
            [
                endpoint_slice("a", endpoint("10.0.0.1"), endpoint("10.0.0.2")),
                endpoint_slice("b", endpoint("10.0.0.2")),
            ],
            "grpc",
            ["10.0.0.1:50051", "10.0.0.2:50051"],
            id="an endpoint in two slices is one",
        ),
        pytest.param(
            [
                endpoint_slice(
                    "a",
                    endpoint("10.0.0.1", conditions={"ready": False}),
                    endpoint("10.0.0.2", conditions={}),
                    endpoint("10.0.0.3", conditions={"ready": None}),
                    endpoint(
                        "10.0.0.4",
                        conditions={"ready": False, "serving": True, "terminating": True},
                    ),
                )
            ],
            "grpc",
            ["10.0.0.2:50051", "10.0.0.3:50051"],
            id="unknown is ready; what ends is not called",
        ),
        pytest.param(
            [
                endpoint_slice(
                    "a",
                    endpoint("10.0.0.1", conditions={"ready": False}),
                    endpoint(
                        "10.0.0.4",
                        conditions={"ready": False, "serving": True, "terminating": True},
                    ),
                    endpoint(
                        "10.0.0.5",
                        conditions={"ready": False, "serving": False, "terminating": True},
                    ),
                )
            ],
            "grpc",
            ["10.0.0.4:50051"],
            id="what still serves is called if nothing is ready",
        ),
        pytest.param(
            [
                endpoint_slice("6", endpoint("fd00::1", targetRef={"uid": "p"}), family="IPv6"),
                endpoint_slice("4", endpoint("10.0.0.1", targetRef={"uid": "p"})),
                endpoint_slice("x", endpoint("fd00::2", targetRef={"uid": "q"}), family="IPv6"),
                endpoint_slice("n", endpoint("a.example"), family="FQDN"),
            ],
            "grpc",
            ["10.0.0.1:50051", "[fd00::2]:50051"],
            id="a pod of both families is one",
        ),
        pytest.param(
            [
                endpoint_slice(
                    "a", endpoint("169.254.169.254"), endpoint("nonsense"), endpoint("10.0.0.1")
                )
            ],
            "grpc",
            ["10.0.0.1:50051"],
            id="no service is at a metadata address",
        ),
        pytest.param(
            [endpoint_slice("a", endpoint("10.0.0.1"))], "9000", ["10.0.0.1:9000"], id="by number"
        ),
        pytest.param(
            [endpoint_slice("a", endpoint("10.0.0.1"))], "", ["10.0.0.1:50051"], id="the only port"
        ),
        pytest.param(
            [endpoint_slice("a", endpoint("10.0.0.1", conditions={"ready": False}))],
            "grpc",
            [],
            id="pods that are not ready are no problem of the port",
        ),
        pytest.param(
            [{"metadata": {"name": "a"}, "endpoints": None, "ports": None}], "grpc", [], id="empty"
        ),
    ],
)
async def test_endpoints_of_slices(
    kube: FakeKube, slices: list[Any], port: str, expected: list[str]
) -> None:
    kube.slices = slices
    async with watching(kube, port) as watcher:
        assert await watcher.addresses() == expected


async def test_a_port_that_no_pod_has_is_told(kube: FakeKube) -> None:
    async with watching(kube, "http") as watcher:
        state = await watcher.next()
    assert state.problem == "no pods of user.shop.svc with port 'http': they have grpc:50051"


async def test_what_kubernetes_knows_of_an_endpoint(kube: FakeKube) -> None:
    kube.slices = [
        endpoint_slice(
            "a",
            endpoint(
                "10.0.0.1",
                zone="z1",
                nodeName="n1",
                targetRef={"kind": "Pod", "name": "user-0", "uid": "u"},
                hints={"forZones": [{"name": "z2"}, {"name": "z1"}]},
            ),
        )
    ]
    async with watching(kube) as watcher:
        (found,) = (await watcher.next()).endpoints
    assert found == Endpoint(
        "10.0.0.1:50051",
        1,
        {"zone": "z1", "node": "n1", "pod": "user-0", "zones": "z1,z2"},
        "user.shop.svc",
    )


async def test_the_token_is_read_for_each_request(kube: FakeKube, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    async with watching(kube, token_file=token) as watcher:
        await watcher.addresses()
        await kube.until_watched(1)
        token.write_text("two\n")
        await kube.end_watches()
        await kube.until_watched(2)
    assert [token for _, token in kube.requests] == ["bearer one", "bearer one", "bearer two"]


def kubeconfig(**user: Any) -> dict[str, Any]:
    return {
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443/"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
            {"name": "y", "context": {"cluster": "none", "user": "u"}},
        ],
        "current-context": "x",
    }


def test_a_kubeconfig_is_understood(tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "config"
    for text in (json.dumps(kubeconfig(token="t")), yaml.safe_dump(kubeconfig(token="t"))):
        path.write_text(text)
        settings = KubernetesSettings.read({"KUBECONFIG": str(path)})
        assert (settings.url, settings.namespace) == ("https://10.0.0.1:6443", "shop")
        assert settings.headers()["authorization"] == "Bearer t"
        assert "'t'" not in repr(settings)
    data = base64.b64encode(b"PEM").decode()
    path.write_text(json.dumps(kubeconfig(**{"client-certificate-data": data})))
    assert KubernetesSettings.of_kubeconfig(path).certificate == "PEM"
    (tmp_path / "secret").write_text("from a file")
    path.write_text(json.dumps(kubeconfig(tokenFile="secret")))
    settings = KubernetesSettings.of_kubeconfig(path)
    assert settings.headers()["authorization"] == "Bearer from a file"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "expected a mapping"),
        ("a: [", "kubeconfig"),
        ("{}", "has no context None"),
        (json.dumps({**kubeconfig(), "current-context": "y"}), "has no cluster 'none'"),
        (json.dumps(kubeconfig(exec={"command": "aws"})), "'exec'"),
        (json.dumps(kubeconfig(**{"client-key": "missing"})), "client-key"),
        (json.dumps({**kubeconfig(), "users": [{"name": "u"}]}), "'user'"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        KubernetesSettings.of_kubeconfig(path)


def test_a_pod_knows_where_its_server_is(tmp_path: Path) -> None:
    for name, text in (("token", "t"), ("ca.crt", "PEM"), ("namespace", "shop")):
        (tmp_path / name).write_text(text)
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    settings = KubernetesSettings.in_cluster(environment, tmp_path)
    assert (settings.url, settings.namespace, settings.ca) == (
        "https://[fd00::1]:6443",
        "shop",
        "PEM",
    )
    (tmp_path / "token").unlink()
    with pytest.raises(ConfigurationError, match="automountServiceAccountToken"):
        KubernetesSettings.in_cluster(environment, tmp_path)
    with pytest.raises(ConfigurationError, match="no pod"):
        KubernetesSettings.in_cluster({}, tmp_path)


def test_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text(json.dumps(kubeconfig(token="t")))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    for target in (
        "k8s:///user.shop:grpc",
        "k8s:///user:50051",
        "k8s:///user.shop.svc.cluster.local:grpc",
        "k8s:///user",
    ):
        assert kubernetes_target(target)._authority == "user.shop.svc"
        assert "k8s" in Channel(target).target
    for target in (
        "k8s:user",
        "k8s:///",
        "k8s:///user.shop.pod",
        "k8s:///U",
        "k8s:///user:0",
        "k8s:///user:70000",
        "k8s:///a/b",
    ):
        with pytest.raises(ConfigurationError, match="target 'k8s:"):
            Channel(target)
