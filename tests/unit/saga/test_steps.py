"""What a step may ask for: retries, a time limit, company, and no way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest

from bascule.errors import ConfigurationError
from bascule.saga import (
    Backoff,
    MemorySagaLog,
    Saga,
    SagaCoordinator,
    SagaFailedError,
    SagaOperator,
    SagaParkedError,
    SagaState,
    Step,
    StepCall,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

pytestmark = pytest.mark.anyio


class Context(msgspec.Struct, frozen=True):
    a: int = 0
    b: int = 0
    c: int = 0


class RefusedError(Exception):
    """A step that says no."""


class World:
    """Steps that note what they do. ``failures`` is how often each is still to fail."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.attempts: list[int] = []
        self.failures: dict[str, int] = {}
        self.waits: dict[str, Callable[[], Awaitable[Any]]] = {}

    async def act(self, context: Context, call: StepCall) -> Mapping[str, Any]:
        self.calls.append(call.step)
        self.attempts.append(call.attempt)
        if call.step in self.waits:
            await self.waits[call.step]()
        self._fail(call.step)
        return {call.step: getattr(context, call.step) + 1} if call.step in {"a", "b", "c"} else {}

    async def undo(self, _context: Context, call: StepCall) -> None:
        self.calls.append(f"-{call.step}")
        self._fail(f"-{call.step}")

    def _fail(self, name: str) -> None:
        if self.failures.get(name, 0):
            self.failures[name] -= 1
            raise RefusedError(name)

    def step(self, name: str, **options: Any) -> Step[Context]:
        return Step(name, self.act, self.undo, **options)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def log() -> MemorySagaLog:
    return MemorySagaLog()


@pytest.fixture
def coordinator(log: MemorySagaLog) -> SagaCoordinator:
    return SagaCoordinator(log, backoff=Backoff(attempts=3, initial=0.0))


def saga(*stages: Step[Context] | tuple[Step[Context], ...]) -> Saga[Context]:
    made = Saga("s", Context)
    for stage in stages:
        made = made.parallel(*(stage if isinstance(stage, tuple) else (stage,)))
    return made


AT_ONCE = Backoff(attempts=3, initial=0.0)


async def test_an_action_is_tried_again_with_a_growing_number(
    coordinator: SagaCoordinator, log: MemorySagaLog, world: World
) -> None:
    world.failures = {"a": 2}
    assert (await coordinator.run(saga(world.step("a", retry=AT_ONCE)), Context())).a == 1
    assert world.attempts == [1, 2, 3]
    (run,) = await log.list()
    journal = (await SagaOperator(log).show(run.saga_id)).records
    assert [record.event.value for record in journal] == [
        "started", "begun", "retrying", "retrying", "done", "completed",
    ]  # fmt: skip
    assert journal[2].note == "RefusedError('a')"


async def test_an_action_fails_when_its_attempts_are_used_up(
    coordinator: SagaCoordinator, world: World
) -> None:
    world.failures = {"a": 3}
    with pytest.raises(SagaFailedError):
        await coordinator.run(saga(world.step("a", retry=AT_ONCE)), Context())
    assert world.calls == ["a", "a", "a", "-a"]


async def test_an_error_that_is_not_worth_it_is_not_retried(
    coordinator: SagaCoordinator, world: World
) -> None:
    world.failures = {"a": 1}
    policy = Backoff(attempts=3, initial=0.0, retryable=lambda error: "a" not in str(error))
    with pytest.raises(SagaFailedError):
        await coordinator.run(saga(world.step("a", retry=policy)), Context())
    assert world.calls == ["a", "-a"]


@pytest.mark.parametrize("attempts", [1, 2])
async def test_each_attempt_has_the_time_limit_of_its_step(
    coordinator: SagaCoordinator, world: World, attempts: int
) -> None:
    world.waits = {"a": anyio.sleep_forever}
    policy = Backoff(attempts=attempts, initial=0.0)
    with pytest.raises(SagaFailedError) as caught:
        await coordinator.run(saga(world.step("a", timeout=0.01, retry=policy)), Context())
    assert isinstance(caught.value.cause, TimeoutError)
    assert world.calls == ["a"] * attempts + ["-a"]


async def test_steps_of_a_group_run_at_the_same_time_on_one_context(
    coordinator: SagaCoordinator, log: MemorySagaLog, world: World
) -> None:
    meeting = [anyio.Event(), anyio.Event()]

    async def first() -> None:
        meeting[0].set()
        await meeting[1].wait()

    async def second() -> None:
        meeting[1].set()
        await meeting[0].wait()

    world.waits = {"a": first, "b": second}
    made = saga((world.step("a"), world.step("b")), world.step("c"))
    assert await coordinator.run(made, Context(), saga_id="g") == Context(a=1, b=1, c=1)
    run = await log.load("g")
    assert run is not None
    assert [record.sequence for record in run.records] == list(range(run.sequence))


