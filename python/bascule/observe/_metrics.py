"""Prometheus metrics: read from the counters of the hot paths when somebody scrapes, never written through.

``labels().inc()`` costs more than a fifth of a call, so servers, channels and gateways count by
themselves; this collector turns their snapshots into families under stable names. Each part has a
module that declares its families and gives rows; :func:`render` is the same for all.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeVar

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
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from bascule.observe._call_metrics import AttemptCounters, CallStats
    from bascule.observe._database_metrics import DatabaseStats
    from bascule.observe._discovery_metrics import DiscoveryStats
    from bascule.observe._event_metrics import EventStats
    from bascule.observe._http_metrics import HttpStats
    from bascule.observe._saga_metrics import SagaStats
    from bascule.observe._samples import Sample

__all__ = ["MetricSources", "Metrics"]

RowT = TypeVar("RowT")


class MetricSources:
    """What metrics are read from: what parts count, kept as they give it. See :class:`Metrics`."""

    def __init__(self) -> None:
        self.servers: list[tuple[CallStats, Sequence[float] | None]] = []
        self.clients: list[tuple[CallStats, Sequence[float] | None]] = []
        self.breakers: list[Callable[[], Iterable[tuple[str, str]]]] = []
        self.attempts: list[tuple[str, AttemptCounters]] = []
        self.http: list[HttpStats] = []
        self.samples: list[Callable[[], Iterable[Sample]]] = []
        self.discovery: list[DiscoveryStats] = []
        self.databases: list[DatabaseStats] = []
        self.events: list[EventStats] = []
        self.sagas: list[SagaStats] = []

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
        (self.servers if side == "server" else self.clients).append((stats, bounds))

    def add_breakers(self, breakers: Callable[[], Iterable[tuple[str, str]]]) -> None:
        """Render ``circuit_breaker_state``.

        :param breakers: tells (name, state) of each breaker at the time of the scrape
        """
        self.breakers.append(breakers)

    def add_attempts(self, target: str, attempts: AttemptCounters) -> None:
        """Render ``grpc_client_attempts_total`` and ``grpc_client_retry_tokens`` of a channel.

        :param target: what the channel is to; channels with the same one are summed up
        :param attempts: ``Channel.attempts``
        """
        self.attempts.append((target, attempts))

    def add_http(self, stats: HttpStats) -> None:
        """Render a gateway's requests, its limits' decisions and the tokens that it refused."""
        self.http.append(stats)

    def add_samples(self, samples: Callable[[], Iterable[Sample]]) -> None:
        """Render single values.

        :param samples: tells them at the time of the scrape
        """
        self.samples.append(samples)

    def add_discovery(self, stats: DiscoveryStats) -> None:
        """Render ``discovery_list_age_seconds`` and ``discovery_errors_total`` of watched services."""
        self.discovery.append(stats)

    def add_database(self, stats: DatabaseStats) -> None:
        """Render ``database_connections`` and what happened to transactions.

        :param stats: ``Database.stats``
        """
        self.databases.append(stats)

    def add_events(self, stats: EventStats) -> None:
        """Render what a bus (``events_*``) or an outbox relay (``outbox_*``) counts.

        :param stats: ``bus.stats`` or ``relay.stats``
        """
        self.events.append(stats)

    def add_sagas(self, stats: SagaStats) -> None:
        """Render a coordinator's runs and steps, and what its log holds unfinished.

        ``saga_unfinished`` comes from the log: it is the same in every process that has a worker, and
        0 in those that have none. Take the largest, not the sum.

        :param stats: ``SagaCoordinator.stats``
        """
        self.sagas.append(stats)


class Metrics(MetricSources):
    """Collects what servers, channels, breakers and gateways count, and renders it for Prometheus.

    :param registry: where to register the collector; None for a registry of its own, which keeps two
        gateways in one process apart
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import CollectorRegistry

        super().__init__()
        self.registry: CollectorRegistry = registry if registry is not None else CollectorRegistry()
        self._sources: list[MetricSources] = [self]
        self.registry.register(self)

    @contextmanager
    def passing(self) -> Iterator[MetricSources]:
        """Take sources for as long as the ``with`` lasts: of what may be opened again and again."""
        sources = MetricSources()
        self._sources.append(sources)
        try:
            yield sources
        finally:
            self._sources.remove(sources)

    def render(self) -> tuple[bytes, str]:
        """Return the exposition text and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the registry must not scrape while it registers."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Turn the snapshots of this moment into metric families."""
        for declared, rows in (
            (SERVER_CALLS, self._rows(lambda of: (call_rows(*c, "grpc") for c in of.servers))),
            (
                CLIENT_CALLS,
                self._rows(lambda of: (call_rows(*c, "grpc_client") for c in of.clients)),
            ),
            (ATTEMPTS, self._rows(lambda of: (attempt_rows(*each) for each in of.attempts))),
            (BREAKERS, breaker_rows(self._rows(lambda of: (told() for told in of.breakers)))),
            (HTTP, self._rows(lambda of: map(http_rows, of.http))),
            (DISCOVERY, self._rows(lambda of: map(discovery_rows, of.discovery))),
            (DATABASES, self._rows(lambda of: map(database_rows, of.databases))),
            (EVENTS, self._rows(lambda of: (stats.rows() for stats in of.events))),
            (SAGAS, self._rows(lambda of: map(saga_rows, of.sagas))),
        ):
            yield from render(declared, rows)
        yield from families(self._rows(lambda of: (told() for told in of.samples)))

    def _rows(self, read: Callable[[MetricSources], Iterable[Iterable[RowT]]]) -> Iterator[RowT]:
        """Give what is read from all sources, one after the other."""
        return (row for sources in self._sources for rows in read(sources) for row in rows)
