"""The decision about a call against its model, in virtual time: limits aside, which have theirs."""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from tests.models import hashing
from tests.models.breaker import BreakerModel
from tests.models.call_policy import CallPolicyModel
from tests.models.outlier import OutlierModel
from tests.models.windowed_breaker import WindowedBreakerModel
from tests.stateful.windows import rules

from bascule import _core

if TYPE_CHECKING:
    from tests.models.breaker import Outcome
    from tests.models.windowed_breaker import WindowRules

#: Nanoseconds that these tests count in: the grain of latencies.
UNIT = 1_024

CODES: dict[Outcome, int] = {"success": 0, "failure": 1, "abandoned": 2}

endpoints = st.tuples(st.sampled_from("abcd"), st.sampled_from([1, 1, 2, 3, 4, 0]))
several = st.lists(endpoints, min_size=3, max_size=6)
#: Mostly some, now and then few or none: most of what can go wrong needs somebody to call.
listings = st.one_of(several, several, st.lists(endpoints, max_size=2))
#: Factor or threshold, enforcement, hosts, calls: by success rate and by failures.
success_rates = st.tuples(
    st.sampled_from([0, 500, 1_000, 1_900]),
    st.sampled_from([0, 100, 100, 100]),
    *[st.integers(0, 3)] * 2,
)
failure_percentages = st.tuples(
    st.sampled_from([0, 33, 50, 100]), st.sampled_from([0, 100, 100, 100]), *[st.integers(0, 3)] * 2
)
outliers = st.tuples(
    st.integers(1, 10),
    st.integers(0, 20),
    st.integers(0, 40),
    st.sampled_from([0, 10, 25, 50, 51, 100]),
    st.none() | success_rates,
    st.none() | failure_percentages,
)


class _CallPolicyMachine(RuleBasedStateMachine):
    """Endpoints come, go and fail; calls end in any order or never."""

    balancer: str
    settings: ClassVar[dict[str, Any]] = {}

    calls: Bundle[tuple[int, int, int]] = Bundle("calls")

    @initialize(
        seed=st.integers(0, 2**64 - 1),
        failures=st.sampled_from([1, 2, 2, 9]),
        successes=st.integers(1, 2),
        open_for=st.integers(0, 20),
        permits=st.integers(1, 2),
        half_open_for=st.integers(1, 20),
        window=st.none() | rules(UNIT),
        outlier=outliers,
        decay=st.integers(1, 100),
        listing=several,
    )
    def build(
        self,
        seed: int,
        failures: int,
        successes: int,
        open_for: int,
        permits: int,
        half_open_for: int,
        window: WindowRules | None,
        outlier: tuple[int, int, int, int, Any, Any],
        decay: int,
        listing: list[tuple[str, int]],
    ) -> None:
        self.now = 0
        self.begun = 0
        self.gone: set[int] = set()
        open_for, half_open_for, decay = open_for * UNIT, half_open_for * UNIT, decay * UNIT
        interval, base, longest, *rules = outlier
        outlier = (interval * UNIT, base * UNIT, longest * UNIT, *rules)
        times = (open_for, permits, half_open_for)

        def breaker() -> BreakerModel | WindowedBreakerModel:
            if window is None:
                return BreakerModel(failures, successes, *times)
            return WindowedBreakerModel(window, *times)

        self.model = CallPolicyModel(breaker, outlier=OutlierModel(*outlier), decay=decay)
        self.real = _core.CallPolicy(
            balancer=self.balancer,
            seed=seed,
            breaker=(failures, successes, open_for, permits),
            half_open_for_ns=half_open_for,
            breaker_window=None if window is None else window.for_core(),
            latency_decay_ns=decay,
            outlier=outlier,
            **self.settings,
        )
        self.update(listing)
        for number, endpoint in self.model.listed.items():
            endpoint.ready = True
            self.real.set_ready(number, ready=True)

    @rule(span=st.integers(0, 25))
    def advance(self, span: int) -> None:
        self.now += span * UNIT

    @rule(listing=listings)
    def update(self, listing: list[tuple[str, int]]) -> None:
        ids = self.real.update(listing, self.now)
        assert self.gone.isdisjoint(ids), "who comes back comes as a new one"
        before = set(self.model.listed)
        self.model.update(self.now, listing, ids)
        self.gone |= before - set(ids)

    @rule(data=st.data(), ready=st.booleans())
    def set_ready(self, data: st.DataObject, ready: bool) -> None:
        known = sorted(self.gone | set(self.model.listed))
        if known:
            number = data.draw(st.sampled_from(known))
            self.real.set_ready(number, ready)
            if number in self.model.listed:
                self.model.listed[number].ready = ready

    @rule(target=calls, attempts=st.integers(1, 4))
    def admit(self, attempts: int) -> Any:
        return multiple(*(call for _ in range(attempts) if (call := self.admitted())))

    @rule(call=consumes(calls), outcome=st.sampled_from(list(CODES)))
    def complete(self, call: tuple[int, int, int], outcome: Outcome) -> None:
        begun, number, permit = call
        self.model.complete(self.now, number, begun, outcome)
        self.real.complete(number, permit, CODES[outcome], self.now)

    @invariant()
    def looks_the_same(self) -> None:
        if hasattr(self, "real"):
            assert self.real.snapshot() == [
                (
                    each.key,
                    each.weight,
                    each.ready,
                    len(each.calls),
                    each.breaker.state,
                    each.picks,
                    each.successes,
                    each.failures,
                    pytest.approx(each.latency.average),
                    self.model.outlier.ejected_until(number),
                )
                for number, each in self.model.listed.items()
            ]
            judged_by = [None if row is None else row[4] for row in self.real.breakers(self.now)]
            assert judged_by == [
                each.breaker.judged_by(self.now)
                if isinstance(each.breaker, WindowedBreakerModel)
                else None
                for each in self.model.listed.values()
            ]

    def admitted(self, hash_: int | None = None) -> tuple[int, int, int] | None:
        """Ask to make a call, and return it if it may be made."""
        verdict, number, permit, retry_after = self.real.admit(self.now, hash_)
        assert (verdict, retry_after) == self.model.verdict(self.now)
        if verdict:
            assert (number, permit) == (-1, 0)
            return None
        self.judge(number, hash_)
        self.begun += 1
        self.model.admit(self.now, number, self.begun)
        return (self.begun, number, permit)

    def judge(self, number: int, hash_: int | None) -> None:
        """Judge a pick."""
        assert number in self.model.candidates(self.now)

    def lap(self) -> None:
        """Make as many calls as the weights sum to, one after the other."""
        # A call first, so that both have judged the endpoints by now.
        call = self.admitted()
        if call is None:
            return
        self.complete(call, "abandoned")
        weights = {number: each.weight for number, each in self.model.listed.items()}
        if set(self.model.candidates(self.now)) != {n for n in weights if weights[n]}:
            return  # Somebody is not ready.
        taken: Counter[int] = Counter()
        for _ in range(sum(weights.values())):
            _, number, permit, _ = self.real.admit(self.now)
            self.real.complete(number, permit, 2, self.now)
            self.model.listed[number].picks += 1
            taken[number] += 1
        self.judge_lap(taken, weights)

    def judge_lap(self, taken: Counter[int], weights: dict[int, int]) -> None:
        """Judge a whole lap."""


