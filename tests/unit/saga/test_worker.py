"""Workers: what one leaves another takes up, and nobody does a thing twice."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import anyio
import msgspec
import pytest
import sqlalchemy as sa

from bascule.errors import ConfigurationError
from bascule.observe import Metrics
from bascule.saga import (
    Backoff,
    MemorySagaLog,
    Saga,
    SagaCoordinator,
    SagaError,
    SagaLog,
    SagaLogError,
    SagaOperator,
    SagaRun,
    SagaState,
    SagaWorker,
    SqlSagaLog,
    StepCall,
    saga_tables,
)
from bascule.sql import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from bascule.saga import SagaRecord

pytestmark = pytest.mark.anyio


class Context(msgspec.Struct, frozen=True):
    done: tuple[str, ...] = ()


class KilledError(BaseException):
    """The process ends here."""


class World:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.kill_at: str | None = None
        self.broken: set[str] = set()

    async def act(self, context: Context, call: StepCall) -> Mapping[str, Any]:
        self.calls.append(f"{call.saga_id}/{call.step}")
        if call.step == self.kill_at:
            raise KilledError
        if call.step in self.broken:
            raise ValueError(call.step)
        return {"done": (*context.done, call.step)}

    async def undo(self, _context: Context, call: StepCall) -> None:
        self.calls.append(f"{call.saga_id}/-{call.step}")
        if f"-{call.step}" in self.broken:
            raise ValueError(f"-{call.step}")

    def saga(self, *, idempotent: bool = True, name: str = "s") -> Saga[Context]:
        made = Saga(name, Context)
        for step in "abc":
            made = made.step(step, self.act, self.undo, idempotent=idempotent)
        return made


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def sqlite_log(folder: Path, clock: Clock) -> AsyncIterator[SqlSagaLog]:
    metadata = sa.MetaData()
    tables = saga_tables(metadata)
    async with Database(f"sqlite:///{folder / 'log.db'}", metadata) as database:
        yield SqlSagaLog(database, tables, clock=clock)


async def leave_behind(log: SagaLog, world: World, *names: str, kill_at: str = "b") -> None:
    world.kill_at = kill_at
    for name in names:
        with pytest.raises(KilledError):
            await SagaCoordinator(log).run(world.saga(), Context(), saga_id=name)
    world.kill_at = None
    world.calls.clear()


async def until(log: SagaLog, saga_id: str, state: SagaState, due: float | None = None) -> SagaRun:
    """Look at the log, which tells nobody, until a run stands as wanted."""
    with anyio.fail_after(10):
        while True:
            run = await log.load(saga_id)
            if run is not None and (run.state, run.owner, run.due) == (state, None, due):
                return run
            await anyio.sleep(0.005)


def worker(log: SagaLog, *sagas: Saga[Any], **options: Any) -> SagaWorker:
    coordinator = SagaCoordinator(log, backoff=Backoff(attempts=3, initial=0.0))
    return SagaWorker(coordinator, *sagas, **{"poll": 0.01, **options})


@pytest.mark.parametrize("idempotent", [True, False])
async def test_an_abandoned_run_is_ended(tmp_path: Path, idempotent: bool) -> None:
    world, clock = World(), Clock()
    async with sqlite_log(tmp_path, clock) as log:
        await leave_behind(log, world, "r1")
        clock.now += 31.0
        async with worker(log, world.saga(idempotent=idempotent)):
            if idempotent:
                run = await until(log, "r1", SagaState.COMPLETED)
                assert msgspec.json.decode(run.context) == {"done": ["a", "b", "c"]}
                assert world.calls == ["r1/b", "r1/c"]
            else:
                await until(log, "r1", SagaState.UNDONE)
                assert world.calls == ["r1/-b", "r1/-a"]


async def test_two_workers_end_each_run_once(tmp_path: Path) -> None:
    world, clock = World(), Clock()
    async with sqlite_log(tmp_path, clock) as log:
        names = [f"r{number}" for number in range(20)]
        await leave_behind(log, world, *names)
        clock.now += 31.0
        async with (
            worker(log, world.saga(), concurrency=3),
            worker(log, world.saga(), concurrency=3),
        ):
            for name in names:
                await until(log, name, SagaState.COMPLETED)
        assert sorted(world.calls) == sorted(f"{name}/{step}" for name in names for step in "bc")


async def test_never_more_runs_at_a_time_than_it_may() -> None:
    log, clock = MemorySagaLog(), Clock()
    log._clock = clock
    world = World()
    await leave_behind(log, world, *(f"r{number}" for number in range(9)))
    clock.now += 31.0
    at_once = most = 0

    async def act(_context: Context, _call: StepCall) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await anyio.sleep(0.005)
        at_once -= 1

    saga = Saga("s", Context)
    for step in "abc":
        saga = saga.step(step, act, idempotent=True)
    async with worker(log, saga, concurrency=2):
        for number in range(9):
            await until(log, f"r{number}", SagaState.COMPLETED)
    assert most == 2


async def test_a_worker_that_closes_leaves_its_run_to_the_next_one() -> None:
    log, clock = MemorySagaLog(), Clock()
    log._clock = clock
    world = World()
    await leave_behind(log, world, "r1")
    clock.now += 31.0
    begun = anyio.Event()

    async def hang(_context: Context, _call: StepCall) -> None:
        begun.set()
        await anyio.sleep_forever()

    hanging = Saga("s", Context).step("a", hang).step("b", hang, idempotent=True).step("c", hang)
    async with worker(log, hanging, grace=0.01):
        await begun.wait()
    run = await log.load("r1")
    assert run is not None
    assert (run.state, run.owner, run.due) == (SagaState.RUNNING, None, clock.now)
    async with worker(log, world.saga()):
        await until(log, "r1", SagaState.COMPLETED)
    run = await log.load("r1")
    assert run is not None
    claims = [record.note for record in run.records if record.event.value == "claimed"]
    assert "lost" in str(claims[0])
    assert claims[1] is None


async def test_a_long_wait_for_the_next_attempt_holds_no_place(tmp_path: Path) -> None:
    world, clock = World(), Clock()
    async with sqlite_log(tmp_path, clock) as log:
        await leave_behind(log, world, "r1")
        clock.now += 31.0
        world.broken = {"-b"}
        coordinator = SagaCoordinator(
            log, backoff=Backoff(attempts=3, initial=60.0, maximum=60.0, jitter=0.0)
        )
        made = world.saga(idempotent=False)
        async with SagaWorker(coordinator, made, poll=0.01, concurrency=1):
            for attempt in (1, 2):
                await until(log, "r1", SagaState.UNDOING, due=clock.now + 60.0)
                assert world.calls == ["r1/-b"] * attempt
                clock.now += 60.0
            run = await until(log, "r1", SagaState.PARKED)
            assert (run.step, world.calls) == ("b", ["r1/-b"] * 3)

            world.broken = set()
            await SagaOperator(log).retry("r1", by="ann", why="mended")
            await until(log, "r1", SagaState.UNDONE)
        assert world.calls == ["r1/-b"] * 4 + ["r1/-a"]


async def test_what_a_person_has_undone_is_not_undone_again() -> None:
    log, world = MemorySagaLog(), World()
    world.broken = {"c", "-b"}
    coordinator = SagaCoordinator(log, backoff=Backoff(attempts=1))
    with pytest.raises(SagaError, match="parked"):
        await coordinator.run(world.saga(), Context(), saga_id="r1")
    operator = SagaOperator(log)
    with pytest.raises(SagaError, match="'undone' only"):
        await operator.resolve("r1", "done", by="ann", why="no")
    await operator.resolve("r1", "undone", by="ann", why="refunded at the desk")
    async with worker(log, world.saga()):
        await until(log, "r1", SagaState.UNDONE)
    assert world.calls[3:] == ["r1/-c", "r1/-b", "r1/-a"]
    for refused in (
        operator.retry("r1", by="ann"),
        operator.resolve("r1", "undone", by="a", why=""),
    ):
        with pytest.raises(SagaError, match="only a parked one"):
            await refused
    with pytest.raises(SagaError, match="no run"):
        await operator.show("unknown")


async def test_a_run_that_kills_its_owners_is_parked_in_the_end() -> None:
    log, clock = MemorySagaLog(), Clock()
    log._clock = clock
    world = World()
    await leave_behind(log, world, "r1")
    world.kill_at = "b"
    for _ in range(10):
        clock.now += 31.0
        with pytest.raises(KilledError):
            await SagaCoordinator(log).resume(world.saga(), "r1")
    clock.now += 31.0
    with pytest.raises(SagaError, match="11 workers were lost"):
        await SagaCoordinator(log).resume(world.saga(), "r1")


@pytest.mark.parametrize("change", ["step", "context"])
async def test_a_run_of_another_version_of_the_saga_is_parked(change: str) -> None:
    log, clock = MemorySagaLog(), Clock()
    log._clock = clock
    world = World()
    await leave_behind(log, world, "r1")
    clock.now += 31.0

    class Other(msgspec.Struct, kw_only=True):
        done: tuple[str, ...] = ()
        needed: int = 1 if change == "step" else msgspec.NODEFAULT  # type: ignore[assignment]

    saga = Saga("s", Other).step("a", world.act)  # type: ignore[arg-type]
    async with worker(log, saga):
        run = await until(log, "r1", SagaState.PARKED)
    assert ("no step 'b'" if change == "step" else "does not fit") in str(run.error)
    assert world.calls == []
    assert msgspec.json.decode(run.context)["done"] == ["a"]


class FlakyLog(MemorySagaLog):
    """Out of reach for a number of calls, before or after they took effect."""

    def __init__(self) -> None:
        super().__init__()
        self.before = self.after = 0

    async def begin(self, run: SagaRun) -> None:
        self._fail("before")
        await super().begin(run)

    async def write(self, run: SagaRun, added: Sequence[SagaRecord]) -> None:
        self._fail("before")
        await super().write(run, added)
        self._fail("after")

    async def claim(self, *arguments: Any, **options: Any) -> Sequence[SagaRun]:
        self._fail("before")
        return await super().claim(*arguments, **options)

    def _fail(self, when: str) -> None:
        left = getattr(self, when)
        if left:
            setattr(self, when, left - 1)
            raise SagaLogError("the database is gone")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_log_that_is_away_for_a_while_is_waited_for(when: str) -> None:
    log, world = FlakyLog(), World()
    setattr(log, when, 2)
    context = await SagaCoordinator(log).run(world.saga(), Context(), saga_id="r1")
    assert context.done == ("a", "b", "c")
    run = await log.load("r1")
    assert run is not None
    assert [record.sequence for record in run.records] == list(range(run.sequence))


async def test_a_log_that_stays_away_interrupts_the_run_and_a_worker_ends_it() -> None:
    log, world = FlakyLog(), World()
    made = Saga("s", Context)

    async def cut_off(context: Context, call: StepCall) -> Mapping[str, Any]:
        log.before = 10_000
        return await world.act(context, call)

    made = made.step("a", world.act, world.undo).step("b", cut_off, world.undo, idempotent=True)
    with pytest.raises(SagaError, match="interrupted: the database is gone"):
        await SagaCoordinator(log, lease=0.2).run(made, Context(), saga_id="r1")
    assert world.calls == ["r1/a", "r1/b"]
    log.before = 3
    replaced = Saga("s", Context).step("a", world.act).step("b", world.act, idempotent=True)
    async with worker(log, replaced):
        await until(log, "r1", SagaState.COMPLETED)
    assert world.calls == ["r1/a", "r1/b", "r1/b"]


class Watched(SagaWorker):
    """Tells when it has looked after the log."""

    async def __aenter__(self) -> Self:
        self.tidied = anyio.Event()
        return await super().__aenter__()

    async def _tidy(self) -> None:
        await super()._tidy()
        self.tidied.set()


async def test_old_runs_are_forgotten_and_unfinished_ones_counted() -> None:
    log, clock, world = MemorySagaLog(), Clock(), World()
    log._clock = clock
    coordinator = SagaCoordinator(log)
    await coordinator.run(world.saga(), Context(), saga_id="old")
    clock.now += 100.0
    await leave_behind(log, world, "open", kill_at="a")
    async with Watched(coordinator, world.saga(), keep=50.0) as watched:
        await watched.tidied.wait()
    assert [run.saga_id for run in await log.list()] == ["open"]
    assert coordinator.stats.unfinished == {
        ("s", "running"): 1,
        ("s", "undoing"): 0,
        ("s", "parked"): 0,
    }


async def test_runs_steps_and_leases_are_counted_under_bounded_names() -> None:
    world, log = World(), MemorySagaLog()
    coordinator = SagaCoordinator(log, backoff=Backoff(attempts=2, initial=0.0))
    metrics = Metrics()
    metrics.add_sagas(coordinator.stats)
    await coordinator.run(world.saga(), Context())
    world.broken = {"c", "-b"}
    with pytest.raises(SagaError, match="parked"):
        await coordinator.run(world.saga(), Context())
    async with Watched(coordinator, world.saga()) as watched:
        await watched.tidied.wait()
    text = metrics.render()[0].decode()
    for line in (
        'saga_runs_total{outcome="completed",saga="s"} 1.0',
        'saga_runs_total{outcome="parked",saga="s"} 1.0',
        'saga_active{saga="s"} 0.0',
        'saga_unfinished{saga="s",state="parked"} 1.0',
        'saga_step_duration_seconds_count{op="action",outcome="ok",saga="s",step="a"} 2.0',
        'saga_step_duration_seconds_count{op="undo",outcome="failed",saga="s",step="b"} 2.0',
    ):
        assert line in text


def test_workers_that_cannot_work_are_refused() -> None:
    coordinator, saga = SagaCoordinator(MemorySagaLog()), World().saga()
    for sagas, options in (
        ((), {}),
        ((saga, saga), {}),
        ((saga,), {"concurrency": 0}),
        ((saga,), {"poll": 0.0}),
    ):
        with pytest.raises(ConfigurationError):
            SagaWorker(coordinator, *sagas, **options)
    with pytest.raises(ConfigurationError, match="lease"):
        SagaCoordinator(MemorySagaLog(), lease=0.0)


async def test_ids_and_keys_that_cannot_travel_are_refused() -> None:
    coordinator, saga = SagaCoordinator(MemorySagaLog()), World().saga()
    for bad in ("", " x", "x ", "é", "a\nb", "x" * 129):
        with pytest.raises(ValueError, match="saga_id"):
            await coordinator.run(saga, Context(), saga_id=bad)
        with pytest.raises(ValueError, match="idempotency_key"):
            await coordinator.run(saga, Context(), idempotency_key=bad)
    with pytest.raises(ConfigurationError, match="no steps"):
        await coordinator.run(Saga("s", Context), Context())
