"""Metrics of listeners: connections, requests, and what was refused or cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bascule.observe._concurrency_metrics import concurrency_rows
from bascule.observe._families import Families, Family, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bascule.observe._process_metrics import CertificateState

__all__ = ["SERVERS", "MeasuredServer", "ServerCounts", "server_rows"]


class ServerCounts(NamedTuple):
    """What a server is doing and has done.

    :ivar connections: open now
    :ivar in_progress: requests that have come and are not answered
    :ivar accepted: connections so far, refused ones left out
    :ivar refused_connections: closed at once, since there were too many
    :ivar incomplete: bytes held of requests that are not whole
    :ivar refused: requests that no handler saw, by reason
    :ivar floods: connections that were cut off, by what there was too much of
    :ivar limits: of all connections together, by name
    :ivar concurrency: its limit of concurrency, a ``ConcurrencySnapshot``; None if it has none
    """

    connections: int
    in_progress: int
    accepted: int
    refused_connections: int
    incomplete: int
    refused: Mapping[str, int]
    floods: Mapping[str, int]
    limits: Mapping[str, float]
    concurrency: Any = None


class MeasuredServer(Protocol):
    """What is read of a :class:`bascule.rpc.Server`, or of a listener for plain HTTP."""

    @property
    def stats(self) -> Any:
        """Its calls; None if it serves none."""
        ...

    def counts(self) -> ServerCounts:
        """Return what it is doing."""
        ...

    def certificates(self, name: str) -> Iterable[CertificateState]:
        """Return what it shows to its clients."""
        ...


#: The label ``server`` is what the program calls it: ``grpc``, ``gateway`` or ``operations``.
SERVERS: Families = {
    "server_connections": Family("sum", ("server",), "Connections that are open"),
    "server_connections_accepted": Family("counter", ("server",), "Connections that were accepted"),
    "server_connections_refused": Family(
        "counter", ("server",), "Connections closed at once, since there were too many"
    ),
    "server_requests_in_progress": Family(
        "sum", ("server",), "Calls or requests that have come and are not answered"
    ),
    "server_requests_refused": Family(
        "counter",
        ("server", "reason"),
        "Calls or requests that no handler saw: unknown_method, malformed, overloaded (too many "
        "calls), concurrency (too many for the limit that is learned), late (their deadlines leave too "
        "little time), memory (too many bytes of incomplete requests) or streams (too many on a "
        "connection)",
    ),
    "server_floods": Family(
        "counter",
        ("server", "reason"),
        "Connections cut off by ENHANCE_YOUR_CALM, by what there was too much of",
    ),
    "server_incomplete_bytes": Family(
        "sum", ("server",), "Bytes held of requests that are not whole"
    ),
    "server_limit": Family(
        "sum",
        ("server", "limit"),
        "How much there may be at once: connections, calls or incomplete_bytes",
    ),
}


def server_rows(name: str, counts: ServerCounts) -> Iterable[Row]:
    """Give what a server has counted."""
    for metric, count in (
        ("server_connections", counts.connections),
        ("server_connections_accepted", counts.accepted),
        ("server_connections_refused", counts.refused_connections),
        ("server_requests_in_progress", counts.in_progress),
        ("server_incomplete_bytes", counts.incomplete),
    ):
        yield Row(metric, (name,), count)
    for metric, by_label in (
        ("server_requests_refused", counts.refused),
        ("server_floods", counts.floods),
        ("server_limit", counts.limits),
    ):
        for label, value in by_label.items():
            yield Row(metric, (name, label), value)
    if counts.concurrency is not None:
        yield from concurrency_rows(name, counts.concurrency)
