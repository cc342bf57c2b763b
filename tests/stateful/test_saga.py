"""Sagas that crash at any record, any number of times: in the end all is done, or nothing is left."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import anyio
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bascule.saga import (
    Backoff,
    MemorySagaLog,
    Saga,
    SagaCoordinator,
    SagaFailedError,
    SagaRecord,
    SagaState,
    StepCall,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class Context(msgspec.Struct, frozen=True):
    done: tuple[str, ...] = ()


class CrashError(BaseException):
    """The process ends here: nothing may handle it."""


class RefusedError(Exception):
    """A step fails."""


class CrashingLog:
    """Loses the process before or after chosen appends; what was written stays."""

    def __init__(self, crashes: Sequence[tuple[int, bool]]) -> None:
        self.kept = MemorySagaLog()
        self._crashes = list(crashes)
        self._appends = 0

    async def append(self, record: SagaRecord) -> None:
        crash = bool(self._crashes) and self._appends == self._crashes[0][0]
        self._appends += 1
        written = crash and self._crashes[0][1]
        if crash:
            self._crashes.pop(0)
            self._appends = 0
        if written or not crash:
            await self.kept.append(record)
        if crash:
            raise CrashError

    async def load(self, saga_id: str) -> Sequence[SagaRecord]:
        return await self.kept.load(saga_id)

    async def list_parked(self, *, limit: int = 100) -> Sequence[SagaRecord]:
        return await self.kept.list_parked(limit=limit)


class World:
    """What the steps act on, as a service with idempotency keys would be.

    :param failing: the step that fails; it acts before it fails if ``acts``
    :param stubborn: attempts to undo that fail, for each step
    """

    def __init__(self, steps: int, failing: int | None, *, acts: bool, stubborn: int) -> None:
        self.names = [f"s{number}" for number in range(steps)]
        self.failing = None if failing is None else self.names[failing]
        self.acts = acts
        self.stubborn = dict.fromkeys(self.names, stubborn)
        self.effects: set[str] = set()
        self.undone: list[str] = []

    async def act(self, context: Context, call: StepCall) -> dict[str, object]:
        assert call.idempotency_key not in self.undone, "acted after it was undone"
        assert call.idempotency_key not in self.effects, "acted twice"
        fails = call.step == self.failing
        if not fails or self.acts:
            self.effects.add(call.idempotency_key)
        if fails:
            raise RefusedError(call.step)
        return {"done": (*context.done, call.step)}

    async def undo(self, _context: Context, call: StepCall) -> None:
        if self.stubborn[call.step]:
            self.stubborn[call.step] -= 1
            raise RefusedError(f"cannot undo {call.step} yet")
        self.effects.discard(call.idempotency_key)
        self.undone.append(call.idempotency_key)

    def saga(self) -> Saga[Context]:
        saga = Saga("test", Context)
        for name in self.names:
            saga = saga.step(name, self.act, self.undo)
        return saga


@given(
    steps=st.integers(1, 5),
    failing=st.none() | st.integers(0, 4),
    acts=st.booleans(),
    stubborn=st.integers(0, 2),
    crashes=st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=4),
)
def test_a_saga_ends_whole_or_leaves_nothing(
    steps: int,
    failing: int | None,
    acts: bool,
    stubborn: int,
    crashes: list[tuple[int, bool]],
) -> None:
    failing = None if failing is None or failing >= steps else failing
    world = World(steps, failing, acts=acts, stubborn=stubborn)
    anyio.run(run_to_its_end, world, CrashingLog(crashes))


async def run_to_its_end(world: World, log: CrashingLog) -> None:
    saga, backoff = world.saga(), Backoff(attempts=3, initial=0.0)
    while True:
        coordinator = SagaCoordinator(log, backoff=backoff)
        try:
            if await log.load("s"):
                context = await coordinator.resume(saga, "s")
            else:
                context = await coordinator.run(saga, Context(), saga_id="s")
        except (CrashError, BaseExceptionGroup):
            continue
        except SagaFailedError:
            completed = False
        else:
            completed = True
            assert context.done == tuple(world.names)
        break
    records = await log.load("s")
    if completed:
        assert world.failing is None
        assert world.effects == {f"s/{name}" for name in world.names}
        assert world.undone == []
    else:
        assert world.effects == set()
        check_reversed(world.undone)
    finals = [record.state for record in records if record.state.final and record.step is None]
    assert finals == [SagaState.COMPLETED if completed else SagaState.UNDONE]
    assert [record.sequence for record in records] == list(range(len(records)))


def check_reversed(undone: list[str]) -> None:
    """A crash may repeat the last compensation, never skip back."""
    numbers = [int(key.removeprefix("s/s")) for key in undone]
    assert all(later in (earlier, earlier - 1) for earlier, later in itertools.pairwise(numbers))
    assert not numbers or numbers[-1] == 0
