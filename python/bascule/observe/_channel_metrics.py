"""Metrics of channels: their endpoints, what they refused and what they tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bascule.observe._breaker_metrics import breaker_rows
from bascule.observe._concurrency_metrics import concurrency_rows
from bascule.observe._families import Families, Family, Row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bascule.observe._process_metrics import CertificateState

__all__ = ["CHANNELS", "AttemptCounters", "MeasuredChannel", "attempt_rows", "channel_rows"]

#: Endpoints of a channel that are shown by their address; what others have counted is summed up.
MOST_ENDPOINTS = 200

#: What stands for the address of endpoints beyond those.
OTHERS = "others"


class AttemptCounters(Protocol):
    """What ``Channel.attempts`` is."""

    retries: int
    hedges: int
    transparent: int
    throttled: int
    pushed_back: int
    unbuffered: int
    buffered: int

    @property
    def tokens(self) -> float:
        """What is left of the budget for retries."""
        ...


class MeasuredChannel(Protocol):
    """What is read of a :class:`bascule.rpc.Channel`."""

    @property
    def target(self) -> str:
        """What it is to."""
        ...

    @property
    def stats(self) -> Any:
        """Its calls."""
        ...

    @property
    def attempts(self) -> Any:
        """Its attempts."""
        ...

    def snapshot(self) -> Any:
        """Return a ``ChannelSnapshot``."""
        ...

    def certificates(self, name: str) -> Iterable[CertificateState]:
        """Return what it shows to servers."""
        ...


_ENDPOINT = ("target", "endpoint")

CHANNELS: Families = {
    "grpc_client_subchannels": Family(
        "sum",
        ("target", "state"),
        "Endpoints of a channel by state: idle, connecting, ready or transient_failure",
    ),
    "grpc_client_picks": Family("counter", _ENDPOINT, "Calls that were sent to an endpoint"),
    "grpc_client_endpoint_calls": Family(
        "counter",
        (*_ENDPOINT, "outcome"),
        "Calls that an endpoint answered (success) or failed (failure)",
    ),
    "grpc_client_endpoint_in_flight": Family(
        "sum", _ENDPOINT, "Calls sent to an endpoint that have not ended"
    ),
    "grpc_client_endpoint_ejected": Family(
        "gauge", _ENDPOINT, "1 while an endpoint gets no calls since it is an outlier"
    ),
    "grpc_client_waiting": Family("sum", ("target",), "Calls that wait for a connection"),
    "grpc_client_refused": Family(
        "counter",
        ("target", "reason"),
        "Calls refused before anything was sent: rate_limited, breaker_open or concurrency_limited",
    ),
    "grpc_client_resolver_age_seconds": Family(
        "gauge", ("target",), "Seconds since the resolver last named endpoints"
    ),
    "grpc_client_resolver_failing": Family(
        "gauge", ("target",), "1 while the resolver fails; the endpoints that it named last hold"
    ),
    "grpc_client_attempts": Family(
        "counter",
        ("target", "kind"),
        "Attempts of gRPC calls beside the first one: retry, hedge and transparent were made; "
        "throttled, pushed_back and unbuffered were not",
    ),
    "grpc_client_retry_tokens": Family(
        "sum", ("target",), "What is left of the budget for retries"
    ),
    "grpc_client_retry_buffered_bytes": Family(
        "sum", ("target",), "Bytes of requests that are kept for another attempt"
    ),
}


def channel_rows(target: str, name: str, channel: MeasuredChannel) -> Iterable[Row]:
    """Give what a channel knows of its endpoints.

    :param name: what their breakers and limits are called before the ``@``
    """
    shot = channel.snapshot()
    for state in ("idle", "connecting", "ready", "transient_failure"):
        count = sum(each.state.value == state for each in shot.subchannels)
        yield Row("grpc_client_subchannels", (target, state), count)
    for at, each in enumerate(shot.subchannels):
        labels = (target, each.address if at < MOST_ENDPOINTS else OTHERS)
        yield Row("grpc_client_picks", labels, each.picks)
        yield Row("grpc_client_endpoint_calls", (*labels, "success"), each.successes)
        yield Row("grpc_client_endpoint_calls", (*labels, "failure"), each.failures)
        yield Row("grpc_client_endpoint_in_flight", labels, each.in_flight)
        yield Row("grpc_client_endpoint_ejected", labels, each.ejected)
        if each.breaker is not None:
            yield from breaker_rows(f"{name}@{labels[1]}", each.breaker, each.breaker_counts)
        if each.concurrency is not None:
            yield from concurrency_rows(f"{name}@{labels[1]}", each.concurrency)
    yield Row("grpc_client_waiting", (target,), shot.waiting)
    for reason, count in shot.refused.items():
        yield Row("grpc_client_refused", (target, reason), count)
    if shot.resolver.age is not None:
        yield Row("grpc_client_resolver_age_seconds", (target,), shot.resolver.age)
    yield Row("grpc_client_resolver_failing", (target,), shot.resolver.last_error is not None)


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
    yield Row("grpc_client_retry_buffered_bytes", (target,), attempts.buffered)
