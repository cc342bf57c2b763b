"""What a channel shows of its endpoints, and what calls that belong together have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bascule import _core
from bascule.resilience._breaker import BreakerState, breaker_counts
from bascule.resilience._concurrency import ConcurrencySnapshot, concurrency_snapshot

if TYPE_CHECKING:
    from bascule._core import CallPolicy
    from bascule.observe import BreakerCounts


class EndpointSnapshot(NamedTuple):
    """One endpoint of a channel at one moment; times are seconds on the event loop's clock.

    :ivar address: where it listens
    :ivar weight: its share of the calls
    :ivar ready: whether it is connected
    :ivar in_flight: calls that have not ended
    :ivar breaker: what its breaker does; closed if it has none
    :ivar picks: calls sent to it so far
    :ivar successes: calls that it answered
    :ivar failures: calls that it failed
    :ivar latency: seconds that its calls take lately, peaks first; None if that is not learned
    :ivar ejected_until: when it may come back, if it is ejected as an outlier
    :ivar counts: what its breaker has done; None if it has none
    :ivar concurrency: how many calls it may have at once, and what became of them; None if it has
        no limit
    """

    address: str
    weight: int
    ready: bool
    in_flight: int
    breaker: BreakerState
    picks: int
    successes: int
    failures: int
    latency: float | None
    ejected_until: float | None
    counts: BreakerCounts | None
    concurrency: ConcurrencySnapshot | None


def endpoint_snapshots(policy: CallPolicy, now_ns: int = 0) -> list[EndpointSnapshot]:
    """Every endpoint of a policy, in the order of its last update.

    :param now_ns: the time by the policy's clock, for breakers with a window of time; if 0, they
        are shown as of their last calls
    """
    return [
        EndpointSnapshot(
            address,
            weight,
            ready,
            in_flight,
            BreakerState(breaker),
            picks,
            successes,
            failures,
            None if latency_ns is None else latency_ns / 1e9,
            None if ejected_until_ns is None else ejected_until_ns / 1e9,
            None if counts is None else breaker_counts(*counts),
            None if limit is None else concurrency_snapshot(address, *limit),
        )
        for (
            (
                address,
                weight,
                ready,
                in_flight,
                breaker,
                picks,
                successes,
                failures,
                latency_ns,
                ejected_until_ns,
            ),
            counts,
            limit,
        ) in zip(policy.snapshot(), policy.breakers(now_ns), policy.concurrency(), strict=True)
    ]


def hash_key(key: str | bytes) -> int:
    """The hash of what calls have in common, for ``ring_hash`` and ``maglev``: XXH64, as gRPC's.

    Source: gRFC A76.
    """
    return _core.xxh64(key.encode() if isinstance(key, str) else key)
