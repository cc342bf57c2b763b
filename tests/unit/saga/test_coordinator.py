"""Sagas: forward, backward, cancelled, parked and resumed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest

from bascule.errors import ConfigurationError
from bascule.saga import (
    Backoff,
    DuplicateSagaError,
    MemorySagaLog,
    Saga,
    SagaCoordinator,
    SagaError,
    SagaEvent,
    SagaFailedError,
    SagaFencedError,
    SagaInterruptedError,
    SagaParkedError,
    SagaRecord,
    SagaRun,
    SagaState,
    StepCall,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

pytestmark = pytest.mark.anyio


class Context(msgspec.Struct, frozen=True):
    total: int
    reservation: str | None = None


class RefusedError(Exception):
    """A step that says no."""


class Journal:
    """Steps that write down what was called; ``fail`` and ``broken`` name those that raise."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail: set[str] = set()
        self.broken: set[str] = set()
        self.keys: list[str] = []
        self.causes: list[Exception | None] = []
        self.blocked: anyio.Event | None = None

    async def act(self, context: Context, call: StepCall) -> Mapping[str, Any] | None:
        self.calls.append(call.step)
        self.keys.append(call.idempotency_key)
        if call.step in self.fail:
            raise RefusedError(call.step)
        if self.blocked is not None:
            self.blocked.set()
            await anyio.sleep_forever()
        return {"reservation": f"r-{context.total}"} if call.step == "inventory" else None

    async def undo(self, context: Context, call: StepCall) -> None:
        await anyio.lowlevel.checkpoint()
        self.calls.append(f"-{call.step}")
        self.keys.append(call.idempotency_key)
        self.causes.append(call.cause)
        if call.step in self.broken:
            raise RefusedError(f"cannot undo {call.step} of {context.total}")

    def saga(self) -> Saga[Context]:
        return (
            Saga("order", Context)
            .step("order", self.act, self.undo)
            .step("look", self.act)
            .step("inventory", self.act, self.undo)
            .step("payment", self.act, self.undo)
        )


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def log() -> MemorySagaLog:
    return MemorySagaLog()


@pytest.fixture
def coordinator(log: MemorySagaLog) -> SagaCoordinator:
    return SagaCoordinator(log, backoff=Backoff(attempts=3, initial=0.0))


async def stored(log: MemorySagaLog, saga_id: str) -> SagaRun:
    run = await log.load(saga_id)
    assert run is not None
    return run


def events(run: SagaRun) -> list[tuple[str | None, str]]:
    return [(record.step, str(record.event)) for record in run.records]


async def test_runs_every_step_and_merges_what_it_returns(
    coordinator: SagaCoordinator, log: MemorySagaLog, journal: Journal
) -> None:
    context = await coordinator.run(journal.saga(), Context(total=7), saga_id="s1")
    assert context == Context(total=7, reservation="r-7")
    assert journal.calls == ["order", "look", "inventory", "payment"]
    run = await stored(log, "s1")
    assert [record.sequence for record in run.records] == list(range(run.sequence))
    assert events(run)[:3] == [(None, "started"), ("order", "begun"), ("order", "done")]
    assert events(run)[-1] == (None, "completed")
    assert (run.state, run.owner, run.due) == (SagaState.COMPLETED, None, None)
    assert msgspec.json.decode(run.context) == {"total": 7, "reservation": "r-7"}


@pytest.mark.parametrize("failing", ["order", "look", "inventory", "payment"])
async def test_a_failure_undoes_the_failed_step_and_those_before_in_reverse(
    coordinator: SagaCoordinator, log: MemorySagaLog, journal: Journal, failing: str
) -> None:
    journal.fail = {failing}
    with pytest.raises(SagaFailedError, match=failing) as caught:
        await coordinator.run(journal.saga(), Context(total=7), saga_id="s1")
    assert isinstance(caught.value.cause, RefusedError)
    done = ["order", "look", "inventory", "payment"]
    done = done[: done.index(failing) + 1]
    undone = [f"-{step}" for step in reversed(done) if step != "look"]
    assert journal.calls == done + undone
    assert set(journal.causes) == {caught.value.cause}
    assert events(await stored(log, "s1"))[-1] == (None, "undone")


