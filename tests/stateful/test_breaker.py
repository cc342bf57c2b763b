"""The breaker of the core against its models, in virtual time."""

from __future__ import annotations

from typing import Any

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
from tests.models.breaker import BreakerModel, Outcome
from tests.models.windowed_breaker import WindowedBreakerModel, WindowRules
from tests.stateful.windows import rules

from bascule import _core

CODES: dict[Outcome, int] = {"success": 0, "failure": 1, "abandoned": 2}


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin, end in any order or never, and time passes."""

    calls: Bundle[tuple[int, int]] = Bundle("calls")

    @initialize(
        failures=st.integers(1, 3),
        successes=st.integers(1, 3),
        open_for=st.integers(0, 30),
        permits=st.integers(1, 3),
        half_open_for=st.integers(1, 30),
    )
    def build(
        self,
        failures: int,
        successes: int,
        open_for: int,
        permits: int,
        half_open_for: int,
    ) -> None:
        self.now = 0
        self.begun = 0
        self.model = BreakerModel(failures, successes, open_for, permits, half_open_for)
        self.real = _core.Breaker(
            failure_threshold=failures,
            success_threshold=successes,
            open_for_ns=open_for,
            half_open_permits=permits,
            half_open_for_ns=half_open_for,
        )

    @rule(span=st.integers(0, 40))
    def advance(self, span: int) -> None:
        self.now += span

    @rule(target=calls)
    def admit(self) -> Any:
        self.begun += 1
        shortcut = self.real.admit_if_closed()
        assert (shortcut >= 0) == (self.model.state == "closed")
        expected = self.model.admit(self.now, self.begun)
        permit, retry_after = self.real.admit(self.now)
        assert shortcut in (permit, -1)
        assert (permit >= 0) == expected
        if expected:
            assert retry_after == -1
            return (self.begun, permit)
        known = self.model.retry_after(self.now)
        assert retry_after == (-1 if known is None else known)
        return multiple()

    @rule(call=consumes(calls), outcome=st.sampled_from(list(CODES)))
    def report(self, call: tuple[int, int], outcome: Outcome) -> None:
        self.model.report(self.now, call[0], outcome)
        self.real.complete(call[1], CODES[outcome], self.now)

    @rule(call=consumes(calls))
    def succeed(self, call: tuple[int, int]) -> None:
        self.model.report(self.now, call[0], "success")
        self.real.succeed(call[1])

    @rule(open_it=st.booleans())
    def force(self, open_it: bool) -> None:
        self.model.force("open" if open_it else "closed")
        if open_it:
            self.real.force_open()
        else:
            self.real.force_closed()

    @rule()
    def reset(self) -> None:
        self.model.reset()
        self.real.reset()

    @invariant()
    def looks_the_same(self) -> None:
        if not hasattr(self, "real"):
            return
        state, forced, failures, successes, probes, _, _ = self.real.snapshot()
        assert (state, forced) == (self.model.state, self.model.forced)
        assert self.real.state == state
        if state == "half_open":
            assert probes == len(self.model.heard)
            assert successes == len(self.model.results)
        else:
            assert (probes, successes) == (0, 0)
        streak = self.model.results[::-1]
        expected = streak.index("success") if "success" in streak else len(streak)
        assert failures == (expected if state == "closed" else 0)


class WindowedBreakerMachine(RuleBasedStateMachine):
    """The same of a breaker with a window of calls or of time: calls are fast, slow or never end."""

    calls: Bundle[tuple[int, int, int]] = Bundle("calls")

    @initialize(
        window=rules(),
        open_for=st.integers(0, 30),
        permits=st.integers(1, 4),
        lease=st.integers(1, 30),
    )
    def build(self, window: WindowRules, open_for: int, permits: int, lease: int) -> None:
        self.now = 0
        self.begun = 0
        self.model = WindowedBreakerModel(window, open_for, permits, lease)
        self.real = _core.Breaker(
            failure_threshold=1,
            success_threshold=1,
            open_for_ns=open_for,
            half_open_permits=permits,
            half_open_for_ns=lease,
            window=window.for_core(),
        )

    @rule(span=st.one_of(*[st.integers(0, 40)] * 5, st.integers(0, 2**60)))
    def advance(self, span: int) -> None:
        self.now = min(self.now + span, 2**63)

    @rule(target=calls)
    def admit(self) -> Any:
        self.begun += 1
        shortcut = self.real.admit_if_closed()
        assert (shortcut >= 0) == (self.model.state == "closed")
        expected = self.model.admit(self.now, self.begun)
        permit, retry_after = self.real.admit(self.now)
        assert (permit >= 0) == expected
        if expected:
            assert retry_after == -1
            return (self.begun, permit, self.now)
        known = self.model.retry_after(self.now)
        assert retry_after == (-1 if known is None else known)
        return multiple()

    @rule(call=consumes(calls), outcome=st.sampled_from(list(CODES)))
    def report(self, call: tuple[int, int, int], outcome: Outcome) -> None:
        begun, permit, at = call
        self.model.report(self.now, begun, outcome, self.now - at)
        self.real.complete(permit, CODES[outcome], self.now, at)

    @rule(count=st.integers(2, 6), outcome=st.sampled_from(list(CODES)), took=st.integers(0, 12))
    def go_on(self, count: int, outcome: Outcome, took: int) -> None:
        """Make calls that end alike, one after the other."""
        for _ in range(count):
            call = self.admit()
            if isinstance(call, tuple):
                self.now += took
                self.report(call, outcome)

    @rule(open_it=st.booleans())
    def force(self, open_it: bool) -> None:
        self.model.force("open" if open_it else "closed")
        if open_it:
            self.real.force_open()
        else:
            self.real.force_closed()

    @rule()
    def reset(self) -> None:
        self.model.reset()
        self.real.reset()

    @invariant()
    def looks_the_same(self) -> None:
        if not hasattr(self, "real"):
            return
        state, forced, failures, successes, probes, _, _ = self.real.snapshot()
        assert (state, forced, failures) == (self.model.state, self.model.forced, 0)
        judged_by = self.real.counts(self.now)[4]
        assert judged_by == self.model.judged_by(self.now)
        if state == "half_open":
            calls, failed, _ = judged_by
            assert (probes, successes) == (len(self.model.heard), calls - failed)
        else:
            assert (probes, successes) == (0, 0)


TestBreaker = BreakerMachine.TestCase
TestWindowedBreaker = WindowedBreakerMachine.TestCase
