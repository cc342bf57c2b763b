"""Metrics of circuit breakers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bascule.observe._families import Families, Family, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["BREAKERS", "BreakerCounts", "BreakerWindow", "MeasuredBreaker", "breaker_rows"]

# What the alert expects: 0 closed, 1 open, 2 half-open. A forced state counts as what it does.
_STATES = {"closed": 0, "forced_closed": 0, "open": 1, "forced_open": 1, "half_open": 2}


class BreakerWindow(NamedTuple):
    """What a breaker with a window is judged by: of a half-open one, the probes that have ended.

    :ivar calls: those that succeeded or failed
    :ivar failures: those that failed
    :ivar slow_calls: those that took too long
    """

    calls: int
    failures: int
    slow_calls: int

    @property
    def failure_rate(self) -> float:
        """Share of the calls that failed: 0 to 1, 0 if there are none."""
        return self.failures / self.calls if self.calls else 0.0

    @property
    def slow_call_rate(self) -> float:
        """Share of the calls that took too long: 0 to 1, 0 if there are none."""
        return self.slow_calls / self.calls if self.calls else 0.0


class BreakerCounts(NamedTuple):
    """What a breaker has done so far, and what it is judged by.

    :ivar transitions: by the state that began: ``open``, ``half_open`` or ``closed``
    :ivar calls: by outcome: ``success``, ``failure``, ``abandoned`` or ``rejected``
    :ivar slow_calls: those that succeeded or failed, but took too long
    :ivar window: None if it counts in a row
    """

    transitions: Mapping[str, int]
    calls: Mapping[str, int]
    slow_calls: int = 0
    window: BreakerWindow | None = None


class MeasuredBreaker(Protocol):
    """What is read of a :class:`bascule.resilience.CircuitBreaker`."""

    def snapshot(self) -> Any:
        """Return a ``BreakerSnapshot``."""
        ...


#: Breakers that share a name show the worst of their states, open before half-open before closed.
BREAKERS: Families = {
    "circuit_breaker_state": Family("state", ("name",), "0 closed, 1 open, 2 half-open"),
    "circuit_breaker_transitions": Family(
        "counter", ("name", "state"), "How often a state began: open, half_open or closed"
    ),
    "circuit_breaker_calls": Family(
        "counter",
        ("name", "outcome"),
        "Calls by what the breaker made of them: success, failure, abandoned (it says nothing) or "
        "rejected (not made)",
    ),
    "circuit_breaker_slow_calls": Family(
        "counter",
        ("name",),
        "Calls that took longer than slow_call of the window, whether they failed or not",
    ),
    "circuit_breaker_failure_rate": Family(
        "gauge", ("name",), "Share of failures, 0 to 1, in the window of a breaker that has one"
    ),
    "circuit_breaker_slow_call_rate": Family(
        "gauge", ("name",), "Share of slow calls, 0 to 1, in the window of a breaker that has one"
    ),
}


def breaker_rows(name: str, state: str, counts: BreakerCounts | None = None) -> Iterable[Row]:
    """Give what a breaker does, and what it has done if that is known."""
    yield Row("circuit_breaker_state", (name,), _STATES[state])
    if counts is not None:
        for began, count in counts.transitions.items():
            yield Row("circuit_breaker_transitions", (name, began), count)
        for outcome, count in counts.calls.items():
            yield Row("circuit_breaker_calls", (name, outcome), count)
        if counts.window is not None:
            yield Row("circuit_breaker_slow_calls", (name,), counts.slow_calls)
            yield Row("circuit_breaker_failure_rate", (name,), counts.window.failure_rate)
            yield Row("circuit_breaker_slow_call_rate", (name,), counts.window.slow_call_rate)
