"""Sagas: forward, backward, cancelled, parked and resumed."""

from __future__ import annotations

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
    SagaFailedError,
    SagaParkedError,
    SagaRecord,
    SagaState,
    StepCall,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def states(records: tuple[SagaRecord, ...]) -> list[tuple[str | None, str]]:
    return [(record.step, str(record.state)) for record in records]


async def test_runs_every_step_and_merges_what_it_returns(
    coordinator: SagaCoordinator, log: MemorySagaLog, journal: Journal
) -> None:
    context = await coordinator.run(journal.saga(), Context(total=7), saga_id="s1")
    assert context == Context(total=7, reservation="r-7")
    assert journal.calls == ["order", "look", "inventory", "payment"]
    records = tuple(await log.load("s1"))
    assert [record.sequence for record in records] == list(range(len(records)))
    assert states(records)[:3] == [(None, "started"), ("order", "running"), ("order", "done")]
    assert states(records)[-1] == (None, "completed")
    assert msgspec.json.decode(records[-1].context) == {"total": 7, "reservation": "r-7"}


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
    assert states(tuple(await log.load("s1")))[-1] == (None, "undone")


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
    assert states(tuple(await log.load("s1")))[-1] == (None, "undone")


async def test_a_compensation_is_tried_again_then_parked_and_resumed(
    coordinator: SagaCoordinator, log: MemorySagaLog, journal: Journal
) -> None:
    journal.fail, journal.broken = {"payment"}, {"inventory"}
    with pytest.raises(SagaParkedError, match="inventory"):
        await coordinator.run(journal.saga(), Context(total=7), saga_id="s1")
    assert journal.calls[4:] == ["-payment", "-inventory", "-inventory", "-inventory"]
    (parked,) = await log.list_parked()
    assert (parked.saga_id, parked.step) == ("s1", "inventory")
    assert "cannot undo inventory" in str(parked.error)

    journal.broken = set()
    with pytest.raises(SagaFailedError, match="payment"):
        await coordinator.resume(journal.saga(), "s1")
    assert journal.calls[8:] == ["-inventory", "-order"]
    assert await log.list_parked() == ()


async def test_undoing_is_parked_when_its_time_is_over(log: MemorySagaLog) -> None:
    async def refuse(_context: Context, _call: StepCall) -> None:
        raise RefusedError

    async def hang(_context: Context, _call: StepCall) -> None:
        await anyio.sleep_forever()

    coordinator = SagaCoordinator(log, undo_timeout=0.0)
    with pytest.raises(SagaParkedError, match="mend the cause"):
        await coordinator.run(
            Saga("hanging", Context).step("only", refuse, hang), Context(total=1), saga_id="s1"
        )
    assert [record.saga_id for record in await log.list_parked()] == ["s1"]


@pytest.mark.parametrize("cut", range(1, 11))
async def test_resumes_from_any_prefix_of_its_log(
    coordinator: SagaCoordinator, log: MemorySagaLog, journal: Journal, cut: int
) -> None:
    """A crash after any record: a step under way is undone, else the run goes on."""
    await coordinator.run(journal.saga(), Context(total=7), saga_id="s1")
    records = list(await log.load("s1"))
    assert len(records) == 10
    survivor = MemorySagaLog()
    for record in records[:cut]:
        await survivor.append(record)
    journal.calls.clear()
    resumed = SagaCoordinator(survivor, backoff=Backoff(initial=0.0))
    steps = ["order", "look", "inventory", "payment"]
    if records[cut - 1].state is SagaState.RUNNING:
        with pytest.raises(SagaFailedError):
            await resumed.resume(journal.saga(), "s1")
        begun = steps[: cut // 2]
        assert journal.calls == [f"-{step}" for step in reversed(begun) if step != "look"]
    else:
        context = await resumed.resume(journal.saga(), "s1")
        assert context.reservation == "r-7"
        assert journal.calls == steps[(cut - 1) // 2 :]


async def test_resuming_a_finished_run_does_nothing(
    coordinator: SagaCoordinator, log: MemorySagaLog, journal: Journal
) -> None:
    await coordinator.run(journal.saga(), Context(total=7), saga_id="good")
    journal.fail = {"look"}
    with pytest.raises(SagaFailedError):
        await coordinator.run(journal.saga(), Context(total=7), saga_id="bad")
    journal.calls.clear()
    before = len(await log.load("good")), len(await log.load("bad"))
    assert (await coordinator.resume(journal.saga(), "good")).reservation == "r-7"
    with pytest.raises(SagaFailedError, match="look"):
        await coordinator.resume(journal.saga(), "bad")
    assert journal.calls == []
    assert before == (len(await log.load("good")), len(await log.load("bad")))


async def test_one_idempotency_key_runs_once(
    coordinator: SagaCoordinator, journal: Journal
) -> None:
    saga = journal.saga()
    await coordinator.run(saga, Context(total=7), saga_id="s1", idempotency_key="k")
    with pytest.raises(DuplicateSagaError) as caught:
        await coordinator.run(saga, Context(total=7), saga_id="s2", idempotency_key="k")
    assert caught.value.saga_id == "s1"
    with pytest.raises(DuplicateSagaError):
        await coordinator.run(saga, Context(total=7), saga_id="s1")


async def test_a_second_writer_is_fenced_off(log: MemorySagaLog) -> None:
    record = SagaRecord(
        saga_id="s1", sequence=0, name="order", state=SagaState.STARTED, context=b"{}"
    )
    await log.append(record)
    late = msgspec.structs.replace(record, sequence=5)
    with pytest.raises(SagaError, match="another worker"):
        await log.append(late)


async def test_finished_runs_are_forgotten_in_the_end(journal: Journal) -> None:
    log = MemorySagaLog(keep_finished=2)
    coordinator = SagaCoordinator(log)
    for number in range(4):
        await coordinator.run(
            journal.saga(), Context(total=1), saga_id=f"s{number}", idempotency_key=f"k{number}"
        )
    assert [bool(await log.load(f"s{number}")) for number in range(4)] == [False, False, True, True]
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
