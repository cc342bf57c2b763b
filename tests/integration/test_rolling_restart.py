"""A service of three replicas is restarted, one after the other, under load: no call may fail."""

from __future__ import annotations

import anyio
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoRequest
from tests.unit.rpc.services import Echo

from bascule.discovery import Endpoint, MemoryRegistry
from bascule.rpc import Channel, ConnectionBackoff, ConnectivityState, Server

pytestmark = pytest.mark.anyio

RESTARTS, REPLICAS, CALLERS = 20, 3, 8

#: Calls from one restart to the next, at least.
CALLS_BETWEEN = 200


class Replica:
    """One instance that may be stopped and started again at its address."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self.address = address
        self._stop = anyio.Event()
        self._up = anyio.Event()
        self._down = anyio.Event()

    async def run(self) -> None:
        """Serve until told to stop."""
        async with Server([Echo()], listen=self.address, grace=10.0) as server:
            self.address = server.addresses[0]
            self._up.set()
            await self._stop.wait()
        self._down.set()

    async def start(self, group: anyio.abc.TaskGroup) -> None:
        self._stop, self._up, self._down = anyio.Event(), anyio.Event(), anyio.Event()
        group.start_soon(self.run)
        await self._up.wait()

    async def stop(self) -> None:
        self._stop.set()
        await self._down.wait()


@pytest.mark.parametrize("told", [False, True], ids=["address stays", "registry is told"])
async def test_no_call_fails(told) -> None:
    registry = MemoryRegistry()
    replicas = [Replica() for _ in range(REPLICAS)]
    answered = 0
    over = False

    async with anyio.create_task_group() as servers:
        for replica in replicas:
            await replica.start(servers)
            registry.register("echo", Endpoint(replica.address))
        async with Channel(
            "memory:///echo",
            registry=registry,
            balancer="round_robin",
            backoff=ConnectionBackoff(initial=0.01, most=0.05),
        ) as channel:

            async def until_ready(count: int) -> None:
                with anyio.fail_after(30):
                    while (
                        sum(
                            each.state is ConnectivityState.READY
                            for each in channel.snapshot().subchannels
                        )
                        < count
                    ):
                        await channel._pool.wait_change()

            async def call() -> None:
                nonlocal answered
                stub = EchoStub(channel)
                while not over:
                    text = str(answered)
                    assert (await stub.unary(EchoRequest(text=text))).text == text
                    answered += 1

            await until_ready(REPLICAS)
            async with anyio.create_task_group() as callers:
                for _ in range(CALLERS):
                    callers.start_soon(call)
                for number in range(RESTARTS):
                    replica = replicas[number % REPLICAS]
                    before = answered
                    if told:
                        registry.deregister("echo", Endpoint(replica.address))
                    await replica.stop()
                    await replica.start(servers)
                    if told:
                        registry.register("echo", Endpoint(replica.address))
                    # A registry is heard of later: what follows is with the new list.
                    while answered < before + CALLS_BETWEEN:
                        await anyio.lowlevel.checkpoint()
                    # The others may be restarted when this one is back.
                    await until_ready(REPLICAS)
                enough = answered + CALLS_BETWEEN
                while answered < enough:
                    await anyio.lowlevel.checkpoint()
                over = True
            picks = [each.picks for each in channel.snapshot().subchannels]
        for replica in replicas:
            await replica.stop()
    assert answered > RESTARTS * CALLS_BETWEEN
    assert len(picks) == REPLICAS
    assert all(picks)
