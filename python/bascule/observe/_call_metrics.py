"""Metrics of gRPC calls: what servers and channels count, and the breakers on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bascule.observe._families import Distribution, Families, Family, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "ATTEMPTS",
    "BREAKERS",
    "CLIENT_CALLS",
    "SERVER_CALLS",
    "AttemptCounters",
    "CallStats",
    "attempt_rows",
    "breaker_rows",
    "call_rows",
]

#: Statistics of one method: service, method, calls by status, calls by bucket, sum of seconds.
CallRow = tuple[str, str, list[tuple[str, int]], list[int], float]

# What the alert expects: 0 closed, 1 open, 2 half-open. A forced state counts as what it does.
_BREAKER_STATES = {"closed": 0, "forced_closed": 0, "open": 1, "forced_open": 1, "half_open": 2}


class CallStats(Protocol):
    """What ``Server.stats`` and ``Channel.stats`` are: counted in Rust, read here."""

    def snapshot(self) -> list[CallRow]:
        """Return a row a method."""
        ...


class AttemptCounters(Protocol):
    """What ``Channel.attempts`` is."""

    retries: int
    hedges: int
    transparent: int
    throttled: int
    pushed_back: int
    unbuffered: int

    @property
    def tokens(self) -> float:
        """What is left of the budget for retries."""
        ...


def _calls(prefix: str, whose: str) -> Families:
    method = ("service", "method")
    return {
        f"{prefix}_requests": Family("counter", (*method, "status"), f"gRPC calls {whose}"),
        f"{prefix}_request_duration_seconds": Family(
            "histogram", method, f"Duration of gRPC calls {whose}"
        ),
    }


SERVER_CALLS = _calls("grpc", "answered")
CLIENT_CALLS = _calls("grpc_client", "made")

ATTEMPTS: Families = {
    "grpc_client_attempts": Family(
        "counter",
        ("target", "kind"),
        "Attempts of gRPC calls beside the first one: retry, hedge and transparent were made; "
        "throttled, pushed_back and unbuffered were not",
    ),
    "grpc_client_retry_tokens": Family(
        "sum", ("target",), "What is left of the budget for retries"
    ),
}

BREAKERS: Families = {
    "circuit_breaker_state": Family("gauge", ("name",), "0 closed, 1 open, 2 half-open"),
}


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


def attempt_rows(target: str, attempts: AttemptCounters) -> Iterable[Row]:
    """Give what a channel's calls were tried again."""
    for kind, count in (
        ("retry", attempts.retries),
        ("hedge", attempts.hedges),
        ("transparent", attempts.transparent),
        ("throttled", attempts.throttled),
        ("pushed_back", attempts.pushed_back),
        ("unbuffered", attempts.unbuffered),
    ):
        yield Row("grpc_client_attempts", (target, kind), count)
    yield Row("grpc_client_retry_tokens", (target,), attempts.tokens)


def breaker_rows(breakers: Iterable[tuple[str, str]]) -> Iterable[Row]:
    """Give a row a name: breakers that share it show as the worst, open before half-open before closed."""
    states: dict[str, int] = {}
    for name, state in breakers:
        states[name] = max(states.get(name, 0), _BREAKER_STATES[state], key=(0, 2, 1).index)
    for name, value in states.items():
        yield Row("circuit_breaker_state", (name,), value)


def _core_bounds() -> Sequence[float]:
    from bascule import _core

    return _core.CALL_BUCKETS
