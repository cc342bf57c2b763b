"""Sagas whose processes crash or stall at any write, any number of times, among steps that fail.

The oracle is written from the documentation (docs/concepts/saga-guarantees.md): in the end all is done
or nothing is left, what was undone was undone in reverse, and nothing is undone past the pivot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from hypothesis import event, given
from hypothesis import strategies as st

from bascule.saga import (
    Backoff,
    DuplicateSagaError,
    MemorySagaLog,
    Saga,
    SagaCoordinator,
    SagaError,
    SagaEvent,
    SagaFencedError,
    SagaParkedError,
    SagaRecord,
    SagaRun,
    SagaState,
    Step,
    StepCall,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

ID = "s"


class Context(msgspec.Struct, frozen=True):
    a: int = 0
    b: int = 0
    c: int = 0


class CrashError(BaseException):
    """The process ends here: nothing may handle it."""


class RefusedError(Exception):
    """A step fails."""


@dataclass(frozen=True)
class Plan:
    """A step as it was drawn."""

    name: str
    idempotent: bool
    undoable: bool
    failures: int  #: attempts of the action that fail
    acts: bool  #: whether these do their work before they fail
    stubborn: int  #: attempts to undo that fail, after they have done it


@dataclass(frozen=True)
class Interruption:
    """What happens to a process at its n-th write."""

    write: int
    written: bool  #: whether the write takes effect
    stalls: bool  #: stopped until all is over, instead of killed


@st.composite
def sagas(draw: st.DrawFn) -> tuple[list[list[Plan]], int | None]:
    """Stages of steps, and which of them is the pivot."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    single = [index for index, size in enumerate(sizes) if size == 1]
    pivot = draw(st.none() | st.sampled_from(single)) if single else None
    stages = []
    for index, size in enumerate(sizes):
        past = pivot is not None and index > pivot
        stages.append(
            [
                Plan(
                    name=f"s{index}{'abc'[number]}",
                    idempotent=draw(st.booleans()),
                    undoable=not past and draw(st.booleans()),
                    failures=draw(st.sampled_from([0, 0, 0, 1, 4])),
                    acts=draw(st.booleans()),
                    stubborn=0 if past else draw(st.sampled_from([0, 0, 1, 4])),
                )
                for number in range(size)
            ]
        )
    return stages, pivot


class World:
    """What the steps act on: a service that has a barrier."""

    def __init__(self, stages: list[list[Plan]], pivot: int | None) -> None:
        self.plans = {plan.name: plan for stage in stages for plan in stage}
        self.failures = {plan.name: plan.failures for plan in self.plans.values()}
        self.stubborn = {plan.name: plan.stubborn for plan in self.plans.values()}
        self.state: dict[str, str] = {}
        self.acted: dict[str, int] = dict.fromkeys(self.plans, 0)
        self.saga = Saga("test", Context)
        for index, stage in enumerate(stages):
            self.saga = self.saga.parallel(
                *(
                    Step(
                        plan.name,
                        self.act,
                        self.undo if plan.undoable else None,
                        idempotent=plan.idempotent,
                        pivot=index == pivot,
                    )
                    for plan in stage
                )
            )

    async def act(self, context: Context, call: StepCall) -> Mapping[str, Any]:
        await anyio.lowlevel.checkpoint()
        plan = self.plans[call.step]
        self.acted[call.step] += 1
        fails = self.failures[call.step] > 0
        self.failures[call.step] -= fails
        if self.state.get(call.step) in {"undone", "empty"}:
            raise RefusedError("the barrier: it has been undone")
        if not fails or plan.acts:
            self.state[call.step] = "done"
        if fails:
            raise RefusedError(call.step)
        return {call.step[-1]: getattr(context, call.step[-1]) + 1}

    async def undo(self, _context: Context, call: StepCall) -> None:
        await anyio.lowlevel.checkpoint()
        was = self.state.get(call.step)
        if was in {None, "done"}:
            self.state[call.step] = "empty" if was is None else "undone"
        if self.stubborn[call.step]:
            self.stubborn[call.step] -= 1
            raise RefusedError(f"cannot tell that {call.step} is undone")


@dataclass
class Process:
    """One life: it crashes or stalls when its time has come."""

    interruption: Interruption | None
    writes: int = 0
    stalled: anyio.Event = field(default_factory=anyio.Event)
    released: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)
    outcome: str = "stalled"


