"""Prometheus metrics: read from the counters of the hot paths when somebody scrapes, never written through.

``labels().inc()`` costs more than a fifth of a call, so servers, channels and gateways count by
themselves; this collector turns their snapshots into families under stable names. Each part has a
module that declares its families and gives rows; ``_families`` merges them the same way for all.
"""

from __future__ import annotations

from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.lowlevel
import anyio.to_thread

from bascule.observe._breaker_metrics import breaker_rows
from bascule.observe._call_metrics import call_rows
from bascule.observe._catalog import FAMILIES
from bascule.observe._channel_metrics import attempt_rows, channel_rows
from bascule.observe._concurrency_metrics import concurrency_rows
from bascule.observe._database_metrics import database_rows
from bascule.observe._discovery_metrics import discovery_rows
from bascule.observe._families import Merged, Row
from bascule.observe._http_metrics import http_rows
from bascule.observe._limit_metrics import limiter_rows
from bascule.observe._process_metrics import certificate_rows, loop_rows, thread_states
from bascule.observe._saga_metrics import saga_rows
from bascule.observe._samples import Sample, families
from bascule.observe._server_metrics import server_rows

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from bascule.observe._breaker_metrics import MeasuredBreaker
    from bascule.observe._call_metrics import CallStats
    from bascule.observe._channel_metrics import AttemptCounters, MeasuredChannel
    from bascule.observe._concurrency_metrics import MeasuredConcurrency
    from bascule.observe._database_metrics import DatabaseStats
    from bascule.observe._discovery_metrics import DiscoveryStats
    from bascule.observe._event_metrics import EventStats
    from bascule.observe._http_metrics import HttpStats
    from bascule.observe._limit_metrics import Limiter
    from bascule.observe._process_metrics import CertificateState, LoopStats, ThreadLimiter
    from bascule.observe._saga_metrics import SagaStats
    from bascule.observe._server_metrics import MeasuredServer
    from bascule.observe._shared import SharedFolder

__all__ = ["MetricSources", "Metrics"]


#: Sets of labels that are turned into text at once: of histograms, a millisecond's work.
PIECE = 20


