"""Metrics of the process: its event loop, its worker threads, its certificates and what it runs."""

from __future__ import annotations

import math
import platform
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bascule.observe._families import Distribution, Families, Family, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "CERTIFICATES",
    "PROCESS",
    "CertificateState",
    "LoopStats",
    "ThreadLimiter",
    "certificate_rows",
    "loop_rows",
    "thread_states",
]


class LoopStats(Protocol):
    """What watches an event loop. See :class:`bascule.net.LoopWatch`."""

    @property
    def backend(self) -> str:
        """``asyncio`` or ``trio``."""
        ...

    @property
    def tasks(self) -> int:
        """Tasks that had not ended when they were last counted."""
        ...

    @property
    def bounds(self) -> Sequence[float]:
        """Upper bounds of the buckets of ``lags`` in seconds, without infinity."""
        ...

    @property
    def lags(self) -> Sequence[int]:
        """How often a timer was late, by how much, not cumulative, the last without an upper bound."""
        ...

    @property
    def lag_seconds(self) -> float:
        """Sum of all that timers were late."""
        ...

    def threads(self) -> Iterable[tuple[str, Mapping[str, float]]]:
        """Return the limiters of worker threads by name: their ``size``, ``in_use`` and ``waiting``."""
        ...


class CertificateState(NamedTuple):
    """A certificate that is shown to peers.

    :ivar name: of the server or the channel that shows it, and the name it is for
    :ivar not_after: seconds since the epoch at which the first of its chain expires
    :ivar stale: whether its files have changed since and cannot be used
    """

    name: str
    not_after: float
    stale: bool


PROCESS: Families = {
    "bascule_build_info": Family(
        "gauge", ("version", "python", "backend"), "1, for the versions that run"
    ),
    "event_loop_lag_seconds": Family(
        "histogram",
        (),
        "How late timers of the event loop are: what blocks it makes every call wait as long",
    ),
    "event_loop_tasks": Family("sum", (), "Tasks of the event loop that have not ended"),
    "worker_threads": Family(
        "sum",
        ("limiter", "state"),
        "Worker threads: size is how many there may be, in_use how many work; waiting is how many "
        "tasks wait for one",
    ),
}

CERTIFICATES: Families = {
    "tls_certificate_not_after_timestamp_seconds": Family(
        "least", ("name",), "When the first certificate of the chain that is shown expires"
    ),
    "tls_certificate_stale": Family(
        "gauge",
        ("name",),
        "1 while changed TLS files cannot be used, so that the last good certificate is shown",
    ),
}


class ThreadLimiter(Protocol):
    """What an :class:`anyio.CapacityLimiter` is."""

    def statistics(self) -> Any:
        """Return an :class:`anyio.CapacityLimiterStatistics`."""
        ...


def thread_states(limiter: ThreadLimiter) -> Mapping[str, float]:
    """Give what a limiter of worker threads allows and has in use, and how many tasks wait for it."""
    seen = limiter.statistics()
    size = float(seen.total_tokens)
    states = {"in_use": float(seen.borrowed_tokens), "waiting": float(seen.tasks_waiting)}
    return states if math.isinf(size) else {"size": size, **states}


def loop_rows(stats: LoopStats) -> Iterable[Row]:
    """Give what is known of an event loop, and what runs in it."""
    from importlib.metadata import version

    build = (version("bascule"), platform.python_version(), stats.backend)
    yield Row("bascule_build_info", build, 1)
    lags = Distribution(stats.bounds, list(stats.lags), stats.lag_seconds)
    yield Row("event_loop_lag_seconds", (), lags)
    yield Row("event_loop_tasks", (), stats.tasks)
    for name, states in stats.threads():
        for state, count in states.items():
            yield Row("worker_threads", (name, state), count)


def certificate_rows(certificates: Iterable[CertificateState]) -> Iterable[Row]:
    """Give when certificates expire."""
    for name, not_after, stale in certificates:
        yield Row("tls_certificate_not_after_timestamp_seconds", (name,), not_after)
        yield Row("tls_certificate_stale", (name,), stale)