class ProcessLog:
    """The shared log as one process sees it."""

    def __init__(self, kept: MemorySagaLog, process: Process) -> None:
        self._kept = kept
        self._process = process

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept, name)

    async def begin(self, run: SagaRun) -> None:
        await self._write(self._kept.begin, run)

    async def write(self, run: SagaRun, added: Sequence[SagaRecord]) -> None:
        await self._write(self._kept.write, run, added)

    async def claim(
        self, owner: str, lease: float, *, names: Collection[str] | None = None, **options: Any
    ) -> Sequence[SagaRun]:
        return await self._kept.claim(owner, lease, names=names, **options)

    async def _write(self, write: Any, *arguments: Any) -> None:
        process = self._process
        interruption = process.interruption
        process.writes += 1
        if interruption is None or process.writes != interruption.write:
            await write(*arguments)
            return
        if interruption.written:
            await write(*arguments)
        if not interruption.stalls:
            raise CrashError
        process.stalled.set()
        await process.released.wait()
        if not interruption.written:
            await write(*arguments)


async def live(world: World, kept: MemorySagaLog, process: Process) -> None:
    coordinator = SagaCoordinator(
        ProcessLog(kept, process),
        backoff=Backoff(attempts=3, initial=0.0),
        undo_timeout=1_000.0,
        lease=300.0,
    )
    try:
        if await kept.load(ID) is None:
            await coordinator.run(world.saga, Context(), saga_id=ID)
        else:
            await coordinator.resume(world.saga, ID)
        process.outcome = "completed"
    except SagaFencedError:
        process.outcome = "fenced"
    except DuplicateSagaError:
        process.outcome = "too late to begin"
    except SagaParkedError:
        process.outcome = "parked"
    except SagaError:
        process.outcome = "undone"
    except (CrashError, BaseExceptionGroup):
        process.outcome = "crashed"
    process.ended.set()


async def run_to_its_end(world: World, interruptions: list[Interruption]) -> SagaRun:
    now = 1_000.0
    kept = MemorySagaLog(clock=lambda: now)
    stalled: list[Process] = []
    async with anyio.create_task_group() as tasks:
        for interruption in [*interruptions, *[None] * 30]:
            process = Process(interruption)
            tasks.start_soon(live, world, kept, process)
            async with anyio.create_task_group() as either:
                for happened in (process.stalled, process.ended):

                    async def wait(happened: anyio.Event = happened) -> None:
                        await happened.wait()
                        either.cancel_scope.cancel()

                    either.start_soon(wait)
            if process.stalled.is_set():
                stalled.append(process)
            run = await kept.load(ID)
            if run is not None and run.state.final:
                break
            now += 1_000.0
        # Nothing that a stalled process still does may change what has been settled.
        settled = dict(world.state)
        for process in stalled:
            process.released.set()
            await process.ended.wait()
    after = await kept.load(ID)
    assert run is not None
    assert run.state.final, f"the run has not ended: {run}"
    assert after == run
    assert world.state == settled
    for process in stalled:
        event(f"stalled, then {process.outcome}")
        # It may have been stopped before its first write, or right after it had parked the run.
        written = process.interruption is not None and process.interruption.written
        also = "parked" if written else "too late to begin"
        assert process.outcome in {"fenced", run.state.value, also}
    return run


@given(
    made=sagas(),
    interruptions=st.lists(
        st.builds(Interruption, st.integers(1, 12), st.booleans(), st.booleans()), max_size=4
    ),
)
def test_a_saga_ends_whole_or_leaves_nothing(
    made: tuple[list[list[Plan]], int | None], interruptions: list[Interruption]
) -> None:
    world = World(*made)
    run = anyio.run(run_to_its_end, world, interruptions)
    event(run.state.value)
    check(world, run)


def check(world: World, run: SagaRun) -> None:
    records = run.records
    assert [record.sequence for record in records] == list(range(len(records)))
    begun = [str(record.step) for record in records if record.event is SagaEvent.BEGUN]
    undone = [str(record.step) for record in records if record.event is SagaEvent.COMPENSATED]
    assert len(set(begun)) == len(begun)
    finals = [record.event for record in records if record.step is None][1:]
    assert [each for each in finals if each in {SagaEvent.COMPLETED, SagaEvent.UNDONE}] == [
        SagaEvent(run.state.value)
    ]
    if run.state is SagaState.COMPLETED:
        assert world.state == dict.fromkeys(world.plans, "done")
        assert undone == []
        counts = {letter: sum(name.endswith(letter) for name in world.plans) for letter in "abc"}
        assert msgspec.json.decode(run.context) == counts
    else:
        assert undone == [name for name in reversed(begun) if world.plans[name].undoable]
        left = {name for name, state in world.state.items() if state == "done"}
        assert not any(world.plans[name].undoable for name in left)
        pivot = next((step.name for step in world.saga.steps if step.pivot), None)
        done = {record.step for record in records if record.event is SagaEvent.DONE}
        assert pivot is None or pivot not in done
    for name, plan in world.plans.items():
        if not plan.idempotent and not world.saga.past_pivot(name):
            assert world.acted[name] <= 1, f"{name} may not be repeated"
