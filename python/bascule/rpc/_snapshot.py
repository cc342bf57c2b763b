"""What a channel is doing, to look at."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bascule.observe import BreakerCounts
    from bascule.resilience import BreakerState, ConcurrencySnapshot
    from bascule.rpc._load_balancing import LoadBalancing
    from bascule.rpc._service_config import ServiceConfig

__all__ = [
    "AttemptsSnapshot",
    "ChannelSnapshot",
    "ConnectivityState",
    "ResolverSnapshot",
    "SubchannelSnapshot",
]


class ConnectivityState(enum.StrEnum):
    """Whether calls can be sent, by gRPC's connectivity semantics document."""

    IDLE = "idle"
    """Nothing is connected, and nothing tries to: the next call begins it."""
    CONNECTING = "connecting"
    READY = "ready"
    TRANSIENT_FAILURE = "transient_failure"
    """The last attempt failed; another one follows after a pause."""
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class SubchannelSnapshot:
    """One endpoint of a channel.

    :ivar failure: why it could not be connected, or is not healthy; None if all is well
    :ivar picks: calls that were sent to it
    :ivar in_flight: those that have not ended
    :ivar successes: those that it answered
    :ivar failures: those that it failed
    :ivar breaker: None if the channel has no breakers
    :ivar ejected: whether it is an outlier that gets no calls for a while
    :ivar breaker_counts: what that breaker has done
    :ivar latency: seconds that its calls took of late; None if the balancer does not learn it
    :ivar concurrency: how many unary calls it may have at once, and what became of them; None if the
        channel has no such limit
    """

    address: str
    state: ConnectivityState
    weight: int
    failure: str | None
    picks: int
    in_flight: int
    successes: int
    failures: int
    breaker: BreakerState | None
    ejected: bool
    latency: float | None
    breaker_counts: BreakerCounts | None
    concurrency: ConcurrencySnapshot | None


@dataclass(frozen=True, slots=True)
class ResolverSnapshot:
    """Where a channel knows its endpoints from.

    :ivar kind: name of the resolver's class
    :ivar age: seconds since it last said something; None if it never has
    :ivar last_error: what went wrong since then; None if nothing did
    :ivar service_config: what holds now, whether of the resolver or the channel
    """

    kind: str
    age: float | None
    last_error: str | None
    service_config: ServiceConfig


@dataclass(frozen=True, slots=True)
class AttemptsSnapshot:
    """Counters of attempts since the channel was made, and what throttles them.

    :ivar transparent: repetitions of calls that no server had processed
    :ivar throttled: attempts that were not made because too many had failed
    :ivar tokens: what is left of the bucket of gRFC A6
    """

    attempts: int
    retries: int
    hedges: int
    transparent: int
    throttled: int
    pushed_back: int
    tokens: float


@dataclass(frozen=True, slots=True)
class ChannelSnapshot:
    """A channel at one moment.

    :ivar subchannels: its endpoints, in the resolver's order
    :ivar balancer: how one of them is chosen for a call
    :ivar waiting: calls that wait for a connection
    :ivar refused: calls refused before anything was sent: ``rate_limited``, ``breaker_open`` or
        ``concurrency_limited``
    """

    target: str
    state: ConnectivityState
    resolver: ResolverSnapshot
    balancer: LoadBalancing
    subchannels: tuple[SubchannelSnapshot, ...]
    attempts: AttemptsSnapshot
    waiting: int
    refused: Mapping[str, int]
