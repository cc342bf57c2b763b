"""The same sagas through a real Temporal server."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest
from temporalio.client import Client

from bascule.errors import ConfigurationError
from bascule.saga import Backoff, Saga, SagaError, SagaFailedError, Step, StepCall
from bascule.saga.temporal import TemporalSagas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from bascule.testing.servers import TemporalServer

pytestmark = pytest.mark.anyio

AT_ONCE = Backoff(attempts=3, initial=0.01, maximum=0.02)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Context(msgspec.Struct, frozen=True):
    total: int = 7
    a: int = 0
    b: int = 0
    c: int = 0


class World:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.keys: set[str] = set()
        self.failures: dict[str, int] = {}
        self.waits: dict[str, anyio.Event] = {}
        self.waiting = anyio.Event()

    async def act(self, _context: Context, call: StepCall) -> Mapping[str, Any]:
        self.calls.append(call.step)
        self.keys.add(call.idempotency_key)
        if call.step in self.waits:
            self.waiting.set()
            await self.waits[call.step].wait()
        self._fail(call.step)
        return {call.step: call.attempt} if call.step in {"a", "b", "c"} else {}

    async def undo(self, context: Context, call: StepCall) -> None:
        assert context.total == 7
        self.calls.append(f"-{call.step}")
        self._fail(f"-{call.step}")

    def _fail(self, name: str) -> None:
        if self.failures.get(name, 0):
            self.failures[name] -= 1
            raise ValueError(name)

    def saga(self, name: str = "order") -> Saga[Context]:
        return (
            Saga(name, Context)
            .step("order", self.act, self.undo)
            .parallel(Step("a", self.act, self.undo, retry=AT_ONCE), Step("b", self.act, self.undo))
            .step("pay", self.act, self.undo, pivot=True)
            .step("c", self.act)
        )


@asynccontextmanager
async def opened(server: TemporalServer, saga: Saga[Any]) -> AsyncIterator[TemporalSagas]:
    client = await Client.connect(server.address, namespace=server.namespace)
    sagas = TemporalSagas(client, saga, task_queue=saga.name, backoff=AT_ONCE)
    async with sagas.worker():
        yield sagas


async def test_a_saga_runs_its_steps_and_merges_what_they_return(
    temporal_server: TemporalServer,
) -> None:
    world = World()
    world.failures = {"a": 2, "c": 4}
    saga = world.saga("whole")
    async with opened(temporal_server, saga) as sagas:
        context = await sagas.run(saga, Context(), saga_id="whole-1")
        again = await sagas.run(saga, Context(total=8), saga_id="whole-1")
    # Past the pivot a step is tried until it is done, whatever its attempts.
    assert context == again == Context(total=7, a=3, b=1, c=5)
    assert world.calls[0] == "order"
    assert world.calls[-6:] == ["pay", "c", "c", "c", "c", "c"]
    assert "whole-1/a" in world.keys


async def test_a_failure_undoes_what_was_begun_in_reverse(temporal_server: TemporalServer) -> None:
    world = World()
    world.failures = {"b": 1, "-a": 2}
    saga = world.saga("failing")
    async with opened(temporal_server, saga) as sagas:
        for _ in range(2):
            with pytest.raises(SagaFailedError, match="ValueError: b") as caught:
                await sagas.run(saga, Context(), saga_id="failing-1")
    assert caught.value.step == "b"
    undone = [call for call in world.calls if call.startswith("-")]
    assert undone == ["-b", "-a", "-a", "-a", "-order"]


async def test_a_cancelled_workflow_is_undone(temporal_server: TemporalServer) -> None:
    world = World()
    world.waits = {"pay": anyio.Event()}
    saga = world.saga("cancelled")
    async with opened(temporal_server, saga) as sagas:
        running = asyncio.create_task(sagas.run(saga, Context(), saga_id="cancelled-1"))
        await world.waiting.wait()
        await sagas._client.get_workflow_handle("cancelled-1").cancel()
        with pytest.raises(SagaError, match="did not end"):
            await running
        world.waits["pay"].set()
    undone = [call for call in world.calls if call.startswith("-")]
    assert undone == ["-pay", "-b", "-a", "-order"]


async def test_sagas_need_names_of_their_own(temporal_server: TemporalServer) -> None:
    client = await Client.connect(temporal_server.address, namespace=temporal_server.namespace)
    with pytest.raises(ConfigurationError, match="name"):
        TemporalSagas(client, World().saga(), World().saga())


def test_trio_is_refused() -> None:
    async def make() -> None:
        with pytest.raises(ConfigurationError, match="asyncio only"):
            TemporalSagas(None)  # type: ignore[arg-type]

    anyio.run(make, backend="trio")
