"""Metrics of discovery: how fresh the lists of instances are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bascule.observe._families import Families, Family, Row

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DISCOVERY", "DiscoveryRow", "DiscoveryStats", "discovery_rows"]


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


#: A service that two sources know shows its older list.
DISCOVERY: Families = {
    "discovery_list_age_seconds": Family(
        "gauge",
        ("service",),
        "Seconds since the registry confirmed the list of instances that is used",
    ),
    "discovery_errors": Family(
        "counter", ("service", "kind"), "Questions for a service's instances that failed"
    ),
}


def discovery_rows(stats: DiscoveryStats) -> Iterable[Row]:
    """Give what is known of each service."""
    for row in stats.snapshot():
        if row.age is not None:
            yield Row("discovery_list_age_seconds", (row.service,), row.age)
        for kind, count in row.errors.items():
            yield Row("discovery_errors", (row.service, kind), count)
