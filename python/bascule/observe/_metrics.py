"""Prometheus metrics: read from the counters of the hot paths when somebody scrapes, never written through.

``labels().inc()`` costs more than a fifth of a call, so servers, channels and gateways count by
themselves; this collector turns their snapshots into families under stable names. Each part has a
module that declares its families and gives rows; :func:`render` is the same for all.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Literal

from bascule.observe._call_metrics import (
    ATTEMPTS,
    BREAKERS,
    CLIENT_CALLS,
    SERVER_CALLS,
    attempt_rows,
    breaker_rows,
    call_rows,
)
from bascule.observe._database_metrics import DATABASES, database_rows
from bascule.observe._discovery_metrics import DISCOVERY, discovery_rows
from bascule.observe._event_metrics import EVENTS
from bascule.observe._families import render
from bascule.observe._http_metrics import HTTP, http_rows
from bascule.observe._saga_metrics import SAGAS, saga_rows
from bascule.observe._samples import families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from bascule.observe._call_metrics import AttemptCounters, CallStats
    from bascule.observe._database_metrics import DatabaseStats
    from bascule.observe._discovery_metrics import DiscoveryStats
    from bascule.observe._event_metrics import EventStats
    from bascule.observe._http_metrics import HttpStats
    from bascule.observe._saga_metrics import SagaStats
    from bascule.observe._samples import Sample

__all__ = ["Metrics"]


class Metrics:
    """Collects what servers, channels, breakers and gateways count, and renders it for Prometheus.

    :param registry: where to register the collector; None for a registry of its own, which keeps two
        gateways in one process apart
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import CollectorRegistry

        self.registry: CollectorRegistry = registry if registry is not None else CollectorRegistry()
        self._servers: list[tuple[CallStats, Sequence[float] | None]] = []
        self._clients: list[tuple[CallStats, Sequence[float] | None]] = []
        self._breakers: list[Callable[[], Iterable[tuple[str, str]]]] = []
        self._attempts: list[tuple[str, AttemptCounters]] = []
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
        (self._servers if side == "server" else self._clients).append((stats, bounds))

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
        self._attempts.append((target, attempts))

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
        for declared, prefix, calls in (
            (SERVER_CALLS, "grpc", self._servers),
            (CLIENT_CALLS, "grpc_client", self._clients),
        ):
            found = (call_rows(stats, bounds, prefix) for stats, bounds in calls)
            yield from render(declared, chain.from_iterable(found))
        breakers = chain.from_iterable(told() for told in self._breakers)
        for declared, rows in (
            (ATTEMPTS, (attempt_rows(*each) for each in self._attempts)),
            (BREAKERS, (breaker_rows(breakers),)),
            (HTTP, map(http_rows, self._http)),
            (DISCOVERY, map(discovery_rows, self._discovery)),
            (DATABASES, map(database_rows, self._databases)),
            (EVENTS, (stats.rows() for stats in self._events)),
            (SAGAS, map(saga_rows, self._sagas)),
        ):
            yield from render(declared, chain.from_iterable(rows))
        yield from families(each for samples in self._samples for each in samples())
