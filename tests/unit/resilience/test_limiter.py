"""The rate limiters as Python code uses them."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import anyio
import pytest
from tests.unit.resilience.clock import ManualClock

from bascule.errors import ConfigurationError, RateLimitedError
from bascule.resilience import (
    GcraLimiter,
    LimitAlgorithm,
    RateLimiter,
    SlidingWindowLimiter,
    TokenBucketLimiter,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=[GcraLimiter, TokenBucketLimiter])
def kind(request: pytest.FixtureRequest) -> type[RateLimiter]:
    kind: type[RateLimiter] = request.param
    return kind


@pytest.fixture
def limiter(kind: type[RateLimiter], clock: ManualClock) -> RateLimiter:
    """One unit a second, one at once."""
    return kind(1, name="api", clock=clock, sleep=clock.sleep)


def test_tells_what_a_response_header_needs(kind: type[RateLimiter], clock: ManualClock) -> None:
    limiter = kind(1000, 60.0, clock=clock)
    decision = limiter.check("subject", 999)
    assert decision
    assert (decision.limit, decision.remaining, decision.retry_after) == (1000, 1, 0.0)
    assert decision.reset_after == pytest.approx(59.94)
    refused = limiter.check("subject", 2)
    assert not refused
    assert (refused.remaining, refused.retry_after) == (1, 0.06)
    assert limiter.check("subject", 1001).retry_after is None
    assert limiter.check("other", 1000)
    assert repr(refused) == (
        "Decision(allowed=False, limit=1000, remaining=1, reset_after=59.94, retry_after=0.06)"
    )


def test_require_raises_what_a_handler_needs(limiter: RateLimiter, clock: ManualClock) -> None:
    assert limiter.require("key").remaining == 0
    clock.advance(0.25)
    with pytest.raises(
        RateLimitedError, match=r"'api' is used up; try again in 0\.750 s"
    ) as caught:
        limiter.require("key")
    assert caught.value.retry_after == 0.75
    with pytest.raises(RateLimitedError) as caught:
        limiter.require("key", 2)
    assert caught.value.retry_after is None


@pytest.mark.parametrize(
    "wrong",
    [{"rate": 0}, {"per": 0.0}, {"per": float("nan")}, {"burst": 0}, {"max_keys": 0}],
)
def test_settings_that_cannot_work_name_the_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        GcraLimiter(**{"rate": 1, **wrong})


def test_a_bucket_too_slow_to_count_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="burst"):
        TokenBucketLimiter(1, 2.0**32, burst=2**32 - 1)


def test_a_window_has_no_burst_of_its_own() -> None:
    assert SlidingWindowLimiter(5).burst == 5
    assert SlidingWindowLimiter(5, burst=5).burst == 5
    with pytest.raises(ConfigurationError, match="burst is 6, but a sliding window of 5 allows 5"):
        SlidingWindowLimiter(5, burst=6)


def test_a_limiter_is_found_by_the_name_of_its_algorithm() -> None:
    for algorithm in LimitAlgorithm:
        limiter = LimitAlgorithm.named(str(algorithm)).limiter(5)
        assert limiter.algorithm is algorithm
        assert limiter.check("key", 5)
        assert not limiter.check("key")
    with pytest.raises(ConfigurationError, match="algorithm is 'log': choose from .'gcra', "):
        LimitAlgorithm.named("log")


def test_a_window_gives_back_what_it_took_in_the_next(clock: ManualClock) -> None:
    """All in its middle, so none until it ends; then evenly, as the window before passes out."""
    limiter = SlidingWindowLimiter(1000, 60.0, clock=clock)
    clock.advance(30.0)
    assert limiter.check("subject", 1000)
    refused = limiter.check("subject")
    assert (refused.remaining, refused.retry_after, refused.reset_after) == (0, 30.06, 90.0)
    clock.advance(29.9)
    assert limiter.check("subject", 0).remaining == 0
    clock.advance(6.1)
    decision = limiter.check("subject", 40)
    assert (decision.allowed, decision.remaining, decision.reset_after) == (True, 60, 114.0)
    clock.advance(6.0)
    assert limiter.check("subject", 0).remaining == 160
    assert limiter.check("subject", 1000).retry_after == pytest.approx(108.0)


async def test_a_window_is_waited_for(clock: ManualClock) -> None:
    """Greedy, one gets a unit less than the rate: the last one fades only as the window ends."""
    limiter = SlidingWindowLimiter(2, clock=clock, sleep=clock.sleep)
    served: list[float] = []

    async def wait() -> None:
        await limiter.acquire("key")
        served.append(clock.now_ns / 1e9)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
        await clock.run(3.0)
    assert served == [0.0, 0.0, 1.5, 2.0, 3.0]


def test_tells_its_settings(limiter: RateLimiter) -> None:
    assert repr(limiter).endswith("Limiter(rate=1, per=1.0, burst=1, name='api')")
    assert (limiter.rate, limiter.per, limiter.burst) == (1, 1.0, 1)


def test_known_keys_are_bounded(kind: type[RateLimiter], clock: ManualClock) -> None:
    limiter = kind(1, max_keys=10, clock=clock)
    for key in range(100):
        assert limiter.check(str(key))
    assert (len(limiter), limiter.displaced) == (10, 90)
    clock.advance(1.0)
    for _ in range(10):
        limiter.check("awake")
        clock.advance(1.0)
    assert len(limiter) == 1


async def test_waits_its_turn(limiter: RateLimiter, clock: ManualClock) -> None:
    served: list[tuple[int, int]] = []

    async def wait(number: int) -> None:
        decision = await limiter.acquire("key")
        assert decision.allowed
        served.append((number, clock.now_ns))

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(wait, number)
            await anyio.wait_all_tasks_blocked()
        assert served == [(0, 0)]
        await clock.run(3.0)
    assert served == [(number, number * 1_000_000_000) for number in range(4)]


async def test_dear_and_cheap_keep_their_order(kind: type[RateLimiter], clock: ManualClock) -> None:
    limiter = kind(1, burst=3, clock=clock, sleep=clock.sleep)
    served: list[tuple[int, int]] = []

    async def wait(cost: int) -> None:
        await limiter.acquire("key", cost)
        served.append((cost, clock.now_ns // 1_000_000_000))

    async with anyio.create_task_group() as group:
        for cost in (2, 3, 1):
            group.start_soon(wait, cost)
            await anyio.wait_all_tasks_blocked()
        await clock.run(3.0)
    assert served == [(2, 0), (3, 2), (1, 3)]


async def test_keys_do_not_wait_for_each_other(limiter: RateLimiter, clock: ManualClock) -> None:
    limiter.require("slow")
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.acquire, "slow")
        await anyio.wait_all_tasks_blocked()
        assert await limiter.acquire("quick")
        await clock.run(1.0)


@pytest.mark.parametrize("cancelled", [1, 2, 3])
async def test_a_cancelled_wait_gives_its_slot_back(
    limiter: RateLimiter, clock: ManualClock, cancelled: int
) -> None:
    served: list[int] = []
    scopes = {number: anyio.CancelScope() for number in range(1, 4)}

    async def wait(number: int) -> None:
        with scopes[number]:
            await limiter.acquire("key")
            served.append(clock.now_ns // 1_000_000_000)

    limiter.require("key")
    async with anyio.create_task_group() as group:
        for number in scopes:
            group.start_soon(wait, number)
            await anyio.wait_all_tasks_blocked()
        clock.advance(0.5)
        scopes[cancelled].cancel()
        await clock.run(2.0)
    assert served == [1, 2]


async def test_grant_and_cancel_in_one_tick(limiter: RateLimiter, clock: ManualClock) -> None:
    """Who is cancelled as its time comes either has its unit or has left it for the next."""
    served: list[str] = []
    scope = anyio.CancelScope()

    async def wait(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            await limiter.acquire("key")
            served.append(name)

    limiter.require("key")
    async with anyio.create_task_group() as group:
        group.start_soon(wait, "first", scope)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(wait, "second", anyio.CancelScope())
        await anyio.wait_all_tasks_blocked()
        clock.advance(1.0)
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert len(served) == 1
        await clock.run(1.0)
    assert served in (["second"], ["first", "second"])


async def test_a_cancelled_caller_joins_no_queue(limiter: RateLimiter, clock: ManualClock) -> None:
    limiter.require("key")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await limiter.acquire("key")
    assert scope.cancelled_caught
    clock.advance(1.0)
    assert limiter.check("key")


async def test_a_wait_that_would_never_end_is_refused(limiter: RateLimiter) -> None:
    with pytest.raises(ValueError, match="cost is 2, more than the burst of 1"):
        await limiter.acquire("key", 2)


async def test_who_does_not_queue_may_overtake(limiter: RateLimiter, clock: ManualClock) -> None:
    served: list[int] = []

    async def wait() -> None:
        await limiter.acquire("key")
        served.append(clock.now_ns // 1_000_000_000)

    limiter.require("key")
    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        clock.advance(1.0)
        limiter.require("key")
        await clock.run(1.0)
    assert served == [2]


async def test_waits_in_real_time() -> None:
    limiter = GcraLimiter(200)
    begin = time.monotonic()
    limiter.require("key", 200)
    for turn in range(1, 4):
        await limiter.acquire("key")
        assert time.monotonic() - begin >= turn / 200


MEASURE = """
import sys, psutil
from bascule.resilience import LimitAlgorithm

COUNT = 260_000
limiter = LimitAlgorithm(sys.argv[1]).limiter(1, 3600.0, max_keys=1_000_000)
memory = psutil.Process().memory_info
limiter.check("warm")
before, size = memory().rss, 0
for number in range(COUNT):
    key = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    size += len(key)
    limiter.check(key)
assert len(limiter) == COUNT + 1
print((memory().rss - before - size) / COUNT)
"""


@pytest.mark.parametrize("algorithm", list(LimitAlgorithm))
def test_many_keys_take_little_memory(algorithm: str) -> None:
    command = [sys.executable, "-c", MEASURE, algorithm]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 32 < float(answer.stdout) <= 80
