"""Limits of concurrency as Python code uses them."""

from __future__ import annotations

import pickle
from typing import Any

import anyio
import pytest
from tests.unit.resilience.clock import ManualClock

from bascule.errors import (
    BulkheadFullError,
    ConcurrencyLimitedError,
    ConfigurationError,
    RejectedError,
    RpcError,
    Status,
)
from bascule.resilience import AdaptiveLimiter, Aimd, FixedLimit, Gradient2, Outcome

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def calls_of(limiter: AdaptiveLimiter) -> tuple[int, ...]:
    return tuple(limiter.snapshot().calls.values())


async def test_more_calls_than_the_limit_are_refused() -> None:
    limiter = AdaptiveLimiter("payments", FixedLimit(2))
    async with limiter, limiter:
        assert limiter.in_progress == 2
        with pytest.raises(ConcurrencyLimitedError, match="'payments' has as many calls") as caught:
            async with limiter:
                pytest.fail("the block must not run")
        assert isinstance(caught.value, RejectedError)
    assert (limiter.in_progress, limiter.limit) == (0, 2)
    assert limiter.snapshot().calls == {
        "success": 2,
        "failure": 0,
        "abandoned": 0,
        "rejected": 1,
    }


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), "failure"),
        (RpcError(Status.DEADLINE_EXCEEDED), "failure"),
        (RpcError(Status.RESOURCE_EXHAUSTED), "failure"),
        (RpcError(Status.UNAVAILABLE), "failure"),
        (RpcError(Status.NOT_FOUND), "abandoned"),
        (ValueError(), "abandoned"),
        (BulkheadFullError("further in"), "abandoned"),
        (ExceptionGroup("", [ValueError(), TimeoutError()]), "failure"),
    ],
    ids=repr,
)
async def test_what_an_exception_says_of_load(error: Exception, expected: str) -> None:
    limiter = AdaptiveLimiter("payments")

    @limiter
    async def call() -> None:
        raise error

    with pytest.raises(type(error)):
        await call()
    with pytest.raises(type(error)):
        async with limiter:
            raise error
    assert limiter.snapshot().calls[expected] == 2
    assert limiter.in_progress == 0


async def test_the_caller_says_what_shows_overload() -> None:
    by_type = AdaptiveLimiter("payments", lost_on=OSError)
    by_function = AdaptiveLimiter("payments", lost_on=lambda error: str(error) == "busy")
    for error, by_each in ((OSError("busy"), (1, 1)), (OSError("x"), (2, 1)), (KeyError(), (2, 1))):
        for limiter, count in zip((by_type, by_function), by_each, strict=True):
            with pytest.raises(type(error)):
                async with limiter:
                    raise error
            assert limiter.snapshot().calls["failure"] == count


async def test_a_function_that_fails_keeps_no_permit() -> None:
    def tell(error: Exception) -> bool:
        raise LookupError

    limiter = AdaptiveLimiter("payments", lost_on=tell)
    with pytest.raises(LookupError):
        async with limiter:
            raise OSError
    assert limiter.in_progress == 0


async def test_a_cancelled_call_gives_its_permit_back_and_teaches_nothing(
    clock: ManualClock,
) -> None:
    limiter = AdaptiveLimiter("payments", Aimd(initial_limit=2, slow_call=1.0), clock=clock)
    with anyio.CancelScope() as scope:
        async with limiter:
            clock.advance(100.0)
            scope.cancel()
            await anyio.sleep_forever()
    assert (limiter.limit, limiter.in_progress) == (2, 0)
    assert calls_of(limiter) == (0, 0, 1, 0)


async def test_a_permit_is_reported_once(clock: ManualClock) -> None:
    limiter = AdaptiveLimiter("payments", FixedLimit(2), clock=clock)
    first, second = limiter.admit(), limiter.admit()
    first.report(Outcome.FAILURE)
    first.report(Outcome.SUCCESS)
    assert limiter.in_progress == 1
    second.report(Outcome.SUCCESS)
    assert calls_of(limiter) == (1, 1, 0, 0)


async def test_blocks_nest_and_belong_to_their_task() -> None:
    one, other = AdaptiveLimiter("one"), AdaptiveLimiter("other")
    await one.__aenter__()
    await other.__aenter__()
    await one.__aexit__(None, None, None)  # as generators may leave them
    assert (one.in_progress, other.in_progress) == (0, 1)
    await other.__aexit__(None, None, None)
    with pytest.raises(RuntimeError, match="'one' is left by a task that did not enter it"):
        await one.__aexit__(None, None, None)


