"""Metrics of gateways: requests, limits, keys and tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from bascule.observe._families import Distribution, Exemplar, Families, Family, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["HTTP", "HttpRow", "HttpStats", "http_rows"]


@dataclass(slots=True)
class HttpRow:
    """Statistics of one gateway route: its template is the label, so the number of series is bounded.

    :ivar statuses: requests by HTTP status
    :ivar buckets: requests by duration, not cumulative, the last without an upper bound
    :ivar seconds: sum of all durations
    :ivar exemplars: trace id, duration and time of the last sampled request of each bucket
    """

    method: str
    route: str
    statuses: dict[int, int]
    buckets: list[int]
    seconds: float = 0.0
    exemplars: dict[int, tuple[str, float, float]] = field(default_factory=dict)


class HttpStats(Protocol):
    """Requests as a gateway counts them."""

    @property
    def bounds(self) -> Sequence[float]:
        """Upper bounds of the buckets in seconds, without infinity."""
        ...

    def snapshot(self) -> Iterable[HttpRow]:
        """Return a row a route."""
        ...

    def decisions(self) -> Iterable[tuple[str, str, int]]:
        """Return (limit, ``admitted`` or ``rejected``, count) of each limit."""
        ...

    def degraded(self) -> Iterable[tuple[str, int]]:
        """Return (limit, decisions made without the others' counts)."""
        ...

    def keys(self) -> Iterable[tuple[str, int]]:
        """Return (limit, keys that this process remembers)."""
        ...

    def idempotent(self) -> Iterable[tuple[str, int]]:
        """Return (outcome, requests with an idempotency key)."""
        ...

    def refused_tokens(self) -> Iterable[tuple[str, int]]:
        """Return (reason, count)."""
        ...


HTTP: Families = {
    "http_requests": Family(
        "counter", ("method", "route", "status"), "HTTP requests answered by the gateway"
    ),
    "http_request_duration_seconds": Family(
        "histogram", ("method", "route"), "Duration of HTTP requests"
    ),
    "auth_refused": Family("counter", ("reason",), "Bearer tokens refused by the gateway"),
    "idempotent_requests": Family(
        "counter",
        ("outcome",),
        "Requests with an idempotency key: executed, replayed, in_flight, mismatched, or the "
        "store was away: unavailable if refused for that, unprotected if not",
    ),
}


def http_rows(stats: HttpStats) -> Iterable[Row]:
    """Give what a gateway has counted."""
    for row in stats.snapshot():
        for status, count in row.statuses.items():
            yield Row("http_requests", (row.method, row.route, str(status)), count)
        kept = {bucket: Exemplar(*each) for bucket, each in list(row.exemplars.items())}
        times = Distribution(stats.bounds, row.buckets, row.seconds, kept)
        yield Row("http_request_duration_seconds", (row.method, row.route), times)
    for limit, outcome, count in stats.decisions():
        yield Row("rate_limit_decisions", (limit, outcome), count)
    for name, counts in (
        ("auth_refused", stats.refused_tokens()),
        ("rate_limit_degraded", stats.degraded()),
        ("rate_limit_keys", stats.keys()),
        ("idempotent_requests", stats.idempotent()),
    ):
        for label, count in counts:
            yield Row(name, (label,), count)
