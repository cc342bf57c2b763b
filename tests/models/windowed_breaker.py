"""The circuit breaker with a window, from its documentation and as plainly as can be.

It has no generations and no running sums: it keeps every result since its state began, and counts
those that matter anew each time. Rates are fractions.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from tests.models.breaker import Outcome, State


class Result(NamedTuple):
    """How a call ended, and when."""

    at: int
    failed: bool
    slow: bool


@dataclass(frozen=True)
class WindowRules:
    """Which calls count, and what is too much.

    :ivar size: so many calls, or so many buckets if they have a width
    :ivar width: how long a bucket lasts; 0 if calls are counted
    """

    size: int
    width: int
    minimum_calls: int
    failure_rate: Fraction
    slow_call: int | None
    slow_call_rate: Fraction

    def for_core(self) -> tuple[int, int, int, float, int | None, float]:
        """The same, as the core takes it."""
        rates = (float(self.failure_rate), self.slow_call, float(self.slow_call_rate))
        return (self.size, self.width, self.minimum_calls, *rates)

    def within(self, results: list[Result], now: int) -> list[Result]:
        """Those of the results that count now."""
        if not self.width:
            return results[-self.size :]
        now = max([now, *(each.at for each in results)])
        oldest = now // self.width - self.size + 1
        return [each for each in results if each.at // self.width >= oldest]

    def slow(self, took: int) -> bool:
        """Tell whether a call that took so long was slow."""
        return self.slow_call is not None and took > self.slow_call

    def too_much(self, results: list[Result]) -> bool:
        """Tell whether a share of these is too large."""
        failures = sum(each.failed for each in results)
        slow = sum(each.slow for each in results)
        return (
            Fraction(failures, len(results)) >= self.failure_rate
            or Fraction(slow, len(results)) >= self.slow_call_rate
        )


class WindowedBreakerModel:
    """One breaker; calls are told apart by any number that the caller gives them."""

    def __init__(
        self, rules: WindowRules, open_for: int, half_open_permits: int, half_open_for: int
    ) -> None:
        self.rules = rules
        self.open_for = open_for
        self.half_open_permits = half_open_permits
        self.half_open_for = half_open_for
        self.state: State = "closed"
        self.forced = False
        self.since = 0
        self.last_probe = 0
        self.heard: set[int] = set()
        self.results: list[Result] = []

    def judged_by(self, now: int) -> tuple[int, int, int]:
        """Count the calls, failures and slow calls that it is judged by."""
        seen = self.results
        if self.state == "closed":
            seen = self.rules.within(seen, now)
        return len(seen), sum(each.failed for each in seen), sum(each.slow for each in seen)

    def would_admit(self, now: int) -> bool:
        """Tell what :meth:`admit` would answer; probes that are overdue have failed by then."""
        if self.forced:
            return self.state == "closed"
        self._give_up_probes(now)
        if self.state == "open":
            return now >= self.since + self.open_for
        if self.state == "half_open":
            return len(self.results) + len(self.heard) < self.half_open_permits
        return True

    def retry_after(self, now: int) -> int | None:
        """Tell how long an open breaker goes on refusing; None if that is unknown."""
        if self.forced or self.state != "open":
            return None
        return max(0, self.since + self.open_for - now)

    def admit(self, now: int, call: int) -> bool:
        """Let a call through or not."""
        if not self.would_admit(now):
            return False
        if self.state == "open":
            self._become("half_open", now)
        if not self.forced:
            self.heard.add(call)
            self.last_probe = now
        return True

    def report(self, now: int, call: int, outcome: Outcome, took: int) -> None:
        """Hear how a call ended."""
        if call not in self.heard:
            return
        self.heard.remove(call)
        if outcome == "abandoned":
            return
        self.results.append(Result(now, outcome == "failure", self.rules.slow(took)))
        if self.state == "half_open":
            self._judge_probes(now)
            return
        seen = self.rules.within(self.results, now)
        if len(seen) >= self.rules.minimum_calls and self.rules.too_much(seen):
            self._become("open", now)

    def force(self, state: Literal["closed", "open"]) -> None:
        """Hold it by hand."""
        self._become(state, 0)
        self.forced = True

    def reset(self) -> None:
        """Start again."""
        self._become("closed", 0)

    def _give_up_probes(self, now: int) -> None:
        if self.state != "half_open" or not self.heard:
            return
        # Each has the time that the last one of those that were let through has.
        overdue = self.last_probe + self.half_open_for
        if now >= overdue:
            slow = self.rules.slow(self.half_open_for)
            self.results += [Result(overdue, True, slow)] * len(self.heard)
            self.heard.clear()
            self._judge_probes(overdue)

    def _judge_probes(self, now: int) -> None:
        if len(self.results) >= self.half_open_permits:
            self._become("open" if self.rules.too_much(self.results) else "closed", now)

    def _become(self, state: State, now: int) -> None:
        self.state = state
        self.since = now
        self.forced = False
        self.heard.clear()
        self.results.clear()