async def test_a_step_and_its_compensation_share_one_key(
    coordinator: SagaCoordinator, journal: Journal
) -> None:
    journal.fail = {"order"}
    with pytest.raises(SagaFailedError):
        await coordinator.run(journal.saga(), Context(total=7), saga_id="s1")
    assert journal.keys == ["s1/order", "s1/order"]


async def test_a_cancelled_saga_is_undone_before_the_cancellation_goes_on(
    coordinator: SagaCoordinator, log: MemorySagaLog, journal: Journal
) -> None:
    journal.blocked = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await coordinator.run(journal.saga(), Context(total=7), saga_id="s1")
            raise AssertionError("a cancelled saga must not return")

        tasks.start_soon(run)
        await journal.blocked.wait()
        tasks.cancel_scope.cancel()
    assert journal.calls == ["order", "-order"]
    assert events(await stored(log, "s1"))[-1] == (None, "undone")


async def test_a_compensation_is_tried_again_then_parked_and_resumed(
    coordinator: SagaCoordinator, log: MemorySagaLog, journal: Journal
) -> None:
    journal.fail, journal.broken = {"payment"}, {"inventory"}
    with pytest.raises(SagaParkedError, match="inventory"):
        await coordinator.run(journal.saga(), Context(total=7), saga_id="s1")
    assert journal.calls[4:] == ["-payment", "-inventory", "-inventory", "-inventory"]
    (parked,) = await log.list(state=SagaState.PARKED)
    assert (parked.saga_id, parked.step) == ("s1", "inventory")
    assert "cannot undo inventory" in str(parked.error)

    journal.broken = set()
    with pytest.raises(SagaFailedError, match="payment"):
        await coordinator.resume(journal.saga(), "s1")
    assert journal.calls[8:] == ["-inventory", "-order"]
    assert await log.list(state=SagaState.PARKED) == []


async def test_undoing_is_left_to_a_worker_when_its_time_is_over(log: MemorySagaLog) -> None:
    async def refuse(_context: Context, _call: StepCall) -> None:
        raise RefusedError

    hanging = True

    async def undo(_context: Context, _call: StepCall) -> None:
        if hanging:
            await anyio.sleep_forever()

    saga = Saga("hanging", Context).step("only", refuse, undo)
    coordinator = SagaCoordinator(log, undo_timeout=0.0)
    with pytest.raises(SagaInterruptedError, match="too long"):
        await coordinator.run(saga, Context(total=1), saga_id="s1")
    run = await stored(log, "s1")
    assert (run.state, run.owner) == (SagaState.UNDOING, None)
    hanging = False
    with pytest.raises(SagaFailedError, match="RefusedError"):
        await coordinator.resume(saga, "s1")


class CutLog(MemorySagaLog):
    """Stops taking anything after a number of writes, as a killed process would stop writing."""

    def __init__(self, writes: int) -> None:
        super().__init__(clock=lambda: self.time)
        self.time = 1_000.0
        self.writes = writes

    async def begin(self, run: SagaRun) -> None:
        self._count()
        await super().begin(run)

    async def write(self, run: SagaRun, added: Sequence[SagaRecord]) -> None:
        self._count()
        await super().write(run, added)

    def _count(self) -> None:
        if not self.writes:
            raise KilledError
        self.writes -= 1


