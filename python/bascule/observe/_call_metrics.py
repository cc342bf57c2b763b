"""Metrics of gRPC calls: what servers and channels count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bascule.observe._families import Distribution, Exemplar, Families, Family, Row

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

    def in_progress(self) -> list[tuple[str, str, int]]:
        """Return service, method and the number of its calls in progress."""
        ...

    def exemplars(self) -> list[tuple[str, str, int, str, float, float]]:
        """Return service, method, bucket, trace id, seconds and time of sampled calls, one a bucket."""
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
    kept: dict[tuple[str, str], dict[int, Exemplar]] = {}
    for service, method, bucket, trace, took, at in stats.exemplars():
        kept.setdefault((service, method), {})[bucket] = Exemplar(trace, took, at)
    for service, method, statuses, buckets, seconds in stats.snapshot():
        for status, count in statuses:
            yield Row(f"{prefix}_requests", (service, method, status), count)
        times = Distribution(limits, buckets, seconds, kept.get((service, method), {}))
        yield Row(f"{prefix}_request_duration_seconds", (service, method), times)
    for service, method, count in stats.in_progress():
        yield Row(f"{prefix}_requests_in_progress", (service, method), count)


def _core_bounds() -> Sequence[float]:
    from bascule import _core

    return _core.CALL_BUCKETS
