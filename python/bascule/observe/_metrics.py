"""Prometheus metrics: read from the counters of the hot paths when somebody scrapes, never written through.

``labels().inc()`` costs more than a fifth of a call, so servers, channels and gateways count by
themselves; this collector turns their snapshots into families under stable names.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, Protocol

from bascule.observe._event_metrics import EventStats, collect_events
from bascule.observe._samples import families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from bascule.observe._samples import Sample

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


class StepTimes(Protocol):
    """Durations of the attempts at one step of a saga."""

    buckets: list[int]
    seconds: float


class SagaStats(Protocol):
    """What ``SagaCoordinator.stats`` is. See :class:`bascule.saga.SagaStats`."""

    outcomes: dict[tuple[str, str], int]
    active: dict[str, int]
    lease_losses: dict[str, int]

    @property
    def bounds(self) -> Sequence[float]:
        """Upper bounds of the buckets in seconds, without infinity."""
        ...

    @property
    def steps(self) -> Mapping[tuple[str, str, str, str], StepTimes]:
        """Attempts by saga, step, ``action`` or ``undo``, and ``ok`` or ``failed``."""
        ...

    @property
    def unfinished(self) -> Mapping[tuple[str, str], int]:
        """Unfinished runs in the log by saga and state."""
        ...


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


@dataclass(slots=True)
class DiscoveryRow:
    """What is known of one service that clients look for.

    :ivar age: seconds since the registry said so last; None if it never did
    :ivar errors: questions that failed, by kind
    """

    service: str
    age: float | None
    errors: dict[str, int]


class DiscoveryStats(Protocol):
    """Watched services as a resolver's package counts them; their number is bounded."""

    def snapshot(self) -> Iterable[DiscoveryRow]:
        """Return a row a service."""
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
        self._samples: list[Callable[[], Iterable[Sample]]] = []
        self._discovery: list[DiscoveryStats] = []
        self._databases: list[DatabaseStats] = []
        self._events: list[EventStats] = []
        self._sagas: list[SagaStats] = []
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

    def add_samples(self, samples: Callable[[], Iterable[Sample]]) -> None:
        """Render single values.

        :param samples: tells them at the time of the scrape
        """
        self._samples.append(samples)

    def add_discovery(self, stats: DiscoveryStats) -> None:
        """Render ``discovery_list_age_seconds`` and ``discovery_errors_total`` of watched services."""
        self._discovery.append(stats)

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

    def add_sagas(self, stats: SagaStats) -> None:
        """Render a coordinator's runs and steps, and what its log holds unfinished.

        ``saga_unfinished`` comes from the log: it is the same in every process that has a worker, and
        0 in those that have none. Take the largest, not the sum.

        :param stats: ``SagaCoordinator.stats``
        """
        self._sagas.append(stats)

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
        yield from families(each for samples in self._samples for each in samples())
        yield from self._collect_discovery()
        yield from self._collect_databases()
        yield from collect_events(self._events)
        yield from self._collect_sagas()

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

    def _collect_discovery(self) -> Iterable[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        age = GaugeMetricFamily(
            "discovery_list_age_seconds",
            "Seconds since the registry confirmed the list of instances that is used",
            labels=("service",),
        )
        errors = CounterMetricFamily(
            "discovery_errors",
            "Questions for a service's instances that failed",
            labels=("service", "kind"),
        )
        for row in _merged_discovery(self._discovery):
            if row.age is not None:
                age.add_metric((row.service,), row.age)
            for kind, count in row.errors.items():
                errors.add_metric((row.service, kind), count)
        yield age
        yield errors

    def _collect_sagas(self) -> Iterable[Metric]:
        from prometheus_client.metrics_core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        runs = CounterMetricFamily(
            "saga_runs",
            "Runs that this process ended or left: completed, undone, parked or interrupted",
            labels=("saga", "outcome"),
        )
        active = GaugeMetricFamily("saga_active", "Runs that this process is at", labels=("saga",))
        unfinished = GaugeMetricFamily(
            "saga_unfinished",
            "Unfinished runs in the log: running, undoing or parked",
            labels=("saga", "state"),
        )
        losses = CounterMetricFamily(
            "saga_lease_losses", "Runs that another worker took over", labels=("saga",)
        )
        attempts = HistogramMetricFamily(
            "saga_step_duration_seconds",
            "Duration of attempts to do (action) or undo (undo) a step",
            labels=("saga", "step", "op", "outcome"),
        )
        for stats in self._sagas:
            for (saga, outcome), count in stats.outcomes.items():
                runs.add_metric((saga, outcome), count)
            for saga, count in stats.active.items():
                active.add_metric((saga,), count)
            for (saga, state), count in stats.unfinished.items():
                unfinished.add_metric((saga, str(state)), count)
            for saga, count in stats.lease_losses.items():
                losses.add_metric((saga,), count)
            for labels, times in stats.steps.items():
                attempts.add_metric(labels, _cumulative(stats.bounds, times.buckets), times.seconds)
        yield runs
        yield active
        yield unfinished
        yield losses
        yield attempts

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


def _merged_discovery(sources: Iterable[DiscoveryStats]) -> Iterable[DiscoveryRow]:
    """A service that two sources know shows its older list."""
    rows: dict[str, DiscoveryRow] = {}
    for row in (each for stats in sources for each in stats.snapshot()):
        merged = rows.setdefault(row.service, DiscoveryRow(row.service, None, {}))
        if row.age is not None:
            merged.age = row.age if merged.age is None else max(merged.age, row.age)
        for kind, count in row.errors.items():
            merged.errors[kind] = merged.errors.get(kind, 0) + count
    return rows.values()


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
