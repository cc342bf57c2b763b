"""The bulkhead as Python code uses it, and its queue under cancellation."""

from __future__ import annotations

import random
from typing import Any

import anyio
import pytest

from bascule.errors import BulkheadFullError, ConfigurationError, RejectedError
from bascule.resilience import Bulkhead
from bascule.testing import VirtualClock, virtual_backend

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


class Callers:
    """Tasks that enter a bulkhead and stay until they are told to leave."""

    def __init__(self, bulkhead: Bulkhead, tasks: anyio.abc.TaskGroup) -> None:
        self.bulkhead = bulkhead
        self.tasks = tasks
        self.inside: list[str] = []
        self.refused: list[tuple[str, BulkheadFullError]] = []
        self.scopes: dict[str, anyio.CancelScope] = {}
        self.leave: dict[str, anyio.Event] = {}

    async def come(self, *names: str) -> None:
        for name in names:
            self.scopes[name] = anyio.CancelScope()
            self.leave[name] = anyio.Event()
            self.tasks.start_soon(self._run, name)
            await anyio.wait_all_tasks_blocked()

    async def _run(self, name: str) -> None:
        with self.scopes[name]:
            try:
                async with self.bulkhead:
                    self.inside.append(name)
                    try:
                        await self.leave[name].wait()
                    finally:
                        self.inside.remove(name)
            except BulkheadFullError as error:
                self.refused.append((name, error))


async def test_who_finds_no_room_is_refused() -> None:
    bulkhead = Bulkhead("payments", max_concurrent=2)
    async with anyio.create_task_group() as tasks:
        callers = Callers(bulkhead, tasks)
        await callers.come("a", "b", "c")
        assert callers.inside == ["a", "b"]
        [(name, error)] = callers.refused
        assert name == "c"
        assert isinstance(error, RejectedError)
        assert (error.target, error.retry_after, error.waited) == ("payments", None, 0.0)
        assert "bulkhead 'payments' is full: send fewer" in str(error)
        shot = bulkhead.snapshot()
        assert (shot.name, shot.limit, shot.in_progress, shot.waiting) == ("payments", 2, 2, 0)
        assert shot.calls == {"admitted": 2, "rejected": 1}
        tasks.cancel_scope.cancel()
    assert bulkhead.in_progress == 0


async def test_the_queue_is_first_come_first_served_and_bounded() -> None:
    bulkhead = Bulkhead("payments", max_concurrent=1, max_waiting=2)
    async with anyio.create_task_group() as tasks:
        callers = Callers(bulkhead, tasks)
        await callers.come("a", "b", "c", "d")
        assert [name for name, _ in callers.refused] == ["d"]
        assert bulkhead.waiting == 2
        for leaving, entering in ("ab", "bc"):
            callers.leave[leaving].set()
            await anyio.wait_all_tasks_blocked()
            assert callers.inside == [entering]
        callers.leave["c"].set()
    assert (bulkhead.in_progress, bulkhead.waiting) == (0, 0)


async def test_nobody_overtakes_who_waits() -> None:
    """The place that is handed over is never free in between, not even within a turn."""
    bulkhead = Bulkhead("payments", max_concurrent=1, max_waiting=1)
    async with anyio.create_task_group() as tasks:
        callers = Callers(bulkhead, tasks)
        permit = bulkhead.admit()
        await callers.come("a")
        permit.release()
        with pytest.raises(BulkheadFullError):
            bulkhead.admit()
        await anyio.wait_all_tasks_blocked()
        assert callers.inside == ["a"]
        callers.leave["a"].set()


async def test_a_wait_ends_in_time() -> None:
    bulkhead = Bulkhead("payments", max_concurrent=1, max_waiting=5, max_wait=2.0)
    async with VirtualClock() as clock, anyio.create_task_group() as tasks:
        callers = Callers(bulkhead, tasks)
        await callers.come("a", "b")
        await clock.advance(1.0)
        await callers.come("c")
        await clock.advance(1.0)
        [(name, error)] = callers.refused
        assert (name, round(error.waited, 6)) == ("b", 2.0)
        assert "is full for 2.000 s" in str(error)
        callers.leave["a"].set()
        await clock.settle()
        assert callers.inside == ["c"]
        callers.leave["c"].set()


