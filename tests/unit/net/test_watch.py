"""An event loop seen from inside."""

from __future__ import annotations

import time

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from bascule.net._watch import watched_loop
from bascule.observe import Metrics

pytestmark = pytest.mark.anyio


def value(metrics: Metrics, series: str) -> float | None:
    for line in metrics.render()[0].decode().splitlines():
        name, _, number = line.rpartition(" ")
        if name == series:
            return float(number)
    return None


async def until_at_least(metrics: Metrics, series: str, wanted: float) -> None:
    with anyio.fail_after(30):
        while (value(metrics, series) or 0.0) < wanted:  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.01)


async def test_what_blocks_the_loop_shows_as_lag() -> None:
    metrics = Metrics()
    async with watched_loop(metrics):
        await until_at_least(metrics, "event_loop_lag_seconds_count", 1)
        time.sleep(0.4)  # noqa: ASYNC251 - what must not be done
        await until_at_least(metrics, "event_loop_lag_seconds_sum", 0.25)
        count = value(metrics, "event_loop_lag_seconds_count") or 0.0
        short = value(metrics, 'event_loop_lag_seconds_bucket{le="0.25"}') or 0.0
        assert short < count


async def test_tasks_and_threads_are_counted(anyio_backend: str) -> None:
    metrics = Metrics()
    release = anyio.Event()
    limiter = anyio.CapacityLimiter(3)
    metrics.add_threads("hashing", limiter)
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(release.wait)
        await anyio.lowlevel.checkpoint()
        async with watched_loop(metrics), limiter:
            await until_at_least(metrics, "event_loop_tasks", 50)
            assert value(metrics, 'worker_threads{limiter="hashing",state="in_use"}') == 1
            assert value(metrics, 'worker_threads{limiter="hashing",state="size"}') == 3
            await until_at_least(metrics, 'worker_threads{limiter="default",state="size"}', 1)
            build = [
                each for each in metrics.render()[0].decode().splitlines() if "build_info{" in each
            ]
            assert f'backend="{anyio_backend}"' in build[0]
            assert value(metrics, "process_start_time_seconds")
        release.set()


async def test_a_loop_that_two_parts_have_watched_is_one() -> None:
    metrics = Metrics()
    async with watched_loop(metrics):
        async with watched_loop(metrics):
            assert len(metrics.loops) == 1
        assert len(metrics.loops) == 1
        await until_at_least(metrics, "event_loop_lag_seconds_count", 1)
    assert not metrics.loops
    assert value(metrics, "event_loop_tasks") is None
