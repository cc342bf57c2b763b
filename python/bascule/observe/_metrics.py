"""Prometheus metrics: read from the counters of the hot paths when somebody scrapes, never written through.

``labels().inc()`` costs more than a fifth of a call, so servers, channels and gateways count by
themselves; this collector turns their snapshots into families under stable names.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, Protocol

from bascule.observe._event_metrics import EventStats, collect_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

#: Statistics of one method: service, method, calls by status, calls by bucket, sum of seconds.
CallRow = tuple[str, str, list[tuple[str, int]], list[int], float]

# What the alert expects: 0 closed, 1 open, 2 half-open. A forced state counts as what it does.
_BREAKER_STATES = {"closed": 0, "forced_closed": 0, "open": 1, "forced_open": 1, "half_open": 2}


class CallStats(Protocol):
    """What ``Server.stats`` and ``Channel.stats`` are: counted in Rust, read here."""

    def snapshot(self) -> list[CallRow]:
        """Return a row a method."""
        ...


class AttemptCounters(Protocol):
    """What ``Channel.attempts`` is."""

    retries: int
    hedges: int
    transparent: int
    throttled: int
    pushed_back: int
    unbuffered: int

    @property
    def tokens(self) -> float:
        """What is left of the budget for retries."""
        ...


class DatabaseStats(Protocol):
    """What ``Database.stats`` is."""

    name: str
    size: int
    in_use: int
    waiting: int
    timeouts: int
    reruns: int
    lost: int
    unknown: int


@dataclass(slots=True)
class HttpRow:
    """Statistics of one gateway route: its template is the label, so the number of series is bounded.

    :ivar statuses: requests by HTTP status
    :ivar buckets: requests by duration, not cumulative, the last without an upper bound
    :ivar seconds: sum of all durations
    """

    method: str
    route: str
    statuses: dict[int, int]
    buckets: list[int]
    seconds: float = 0.0


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

    def idempotent(self) -> Iterable[tuple[str, int]]:
        """Return (outcome, requests with an idempotency key)."""
        ...

    def refused_tokens(self) -> Iterable[tuple[str, int]]:
        """Return (reason, count)."""
        ...


class Metrics:
    """Collects what servers, channels, breakers and gateways count, and renders it for Prometheus.

    :param registry: where to register the collector; None for a registry of its own, which keeps two
        gateways in one process apart
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import CollectorRegistry

        self.registry: CollectorRegistry = registry if registry is not None else CollectorRegistry()
        self._calls: dict[str, list[tuple[CallStats, Sequence[float]]]] = {
            "server": [],
            "client": [],
        }
        self._breakers: list[Callable[[], Iterable[tuple[str, str]]]] = []
        self._attempts: dict[str, list[AttemptCounters]] = {}
        self._http: list[HttpStats] = []
        self._databases: list[DatabaseStats] = []
        self._events: list[EventStats] = []
        self.registry.register(self)

    def add_calls(
        self,
        stats: CallStats,
        *,
        side: Literal["server", "client"] = "server",
        bounds: Sequence[float] | None = None,
    ) -> None:
        """Render the calls of a server (``grpc_*``) or a channel (``grpc_client_*``).

        :param stats: ``Server.stats`` or ``Channel.stats``
        :param bounds: upper bounds of its buckets in seconds, without infinity; None for the core's own
        """
        self._calls[side].append((stats, _core_bounds() if bounds is None else bounds))

    def add_breakers(self, breakers: Callable[[], Iterable[tuple[str, str]]]) -> None:
        """Render ``circuit_breaker_state``.

        :param breakers: tells (name, state) of each breaker at the time of the scrape
        """
        self._breakers.append(breakers)

    def add_attempts(self, target: str, attempts: AttemptCounters) -> None:
        """Render ``grpc_client_attempts_total`` and ``grpc_client_retry_tokens`` of a channel.

        :param target: what the channel is to; channels with the same one are summed up
        :param attempts: ``Channel.attempts``
        """
        self._attempts.setdefault(target, []).append(attempts)

    def add_http(self, stats: HttpStats) -> None:
        """Render a gateway's requests, its limits' decisions and the tokens that it refused."""
        self._http.append(stats)

    def add_database(self, stats: DatabaseStats) -> None:
        """Render ``database_connections`` and what happened to transactions.

        :param stats: ``Database.stats``
        """
        self._databases.append(stats)

    def add_events(self, stats: EventStats) -> None:
        """Render what a bus (``events_*``) or an outbox relay (``outbox_*``) counts.

        :param stats: ``bus.stats`` or ``relay.stats``
        """
        self._events.append(stats)

    def render(self) -> tuple[bytes, str]:
        """Return the exposition text and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the registry must not scrape while it registers."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Turn the snapshots of this moment into metric families."""
        yield from self._collect_calls("grpc", "server")
        yield from self._collect_calls("grpc_client", "client")
        yield from self._collect_attempts()
        yield from self._collect_breakers()
        yield from self._collect_http()
        yield from self._collect_databases()
        yield from collect_events(self._events)

    def _collect_calls(self, prefix: str, side: str) -> Iterable[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily

        whose = "answered" if side == "server" else "made"
        requests = CounterMetricFamily(
            f"{prefix}_requests", f"gRPC calls {whose}", labels=("service", "method", "status")
        )
        duration = HistogramMetricFamily(
            f"{prefix}_request_duration_seconds",
            f"Duration of gRPC calls {whose}",
            labels=("service", "method"),
        )
        for (service, method), row in self._merged(side).items():
            for status, count in row.statuses.items():
                requests.add_metric((service, method, status), count)
            duration.add_metric(
                (service, method), _cumulative(row.bounds, row.buckets), row.seconds
            )
        yield requests
        yield duration

    def _merged(self, side: str) -> dict[tuple[str, str], _Row]:
        """Sum what several channels know of one method: two samples with the same labels are no exposition."""
        rows: dict[tuple[str, str], _Row] = {}
        for stats, bounds in self._calls[side]:
            for service, method, statuses, buckets, seconds in stats.snapshot():
                row = rows.setdefault((service, method), _Row(bounds))
                row.add(statuses, buckets, seconds)
        return rows

    def _collect_attempts(self) -> Iterable[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        made = CounterMetricFamily(
            "grpc_client_attempts",
            "Attempts of gRPC calls beside the first one: retry, hedge and transparent were made; "
            "throttled, pushed_back and unbuffered were not",
            labels=("target", "kind"),
        )
        tokens = GaugeMetricFamily(
            "grpc_client_retry_tokens", "What is left of the budget for retries", labels=("target",)
        )
        for target, channels in self._attempts.items():
            for kind, count in (
                ("retry", sum(each.retries for each in channels)),
                ("hedge", sum(each.hedges for each in channels)),
                ("transparent", sum(each.transparent for each in channels)),
                ("throttled", sum(each.throttled for each in channels)),
                ("pushed_back", sum(each.pushed_back for each in channels)),
                ("unbuffered", sum(each.unbuffered for each in channels)),
            ):
                made.add_metric((target, kind), count)
            tokens.add_metric((target,), sum(each.tokens for each in channels))
        yield made
        yield tokens

    def _collect_breakers(self) -> Iterable[Metric]:
        from prometheus_client.metrics_core import GaugeMetricFamily

        states: dict[str, int] = {}
        for breakers in self._breakers:
            for name, state in breakers():
                # Breakers that share a name show as the worst of them: open before half-open before closed.
                value = _BREAKER_STATES[state]
                states[name] = max(states.get(name, 0), value, key=(0, 2, 1).index)
        family = GaugeMetricFamily(
            "circuit_breaker_state", "0 closed, 1 open, 2 half-open", labels=("name",)
        )
        for name, value in states.items():
            family.add_metric((name,), value)
        yield family

    def _collect_http(self) -> Iterable[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily

        requests = CounterMetricFamily(
            "http_requests",
            "HTTP requests answered by the gateway",
            labels=("method", "route", "status"),
        )
        duration = HistogramMetricFamily(
            "http_request_duration_seconds", "Duration of HTTP requests", labels=("method", "route")
        )
        decisions = CounterMetricFamily(
            "rate_limit_decisions",
            "Decisions of the gateway's rate limits",
            labels=("limit", "outcome"),
        )
        refused = CounterMetricFamily(
            "auth_refused", "Bearer tokens refused by the gateway", labels=("reason",)
        )
        degraded = CounterMetricFamily(
            "rate_limit_degraded",
            "Decisions of a shared rate limit while Redis was away",
            labels=("limit",),
        )
        idempotent = CounterMetricFamily(
            "idempotent_requests",
            "Requests with an idempotency key: executed, replayed, in_flight, mismatched, or the "
            "store was away: unavailable if refused for that, unprotected if not",
            labels=("outcome",),
        )
        for stats in self._http:
            for row in stats.snapshot():
                for status, count in row.statuses.items():
                    requests.add_metric((row.method, row.route, str(status)), count)
                duration.add_metric(
                    (row.method, row.route), _cumulative(stats.bounds, row.buckets), row.seconds
                )
            for limit, outcome, count in stats.decisions():
                decisions.add_metric((limit, outcome), count)
            for reason, count in stats.refused_tokens():
                refused.add_metric((reason,), count)
            for limit, count in stats.degraded():
                degraded.add_metric((limit,), count)
            for outcome, count in stats.idempotent():
                idempotent.add_metric((outcome,), count)
        yield requests
        yield duration
        yield decisions
        yield refused
        yield degraded
        yield idempotent

    def _collect_databases(self) -> Iterable[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        connections = GaugeMetricFamily(
            "database_connections",
            "Connections of the pool: size is how many there may be, in_use how many work; "
            "waiting is how many transactions wait for one",
            labels=("database", "state"),
        )
        troubles = CounterMetricFamily(
            "database_transaction_troubles",
            "timeout: no connection became free; rerun: run again after a deadlock or a lost connection; "
            "lost: the connection broke; unknown: it broke during COMMIT",
            labels=("database", "kind"),
        )
        totals: dict[tuple[str, str], int] = {}
        for stats in self._databases:
            for state in ("size", "in_use", "waiting", "timeouts", "reruns", "lost", "unknown"):
                key = (stats.name, state)
                totals[key] = totals.get(key, 0) + getattr(stats, state)
        for (name, state), count in totals.items():
            if state in {"size", "in_use", "waiting"}:
                connections.add_metric((name, state), count)
            else:
                troubles.add_metric((name, state.removesuffix("s")), count)
        yield connections
        yield troubles


class _Row:
    __slots__ = ("bounds", "buckets", "seconds", "statuses")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.statuses: dict[str, int] = {}
        self.buckets = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def add(
        self, statuses: Iterable[tuple[str, int]], buckets: Sequence[int], seconds: float
    ) -> None:
        for status, count in statuses:
            self.statuses[status] = self.statuses.get(status, 0) + count
        self.buckets = [have + more for have, more in zip(self.buckets, buckets, strict=True)]
        self.seconds += seconds


def _cumulative(bounds: Sequence[float], buckets: Sequence[int]) -> list[tuple[str, float]]:
    limits = [*(f"{bound:g}" for bound in bounds), "+Inf"]
    return list(zip(limits, accumulate(buckets), strict=True))


def _core_bounds() -> Sequence[float]:
    from bascule import _core

    return _core.CALL_BUCKETS