class KilledError(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("cut", range(1, 5))
async def test_resumes_after_any_write(journal: Journal, cut: int, idempotent: bool) -> None:
    """The step under way is repeated if it may be; its outcome is unknown otherwise."""
    saga = Saga("order", Context)
    steps = ["order", "look", "inventory", "payment"]
    for name in steps:
        undo = None if name == "look" else journal.undo
        saga = saga.step(name, journal.act, undo, idempotent=idempotent)
    log = CutLog(cut)
    with pytest.raises(KilledError):
        await SagaCoordinator(log, lease=10.0).run(saga, Context(total=7), saga_id="s1")
    assert journal.calls == steps[:cut]
    journal.calls.clear()
    log.writes, log.time = 100, 1_011.0
    resumed = SagaCoordinator(log, backoff=Backoff(initial=0.0))
    if idempotent:
        context = await resumed.resume(saga, "s1")
        assert context.reservation == "r-7"
        assert journal.calls == steps[cut - 1 :]
    else:
        with pytest.raises(SagaFailedError, match="interrupted"):
            await resumed.resume(saga, "s1")
        assert journal.calls == [f"-{step}" for step in reversed(steps[:cut]) if step != "look"]


async def test_a_run_is_not_taken_from_an_owner_whose_lease_lasts(journal: Journal) -> None:
    log = CutLog(2)
    with pytest.raises(KilledError):
        await SagaCoordinator(log, lease=10.0).run(journal.saga(), Context(total=7), saga_id="s1")
    log.writes, log.time = 100, 1_009.0
    with anyio.move_on_after(0.05) as scope:
        await SagaCoordinator(log).resume(journal.saga(), "s1")
    assert scope.cancelled_caught
    assert journal.calls == ["order", "look"]


async def test_resuming_a_finished_run_does_nothing(
    coordinator: SagaCoordinator, log: MemorySagaLog, journal: Journal
) -> None:
    await coordinator.run(journal.saga(), Context(total=7), saga_id="good")
    journal.fail = {"look"}
    with pytest.raises(SagaFailedError):
        await coordinator.run(journal.saga(), Context(total=7), saga_id="bad")
    journal.calls.clear()
    before = await log.load("good"), await log.load("bad")
    assert (await coordinator.resume(journal.saga(), "good")).reservation == "r-7"
    with pytest.raises(SagaFailedError, match="look"):
        await coordinator.resume(journal.saga(), "bad")
    assert journal.calls == []
    assert before == (await log.load("good"), await log.load("bad"))


async def test_one_idempotency_key_runs_once_and_gives_one_result(
    coordinator: SagaCoordinator, journal: Journal
) -> None:
    saga = journal.saga()
    first = await coordinator.run(saga, Context(total=7), saga_id="s1", idempotency_key="k")
    again = await coordinator.run(saga, Context(total=8), idempotency_key="k")
    assert again == first
    assert len(journal.calls) == 4
    journal.fail = {"order"}
    for _ in range(2):
        with pytest.raises(SagaFailedError, match="RefusedError") as caught:
            await coordinator.run(saga, Context(total=7), idempotency_key="bad")
    assert caught.value.cause is None
    with pytest.raises(DuplicateSagaError):
        await coordinator.run(saga, Context(total=7), saga_id="s1")
    with pytest.raises(DuplicateSagaError):
        await coordinator.run(saga, Context(total=7), saga_id="s1", idempotency_key="other")


async def test_a_repeated_key_joins_the_run_under_way(
    coordinator: SagaCoordinator, journal: Journal
) -> None:
    """Whoever only waits may stop to: that undoes nothing."""
    started, go_on = anyio.Event(), anyio.Event()

    async def act(_context: Context, _call: StepCall) -> Mapping[str, Any]:
        started.set()
        await go_on.wait()
        return {"reservation": "once"}

    saga = Saga("joined", Context).step("only", act, journal.undo)
    results: list[Context] = []

    async def run() -> None:
        results.append(await coordinator.run(saga, Context(total=1), idempotency_key="k"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await started.wait()
        with anyio.move_on_after(0.01):
            await run()
        tasks.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        go_on.set()
    assert [result.reservation for result in results] == ["once", "once"]
    assert journal.calls == []


async def test_a_stale_owner_is_fenced_off_and_undoes_nothing(journal: Journal) -> None:
    log = CutLog(100)
    saga = journal.saga()
    journal.blocked = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def stale() -> None:
            await SagaCoordinator(log, lease=10.0).run(saga, Context(total=7), saga_id="s1")

        tasks.start_soon(stale)
        await journal.blocked.wait()
        log.time += 11.0
        (claimed,) = await log.claim("thief", 60.0)
        assert (claimed.owner, claimed.epoch) == ("thief", 2)
        assert claimed.records[-1].event is SagaEvent.CLAIMED
        assert "was lost" in str(claimed.records[-1].note)
        tasks.cancel_scope.cancel()
    assert journal.calls == ["order"]


async def test_a_lease_that_another_worker_has_is_noticed_at_once(journal: Journal) -> None:
    """The action that is under way is cancelled; the run is not undone here."""
    log = MemorySagaLog()
    coordinator = SagaCoordinator(log, lease=0.2)
    journal.blocked = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def steal() -> None:
            await journal.blocked.wait()
            # The thief's clock is ahead.
            log._clock = lambda: time.time() + 60.0
            assert await log.claim("thief", 600.0)

        tasks.start_soon(steal)
        with pytest.raises(SagaFencedError):
            await coordinator.run(journal.saga(), Context(total=7), saga_id="s1")
    assert journal.calls == ["order"]
    assert (await stored(log, "s1")).owner == "thief"
    assert coordinator.stats.lease_losses == {"order": 1}


async def test_a_lease_is_renewed_as_long_as_a_step_takes(journal: Journal) -> None:
    renewed = anyio.Event()

    class Log(MemorySagaLog):
        async def renew(self, run: SagaRun, due: float) -> None:
            await super().renew(run, due)
            renewed.set()

    log = Log()

    async def slow(_context: Context, _call: StepCall) -> None:
        before = (await stored(log, "s1")).due
        await renewed.wait()
        after = (await stored(log, "s1")).due
        assert (before or 0.0) < (after or 0.0)

    coordinator = SagaCoordinator(log, lease=0.15)
    await coordinator.run(Saga("slow", Context).step("only", slow), Context(total=1), saga_id="s1")


async def test_finished_runs_are_forgotten_in_the_end(journal: Journal) -> None:
    log = MemorySagaLog(keep_finished=2)
    coordinator = SagaCoordinator(log)
    for number in range(4):
        await coordinator.run(
            journal.saga(), Context(total=1), saga_id=f"s{number}", idempotency_key=f"k{number}"
        )
    assert [await log.load(f"s{number}") is not None for number in range(4)] == [
        False,
        False,
        True,
        True,
    ]
    await coordinator.run(journal.saga(), Context(total=1), saga_id="again", idempotency_key="k0")


async def test_a_result_that_fits_no_field_fails_the_step(coordinator: SagaCoordinator) -> None:
    async def wrong_name(_context: Context, _call: StepCall) -> Mapping[str, Any]:
        return {"reservaton": "typo"}

    async def wrong_type(_context: Context, _call: StepCall) -> Mapping[str, Any]:
        return {"total": "seven"}

    for number, action in enumerate((wrong_name, wrong_type)):
        with pytest.raises(SagaFailedError, match=r"reservaton|int"):
            await coordinator.run(
                Saga("typo", Context).step("only", action), Context(total=1), saga_id=f"s{number}"
            )


async def test_definitions_that_cannot_work_are_refused(
    coordinator: SagaCoordinator, journal: Journal
) -> None:
    with pytest.raises(ConfigurationError, match="two steps named 'order'"):
        journal.saga().step("order", journal.act)
    with pytest.raises(ConfigurationError, match="Struct or a dataclass"):
        Saga("bad", int)
    with pytest.raises(SagaError, match="no run of saga"):
        await coordinator.resume(journal.saga(), "unknown")


async def test_each_transition_is_one_line_of_the_log_with_its_fields(
    coordinator: SagaCoordinator, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    async def lie(_context: Context, _call: StepCall) -> None:
        raise RefusedError("first\nsaga order s2 completed")

    saga = Saga("order", Context).step("a", journal.act, journal.undo).step("b", lie)
    with caplog.at_level("DEBUG", logger="bascule.saga"), pytest.raises(SagaFailedError):
        await coordinator.run(saga, Context(total=7), saga_id="s1")
    seen = [(record.event_of, record.step, record.levelname) for record in caplog.records]  # type: ignore[attr-defined]
    assert seen == [
        ("started", None, "INFO"),
        ("done", "a", "DEBUG"),
        ("begun", "b", "DEBUG"),
        ("failed", "b", "INFO"),
        ("compensated", "a", "DEBUG"),
        ("undone", None, "INFO"),
    ]
    assert {record.saga_id for record in caplog.records} == {"s1"}  # type: ignore[attr-defined]
    assert all("\n" not in record.getMessage() for record in caplog.records)
