"""How current the lists are that clients of this process use, to look at and for metrics."""

from __future__ import annotations

import enum
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bascule.discovery.consul._errors import ConsulError
    from bascule.observe import DiscoveryRow

__all__ = ["ConsulStats", "ListSource", "ListStatus", "Watched"]

#: Services that are told apart, so that the number of series is bounded.
MOST_SERVICES = 1000
OTHER = "other"


class ListSource(enum.StrEnum):
    """Where the list comes from that calls use now."""

    NONE = "none"
    """Nothing is known yet."""
    LIVE = "live"
    """Consul answered the last question."""
    MEMORY = "memory"
    """Consul is away or not to be believed: the list is what was good last."""
    DISK = "disk"
    """Consul has not answered since the start: the list is what another run left."""


@dataclass(frozen=True, slots=True)
class ListStatus:
    """One watch.

    :ivar age: seconds since Consul said so last; a list that does not change is confirmed about every
        five minutes. None if there is no list
    :ivar endpoints: how many are called
    :ivar failures: what went wrong since the watch began, by kind: ``unavailable``, ``status``, ``answer``
    :ivar problem: what is wrong now
    """

    service: str
    source: ListSource
    age: float | None
    endpoints: int
    failures: Mapping[str, int]
    problem: str | None


@dataclass(slots=True, eq=False)
class Watched:
    """A watch as it tells about itself."""

    service: str
    stats: ConsulStats
    #: Seconds of the stats' clock at which Consul confirmed the list.
    confirmed_at: float = -math.inf
    source: ListSource = ListSource.NONE
    endpoints: int = 0
    problem: str | None = None
    failures: dict[str, int] = field(default_factory=dict)

    def confirm(self, age: float = 0.0) -> None:
        """Consul said so, some seconds ago."""
        self.confirmed_at = self.stats.clock() - age

    def count(self, error: ConsulError) -> None:
        """A question failed."""
        kind = error.kind
        self.failures[kind] = self.failures.get(kind, 0) + 1
        self.stats.count(self.service, kind)

    def status(self) -> ListStatus:
        """What is known now."""
        age = self.stats.clock() - self.confirmed_at
        return ListStatus(
            self.service,
            self.source,
            None if math.isinf(age) else age,
            self.endpoints,
            dict(self.failures),
            self.problem,
        )


class ConsulStats:
    """Collects the watches of all resolvers that are given it, by default those of the process.

    ``metrics.add_discovery(ConsulStats.default())`` exports it. It can be read from any thread.

    :param clock: monotonic seconds
    """

    _default: ConsulStats | None = None

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._watched: dict[Watched, None] = {}
        self._failures: dict[str, dict[str, int]] = {}

    @classmethod
    def default(cls) -> ConsulStats:
        """Those of the process."""
        if cls._default is None:
            cls._default = cls()
        return cls._default

    def begin(self, service: str) -> Watched:
        """A watch begins."""
        watched = Watched(service, self)
        self._watched[watched] = None
        return watched

    def end(self, watched: Watched) -> None:
        """A watch is over; what it counted stays."""
        del self._watched[watched]

    def count(self, service: str, kind: str) -> None:
        """A question for a service failed."""
        counts = self._failures.setdefault(self._name(service), {})
        counts[kind] = counts.get(kind, 0) + 1

    def statuses(self) -> tuple[ListStatus, ...]:
        """All watches, now."""
        return tuple(each.status() for each in tuple(self._watched))

    def snapshot(self) -> Iterable[DiscoveryRow]:
        """For :meth:`bascule.observe.Metrics.add_discovery`; a service that is watched twice shows its
        older list.
        """
        from bascule.observe import DiscoveryRow

        rows = {
            name: DiscoveryRow(name, None, dict(told))
            for name, told in tuple(self._failures.items())
        }
        for each in tuple(self._watched):
            status = each.status()
            name = status.service if status.service in rows or len(rows) < MOST_SERVICES else OTHER
            row = rows.setdefault(name, DiscoveryRow(name, None, {}))
            if status.age is not None:
                row.age = status.age if row.age is None else max(row.age, status.age)
        return rows.values()

    def _name(self, service: str) -> str:
        known = service in self._failures or len(self._failures) < MOST_SERVICES - 1
        return service if known else OTHER
