"""What the demo asks Prometheus when the tour is over."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bascule_shop.servers import Watcher

__all__ = ["Question", "ask"]

_OURS = 'service!~"grpc[.].*"'
_ERRORS = "UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS"

_RATE = f"sum by (service) (rate(grpc_requests_total{{{_OURS}}}[1m]))"
# A rate does not see what a counter began with, and a tour is all beginning: these are of totals.
_TOTAL = f"sum by (service) (grpc_requests_total{{{_OURS}}})"
_FAILED = f'sum by (service) (grpc_requests_total{{{_OURS}, status=~"{_ERRORS}"}})'
_BUCKETS = f"sum by (service, le) (grpc_request_duration_seconds_bucket{{{_OURS}}})"

_QUESTIONS = (
    ("Requests a second", _RATE, "{:.1f}"),
    ("Share of errors", f"{_FAILED} / {_TOTAL}", "{:.2%}"),
    ("99 of 100 are faster than", f"histogram_quantile(0.99, {_BUCKETS})", "{:.4f} s"),
    ("Breakers: 0 closed, 1 open, 2 half-open", "max by (name) (circuit_breaker_state)", "{:.0f}"),
)


@dataclass(slots=True, kw_only=True)
class Question:
    """An expression, and what Prometheus makes of it.

    :ivar values: by the label that tells the series apart
    """

    title: str
    expression: str
    values: dict[str, str] = field(default_factory=dict)


async def ask(watcher: Watcher) -> list[Question]:
    """Ask all questions, once what has happened up to now is scraped.

    :raises OSError: if Prometheus does not answer
    """
    await watcher.catch_up()
    asked: list[Question] = []
    for title, expression, form in _QUESTIONS:
        question = Question(title=title, expression=expression)
        for series in await watcher.ask(expression):
            if not math.isnan(series.value):
                question.values[" ".join(series.labels.values())] = form.format(series.value)
        asked.append(question)
    return asked
