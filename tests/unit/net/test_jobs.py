"""Jobs of a driver: tasks and scopes are kept from one to the next, and nothing else is."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from bascule.net._link import open_driver

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from bascule.net._link import Driver

pytestmark = pytest.mark.anyio

SEEN: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")


class Work:
    """A job that runs a function and remembers how it ended."""

    def __init__(self, function: Callable[[], Awaitable[None]], deadline: float = math.inf) -> None:
        self.deadline = deadline
        self.function = function
        self.scope: anyio.CancelScope | None = None
        self.ended = anyio.Event()
        self.error: Exception | None = None
        self.returned: bool | None = None

    def start(self, scope: anyio.CancelScope) -> Coroutine[Any, Any, None]:
        self.scope = scope
        return self._run()

    async def _run(self) -> None:
        await self.function()

    def end(self, error: Exception | None, returned: bool) -> None:
        assert self.returned is None, "a job ends once"
        self.error, self.returned = error, returned
        self.scope = None
        self.ended.set()


async def do(driver: Driver, function: Callable[[], Awaitable[None]], **options: float) -> Work:
    work = Work(function, **options)
    driver.spawn_job(work)
    with anyio.fail_after(5):
        await work.ended.wait()
    await anyio.lowlevel.checkpoint()
    return work


async def test_a_job_knows_nothing_of_the_one_before() -> None:
    heard: list[str] = []
    tasks: set[int] = set()

    async def listen() -> None:
        heard.append(SEEN.get())
        tasks.add(anyio.get_current_task().id)
        SEEN.set("something")
        await anyio.lowlevel.checkpoint()
        heard.append(SEEN.get())

    async with open_driver() as driver:
        for _ in range(3):
            assert (await do(driver, listen)).returned
    assert heard == ["nothing", "something"] * 3
    assert len(tasks) == 1, "they took turns in one task"


async def test_a_cancelled_job_spends_its_scope_only() -> None:
    async def hang() -> None:
        await anyio.sleep_forever()

    async def fine() -> None:
        await anyio.lowlevel.checkpoint()

    async with open_driver() as driver:
        for _ in range(3):
            work = Work(hang)
            driver.spawn_job(work)
            await anyio.wait_all_tasks_blocked()
            assert work.scope is not None
            work.scope.cancel()
            with anyio.fail_after(5):
                await work.ended.wait()
            assert (work.error, work.returned) == (None, False)
            assert (await do(driver, fine)).returned


async def test_a_deadline_is_the_jobs_alone() -> None:
    deadlines: list[float] = []

    async def look() -> None:
        deadlines.append(anyio.current_effective_deadline())

    async with open_driver() as driver:
        soon = anyio.current_time() + 60.0
        await do(driver, look, deadline=soon)
        await do(driver, look)
    assert deadlines == [soon, math.inf]


async def test_what_a_job_raises_is_its_owners_and_its_task_goes_on() -> None:
    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        message = "no"
        raise ValueError(message)

    async def fine() -> None:
        await anyio.lowlevel.checkpoint()

    async with open_driver() as driver:
        for _ in range(3):
            work = await do(driver, fail)
            assert isinstance(work.error, ValueError)
            assert work.returned is False
            assert (await do(driver, fine)).error is None


async def test_the_end_of_the_driver_ends_every_job_once() -> None:
    async def hang() -> None:
        await anyio.sleep_forever()

    async def fine() -> None:
        await anyio.lowlevel.checkpoint()

    async with open_driver() as driver:
        parked = await do(driver, fine)
        running = [Work(hang) for _ in range(5)]
        for work in running:
            driver.spawn_job(work)
        late = Work(fine)
        driver.spawn_job(late)
    assert parked.returned
    assert [work.returned for work in running] == [False] * 5
    assert late.returned is not None, "what was given at the very end has ended too"


async def test_more_jobs_than_are_kept() -> None:
    gate = anyio.Event()
    done = 0

    async def wait() -> None:
        nonlocal done
        await gate.wait()
        done += 1

    async with open_driver() as driver:
        works = [Work(wait) for _ in range(300)]
        for work in works:
            driver.spawn_job(work)
        gate.set()
        for work in works:
            with anyio.fail_after(10):
                await work.ended.wait()
        works = [Work(wait) for _ in range(300)]
        for work in works:
            driver.spawn_job(work)
        for work in works:
            with anyio.fail_after(10):
                await work.ended.wait()
    assert done == 600


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio's tasks have no such counter
async def test_a_cancellation_left_behind_does_not_meet_the_next_job() -> None:
    counts: list[int] = []

    async def swallow() -> None:
        task = asyncio.current_task()
        assert task is not None
        counts.append(task.cancelling())
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    async with open_driver() as driver:
        for _ in range(3):
            assert (await do(driver, swallow)).returned
    assert counts == [0, 0, 0]