class MetricSources:
    """What metrics are read from: what parts count, kept as they give it. See :class:`Metrics`."""

    def __init__(self) -> None:
        #: What gives the rows of each part at the time of a scrape.
        self.rows: list[Callable[[], Iterable[Row]]] = []
        self.samples: list[Callable[[], Iterable[Sample]]] = []
        self._discovery: list[DiscoveryStats] = []

    def add_server(self, server: MeasuredServer, name: str = "grpc") -> None:
        """Render what a gRPC server counts: its calls (``grpc_*``), its connections, what it refused.

        :param name: what tells its listeners from others of the process
        """
        if server.stats is not None:
            self.add_calls(server.stats)
        self.rows.append(lambda: server_rows(name, server.counts()))
        self.rows.append(lambda: certificate_rows(server.certificates(name)))

    def add_channel(self, channel: MeasuredChannel, name: str | None = None) -> None:
        """Render what a channel counts: its calls, endpoints and breakers (``grpc_client_*``).

        :param name: what its endpoints' breakers and limits are called before the ``@``; its target
            if None
        """
        target = channel.target
        self.add_calls(channel.stats, side="client")
        self.rows.append(lambda: attempt_rows(target, channel.attempts))
        self.rows.append(lambda: channel_rows(target, name or target, channel))
        self.rows.append(lambda: certificate_rows(channel.certificates(name or target)))

    def add_calls(
        self,
        stats: CallStats,
        *,
        side: Literal["server", "client"] = "server",
        bounds: Sequence[float] | None = None,
    ) -> None:
        """Render the calls of a server (``grpc_*``) or a channel (``grpc_client_*``), and no more of it.

        :param stats: ``Server.stats`` or ``Channel.stats``
        :param bounds: upper bounds of its buckets in seconds, without infinity; None for the core's own
        """
        prefix = "grpc" if side == "server" else "grpc_client"
        self.rows.append(lambda: call_rows(stats, bounds, prefix))

    def add_breaker(self, breaker: MeasuredBreaker) -> None:
        """Render ``circuit_breaker_*`` of a :class:`bascule.resilience.CircuitBreaker`."""

        def rows() -> Iterable[Row]:
            shot = breaker.snapshot()
            return breaker_rows(shot.name, shot.state, shot.counts)

        self.rows.append(rows)

    def add_breakers(self, breakers: Callable[[], Iterable[tuple[str, str]]]) -> None:
        """Render ``circuit_breaker_state``.

        :param breakers: tells (name, state) of each breaker at the time of the scrape
        """
        self.rows.append(lambda: (row for told in breakers() for row in breaker_rows(*told)))

    def add_concurrency(self, limit: MeasuredConcurrency) -> None:
        """Render ``concurrency_*`` of a :class:`bascule.resilience.AdaptiveLimiter` or ``Bulkhead``."""

        def rows() -> Iterable[Row]:
            shot = limit.snapshot()
            return concurrency_rows(shot.name, shot)

        self.rows.append(rows)

    def add_attempts(self, target: str, attempts: AttemptCounters) -> None:
        """Render ``grpc_client_attempts_total`` and the budget for retries of a channel, and no more of it.

        :param target: what the channel is to; channels with the same one are summed up
        :param attempts: ``Channel.attempts``
        """
        self.rows.append(lambda: attempt_rows(target, attempts))

    def add_limiter(self, limiter: Limiter) -> None:
        """Render ``rate_limit_*`` of a :class:`bascule.resilience.RateLimiter`, or of one that is shared."""
        self.rows.append(lambda: limiter_rows(limiter))

    def add_http(self, stats: HttpStats) -> None:
        """Render a gateway's requests, its limits' decisions and the tokens that it refused."""
        self.rows.append(lambda: http_rows(stats))

    def add_samples(self, samples: Callable[[], Iterable[Sample]]) -> None:
        """Render single values.

        :param samples: tells them at the time of the scrape
        """
        self.samples.append(samples)

    def add_discovery(self, stats: DiscoveryStats) -> None:
        """Render ``discovery_list_age_seconds`` and ``discovery_errors_total`` of watched services.

        :param stats: shown once, however often it is added
        """
        if not any(stats is each for each in self._discovery):
            self._discovery.append(stats)
            self.rows.append(lambda: discovery_rows(stats))

    def add_database(self, stats: DatabaseStats) -> None:
        """Render ``database_connections`` and what happened to transactions.

        :param stats: ``Database.stats``
        """
        self.rows.append(lambda: database_rows(stats))

    def add_events(self, stats: EventStats) -> None:
        """Render what a bus (``events_*``) or an outbox relay (``outbox_*``) counts.

        :param stats: ``bus.stats`` or ``relay.stats``
        """
        self.rows.append(stats.rows)

    def add_sagas(self, stats: SagaStats) -> None:
        """Render a coordinator's runs and steps, and what its log holds unfinished.

        ``saga_unfinished`` comes from the log: it is the same in every process that has a worker, and
        0 in those that have none. Take the largest, not the sum.

        :param stats: ``SagaCoordinator.stats``
        """
        self.rows.append(lambda: saga_rows(stats))

    def add_certificates(self, certificates: Callable[[], Iterable[CertificateState]]) -> None:
        """Render when certificates expire.

        :param certificates: tells them at the time of the scrape
        """
        self.rows.append(lambda: certificate_rows(certificates()))

    def add_threads(self, name: str, limiter: ThreadLimiter) -> None:
        """Render ``worker_threads`` of an :class:`anyio.CapacityLimiter` that limits some.

        :param name: what they are for
        """

        def rows() -> Iterable[Row]:
            states = thread_states(limiter).items()
            return [Row("worker_threads", (name, state), count) for state, count in states]

        self.rows.append(rows)

    def add_loop(self, stats: LoopStats) -> None:
        """Render what is known of an event loop, and the versions that run."""
        self.rows.append(lambda: loop_rows(stats))


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
        self._process = self._apart = False
        #: Where other processes' metrics are, if they are shown together.
        self.shared: SharedFolder | None = None
        #: Tokens of event loops that are shown already.
        self.loops: set[object] = set()
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

    def add_process(self) -> None:
        """Render ``process_*`` and ``python_gc_*``, by prometheus-client's collectors; once is enough."""
        from prometheus_client import GCCollector, ProcessCollector

        if not self._process:
            self._process = True
            try:
                ProcessCollector(registry=self.registry)
                GCCollector(registry=self.registry)
            except ValueError:
                # A registry that was given, such as the process's default one, has them.
                return

    def render(self) -> tuple[bytes, str]:
        """Return the exposition in the classic text format, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    async def gather(
        self, pause: Callable[[], Awaitable[None]], only: Callable[[str], bool]
    ) -> AsyncGenerator[Metric, None]:
        """Give what a scrape shows, of other processes as well if there are some; large families
        may come in pieces. Close it if it is left early, as by a cancellation.

        :param pause: called often; it may let the event loop turn
        :param only: tells by its name whether a family is wanted
        """
        shared = self.shared
        if shared is None:
            async with aclosing(self._gather_own(pause, only, PIECE)) as own:
                async for family in own:
                    yield family
            return
        await self.write_shared(shared)
        for family in await anyio.to_thread.run_sync(shared.read):
            if only(family.name):
                yield family

    async def write_shared(self, shared: SharedFolder) -> None:
        """Leave for other processes what this one has counted."""

        async def pause() -> None:
            await anyio.lowlevel.checkpoint()

        families = [each async for each in self._gather_own(pause, lambda _: True, None)]
        await anyio.to_thread.run_sync(shared.write, families)

    async def _gather_own(
        self,
        pause: Callable[[], Awaitable[None]],
        only: Callable[[str], bool],
        most: int | None,
    ) -> AsyncGenerator[Metric, None]:
        merged, others = Merged(FAMILIES), list[Sample]()
        for sources in tuple(self._sources):
            for read in tuple(sources.rows):
                merged.add(read())
                await pause()
            for told in tuple(sources.samples):
                others += _declared(merged, told())
        for found in (merged.render(only, most), families(others), self._collect_others()):
            for family in found:
                if only(family.name):
                    await pause()
                    yield family

    def _collect_others(self) -> list[Metric]:
        """What other collectors of the registry have."""
        self._apart = True
        try:
            return list(self.registry.collect())
        finally:
            self._apart = False

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the registry must not scrape while it registers."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Turn the snapshots of this moment into metric families."""
        if self._apart:
            return
        merged, others = Merged(FAMILIES), list[Sample]()
        for sources in self._sources:
            for read in sources.rows:
                merged.add(read())
            for told in sources.samples:
                others += _declared(merged, told())
        yield from merged.render()
        yield from families(others)


def _declared(merged: Merged, samples: Iterable[Sample]) -> list[Sample]:
    """Add the samples of declared families to the others' rows; give the rest."""
    rest = []
    for each in samples:
        row = each.row()
        if row is None:
            rest.append(each)
        else:
            merged.add([row])
    return rest
