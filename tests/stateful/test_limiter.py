"""The limiters of the core against models that remember everything, in virtual time."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.models.limiter import Expected, LeakModel, SlidingModel, WindowModel

from bascule import _core

# Thousands of examples of some ten milliseconds each, on a machine that has other things to do.
pytestmark = pytest.mark.timeout(300)

SECOND = 1_000_000_000

rates = st.integers(1, 20)
#: Such as rates divide, and such as they do not.
periods = st.one_of(st.integers(1, 100), st.just(SECOND), st.integers(1, SECOND))
bursts = st.integers(1, 6)


def expected(decision: _core.Decision) -> Expected:
    return Expected(
        decision.allowed,
        decision.remaining,
        decision.reset_after_ns,
        decision.retry_after_ns,
    )


class _LimiterMachine(RuleBasedStateMachine):
    """Three keys come and go; time passes in fractions of the period."""

    algorithm: str
    model: type[WindowModel | LeakModel | SlidingModel]
    has_burst = True

    @initialize(limit=rates, period=periods, burst=bursts)
    def build(self, limit: int, period: int, burst: int) -> None:
        self.now = 0
        self.period = period
        burst = burst if self.has_burst else limit
        self.models = {key: self.model(limit, period, burst) for key in "abc"}
        self.real = _core.KeyedLimiter(
            algorithm=self.algorithm,
            limit=limit,
            period_ns=period,
            burst=burst,
            max_keys=8,
        )

    @rule(twentieths=st.integers(0, 30), more=st.integers(0, 2))
    def advance(self, twentieths: int, more: int) -> None:
        self.now += self.period * twentieths // 20 + more

    @rule(key=st.sampled_from("abc"), cost=st.integers(0, 7))
    def check(self, key: str, cost: int) -> None:
        decision = self.real.check(key, cost, self.now)
        assert expected(decision) == self.models[key].check(cost, self.now)
        assert bool(decision) == decision.allowed

    @rule(key=st.sampled_from("abc"))
    def wait_as_told(self, key: str) -> None:
        """Be told when to try again, and be allowed then and not a nanosecond earlier."""
        decision = self.real.check(key, 1, self.now)
        assert expected(decision) == self.models[key].check(1, self.now)
        if decision.retry_after_ns:
            self.now += decision.retry_after_ns
            assert not self.real.check(key, 1, self.now - 1)
            assert self.real.check(key, 1, self.now)
            assert self.models[key].check(1, self.now).allowed

    @invariant()
    def remembers_few(self) -> None:
        if hasattr(self, "real"):
            assert len(self.real) <= len(self.models)
            assert self.real.displaced == 0


class GcraMachine(_LimiterMachine):
    algorithm = "gcra"
    model = WindowModel


class TokenBucketMachine(_LimiterMachine):
    algorithm = "token_bucket"
    model = LeakModel


class SlidingWindowMachine(_LimiterMachine):
    algorithm = "sliding_window"
    model = SlidingModel
    has_burst = False


TestGcra = GcraMachine.TestCase
TestTokenBucket = TokenBucketMachine.TestCase
TestSlidingWindow = SlidingWindowMachine.TestCase
# One machine for three limiters: a share of the examples is enough for each.
share = settings(max_examples=settings().max_examples * 2 // 3)
TestGcra.settings = TestTokenBucket.settings = TestSlidingWindow.settings = share


@given(
    algorithm=st.sampled_from(["gcra", "token_bucket", "sliding_window"]),
    limit=rates,
    period=periods,
    burst=bursts,
    gaps=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), min_size=1, max_size=60),
)
def test_no_window_exceeds_the_rate(
    algorithm: str, limit: int, period: int, burst: int, gaps: list[tuple[int, int]]
) -> None:
    burst = limit if algorithm == "sliding_window" else burst
    real = _core.KeyedLimiter(
        algorithm=algorithm, limit=limit, period_ns=period, burst=burst, max_keys=8
    )
    now = 0
    admitted = []
    for twentieths, more in gaps:
        now += period * twentieths // 20 + more
        if real.check("key", 1, now):
            admitted.append(now)
    for first, begin in enumerate(admitted):
        for last, end in enumerate(admitted[first:], start=first):
            assert last - first + 1 <= burst + (end - begin) * limit // period


@given(
    limit=rates,
    period=periods,
    gaps=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), min_size=1, max_size=60),
)
def test_no_window_of_the_clock_exceeds_the_limit(
    limit: int, period: int, gaps: list[tuple[int, int]]
) -> None:
    real = _core.KeyedLimiter(
        algorithm="sliding_window", limit=limit, period_ns=period, burst=limit, max_keys=8
    )
    now = 0
    windows: Counter[int] = Counter()
    for twentieths, more in gaps:
        now += period * twentieths // 20 + more
        windows[now // period] += bool(real.check("key", 1, now))
    assert max(windows.values()) <= limit
