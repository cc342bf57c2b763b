"""The circuit breaker as Python code uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.unit.resilience.clock import ManualClock

from bascule.errors import BreakerOpenError, ConfigurationError, RateLimitedError
from bascule.resilience import BreakerSettings, BreakerState, CircuitBreaker, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

SETTINGS = BreakerSettings(failure_threshold=1, success_threshold=1, timeout=10.0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> CircuitBreaker:
    return CircuitBreaker("orders", SETTINGS, clock=clock)


def state_of(breaker: CircuitBreaker) -> BreakerState:
    """Return the state; a type checker takes a property for constant between two asserts."""
    return breaker.state


async def fail(breaker: CircuitBreaker, exc: BaseException | None = None) -> None:
    exc = exc or OSError("down")
    with pytest.raises(type(exc)):
        async with breaker:
            raise exc


def test_the_defaults_are_the_guides() -> None:
    settings = CircuitBreaker("orders").settings
    assert settings == BreakerSettings(failure_threshold=5, success_threshold=3, timeout=30.0)
    assert (settings.timeout_ns, settings.half_open_timeout_ns) == (30_000_000_000,) * 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"failure_threshold": 0},
        {"success_threshold": 0},
        {"half_open_permits": 2**32},
        {"timeout": -1.0},
        {"timeout": float("nan")},
        {"half_open_timeout": 0.0},
        {"half_open_timeout": float("inf")},
    ],
)
def test_settings_that_cannot_work_name_the_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        BreakerSettings(**wrong)


async def test_opens_refuses_and_recovers(breaker: CircuitBreaker, clock: ManualClock) -> None:
    await fail(breaker)
    assert state_of(breaker) is BreakerState.OPEN
    clock.advance(4.0)
    with pytest.raises(
        BreakerOpenError, match=r"'orders' is open; try again in 6\.000 s"
    ) as caught:
        async with breaker:
            pytest.fail("the block must not run")
    assert (caught.value.target, caught.value.retry_after) == ("orders", 6.0)
    clock.advance(6.0)
    async with breaker:
        assert state_of(breaker) is BreakerState.HALF_OPEN
        with pytest.raises(BreakerOpenError) as caught:
            breaker.admit()
        assert caught.value.retry_after is None
    assert state_of(breaker) is BreakerState.CLOSED


async def test_successes_between_failures_keep_it_closed(clock: ManualClock) -> None:
    breaker = CircuitBreaker("orders", BreakerSettings(failure_threshold=2), clock=clock)
    for _ in range(5):
        await fail(breaker)
        async with breaker:
            pass
    assert state_of(breaker) is BreakerState.CLOSED


async def test_cancellation_is_no_failure(breaker: CircuitBreaker) -> None:
    with anyio.CancelScope() as scope:
        async with breaker:
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert breaker.snapshot().failures == 0
    assert state_of(breaker) is BreakerState.CLOSED


async def test_a_cancelled_probe_gives_its_permit_back(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    await fail(breaker)
    clock.advance(10.0)
    with anyio.CancelScope() as scope:
        async with breaker:
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert (breaker.snapshot().probes, breaker.state) == (0, BreakerState.HALF_OPEN)
    async with breaker:
        pass
    assert state_of(breaker) is BreakerState.CLOSED


async def test_a_lost_probe_is_replaced_in_time(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    await fail(breaker)
    clock.advance(10.0)
    lost = breaker.admit()
    clock.advance(breaker.settings.half_open_timeout)
    async with breaker:
        lost.report(Outcome.FAILURE)
    assert state_of(breaker) is BreakerState.CLOSED


async def test_a_deadline_inside_is_a_failure(breaker: CircuitBreaker) -> None:
    @breaker
    async def hang() -> None:
        with anyio.fail_after(0):
            await anyio.sleep_forever()

    with pytest.raises(TimeoutError):
        await hang()
    assert state_of(breaker) is BreakerState.OPEN


async def test_a_refusal_further_in_is_no_failure(breaker: CircuitBreaker) -> None:
    await fail(breaker, RateLimitedError("per subject"))
    await fail(breaker, ExceptionGroup("all refused", [BreakerOpenError("inner", None)]))
    assert state_of(breaker) is BreakerState.CLOSED


@pytest.mark.parametrize(
    "failure_on",
    [OSError, (OSError, EOFError), lambda exc: isinstance(exc, OSError)],
    ids=["type", "types", "function"],
)
async def test_failures_are_what_the_user_says(
    failure_on: type[Exception] | Callable[[Exception], bool],
) -> None:
    breaker = CircuitBreaker("orders", SETTINGS, failure_on=failure_on)
    await fail(breaker, ValueError("the caller's fault"))
    await fail(breaker, ExceptionGroup("answers", [ValueError("one"), KeyError("two")]))
    await fail(breaker, KeyboardInterrupt())
    assert state_of(breaker) is BreakerState.CLOSED
    await fail(breaker, ExceptionGroup("mixed", [ValueError("one"), ConnectionError("two")]))
    assert state_of(breaker) is BreakerState.OPEN


async def test_a_permit_comes_back_even_if_nobody_can_judge(clock: ManualClock) -> None:
    def judge(exc: Exception) -> bool:
        known: dict[type[Exception], bool] = {OSError: True}
        return known[type(exc)]

    breaker = CircuitBreaker("orders", SETTINGS, failure_on=judge, clock=clock)
    await fail(breaker)
    clock.advance(10.0)
    with pytest.raises(KeyError):
        async with breaker:
            raise ValueError
    assert (breaker.snapshot().probes, breaker.state) == (0, BreakerState.HALF_OPEN)


async def test_an_unlisted_exception_is_an_answer(clock: ManualClock) -> None:
    breaker = CircuitBreaker("orders", SETTINGS, failure_on=OSError, clock=clock)
    await fail(breaker)
    clock.advance(10.0)
    await fail(breaker, ValueError("not found"))
    assert state_of(breaker) is BreakerState.CLOSED


async def test_decorates_coroutine_functions(breaker: CircuitBreaker) -> None:
    @breaker
    async def divide(dividend: int, *, divisor: int) -> float:
        """Divide."""
        return dividend / divisor

    assert (divide.__name__, divide.__doc__) == ("divide", "Divide.")
    assert await divide(6, divisor=3) == 2
    with pytest.raises(ZeroDivisionError):
        await divide(1, divisor=0)
    with pytest.raises(BreakerOpenError):
        await divide(1, divisor=1)


def test_decorates_nothing_else(breaker: CircuitBreaker) -> None:
    with pytest.raises(TypeError, match="async def"):
        breaker(len)  # type: ignore[arg-type]


async def test_the_first_report_counts(breaker: CircuitBreaker, clock: ManualClock) -> None:
    await fail(breaker)
    clock.advance(10.0)
    permit = breaker.admit()
    permit.report(Outcome.ABANDONED)
    permit.report(Outcome.FAILURE)
    assert state_of(breaker) is BreakerState.HALF_OPEN


async def test_late_reports_do_nothing(breaker: CircuitBreaker, clock: ManualClock) -> None:
    late = breaker.admit()
    await fail(breaker)
    clock.advance(10.0)
    async with breaker:
        late.report(Outcome.FAILURE)
    assert breaker.snapshot().opened == 1


async def test_blocks_nest_and_run_side_by_side(breaker: CircuitBreaker) -> None:
    other = CircuitBreaker("payments", SETTINGS)

    async def use(turn: anyio.Event, done: anyio.Event) -> None:
        async with breaker, other, breaker:
            await turn.wait()
        done.set()

    turns = [(anyio.Event(), anyio.Event()) for _ in range(3)]
    async with anyio.create_task_group() as group:
        for turn, done in turns:
            group.start_soon(use, turn, done)
        for turn, done in turns:
            turn.set()
            await done.wait()
    assert breaker.state is other.state is BreakerState.CLOSED
    await fail(breaker)
    assert state_of(breaker) is BreakerState.OPEN


async def test_blocks_may_interleave(breaker: CircuitBreaker) -> None:
    other = CircuitBreaker("payments", SETTINGS)
    await breaker.__aenter__()
    await other.__aenter__()
    await breaker.__aexit__(OSError, OSError(), None)
    await other.__aexit__(None, None, None)
    assert (breaker.state, other.state) == (BreakerState.OPEN, BreakerState.CLOSED)


async def test_a_block_cannot_span_tasks(breaker: CircuitBreaker) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(breaker.__aenter__)
    with pytest.raises(RuntimeError, match=r"'orders'.*admit\(\)"):
        await breaker.__aexit__(None, None, None)


async def test_a_hand_may_hold_it(breaker: CircuitBreaker) -> None:
    breaker.force_open()
    assert breaker.snapshot().forced
    with pytest.raises(BreakerOpenError) as caught:
        breaker.admit()
    assert caught.value.retry_after is None
    breaker.force_closed()
    await fail(breaker)
    assert state_of(breaker) is BreakerState.CLOSED
    breaker.reset()
    assert not breaker.snapshot().forced
    await fail(breaker)
    assert repr(breaker) == "CircuitBreaker('orders', state='open')"


async def test_snapshots_count(breaker: CircuitBreaker) -> None:
    await fail(breaker)
    with pytest.raises(BreakerOpenError):
        breaker.admit()
    snapshot = breaker.snapshot()
    assert (snapshot.name, snapshot.state) == ("orders", BreakerState.OPEN)
    assert (snapshot.opened, snapshot.rejected, snapshot.forced) == (1, 1, False)