class RoundRobinMachine(_CallPolicyMachine):
    balancer = "round_robin"

    @precondition(lambda self: all(e.breaker.state == "closed" for e in self.model.listed.values()))
    @rule()
    def go_round(self) -> None:
        self.lap()

    def judge_lap(self, taken: Counter[int], weights: dict[int, int]) -> None:
        assert taken == Counter(weights)


class LeastRequestMachine(_CallPolicyMachine):
    balancer = "least_request"

    def judge(self, number: int, hash_: int | None) -> None:
        super().judge(number, hash_)
        candidates = self.model.candidates(self.now)
        picked = candidates.pop(number)
        # It was compared with one other, so it cannot be the busiest of all for its weight.
        assert not candidates or any(
            len(picked.calls) * other.weight <= len(other.calls) * picked.weight
            for other in candidates.values()
        )


class WeightedRoundRobinMachine(RoundRobinMachine):
    balancer = "weighted_round_robin"


class RandomMachine(_CallPolicyMachine):
    balancer = "random"


class PeakEwmaMachine(_CallPolicyMachine):
    balancer = "peak_ewma"

    def judge(self, number: int, hash_: int | None) -> None:
        super().judge(number, hash_)
        candidates = self.model.candidates(self.now)
        mean = fmean(model.weight for model in candidates.values())
        costs = {
            each: model.latency.cost(self.now, len(model.calls), model.weight / mean)
            for each, model in candidates.items()
        }
        picked = costs.pop(number)
        # It was compared with one other, so it cannot cost more than all of them.
        assert not costs or picked <= max(costs.values()) * (1 + 1e-9)


class _HashingMachine(_CallPolicyMachine):
    @rule(target=_CallPolicyMachine.calls, hash_=st.integers(0, 2**64 - 1))
    def admit_hashed(self, hash_: int) -> Any:
        call = self.admitted(hash_)
        return multiple() if call is None else call

    def judge(self, number: int, hash_: int | None) -> None:
        super().judge(number, hash_)
        if hash_ is not None:
            weights = {each.key: each.weight for each in self.model.listed.values()}
            usable = {each.key for each in self.model.candidates(self.now).values()}
            assert self.model.listed[number].key == self.expected(weights, usable, hash_)

    def expected(self, weights: dict[str, int], usable: set[str], hash_: int) -> str:
        raise NotImplementedError


class RingHashMachine(_HashingMachine):
    balancer = "ring_hash"
    settings: ClassVar[dict[str, Any]] = {"ring_size": (16, 24)}

    def expected(self, weights: dict[str, int], usable: set[str], hash_: int) -> str:
        return hashing.on_ring(hashing.ring(weights, 16, 24), usable, hash_)


class MaglevMachine(_HashingMachine):
    balancer = "maglev"
    settings: ClassVar[dict[str, Any]] = {"table_size": 31}

    def expected(self, weights: dict[str, int], usable: set[str], hash_: int) -> str:
        return hashing.in_table(hashing.maglev(weights, 31), usable, hash_)


TestRoundRobin = RoundRobinMachine.TestCase
TestWeightedRoundRobin = WeightedRoundRobinMachine.TestCase
TestRandom = RandomMachine.TestCase
TestLeastRequest = LeastRequestMachine.TestCase
TestPeakEwma = PeakEwmaMachine.TestCase
TestRingHash = RingHashMachine.TestCase
TestMaglev = MaglevMachine.TestCase
