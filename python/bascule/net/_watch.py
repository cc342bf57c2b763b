"""What an event loop is like from inside: how late it is, how many tasks and threads it has."""

from __future__ import annotations

from bisect import bisect_left
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import sniffio

from bascule._tasks import owned_tasks
from bascule.observe import thread_states

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from bascule.observe import Metrics

__all__ = ["LoopWatch", "watched_loop"]

#: Seconds between two looks. Whatever blocks the loop for longer is seen in full.
EVERY = 0.1

#: Looks from one count of the tasks to the next: asyncio counts them one by one.
COUNT_EVERY = 20

#: A timer of an idle loop is late by a tenth of a millisecond; 10 s is an outage.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class LoopWatch:
    """Measures how late timers are, in a task of its own that costs some 30 us ten times a second.

    :ivar backend: ``asyncio`` or ``trio``; empty before it runs
    :ivar tasks: tasks of the loop that had not ended when they were last counted
    :ivar lags: how often a timer was late, by bucket, not cumulative
    :ivar lag_seconds: sum of all that they were late
    """

    bounds: Sequence[float] = BOUNDS

    def __init__(self) -> None:
        self.backend = ""
        self.tasks = 0
        self.lags = [0] * (len(BOUNDS) + 1)
        self.lag_seconds = 0.0
        self._threads: anyio.CapacityLimiter | None = None

    async def run(self) -> None:
        """Measure until cancelled. Virtual time, which is never late, is left alone."""
        self.backend = sniffio.current_async_library()
        self._threads = anyio.to_thread.current_default_thread_limiter()
        while True:
            self.tasks = _count_tasks(self.backend)
            for _ in range(COUNT_EVERY):
                due, real = anyio.current_time() + EVERY, monotonic()
                await anyio.sleep_until(due)
                if monotonic() - real < EVERY / 2:
                    return
                late = max(anyio.current_time() - due, 0.0)
                self.lags[bisect_left(BOUNDS, late)] += 1
                self.lag_seconds += late

    def threads(self) -> Iterable[tuple[str, Mapping[str, float]]]:
        """Return what is known of the worker threads that are not limited otherwise."""
        if self._threads is not None:
            yield "default", thread_states(self._threads)


@asynccontextmanager
async def watched_loop(metrics: Metrics) -> AsyncIterator[None]:
    """Have metrics show this event loop and this process, unless they do already."""
    token = anyio.lowlevel.current_token()
    if token in metrics.loops:
        yield
        return
    metrics.add_process()
    watch = LoopWatch()
    metrics.loops.add(token)
    try:
        with metrics.passing() as sources:
            sources.add_loop(watch)
            async with owned_tasks() as tasks:
                tasks.start_soon(watch.run, name="event loop watch")
                try:
                    yield
                finally:
                    tasks.cancel_scope.cancel()
    finally:
        metrics.loops.discard(token)


def _count_tasks(backend: str) -> int:
    if backend == "trio":
        from bascule.net._trio import living_tasks
    else:
        from bascule.net._asyncio import living_tasks
    return living_tasks()
