"""The rate limiters."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import anyio

from bascule import _core
from bascule._core import Decision
from bascule.errors import ConfigurationError, RateLimitedError
from bascule.resilience._time import Clock, count, span_ns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = [
    "Decision",
    "GcraLimiter",
    "LimitAlgorithm",
    "RateLimiter",
    "SlidingWindowLimiter",
    "TokenBucketLimiter",
]


class LimitAlgorithm(StrEnum):
    """How a rate limit counts."""

    GCRA = "gcra"
    """As :class:`GcraLimiter`."""
    TOKEN_BUCKET = "token_bucket"  # noqa: S105 (no secret)
    """As :class:`TokenBucketLimiter`."""
    SLIDING_WINDOW = "sliding_window"
    """As :class:`SlidingWindowLimiter`."""

    @classmethod
    def named(cls, name: str) -> LimitAlgorithm:
        """Return the algorithm of that name.

        :raises ConfigurationError: if there is none
        """
        try:
            return cls(name)
        except ValueError as error:
            raise ConfigurationError(
                f"algorithm is {name!r}: choose from {[one.value for one in cls]}"
            ) from error

    @property
    def limiter(self) -> type[RateLimiter]:
        """The limiter that counts so in this process."""
        return _LIMITERS[self]


class RateLimiter:
    """How often something may happen, for each key apart: what the limiters have in common.

    Up to ``rate`` units in each ``per`` seconds, up to ``burst`` of them at once, counted exactly:
    in any window of ``w`` seconds at most ``burst + rate * w / per``.

    A key that has rested, so that its whole burst is there again, is forgotten. When ``max_keys``
    others are known, a new key displaces, of ten, the one that has used least; it gets its whole
    burst again, and :attr:`displaced` counts it. A known key takes about 80 bytes.

    :meth:`check` and :meth:`require` may be called from any thread; those who wait in
    :meth:`acquire` share one event loop.

    :param rate: units in each ``per``
    :param per: seconds
    :param burst: units at once; as many as ``rate`` if not given
    :param max_keys: keys remembered at once
    :param name: what errors call it
    :param clock: nanoseconds that never go backwards
    :param sleep: waits for seconds of the same clock
    :raises ConfigurationError: if a number is out of range
    """

    algorithm: ClassVar[LimitAlgorithm]  #: how it counts

    def __init__(
        self,
        rate: int,
        per: float = 1.0,
        *,
        burst: int | None = None,
        max_keys: int = 100_000,
        name: str = "rate limit",
        clock: Clock = time.monotonic_ns,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self.rate = count("rate", rate)
        self.per = per
        self.burst = count("burst", rate if burst is None else burst)
        self.max_keys = count("max_keys", max_keys)
        self.name = name
        self._clock = clock
        self._sleep = sleep
        self._queues: dict[str, _Queue] = {}
        try:
            self._core = _core.KeyedLimiter(
                algorithm=self.algorithm,
                limit=rate,
                period_ns=span_ns("per", per),
                burst=self.burst,
                max_keys=max_keys,
            )
        except ValueError as error:
            raise ConfigurationError(str(error)) from error

    @property
    def admitted(self) -> int:
        """Checks that were allowed, of a cost above 0."""
        return self._core.admitted

    @property
    def rejected(self) -> int:
        """Checks that were refused; those of :meth:`acquire` that were repeated later count each."""
        return self._core.rejected

    @property
    def displaced(self) -> int:
        """Keys that were forgotten before they had rested, because ``max_keys`` were known."""
        return self._core.displaced

    def __len__(self) -> int:
        """Return the number of keys remembered."""
        return len(self._core)

    def check(self, key: str, cost: int = 1) -> Decision:
        """Take ``cost`` units of the key if they are there, and tell; 0 only looks.

        It does not queue: it may overtake those who wait in :meth:`acquire`.
        """
        return self._core.check(key, cost, self._clock())

    def require(self, key: str, cost: int = 1) -> Decision:
        """Take ``cost`` units of the key.

        :raises RateLimitedError: if they are not there; nothing was taken
        """
        decision = self._core.check(key, cost, self._clock())
        if not decision.allowed:
            raise RateLimitedError(self.name, decision.retry_after)
        return decision

    async def acquire(self, key: str, cost: int = 1) -> Decision:
        """Take ``cost`` units of the key as soon as they are there, first come, first served.

        A checkpoint only if it has to wait. Cancelled while it waits, it has taken nothing, and
        whoever is next in the queue moves up.

        :raises ValueError: if ``cost`` is above ``burst``, so that the wait would never end
        """
        if cost > self.burst:
            msg = f"cost is {cost}, more than the burst of {self.burst}: it would wait forever"
            raise ValueError(msg)
        queue = self._queues.get(key)
        if queue is None:
            decision = self.check(key, cost)
            if decision.allowed:
                return decision
            queue = self._queues[key] = _Queue()
        queue.length += 1
        try:
            async with queue.turn:
                while not (decision := self.check(key, cost)).allowed:
                    # Known, since the cost is within the burst.
                    await self._sleep(decision.retry_after or 0.0)
                return decision
        finally:
            queue.length -= 1
            if queue.length == 0:
                del self._queues[key]

    def __repr__(self) -> str:
        rate = f"rate={self.rate}, per={self.per}, burst={self.burst}"
        return f"{type(self).__name__}({rate}, name={self.name!r})"


class GcraLimiter(RateLimiter):
    """A limiter by the generic cell rate algorithm (ITU-T I.371), the leanest there is."""

    algorithm = LimitAlgorithm.GCRA


class TokenBucketLimiter(RateLimiter):
    """A limiter by token buckets, full at first: it decides as :class:`GcraLimiter` does.

    :raises ConfigurationError: if ``per`` times ``burst`` is above 584 years
    """

    algorithm = LimitAlgorithm.TOKEN_BUCKET


class SlidingWindowLimiter(RateLimiter):
    """A limiter by sliding windows: never more than ``rate`` in a window of the clock.

    Windows are ``per`` seconds long and begin at multiples of it on the clock. Used is what was taken
    in this window, and of what was taken in the one before as large a part as of that window is still
    within the last ``per`` seconds. So a key that took all of its rate at once gets none of it back
    before its window ends, and then as much in each moment as leaves the last ``per`` seconds; with
    :class:`GcraLimiter` it gets it back evenly from the first moment.

    That holds exactly if what was taken before was spread evenly over its window; else the last
    ``per`` seconds may hold more, or allow less. However that is, no window of the clock holds more
    than ``rate``, and no other of ``w`` seconds more than ``rate + rate * w / per``.

    A key that asks all the time gets ``rate - 1`` in each window, since the last unit of one fades only
    as the next one ends, and of a rate of 1 half: for small rates take :class:`GcraLimiter`.

    :param burst: as many as ``rate``, or not given: a window has no other

    Source: Cloudflare, "How we built rate limiting capable of scaling to millions of domains" (2017).
    """

    algorithm = LimitAlgorithm.SLIDING_WINDOW


_LIMITERS: dict[LimitAlgorithm, type[RateLimiter]] = {
    each.algorithm: each for each in (GcraLimiter, TokenBucketLimiter, SlidingWindowLimiter)
}


class _Queue:
    """Those who wait for one key; only the one whose turn it is looks at the clock."""

    __slots__ = ("length", "turn")

    def __init__(self) -> None:
        self.length = 0
        self.turn = anyio.Lock(fast_acquire=True)
