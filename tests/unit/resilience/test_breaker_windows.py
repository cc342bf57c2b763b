"""Circuit breakers that judge the last calls by rates, as Python code uses them."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from tests.unit.resilience.clock import ManualClock

from bascule.errors import BreakerOpenError, ConfigurationError
from bascule.observe import BreakerWindow
from bascule.resilience import (
    BreakerSettings,
    BreakerState,
    CircuitBreaker,
    CountWindow,
    Outcome,
    TimeWindow,
)

pytestmark = pytest.mark.anyio

LAST_TEN = CountWindow(calls=10, minimum_calls=4, slow_call=2.0, slow_call_rate=0.75)
LAST_MINUTE = TimeWindow(seconds=60.0, buckets=6, minimum_calls=4)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def made(clock: ManualClock, window: CountWindow | TimeWindow) -> CircuitBreaker:
    return CircuitBreaker("orders", BreakerSettings(window=window, timeout=10.0), clock=clock)


def state_of(breaker: CircuitBreaker) -> BreakerState:
    """Return the state; a type checker takes a property for constant between two asserts."""
    return breaker.state


async def succeed(breaker: CircuitBreaker, clock: ManualClock, seconds: float = 0.0) -> None:
    async with breaker:
        clock.advance(seconds)


async def fail(breaker: CircuitBreaker) -> None:
    with pytest.raises(OSError, match="down"):
        async with breaker:
            raise OSError("down")


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = BreakerSettings(window=CountWindow())
    assert (settings.timeout, settings.half_open_timeout, settings.permits) == (30.0, 30.0, 3)
    assert settings.core_window == (100, 0, 20, 0.5, None, 1.0)
    settings = BreakerSettings(window=TimeWindow(slow_call=2.0), half_open_permits=7)
    assert settings.permits == 7
    assert settings.core_window == (10, 6_000_000_000, 20, 0.5, 2_000_000_000, 1.0)
    assert (BreakerSettings().permits, BreakerSettings().core_window) == (1, None)


@pytest.mark.parametrize(
    ("window", "wrong", "says"),
    [
        (CountWindow, {"calls": 0}, "calls is 0: give a whole number from 1 to 65536"),
        (CountWindow, {"calls": 65_537}, "calls is 65537"),
        (CountWindow, {"calls": 10}, "minimum_calls is 20, .* give at most its calls, 10"),
        (CountWindow, {"minimum_calls": 0}, "minimum_calls is 0"),
        (CountWindow, {"failure_rate": 50}, "failure_rate is 50: give a share .* 0.5 for half"),
        (CountWindow, {"failure_rate": 0.0}, "failure_rate is 0.0"),
        (CountWindow, {"failure_rate": float("nan")}, "failure_rate is nan"),
        (CountWindow, {"slow_call": 0.0}, "slow_call is 0.0: give seconds"),
        (CountWindow, {"slow_call": 1.0, "slow_call_rate": 1.1}, "slow_call_rate is 1.1"),
        (TimeWindow, {"slow_call_rate": 0.5}, "slow_call_rate is 0.5, but without slow_call"),
        (TimeWindow, {"seconds": 0.0}, "seconds is 0.0"),
        (TimeWindow, {"seconds": float("inf")}, "seconds is inf"),
        (TimeWindow, {"seconds": 1e-9}, "seconds is 1e-09, too short for 10 buckets"),
        (TimeWindow, {"buckets": 0}, "buckets is 0"),
        (TimeWindow, {"buckets": 1_001}, "buckets is 1001: give a whole number from 1 to 1000"),
    ],
)
def test_windows_that_cannot_work_say_what_to_give(
    window: type[CountWindow | TimeWindow], wrong: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{says}"):
        window(**wrong)


@pytest.mark.parametrize("threshold", ["failure_threshold", "success_threshold"])
def test_results_in_a_row_and_a_window_exclude_each_other(threshold: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{threshold} is 7, but it counts in a row"):
        BreakerSettings(window=CountWindow(), **{threshold: 7})  # type: ignore[arg-type]


async def test_opens_at_the_rate_and_closes_by_its_probes(clock: ManualClock) -> None:
    breaker = made(clock, LAST_TEN)
    await fail(breaker)
    await succeed(breaker, clock)
    await fail(breaker)
    assert breaker.snapshot().window == BreakerWindow(3, 2, 0)
    assert state_of(breaker) is BreakerState.CLOSED, "too few calls to judge"
    # The success is what makes the calls enough.
    await succeed(breaker, clock)
    assert state_of(breaker) is BreakerState.OPEN
    with pytest.raises(BreakerOpenError, match=r"try again in 10\.000 s"):
        breaker.admit()
    clock.advance(10.0)
    await fail(breaker)
    assert breaker.snapshot().window == BreakerWindow(1, 1, 0)
    await succeed(breaker, clock)
    assert state_of(breaker) is BreakerState.HALF_OPEN
    await succeed(breaker, clock)
    assert state_of(breaker) is BreakerState.CLOSED, "one probe of three failed"
    assert breaker.snapshot().window == BreakerWindow(0, 0, 0)


@pytest.mark.parametrize("how", ["block", "decorator", "permit"])
async def test_slow_calls_open_it_however_it_is_used(clock: ManualClock, how: str) -> None:
    breaker = made(clock, LAST_TEN)

    async def work(seconds: float) -> None:
        clock.advance(seconds)

    async def call(seconds: float) -> None:
        if how == "decorator":
            await breaker(work)(seconds)
        elif how == "block":
            async with breaker:
                await work(seconds)
        else:
            permit = breaker.admit()
            await work(seconds)
            permit.report(Outcome.SUCCESS)

    for seconds in (2.5, 2.0, 3.0):
        await call(seconds)
    window = breaker.snapshot().window
    assert window == BreakerWindow(3, 0, 2), "what takes just as long is not slow"
    assert (window.failure_rate, window.slow_call_rate) == (0.0, 2 / 3)
    await call(2.1)
    assert state_of(breaker) is BreakerState.OPEN
    assert breaker.snapshot().counts.slow_calls == 3


async def test_time_forgets(clock: ManualClock) -> None:
    breaker = made(clock, LAST_MINUTE)
    for _ in range(3):
        await fail(breaker)
    clock.advance(60.0)
    assert breaker.snapshot().window == BreakerWindow(0, 0, 0), "though nobody has called"
    for _ in range(3):
        await fail(breaker)
        assert state_of(breaker) is BreakerState.CLOSED
    await fail(breaker)
    assert state_of(breaker) is BreakerState.OPEN


async def test_cancelled_and_late_calls_are_in_no_window(clock: ManualClock) -> None:
    breaker = made(clock, LAST_TEN)
    late = breaker.admit()
    with anyio.CancelScope() as scope:
        async with breaker:
            clock.advance(100.0)
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert breaker.snapshot().window == BreakerWindow(0, 0, 0)
    for _ in range(4):
        await fail(breaker)
    clock.advance(10.0)
    await succeed(breaker, clock)
    late.report(Outcome.FAILURE)
    assert breaker.snapshot().window == BreakerWindow(1, 0, 0)


async def test_a_cancelled_probe_makes_room_and_a_lost_one_has_failed(clock: ManualClock) -> None:
    breaker = made(clock, LAST_TEN)
    for _ in range(4):
        await fail(breaker)
    clock.advance(10.0)
    with anyio.CancelScope() as scope:
        async with breaker:
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    lost = [breaker.admit() for _ in range(3)]
    with pytest.raises(BreakerOpenError) as caught:
        breaker.admit()
    assert caught.value.retry_after is None
    clock.advance(breaker.settings.half_open_timeout + 4.0)
    # They have been overdue for 4 s.
    with pytest.raises(BreakerOpenError, match=r"try again in 6\.000 s"):
        breaker.admit()
    for each in lost:
        each.report(Outcome.SUCCESS)
    assert state_of(breaker) is BreakerState.OPEN


async def test_a_rate_of_its_own_function_still_judges(clock: ManualClock) -> None:
    """What is a failure is the program's to say, and a slow failure counts for both."""
    settings = BreakerSettings(window=LAST_TEN)
    breaker = CircuitBreaker("orders", settings, failure_on=OSError, clock=clock)
    with pytest.raises(ValueError, match="no order"):
        async with breaker:
            raise ValueError("no order")
    with pytest.raises(OSError, match="down"):
        async with breaker:
            clock.advance(3.0)
            raise OSError("down")
    assert breaker.snapshot().window == BreakerWindow(2, 1, 1)


async def test_blocks_of_one_breaker_nest_each_with_its_own_time(clock: ManualClock) -> None:
    breaker = made(clock, LAST_TEN)
    other = made(clock, LAST_MINUTE)
    async with breaker, other:
        clock.advance(2.5)
        async with breaker:
            clock.advance(1.0)
    assert breaker.snapshot().window == BreakerWindow(2, 0, 1)
    assert other.snapshot().window == BreakerWindow(1, 0, 0)
