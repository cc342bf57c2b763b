"""Admission by rate: one limiter for addresses, one for subjects."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from bascule.errors import Status
from bascule.gateway._problems import problem, retry_after
from bascule.resilience import Away, LimitAlgorithm, RateLimiter, SharedDecision

if TYPE_CHECKING:
    from bascule.gateway._config import LimitConfig
    from bascule.net import HttpResponse
    from bascule.resilience import Decision, SharedRateLimiter

__all__ = ["Admission", "RateLimit"]


class Admission(Protocol):
    """Decides whether one more request of a key is due. A later data path in Rust decides by itself."""

    def check(self, key: str) -> Decision:
        """Take one request from the key's budget, or refuse it. Never waits."""
        ...


class RateLimit:
    """A limit by name, and the headers that tell clients about it.

    :param name: as it stands in the ``RateLimit`` headers and the metrics
    :param admission: who decides; None for a limiter in this process
    :param shared: decides for all gateways together, instead
    """

    def __init__(
        self,
        name: str,
        config: LimitConfig,
        admission: Admission | None = None,
        *,
        shared: SharedRateLimiter | None = None,
    ) -> None:
        self.name = name
        self.shared = shared
        self.admitted = 0
        self.rejected = 0
        if admission is None:
            admission = LimitAlgorithm(config.algorithm).limiter(
                config.requests, config.per, burst=config.burst, max_keys=config.max_keys
            )
        #: of this process; not to be asked if there is a shared one
        self.check = admission.check
        self._admission = admission
        #: draft-ietf-httpapi-ratelimit-headers-10: the quota in requests, the window in seconds
        self.policy = (
            "ratelimit-policy",
            f'"{name}";q={config.requests};w={math.ceil(config.per)}',
        )
        self._prefix = f'"{name}";r='

    @property
    def keys(self) -> int | None:
        """Keys that this process remembers; None if that is not known."""
        return len(self._admission) if isinstance(self._admission, RateLimiter) else None

    @property
    def degraded(self) -> int:
        """Decisions that were made without Redis since it was away."""
        return 0 if self.shared is None else self.shared.degraded

    def headers(self, decision: Decision | SharedDecision) -> list[tuple[str, str]]:
        """What an admitted request's answer says: the policy, and what is left if anybody knows."""
        if self._is_unknown(decision):
            return [self.policy]
        return [self.policy, self.header(decision)]

    def header(self, decision: Decision | SharedDecision) -> tuple[str, str]:
        """The ``RateLimit`` header: what is left, and in how many seconds all of it is back."""
        return (
            "ratelimit",
            f"{self._prefix}{decision.remaining};t={math.ceil(decision.reset_after)}",
        )

    def refusal(self, decision: Decision | SharedDecision) -> HttpResponse:
        """429, saying when to come back; 503 if nobody could tell whether it is too much."""
        if self._is_unknown(decision):
            return problem(
                Status.UNAVAILABLE,
                f"the {self.name}'s requests cannot be counted at the moment",
                headers=[retry_after(decision.retry_after or 1.0)],
            )
        return problem(
            Status.RESOURCE_EXHAUSTED,
            f"the {self.name} has used up its requests; try again later",
            headers=[self.policy, self.header(decision), retry_after(decision.retry_after or 1.0)],
        )

    def _is_unknown(self, decision: Decision | SharedDecision) -> bool:
        return (
            isinstance(decision, SharedDecision)
            and decision.degraded
            and self.shared is not None
            and self.shared.away is not Away.LOCAL
        )


def address_of(peer: str) -> str:
    """Return what the limit by address counts: an IPv4 address, or the /64 of an IPv6 one.

    Whoever has one IPv6 address has the other 2**64 of its network as well.

    :param peer: ``127.0.0.1:1234``, ``[::1]:1234``, or a Unix socket's name
    """
    if not peer.startswith("["):
        return peer.rpartition(":")[0] or peer
    from ipaddress import IPv6Address

    host = peer[1:].partition("]")[0].partition("%")[0]
    address = IPv6Address(host)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"