async def test_the_first_failure_of_a_group_cancels_the_others_and_all_are_undone_in_reverse(
    coordinator: SagaCoordinator, world: World
) -> None:
    waiting = anyio.Event()
    cancelled: list[str] = []

    async def hang() -> None:
        waiting.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append("c")

    world.waits = {"b": waiting.wait, "c": hang}
    world.failures = {"b": 1}
    made = saga(world.step("x"), (world.step("a"), world.step("b"), world.step("c")))
    with pytest.raises(SagaFailedError, match="'b'"):
        await coordinator.run(made, Context())
    assert cancelled == ["c"]
    assert world.calls[:1] == ["x"]
    assert sorted(world.calls[1:4]) == ["a", "b", "c"]
    assert world.calls[4:] == ["-c", "-b", "-a", "-x"]


async def test_two_steps_of_a_group_must_not_set_one_field(coordinator: SagaCoordinator) -> None:
    async def act(_context: Context, _call: StepCall) -> Mapping[str, Any]:
        return {"a": 1}

    with pytest.raises(SagaFailedError, match="both set 'a'"):
        await coordinator.run(saga((Step("one", act), Step("two", act))), Context())


def with_pivot(world: World) -> Saga[Context]:
    return (
        Saga("pivoted", Context)
        .step("a", world.act, world.undo)
        .step("b", world.act, world.undo, pivot=True)
        .step("c", world.act)
    )


async def test_a_pivot_that_fails_is_undone_like_any_step(
    coordinator: SagaCoordinator, world: World
) -> None:
    world.failures = {"b": 1}
    with pytest.raises(SagaFailedError):
        await coordinator.run(with_pivot(world), Context())
    assert world.calls == ["a", "b", "-b", "-a"]


async def test_steps_past_the_pivot_are_tried_until_done(
    coordinator: SagaCoordinator, world: World
) -> None:
    world.failures = {"c": 2}
    assert await coordinator.run(with_pivot(world), Context()) == Context(a=1, b=1, c=1)
    assert world.calls == ["a", "b", "c", "c", "c"]


@pytest.mark.parametrize("by_hand", [False, True])
async def test_a_step_past_the_pivot_is_parked_not_undone_and_a_person_sends_it_on(
    coordinator: SagaCoordinator, log: MemorySagaLog, world: World, by_hand: bool
) -> None:
    world.failures = {"c": 3}
    with pytest.raises(SagaParkedError, match="'c'"):
        await coordinator.run(with_pivot(world), Context(), saga_id="p")
    assert world.calls == ["a", "b", "c", "c", "c"]
    operator = SagaOperator(log)
    (parked,) = await operator.list(state=SagaState.PARKED)
    assert (parked.step, parked.error) == ("c", "RefusedError('c')")
    if by_hand:
        await operator.resolve("p", "done", by="ann", why="done in the back office")
    else:
        await operator.retry("p", by="ann")
    context = await coordinator.result(with_pivot(world), "p")
    assert context == Context(a=1, b=1, c=0 if by_hand else 1)
    assert world.calls[5:] == ([] if by_hand else ["c"])
    assert "ann" in {record.by for record in (await operator.show("p")).records}


async def test_a_caller_that_is_cancelled_past_the_pivot_undoes_nothing(
    coordinator: SagaCoordinator, log: MemorySagaLog, world: World
) -> None:
    blocked = anyio.Event()

    async def block() -> None:
        if not blocked.is_set():
            blocked.set()
            await anyio.sleep_forever()

    world.waits = {"c": block}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(coordinator.run, with_pivot(world), Context())
        await blocked.wait()
        tasks.cancel_scope.cancel()
    assert world.calls == ["a", "b", "c", "c"]
    (run,) = await log.list()
    assert run.state is SagaState.COMPLETED


def test_definitions_that_cannot_work_are_refused(world: World) -> None:
    with pytest.raises(ConfigurationError, match="comes after the pivot 'b'"):
        with_pivot(world).step("d", world.act, world.undo)
    with pytest.raises(ConfigurationError, match="alone in its stage"):
        saga((world.step("a", pivot=True), world.step("b")))
    with pytest.raises(ConfigurationError, match="alone in its stage"):
        with_pivot(world).step("d", world.act, pivot=True)
    with pytest.raises(ConfigurationError, match="at least one step"):
        Saga("s", Context).parallel()
    for name in ("", "a/b", "a b", "\n", "x" * 101):
        with pytest.raises(ConfigurationError, match="name"):
            world.step(name)
        with pytest.raises(ConfigurationError, match="name"):
            Saga(name, Context)
    with pytest.raises(ConfigurationError, match="timeout"):
        world.step("a", timeout=0.0)


def test_waits_grow_to_their_maximum_and_differ() -> None:
    policy = Backoff(attempts=100, initial=0.1, maximum=1.0, jitter=0.5)
    for attempt, full in ((1, 0.1), (2, 0.2), (3, 0.4), (5, 1.0), (99, 1.0)):
        waits = {policy.delay(attempt) for _ in range(20)}
        assert len(waits) > 1
        assert all(full / 2 <= wait <= full for wait in waits)
    assert Backoff(jitter=0.0).delay(2) == 0.2
    for bad in ({"attempts": 0}, {"initial": -1.0}, {"maximum": -1.0}, {"jitter": 1.5}):
        with pytest.raises(ValueError):
            Backoff(**bad)
