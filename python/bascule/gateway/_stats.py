"""What the gateway counts: plain integers, turned into metrics when somebody scrapes."""

from __future__ import annotations

from bisect import bisect_left
from time import time
from typing import TYPE_CHECKING

from bascule.observe import HttpRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bascule.gateway._idempotency import Idempotency
    from bascule.gateway._limits import RateLimit

__all__ = ["GatewayStats"]

# A cached read takes well under a millisecond, a deadline is 15 s.
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class GatewayStats:
    """Requests by method, route template and status: as many series as there are routes, whatever is asked for."""

    bounds: Sequence[float] = _BOUNDS

    def __init__(
        self, limits: Sequence[RateLimit] = (), idempotency: Idempotency | None = None
    ) -> None:
        self._idempotency = idempotency
        self._rows: dict[tuple[str, str], HttpRow] = {}
        self._limits = limits
        self._refused: dict[str, int] = {}

    def observe(
        self, method: str, route: str, status: int, seconds: float, trace_id: str | None = None
    ) -> None:
        """Count one request.

        :param route: the template of its route, empty if none took it
        :param trace_id: of its trace, if that is sampled
        """
        row = self._rows.get((method, route)) or self._row(method, route)
        row.statuses[status] = row.statuses.get(status, 0) + 1
        bucket = bisect_left(_BOUNDS, seconds)
        row.buckets[bucket] += 1
        if trace_id is not None:
            row.exemplars[bucket] = (trace_id, seconds, time())
        row.seconds += seconds

    def refused(self, reason: str) -> None:
        """Count a token that was refused."""
        self._refused[reason] = self._refused.get(reason, 0) + 1

    def snapshot(self) -> Iterable[HttpRow]:
        """Return a row a route."""
        return list(self._rows.values())

    def decisions(self) -> Iterable[tuple[str, str, int]]:
        """Return what the limits decided."""
        for limit in self._limits:
            yield limit.name, "admitted", limit.admitted
            yield limit.name, "rejected", limit.rejected

    def degraded(self) -> Iterable[tuple[str, int]]:
        """Return how often each shared limit decided without Redis."""
        for limit in self._limits:
            if limit.shared is not None:
                yield limit.name, limit.degraded

    def keys(self) -> Iterable[tuple[str, int]]:
        """Return how many keys each limit of this process remembers."""
        for limit in self._limits:
            if limit.keys is not None:
                yield limit.name, limit.keys

    def idempotent(self) -> Iterable[tuple[str, int]]:
        """Return what became of requests with an idempotency key."""
        return () if self._idempotency is None else list(self._idempotency.outcomes.items())

    def refused_tokens(self) -> Iterable[tuple[str, int]]:
        """Return how many tokens were refused, and why."""
        return list(self._refused.items())

    def _row(self, method: str, route: str) -> HttpRow:
        method = method if method in _METHODS else "other"
        return self._rows.setdefault(
            (method, route), HttpRow(method, route or "unmatched", {}, [0] * (len(_BOUNDS) + 1))
        )
