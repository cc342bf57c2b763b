"""Metrics of databases: connections, and what went wrong with transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bascule.observe._families import Families, Family, Row

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DATABASES", "DatabaseStats", "database_rows"]


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


DATABASES: Families = {
    "database_connections": Family(
        "sum",
        ("database", "state"),
        "Connections of the pool: size is how many there may be, in_use how many work; "
        "waiting is how many transactions wait for one",
    ),
    "database_transaction_troubles": Family(
        "counter",
        ("database", "kind"),
        "timeout: no connection became free; rerun: run again after a deadlock or a lost connection; "
        "lost: the connection broke; unknown: it broke during COMMIT",
    ),
}


def database_rows(stats: DatabaseStats) -> Iterable[Row]:
    """Give what a pool has counted."""
    for state, count in (
        ("size", stats.size),
        ("in_use", stats.in_use),
        ("waiting", stats.waiting),
    ):
        yield Row("database_connections", (stats.name, state), count)
    for kind, count in (
        ("timeout", stats.timeouts),
        ("rerun", stats.reruns),
        ("lost", stats.lost),
        ("unknown", stats.unknown),
    ):
        yield Row("database_transaction_troubles", (stats.name, kind), count)
