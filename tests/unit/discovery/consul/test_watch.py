"""What a watch does beside surviving: in virtual time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.unit.discovery.consul.fake import FakeConsul, Transport, entry
from tests.unit.discovery.consul.test_faults import instances, watching

from bascule.discovery import Endpoint
from bascule.discovery.consul import ConsulClient, ConsulResolver, ConsulStats, ListSource
from bascule.discovery.consul._cache import DiskCache
from bascule.errors import ConfigurationError
from bascule.observe import Metrics
from bascule.testing import virtual_backend

pytestmark = pytest.mark.anyio

A, B, C = (f"10.0.0.{host}:50051" for host in (1, 2, 3))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


async def test_a_service_that_does_not_exist_is_waited_for() -> None:
    consul = FakeConsul()
    async with watching(consul) as seen:
        await anyio.sleep(1000)
        assert seen.addresses() == set()
        assert seen.problem is None
        asked = len(consul.requests)
        assert asked <= 6, "once every five minutes, and when it begins"
        consul.set("users", *instances(A))
        await anyio.sleep(0.1)
        assert seen.addresses() == {A}


async def test_what_does_not_change_is_not_told() -> None:
    """The index grows with every change of anything that Consul counts to the service."""
    consul = FakeConsul()
    consul.set("users", *instances(A))
    async with watching(consul) as seen:
        for _ in range(10):
            await anyio.sleep(10)
            consul.set("users", *instances(A))
        assert len(seen.states) == 1


async def test_changes_that_storm_are_seen_together() -> None:
    """At most five queries at once, then one a second; the last list is never missed."""
    consul = FakeConsul()
    async with watching(consul) as seen:
        await anyio.sleep(10)
        begun = anyio.current_time()
        for number in range(1, 201):
            consul.set("users", *instances(f"10.0.1.{number}:1", A))
            await anyio.sleep(0.1)
        assert len(consul.since(begun)) <= 20 + 6
        await anyio.sleep(1.1)
        assert seen.addresses() == {A, "10.0.1.200:1"}


async def test_order_counts_if_it_was_asked_for() -> None:
    consul = FakeConsul()
    consul.set("users", *instances(A, B))
    async with watching(consul) as plain, watching(consul, near="_agent") as near:
        await anyio.sleep(10)
        consul.set("users", *instances(B, A))
        await anyio.sleep(10)
        assert [len(plain.states), len(near.states)] == [1, 2]
        assert [each.address for each in near.states[-1][1].endpoints] == [B, A]


async def test_connections_that_fail_have_consul_asked() -> None:
    """But not more often than every 5 s."""
    consul = FakeConsul()
    consul.set("users", *instances(A))
    stats = ConsulStats()
    async with ConsulClient("http://c:1", transport=Transport(consul)) as client:
        resolver = ConsulResolver("users", client=client, stats=stats)
        async with resolver.watch() as states, anyio.create_task_group() as tasks:
            await anext(states)
            tasks.start_soon(anext, states)
            await anyio.sleep(10)
            begun = anyio.current_time()
            for _ in range(200):
                resolver.refresh()
                await anyio.sleep(0.05)
            asked = [index for at, _, index in consul.requests if at >= begun]
            assert 2 <= asked.count(0) <= 3
            consul.set("users", *instances(B))


async def test_a_doubtful_list_is_believed_in_the_end() -> None:
    consul = FakeConsul()
    consul.set("users", *instances(A, B))
    async with watching(consul) as seen:
        await anyio.sleep(10)
        consul.set("users")
        await anyio.sleep(29.9)
        assert seen.addresses() == {A, B}
        assert seen.problem is not None
        assert seen.source is ListSource.MEMORY
        await anyio.sleep(0.2)
        assert seen.addresses() == set()
        assert seen.problem is None


async def test_without_a_disk_the_reason_is_told() -> None:
    consul = FakeConsul()
    consul.begin("restart")
    async with watching(consul) as seen:
        await anyio.sleep(5)
        assert seen.addresses() == set()
        assert "connection refused" in (seen.problem or "")
        assert seen.source is ListSource.NONE


def test_files_that_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "list.json"
    cache = DiskCache(path, most_age=100.0)
    assert cache.load() is None
    cache.save([Endpoint(A, 3, {"a": "b"}, "users")])
    loaded = cache.load()
    assert loaded is not None
    assert loaded[0] == (Endpoint(A, 3, {"a": "b"}, "users"),)
    assert 0 <= loaded[1] < 60
    assert [each.name for each in path.parent.iterdir()] == ["list.json"]
    good = json.loads(path.read_text())
    entry_of = good["endpoints"][0]
    for wrong in (
        "",
        "{",
        "[]",
        "\x00" * 100,
        "[" * 100_000,
        json.dumps(good | {"saved_at": time.time() - 101}),
        json.dumps(good | {"version": 2}),
        json.dumps(good | {"endpoints": [entry_of | {"address": "169.254.169.254:80"}]}),
        json.dumps(good | {"endpoints": [entry_of | {"address": "unix:/run/x"}]}),
        json.dumps(good | {"endpoints": [entry_of | {"weight": -1}]}),
    ):
        path.write_text(wrong)
        assert cache.load() is None, wrong[:100]
    unwritable = DiskCache(path / "below-a-file", most_age=100.0)
    unwritable.save([Endpoint(A)])


async def test_a_thousand_watches_of_one_client() -> None:
    """33 connections block; a change of any service is seen at once; an outage costs few questions."""
    consul = FakeConsul()
    names = [f"s{number}" for number in range(1000)]
    for name in names:
        consul.set(name, entry(A, name=name, id=f"{name}-a"))
    seen: dict[str, set[str]] = {}
    async with (
        ConsulClient("http://consul:8500", transport=Transport(consul)) as client,
        anyio.create_task_group() as tasks,
    ):

        async def follow(name: str) -> None:
            async with ConsulResolver(name, client=client, stats=ConsulStats()).watch() as states:
                async for state in states:
                    seen[name] = {each.address for each in state.endpoints}

        for name in names:
            tasks.start_soon(follow, name)
        await anyio.sleep(5)
        assert all(seen[name] == {A} for name in names)
        assert consul.blocked == consul.most_blocked == 33
        for name in ("s0", "s999", "s500"):
            consul.set(name, *(entry(each, name=name, id=f"{name}-{each}") for each in (A, B)))
            await anyio.sleep(0.1)
            assert seen[name] == {A, B}, name
        # What touches no check is found by looking again.
        consul.set("s700", entry(C, name="s700", id="s700-a"))
        await anyio.sleep(160)
        assert seen["s700"] == {A, C} or seen["s700"] == {C}

        consul.begin("restart")
        begun = anyio.current_time()
        await anyio.sleep(60)
        asked = len(consul.since(begun))
        consul.set("s0", entry(C, name="s0", id="s0-c"), entry(A, name="s0", id="s0-a"))
        consul.set("s998", entry(C, name="s998", id="s998-c"), entry(A, name="s998", id="s998-a"))
        consul.recover()
        await anyio.sleep(1.5)
        assert seen["s0"] == seen["s998"] == {A, C}
        assert asked <= 1000 * 60 / 5, "a tenth of two a second for each watch"
        tasks.cancel_scope.cancel()


async def test_metrics_tell_the_age_and_the_errors() -> None:
    consul = FakeConsul()
    consul.set("users", *instances(A))
    async with watching(consul) as seen:
        metrics = Metrics()
        metrics.add_discovery(seen.stats)
        await anyio.sleep(10)
        consul.begin("error")
        await anyio.sleep(30)
        text = metrics.render()[0].decode()
        (age,) = (
            float(line.split()[1])
            for line in text.splitlines()
            if line.startswith('discovery_list_age_seconds{service="users"}')
        )
        assert 39 <= age <= 41
        (errors,) = (
            float(line.split()[1])
            for line in text.splitlines()
            if line.startswith('discovery_errors_total{kind="status",service="users"}')
        )
        assert 20 <= errors <= 60


def test_services_that_metrics_tell_apart_are_bounded() -> None:
    stats = ConsulStats()
    for number in range(5000):
        stats.count(f"s{number}", "status")
    rows = list(stats.snapshot())
    assert len(rows) == 1000
    assert {row.service: row.errors for row in rows}["other"] == {"status": 4001}


@pytest.mark.parametrize(
    "wrong", [{"service": ""}, {"service": "a/b"}, {"consistency": "whatever"}]
)
def test_resolvers_that_cannot_work(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ConsulResolver(**{"service": "users"} | wrong)
