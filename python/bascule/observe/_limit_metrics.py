"""Metrics of rate limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bascule.observe._families import Families, Family, Row

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LIMITS", "Limiter", "limiter_rows"]


class Limiter(Protocol):
    """What is read of a :class:`bascule.resilience.RateLimiter`."""

    name: str

    @property
    def admitted(self) -> int:
        """Checks that it allowed."""
        ...

    @property
    def rejected(self) -> int:
        """Checks that it refused."""
        ...

    @property
    def displaced(self) -> int:
        """Keys that were forgotten before they had rested."""
        ...

    def __len__(self) -> int: ...


LIMITS: Families = {
    "rate_limit_decisions": Family(
        "counter", ("limit", "outcome"), "Decisions of a rate limit: admitted or rejected"
    ),
    "rate_limit_degraded": Family(
        "counter", ("limit",), "Decisions of a shared rate limit while Redis was away"
    ),
    "rate_limit_keys": Family("sum", ("limit",), "Keys that a rate limit remembers"),
    "rate_limit_keys_displaced": Family(
        "counter",
        ("limit",),
        "Keys that a rate limit forgot before they had rested, since it knew too many",
    ),
}


def limiter_rows(limiter: Limiter) -> Iterable[Row]:
    """Give what a limiter has decided for this process."""
    name = limiter.name
    yield Row("rate_limit_decisions", (name, "admitted"), limiter.admitted)
    yield Row("rate_limit_decisions", (name, "rejected"), limiter.rejected)
    yield Row("rate_limit_keys", (name,), len(limiter))
    yield Row("rate_limit_keys_displaced", (name,), limiter.displaced)
    degraded = getattr(limiter, "degraded", None)  # a shared one has it
    if degraded is not None:
        yield Row("rate_limit_degraded", (name,), degraded)
