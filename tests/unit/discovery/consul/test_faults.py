"""Twelve ways in which Consul goes wrong, each for 25 s of virtual time: what a watch does then.

The list that was good last stays, Consul is asked at most twice a second, and the watch has the new
list within a second after it has gone right again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from tests.unit.discovery.consul.fake import FAULTS, FakeConsul, Transport, entry

from bascule.discovery import ResolverState
from bascule.discovery.consul import ConsulClient, ConsulResolver, ConsulStats, ListSource
from bascule.testing import virtual_backend

pytestmark = pytest.mark.anyio

FAULT = 25.0

A, B, C, D = (f"10.0.0.{host}:50051" for host in (1, 2, 3, 4))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


class Watching:
    """What a resolver says, as it says it."""

    def __init__(self) -> None:
        self.states: list[tuple[float, ResolverState]] = []
        self.stats = ConsulStats(clock=anyio.current_time)

    def addresses(self) -> set[str]:
        return {each.address for _, state in self.states[-1:] for each in state.endpoints}

    def since(self, time: float) -> list[set[str]]:
        """The lists that were used from then on."""
        return [{e.address for e in state.endpoints} for at, state in self.states if at >= time]

    async def until(self, *addresses: str) -> None:
        """Wait for a list, at most 10 s of real time."""
        with anyio.fail_after(10):
            while self.addresses() != set(addresses):  # noqa: ASYNC110
                await anyio.sleep(0.01)

    async def until_problem(self) -> None:
        """Wait until something is wrong."""
        with anyio.fail_after(10):
            while not self.states or self.problem is None:  # noqa: ASYNC110
                await anyio.sleep(0.01)

    @property
    def problem(self) -> str | None:
        return self.states[-1][1].problem

    @property
    def source(self) -> ListSource:
        (status,) = self.stats.statuses()
        return status.source


@asynccontextmanager
async def watching(consul: FakeConsul | str, **settings: Any) -> AsyncIterator[Watching]:
    """Watch ``users`` of a fake, without sockets, or of an address."""
    seen = Watching()
    url, transport = "http://consul:8500", None
    if isinstance(consul, str):
        url = consul
    else:
        transport = Transport(consul)
    async with (
        ConsulClient(url, transport=transport) as client,
        anyio.create_task_group() as tasks,
    ):

        async def follow() -> None:
            resolver = ConsulResolver("users", client=client, stats=seen.stats, **settings)
            async with resolver.watch() as states:
                async for state in states:
                    assert isinstance(state, ResolverState)
                    seen.states.append((anyio.current_time(), state))

        tasks.start_soon(follow)
        yield seen
        tasks.cancel_scope.cancel()


def most_in(times: list[float], seconds: float) -> int:
    """The most requests in any such span."""
    return max((sum(0 <= t - s < seconds for t in times) for s in times), default=0)


def instances(*addresses: str) -> list[dict[str, Any]]:
    return [entry(each, id=each) for each in addresses]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_costs_nothing_but_news(fault: str) -> None:
    consul = FakeConsul()
    consul.set("users", *instances(A, B, C))
    async with watching(consul) as seen:
        await anyio.sleep(100)
        assert seen.addresses() == {A, B, C}
        assert seen.source is ListSource.LIVE
        assert len(consul.requests) <= 3, "a query that blocks is asked once"

        begun = anyio.current_time()
        consul.begin(fault)
        await anyio.sleep(FAULT / 2)
        consul.set("users", *instances(A, B, D))
        await anyio.sleep(FAULT / 2)
        used = seen.since(begun)
        assert all(each >= {A, B} and each & {C, D} for each in used), used
        assert most_in(consul.since(begun), 10) <= 20
        assert len(consul.since(begun)) <= 2 * FAULT

        consul.recover()
        recovered = anyio.current_time()
        await anyio.sleep(1)
        assert seen.addresses() == {A, B, D}
        assert seen.problem is None
        assert seen.source is ListSource.LIVE
        await anyio.sleep(5)
        quiet = anyio.current_time()
        await anyio.sleep(100)
        assert consul.since(quiet) == [], "it blocks again"
        assert most_in(consul.since(recovered), 1) <= 3


@pytest.mark.parametrize(
    "fault", ["error", "hang", "cut", "garbage", "restart", "stale", "dropped"]
)
async def test_a_fault_is_told(fault: str) -> None:
    """In the state that channels see, and counted by kind."""
    consul = FakeConsul()
    consul.set("users", *instances(A))
    async with watching(consul) as seen:
        await anyio.sleep(10)
        consul.begin(fault)
        await anyio.sleep(20)
        assert seen.source is ListSource.MEMORY
        assert seen.problem is not None
        (status,) = seen.stats.statuses()
        assert status.age is not None
        assert status.age >= 19
        kinds = {"error": "status", "cut": "answer", "garbage": "answer", "stale": "answer"}
        assert list(status.failures) == [kinds.get(fault, "unavailable")]


async def test_an_outage_of_a_whole_night_is_survived() -> None:
    """The one query that looks for Consul fails thousands of times: its pause must not grow for ever."""
    consul = FakeConsul()
    consul.set("users", *instances(A))
    async with watching(consul) as seen:
        await anyio.sleep(10)
        consul.begin("error")
        await anyio.sleep(3_600)
        assert seen.addresses() == {A}
        consul.set("users", *instances(B))
        consul.recover()
        await anyio.sleep(1)
        assert seen.addresses() == {B}
        assert seen.problem is None
