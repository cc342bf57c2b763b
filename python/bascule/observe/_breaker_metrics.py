"""Metrics of circuit breakers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bascule.observe._families import Families, Family, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["BREAKERS", "BreakerCounts", "MeasuredBreaker", "breaker_rows"]

# What the alert expects: 0 closed, 1 open, 2 half-open. A forced state counts as what it does.
_STATES = {"closed": 0, "forced_closed": 0, "open": 1, "forced_open": 1, "half_open": 2}


class BreakerCounts(NamedTuple):
    """What a breaker has done so far.

    :ivar transitions: by the state that began: ``open``, ``half_open`` or ``closed``
    :ivar calls: by outcome: ``success``, ``failure``, ``abandoned`` or ``rejected``
    """

    transitions: Mapping[str, int]
    calls: Mapping[str, int]


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
}


def breaker_rows(name: str, state: str, counts: BreakerCounts | None = None) -> Iterable[Row]:
    """Give what a breaker does, and what it has done if that is known."""
    yield Row("circuit_breaker_state", (name,), _STATES[state])
    if counts is not None:
        for began, count in counts.transitions.items():
            yield Row("circuit_breaker_transitions", (name, began), count)
        for outcome, count in counts.calls.items():
            yield Row("circuit_breaker_calls", (name, outcome), count)
