"""What a real Consul and its client are left with when an operation is cancelled at each of its waits."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

import anyio
import pytest
from tests.integration.test_cancel_everywhere import MODES, interrupted

from bascule.discovery import Registration
from bascule.discovery.consul import ConsulClient, ConsulRegistrar, ConsulResolver, ConsulStats
from bascule.testing.servers import ConsulServer

pytestmark = pytest.mark.anyio

_numbers = itertools.count()

Operation = Callable[[ConsulClient, str], Awaitable[None]]


async def watch(client: ConsulClient, name: str) -> None:
    async with ConsulResolver(name, client=client, stats=ConsulStats()).watch() as states:
        assert (await anext(states)).problem is None
        await client.agent.register(ConsulRegistrar(client).definition(Registration(name, "a:1")))
        assert len((await anext(states)).endpoints) == 1
    await client.agent.deregister(f"{name}-a-1")


async def register(client: ConsulClient, name: str) -> None:
    async with ConsulRegistrar(client).registered(Registration(name, "a:1")) as registered:
        await registered.maintenance(True)


async def lock(client: ConsulClient, name: str) -> None:
    async with client.lock(name, lock_delay=0) as held:
        await client.kv.get(name)
        assert held.problem is None


async def keys(client: ConsulClient, name: str) -> None:
    async with client.kv.watch(name) as states:
        await anext(states)
        await client.kv.put(f"{name}/a", b"1")
        await anext(states)
    await client.kv.delete(name, recurse=True)


@pytest.mark.parametrize("operation", [watch, register, lock, keys])
@pytest.mark.parametrize(("anyio_backend", "mode"), MODES)
async def test_nothing_is_left(
    operation: Operation, mode: str, consul_server: ConsulServer
) -> None:
    """No connection that blocks, no place among the probers, no registration, no lock."""
    async with ConsulClient(consul_server.url, max_polls=4) as client:
        at, waits = 0, 1
        while waits >= at:
            at += 1
            # What was given up may still be done: it must not disturb the next round.
            name = f"cancelled-{next(_numbers)}"
            with anyio.fail_after(20):
                waits, _ = await interrupted(operation(client, name), at, mode)
            assert client._free_polls == 4
            assert client.outage._prober is None
            assert client.feed._followers == {}
            if operation is register:
                assert await client.agent.service(f"{name}-a-1") is None
            if operation is watch:
                await client.agent.deregister(f"{name}-a-1")
            if operation is keys:
                await client.kv.delete(name, recurse=True)
            if operation is lock:
                found = await client.kv.get(name)
                assert found is None or found.session is None
        assert at > 5
