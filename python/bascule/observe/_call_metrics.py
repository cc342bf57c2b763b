"""Metrics of gRPC calls: what servers and channels count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bascule.observe._families import Distribution, Families, Family, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["CLIENT_CALLS", "SERVER_CALLS", "CallStats", "call_rows"]

#: Statistics of one method: service, method, calls by status, calls by bucket, sum of seconds.
CallRow = tuple[str, str, list[tuple[str, int]], list[int], float]


class CallStats(Protocol):
    """What ``Server.stats`` and ``Channel.stats`` are: counted in Rust, read here."""

    def snapshot(self) -> list[CallRow]:
        """Return a row a method that was called."""
        ...


def _calls(prefix: str, whose: str) -> Families:
    method = ("service", "method")
    return {
        f"{prefix}_requests": Family("counter", (*method, "status"), f"gRPC calls {whose}"),
        f"{prefix}_request_duration_seconds": Family(
            "histogram", method, f"Duration of gRPC calls {whose}"
        ),
        f"{prefix}_requests_in_progress": Family(
            "sum", method, f"gRPC calls that are being {whose}"
        ),
    }


SERVER_CALLS = _calls("grpc", "answered")
CLIENT_CALLS = _calls("grpc_client", "made")


def call_rows(stats: CallStats, bounds: Sequence[float] | None, prefix: str) -> Iterable[Row]:
    """Give what a server or a channel has counted.

    :param bounds: of its buckets; None for the core's own
    """
    limits = _core_bounds() if bounds is None else bounds
    for service, method, statuses, buckets, seconds in stats.snapshot():
        for status, count in statuses:
            yield Row(f"{prefix}_requests", (service, method, status), count)
        times = Distribution(limits, buckets, seconds)
        yield Row(f"{prefix}_request_duration_seconds", (service, method), times)


def _core_bounds() -> Sequence[float]:
    from bascule import _core

    return _core.CALL_BUCKETS
