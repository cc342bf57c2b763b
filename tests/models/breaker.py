"""The circuit breaker, from its documentation and as plainly as can be.

It has no generations: it keeps the set of calls whose report still counts.
"""

from __future__ import annotations

from typing import Literal

State = Literal["closed", "open", "half_open"]
Outcome = Literal["success", "failure", "abandoned"]


class BreakerModel:
    """One breaker; calls are told apart by any number that the caller gives them."""

    def __init__(
        self,
        failure_threshold: int,
        success_threshold: int,
        open_for: int,
        half_open_permits: int,
        half_open_for: int,
    ) -> None:
        self.failure_threshold = failure_threshold
        self.success_threshold = success_threshold
        self.open_for = open_for
        self.half_open_permits = half_open_permits
        self.half_open_for = half_open_for
        self.state: State = "closed"
        self.forced = False
        self.since = 0
        self.heard: set[int] = set()
        self.results: list[Outcome] = []

    def would_admit(self, now: int) -> bool:
        """Tell what :meth:`admit` would answer."""
        if self.forced:
            return self.state == "closed"
        if self.state == "open":
            return now >= self.since + self.open_for
        if self.state == "half_open":
            lapsed = now >= self.since + self.half_open_for
            return lapsed or len(self.heard) < self.half_open_permits
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
        if self.forced:
            return True
        if self.state == "open":
            self._become("half_open", now)
        if self.state == "half_open" and now >= self.since + self.half_open_for:
            # Who did not answer in time is no longer heard; what was answered stays.
            self.heard.clear()
            self.since = now
        self.heard.add(call)
        return True

    def report(self, now: int, call: int, outcome: Outcome) -> None:
        """Hear how a call ended."""
        if call not in self.heard:
            return
        self.heard.remove(call)
        if outcome == "abandoned":
            return
        self.results.append(outcome)
        if self.state == "closed":
            last = self.results[-self.failure_threshold :]
            if last == ["failure"] * self.failure_threshold:
                self._become("open", now)
        elif outcome == "failure":
            self._become("open", now)
        elif len(self.results) == self.success_threshold:
            self._become("closed", now)

    def force(self, state: Literal["closed", "open"]) -> None:
        """Hold it by hand."""
        self._become(state, 0)
        self.forced = True

    def reset(self) -> None:
        """Start again."""
        self._become("closed", 0)

    def _become(self, state: State, now: int) -> None:
        self.state = state
        self.since = now
        self.forced = False
        self.heard.clear()
        self.results.clear()
