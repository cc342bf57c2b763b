"""Limits of concurrency against their models, in virtual time."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from tests.models.concurrency import AimdModel, Ending, LimiterModel
from tests.stateful.test_call_policy import _CallPolicyMachine

from bascule import _core

CODES: dict[Ending, int] = {"done": 0, "lost": 1, "untold": 2}

ranges = st.tuples(st.integers(1, 3), st.integers(0, 4), st.integers(0, 6))


class _LimiterMachine(RuleBasedStateMachine):
    """Calls begin, end in any order or never, and time passes or stands still."""

    calls: Bundle[tuple[int, int]] = Bundle("calls")
    model: LimiterModel
    real: _core.ConcurrencyLimiter
    now = 0
    begun = 0

    @rule(span=st.integers(0, 20))
    def advance(self, span: int) -> None:
        self.now += span

    @rule(target=calls, attempts=st.integers(1, 6))
    def admit(self, attempts: int) -> Any:
        admitted = []
        for _ in range(attempts):
            self.begun += 1
            permit = self.real.admit(self.now)
            assert (permit >= 0) == self.model.admit(self.now, self.begun)
            if permit >= 0:
                assert permit == self.now, "a permit is when its call began"
                admitted.append((self.begun, permit))
        return multiple(*admitted)

    @rule(call=consumes(calls), ending=st.sampled_from(list(CODES)))
    def complete(self, call: tuple[int, int], ending: Ending) -> None:
        self.model.complete(self.now, call[0], ending)
        self.real.complete(call[1], CODES[ending], self.now)

    @invariant()
    def looks_the_same(self) -> None:
        if hasattr(self, "real"):
            limit, in_progress, endings, rejected = self.real.snapshot()
            assert limit == int(self.model.limit)
            assert in_progress == len(self.model.live)
            assert endings == list(self.model.ended.values())
            assert rejected == self.model.rejected


class FixedMachine(_LimiterMachine):
    @initialize(limit=st.integers(1, 5))
    def build(self, limit: int) -> None:
        self.model = LimiterModel(limit)
        self.real = _core.ConcurrencyLimiter(_core.ConcurrencyRule.fixed(limit), 0)


class AimdMachine(_LimiterMachine):
    @initialize(
        bounds=ranges,
        backoff=st.sampled_from([0.1, 0.5, 0.9]),
        slow=st.none() | st.integers(1, 30),
    )
    def build(self, bounds: tuple[int, int, int], backoff: float, slow: int | None) -> None:
        least, above, further = bounds
        initial, most = least + above, least + above + further
        self.model = AimdModel(initial, least=least, most=most, backoff=backoff, slow=slow)
        self.real = _core.ConcurrencyLimiter(
            _core.ConcurrencyRule.aimd(
                initial=initial, least=least, most=most, backoff=backoff, slow_ns=slow
            ),
            0,
        )


class Gradient2Machine(_LimiterMachine):
    """Where the limit goes is for the simulations to judge; what always holds is judged here."""

    @initialize(
        bounds=ranges,
        window=st.integers(1, 20),
        samples=st.integers(1, 4),
        queue=st.none() | st.integers(1, 5),
        quick=st.integers(0, 10),
        probe=st.none() | st.integers(1, 60),
        smoothing=st.sampled_from([0.2, 1.0]),
    )
    def build(
        self,
        bounds: tuple[int, int, int],
        window: int,
        samples: int,
        queue: int | None,
        quick: int,
        probe: int | None,
        smoothing: float,
    ) -> None:
        self.least, above, further = bounds
        initial, self.most = self.least + above, self.least + above + further
        self.model = LimiterModel(initial)
        self.real = _core.ConcurrencyLimiter(
            _core.ConcurrencyRule.gradient2(
                initial=initial,
                least=self.least,
                most=self.most,
                window_ns=window,
                samples=samples,
                long_window_ns=window * 10,
                tolerance=1.5,
                smoothing=smoothing,
                queue=queue,
                quick_ns=quick,
                probe_interval_ns=probe,
            ),
            7,
        )

    @rule(call=consumes(_LimiterMachine.calls), ending=st.sampled_from(list(CODES)))
    def complete(self, call: tuple[int, int], ending: Ending) -> None:
        super().complete(call, ending)
        limit = self.real.snapshot()[0]
        if ending == "untold":
            assert limit == self.model.limit, "it teaches nothing"
        assert self.least <= limit <= self.most
        self.model.limit = limit


class LimitedPolicyMachine(_CallPolicyMachine):
    """A channel whose endpoints have two calls at most, streams aside."""

    balancer = "round_robin"
    settings: ClassVar[dict[str, Any]] = {"concurrency": _core.ConcurrencyRule.fixed(2)}
    streams: set[int]

    @rule(target=_CallPolicyMachine.calls)
    def admit_stream(self) -> Any:
        verdict, number, permit, retry_after = self.real.admit_stream(self.now)
        assert (verdict, retry_after) == self.model.verdict(self.now)
        if verdict:
            return multiple()
        assert number in self.model.candidates(self.now), "no limit holds a stream"
        self.begun += 1
        self.known_streams().add(self.begun)
        self.model.admit(self.now, number, self.begun)
        return (self.begun, number, permit)

    def admitted(self, hash_: int | None = None) -> tuple[int, int, int] | None:
        if self.model.verdict(self.now)[0] == 0 and not self.with_room():
            assert self.real.admit(self.now, hash_) == (4, -1, 0, -1)
            return None
        return super().admitted(hash_)

    def judge(self, number: int, hash_: int | None) -> None:
        assert number in self.with_room()

    def with_room(self) -> set[int]:
        return {
            number
            for number, each in self.model.candidates(self.now).items()
            if len(each.calls.keys() - self.known_streams()) < 2
        }

    def known_streams(self) -> set[int]:
        if not hasattr(self, "streams"):
            self.streams = set()
        return self.streams

    @invariant()
    def limits_look_the_same(self) -> None:
        if hasattr(self, "real"):
            rows = self.real.concurrency()
            assert [row and row[:2] for row in rows] == [
                (2, len(each.calls.keys() - self.known_streams()))
                for each in self.model.listed.values()
            ]


TestFixed = FixedMachine.TestCase
TestAimd = AimdMachine.TestCase
TestGradient2 = Gradient2Machine.TestCase
TestLimitedPolicy = LimitedPolicyMachine.TestCase