async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    bulkhead = Bulkhead("payments", max_concurrent=1, max_waiting=2)
    async with anyio.create_task_group() as tasks:
        callers = Callers(bulkhead, tasks)
        await callers.come("a", "b", "c")
        callers.scopes["b"].cancel()
        await anyio.wait_all_tasks_blocked()
        assert bulkhead.waiting == 1
        callers.leave["a"].set()
        await anyio.wait_all_tasks_blocked()
        assert callers.inside == ["c"]
        callers.leave["c"].set()


@pytest.mark.parametrize("order", ["served first", "cancelled first"])
async def test_a_place_goes_on_if_its_waiter_is_cancelled_in_the_same_turn(order: str) -> None:
    bulkhead = Bulkhead("payments", max_concurrent=1, max_waiting=2)
    async with anyio.create_task_group() as tasks:
        callers = Callers(bulkhead, tasks)
        permit = bulkhead.admit()
        await callers.come("a", "b")
        if order == "served first":
            permit.release()
            callers.scopes["a"].cancel()
        else:
            callers.scopes["a"].cancel()
            permit.release()
        await anyio.wait_all_tasks_blocked()
        callers.leave["a"].set()
        await anyio.wait_all_tasks_blocked()
        assert callers.inside == ["b"]
        callers.leave["b"].set()
    assert (bulkhead.in_progress, bulkhead.waiting) == (0, 0)


async def test_a_place_that_comes_when_the_wait_ends_is_not_lost() -> None:
    bulkhead = Bulkhead("payments", max_concurrent=1, max_waiting=1, max_wait=1.0)
    async with VirtualClock() as clock, anyio.create_task_group() as tasks:
        callers = Callers(bulkhead, tasks)
        permit = bulkhead.admit()
        await callers.come("a")

        async def release() -> None:
            await anyio.sleep(1.0)
            permit.release()

        tasks.start_soon(release)
        await clock.advance(1.0)
        assert len(callers.inside) + len(callers.refused) == 1
        callers.leave["a"].set()
    assert (bulkhead.in_progress, bulkhead.waiting) == (0, 0)


@pytest.mark.parametrize("seed", range(10))
async def test_many_callers_that_come_and_give_up_lose_no_place(seed: int) -> None:
    dice = random.Random(seed)
    bulkhead = Bulkhead("payments", max_concurrent=3, max_waiting=20, max_wait=0.05)
    inside, most, served = 0, 0, 0

    async def caller(comes: float, stays: float, patience: float) -> None:
        nonlocal inside, most, served
        await anyio.sleep(comes)
        with anyio.move_on_after(patience):
            try:
                async with bulkhead:
                    inside += 1
                    most = max(most, inside)
                    served += 1
                    try:
                        await anyio.sleep(stays)
                    finally:
                        inside -= 1
            except BulkheadFullError:
                pass

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            # Few different times, so that much happens in the same turn.
            tasks.start_soon(
                caller,
                dice.randrange(20) / 100,
                dice.randrange(4) / 100,
                dice.randrange(1, 6) / 100,
            )
    assert (inside, bulkhead.in_progress, bulkhead.waiting) == (0, 0, 0)
    assert most == 3
    shot = bulkhead.snapshot()
    assert shot.calls["admitted"] == served
    assert 0 < shot.calls["rejected"] < 200


async def test_permits_are_released_once() -> None:
    bulkhead = Bulkhead("payments", max_concurrent=2)
    first = bulkhead.admit()
    second = await bulkhead.acquire()
    first.release()
    first.release()
    assert bulkhead.in_progress == 1
    second.release()
    assert bulkhead.in_progress == 0


async def test_decorates_coroutine_functions() -> None:
    bulkhead = Bulkhead("payments", max_concurrent=1)

    @bulkhead
    async def charge(amount: int) -> int:
        assert bulkhead.in_progress == 1
        with pytest.raises(BulkheadFullError):
            await charge(amount)
        return amount

    assert await charge(5) == 5
    assert charge.__name__ == "charge"
    with pytest.raises(TypeError, match="no coroutine function"):
        bulkhead(lambda: None)  # type: ignore[arg-type, return-value]
    assert repr(bulkhead) == "Bulkhead('payments', 0 of 1)"


@pytest.mark.parametrize(
    "wrong", [{"max_concurrent": 0}, {"max_waiting": -1}, {"max_wait": 0.0}], ids=str
)
def test_settings_that_cannot_work_name_the_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Bulkhead("payments", **wrong)