def test_aimd_grows_by_one_a_round_and_shrinks_once_a_round(clock: ManualClock) -> None:
    limiter = AdaptiveLimiter("payments", Aimd(initial_limit=10, backoff_ratio=0.5), clock=clock)
    for _ in range(100):
        clock.advance(1.0)
        permits = [limiter.admit() for _ in range(4)]
        clock.advance(1.0)
        for each in permits:
            each.report(Outcome.SUCCESS)
    assert limiter.limit == 10, "less than half of it was in use"
    # A full pipe: for each call that ends, another begins.
    permits = [limiter.admit() for _ in range(10)]
    for _ in range(60):
        clock.advance(0.1)
        permits.pop(0).report(Outcome.SUCCESS)
        while len(permits) < limiter.limit:
            permits.append(limiter.admit())
    assert 14 <= limiter.limit <= 16
    before = limiter.limit
    clock.advance(1.0)
    for each in permits:
        each.report(Outcome.FAILURE)
    assert limiter.limit == before // 2, "the others began before it shrank"
    clock.advance(1.0)
    late = limiter.admit()
    clock.advance(1.0)
    late.report(Outcome.FAILURE)
    assert limiter.limit == before // 4


def test_aimd_takes_slow_calls_for_lost(clock: ManualClock) -> None:
    limit = Aimd(initial_limit=10, backoff_ratio=0.5, slow_call=1.0)
    limiter = AdaptiveLimiter("payments", limit, clock=clock)
    for took, expected in ((1.0, 10), (1.001, 5)):
        clock.advance(0.001)
        permit = limiter.admit()
        clock.advance(took)
        permit.report(Outcome.SUCCESS)
        assert limiter.limit == expected


def test_gradient2_leaves_a_limit_alone_that_nobody_comes_near(clock: ManualClock) -> None:
    limiter = AdaptiveLimiter("payments", Gradient2(initial_limit=50), clock=clock)
    for number in range(1000):
        permits = [limiter.admit() for _ in range(20)]
        clock.advance(0.02 if number % 2 else 0.2)
        for each in permits:
            each.report(Outcome.SUCCESS)
    assert limiter.limit == 50


def test_a_clock_that_stands_still_or_goes_backwards_does_no_harm(clock: ManualClock) -> None:
    for limit in (FixedLimit(5), Aimd(initial_limit=5), Gradient2(initial_limit=5)):
        limiter = AdaptiveLimiter("payments", limit, clock=clock)
        for number in range(2000):
            clock.now_ns = 10**9 if number % 3 else 5 * 10**8
            permits = [limiter.admit() for _ in range(limiter.limit)]
            clock.now_ns = 10**9 - number
            for each in permits:
                each.report(Outcome(number % 3))
            assert 1 <= limiter.limit <= 1000
        assert limiter.in_progress == 0


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (FixedLimit, {"limit": 0}),
        (Aimd, {"initial_limit": 0}),
        (Aimd, {"min_limit": 0}),
        (Aimd, {"initial_limit": 5, "max_limit": 4}),
        (Aimd, {"backoff_ratio": 1.0}),
        (Aimd, {"backoff_ratio": float("nan")}),
        (Aimd, {"slow_call": 0.0}),
        (Gradient2, {"initial_limit": 5, "min_limit": 6}),
        (Gradient2, {"tolerance": 0.9}),
        (Gradient2, {"tolerance": float("inf")}),
        (Gradient2, {"smoothing": 0.0}),
        (Gradient2, {"smoothing": 1.1}),
        (Gradient2, {"queue": 0}),
        (Gradient2, {"quick_call": -1.0}),
        (Gradient2, {"window": 0.0}),
        (Gradient2, {"samples": 0}),
        (Gradient2, {"long_window": 0.0}),
        (Gradient2, {"probe_interval": 0.0}),
    ],
    ids=repr,
)
def test_settings_that_cannot_work_name_the_field(kind: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        kind(**wrong)


def test_errors_can_be_pickled() -> None:
    for error in (ConcurrencyLimitedError("a"), BulkheadFullError("a", 1.5)):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))
