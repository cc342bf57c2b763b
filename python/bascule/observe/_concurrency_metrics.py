"""Metrics of limits of concurrency and of bulkheads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bascule.observe._families import Families, Family, Row

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CONCURRENCY", "MeasuredConcurrency", "concurrency_rows"]


class MeasuredConcurrency(Protocol):
    """What is read of a :class:`bascule.resilience.AdaptiveLimiter` or ``Bulkhead``."""

    def snapshot(self) -> Any:
        """Return a ``ConcurrencySnapshot``."""
        ...


#: Limits that share a name are summed up.
CONCURRENCY: Families = {
    "concurrency_limit": Family("sum", ("name",), "Calls that there may be at once now"),
    "concurrency_in_progress": Family("sum", ("name",), "Calls that there are"),
    "concurrency_waiting": Family("sum", ("name",), "Callers that wait for room in a bulkhead"),
    "concurrency_calls": Family(
        "counter",
        ("name", "outcome"),
        "Calls by what the limit made of them: success, failure (lost to overload), abandoned (it "
        "says nothing of load) or rejected (not made); of a bulkhead, admitted or rejected",
    ),
}


def concurrency_rows(name: str, shot: Any) -> Iterable[Row]:
    """Give what a limit does and has done.

    :param shot: a ``ConcurrencySnapshot``
    """
    yield Row("concurrency_limit", (name,), shot.limit)
    yield Row("concurrency_in_progress", (name,), shot.in_progress)
    yield Row("concurrency_waiting", (name,), shot.waiting)
    for outcome, count in shot.calls.items():
        yield Row("concurrency_calls", (name, outcome), count)
