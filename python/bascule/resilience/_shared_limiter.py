"""A rate limit that several processes share through Redis."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from bascule.errors import (
    BreakerOpenError,
    ConfigurationError,
    RateLimitedError,
    StoreUnavailableError,
)
from bascule.resilience._breaker import CircuitBreaker
from bascule.resilience._breaker_settings import BreakerSettings
from bascule.resilience._limit_scripts import EXACT, SCRIPTS
from bascule.resilience._limiter import LimitAlgorithm

if TYPE_CHECKING:
    from bascule._core import Decision
    from bascule._redis import RedisClient
    from bascule.resilience._breaker import BreakerState
    from bascule.resilience._time import Clock

__all__ = ["Away", "SharedDecision", "SharedRateLimiter"]

# Three late answers are enough; one call in a second finds out that Redis is back.
_BREAKER = BreakerSettings(failure_threshold=3, success_threshold=1, timeout=1.0)


class Away(StrEnum):
    """What a shared limit does while Redis cannot be asked."""

    OPEN = "open"
    """Allow everything."""
    CLOSED = "closed"
    """Allow nothing."""
    LOCAL = "local"
    """Let each process count for itself: so many processes, so many times the rate."""


@dataclass(frozen=True, slots=True)
class SharedDecision:
    """The answer to one check; true if allowed. As :class:`Decision`, and:

    :ivar degraded: whether Redis was not asked since it is away
    """

    allowed: bool
    limit: int
    remaining: int
    reset_after: float
    retry_after: float | None
    degraded: bool = False

    def __bool__(self) -> bool:
        return self.allowed


class SharedRateLimiter:
    """How often something may happen, for each key apart, in all processes together.

    It decides as the limiter of its algorithm does, but in Redis, by Redis's clock, in one step: in any
    window of ``w`` seconds at most ``burst + rate * w / per`` in all processes. What is surely over is
    refused here: one that Redis has refused, until the moment that it named, and, where that does not
    depend on when a window begins, a key that this process alone has used up. So a flood of one key
    asks Redis a few times in a second.

    When Redis does not answer within ``timeout`` it does what ``away`` says; after some failures it does
    so without asking, and one call in a second looks whether Redis is back.

    :param redis: its connection; it must be open
    :param rate: units in each ``per``
    :param per: seconds
    :param burst: units at once; as many as ``rate`` if not given
    :param algorithm: how it counts, the same in all processes; a sliding window has no ``burst``
    :param max_keys: keys remembered at once in this process; Redis forgets keys that have rested
    :param name: under which processes share the limit, and what errors call it
    :param away: what to do while Redis cannot be asked
    :param timeout: seconds that Redis has to answer
    :param breaker: when not to ask any more
    :ivar admitted: checks that were allowed, of a cost above 0
    :ivar rejected: checks that were refused
    :ivar degraded: decisions that were made without Redis since it was away
    :raises ConfigurationError: if a number is out of range
    """

    def __init__(
        self,
        redis: RedisClient,
        rate: int,
        per: float = 1.0,
        *,
        burst: int | None = None,
        algorithm: LimitAlgorithm | str = LimitAlgorithm.GCRA,
        max_keys: int = 100_000,
        name: str = "rate limit",
        away: Away | str = Away.LOCAL,
        timeout: float = 0.05,
        breaker: BreakerSettings = _BREAKER,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self.algorithm = LimitAlgorithm.named(algorithm)
        self._local = self.algorithm.limiter(
            rate, per, burst=burst, max_keys=max_keys, name=name, clock=clock
        )
        self.name = name
        self.rate = rate
        self.per = per
        self.burst = self._local.burst
        self.max_keys = max_keys
        self.admitted = 0
        self.rejected = 0
        self.degraded = 0
        if timeout <= 0:
            raise ConfigurationError(f"timeout is {timeout}: give seconds, more than 0")
        try:
            self.away = Away(away)
        except ValueError as error:
            raise ConfigurationError(
                f"away is {away!r}: choose from {[one.value for one in Away]}"
            ) from error
        period = round(per * 1e6)
        if period < 1 or (self.burst + 1) * period + rate >= EXACT or rate * 1_000 >= EXACT:
            raise ConfigurationError(
                f"a burst of {self.burst} at {rate} in {per} s is more than Redis counts exactly"
            )
        self._redis = redis
        self._script = SCRIPTS[self.algorithm]
        self._arguments = (rate, period, self.burst)
        # What one algorithm keeps, another cannot read.
        self._windowed = self.algorithm is LimitAlgorithm.SLIDING_WINDOW
        self._prefix = f"bascule:limit:{'window:' if self._windowed else ''}{name}:"
        self._timeout = timeout
        self._clock = clock
        self._breaker = CircuitBreaker(f"redis for {name}", breaker)
        # Keys that Redis has refused: when it would allow one unit, and when all are there again.
        self._refused: dict[str, tuple[int, int]] = {}

    @property
    def breaker_state(self) -> BreakerState:
        """Whether Redis is asked: closed if it is."""
        return self._breaker.state

    @property
    def displaced(self) -> int:
        """Keys that this process forgot before they had rested, because ``max_keys`` were known."""
        return self._local.displaced

    def __len__(self) -> int:
        """Return the number of keys that this process remembers."""
        return len(self._local)

    async def check(self, key: str, cost: int = 1) -> SharedDecision:
        """Take ``cost`` units of the key if they are there, and tell; 0 only looks.

        Cancelled, it may have taken them all the same.
        """
        decision = await self._decide(key, cost)
        if cost:
            if decision.allowed:
                self.admitted += 1
            else:
                self.rejected += 1
        return decision

    async def require(self, key: str, cost: int = 1) -> SharedDecision:
        """Take ``cost`` units of the key.

        Cancelled, it may have taken them all the same.

        :raises RateLimitedError: if they are not there; nothing was taken
        """
        decision = await self.check(key, cost)
        if not decision.allowed:
            raise RateLimitedError(self.name, decision.retry_after)
        return decision

    async def _decide(self, key: str, cost: int) -> SharedDecision:
        refusal = self._surely_over(key, cost) if cost else None
        if refusal is not None:
            return refusal
        try:
            async with self._breaker:
                answer = await self._redis.run(
                    self._script,
                    [self._prefix + key],
                    [*self._arguments, cost],
                    timeout=self._timeout,
                )
        except BreakerOpenError:
            return self._alone(key, cost)
        except StoreUnavailableError:
            # To connect may take longer than a check: it goes on behind it, for the next ones.
            self._redis.warm()
            return self._alone(key, cost)
        allowed, remaining, reset_us, retry_us = answer
        if allowed:
            self._local.check(key, cost)
        elif cost == 1:
            self._remember(key, retry_us, reset_us)
        retry_after = None if retry_us < 0 else retry_us / 1e6
        return SharedDecision(bool(allowed), self.burst, remaining, reset_us / 1e6, retry_after)

    def _surely_over(self, key: str, cost: int) -> SharedDecision | None:
        """What this process knows by itself: others can only have taken more."""
        refused = self._refused.get(key)
        if refused is not None:
            retry_at, reset_at = refused
            now = self._clock()
            if now < retry_at:
                wait, reset = (retry_at - now) / 1e9, (reset_at - now) / 1e9
                return SharedDecision(False, self.burst, 0, reset, wait)
            del self._refused[key]
        # Windows of this process's clock begin at other moments than those of Redis's: what is over here
        # may be due there.
        if self._windowed or self._local.check(key, 0).remaining >= cost:
            return None
        decision = self._local.check(key, cost)
        return None if decision.allowed else _shared(decision)

    def _remember(self, key: str, retry_us: int, reset_us: int) -> None:
        now = self._clock()
        self._refused[key] = now + retry_us * 1_000, now + reset_us * 1_000
        if len(self._refused) > self.max_keys:
            del self._refused[next(iter(self._refused))]

    def _alone(self, key: str, cost: int) -> SharedDecision:
        self.degraded += 1
        match self.away:
            case Away.OPEN:
                return SharedDecision(True, self.burst, self.burst, 0.0, 0.0, degraded=True)
            case Away.CLOSED:
                return SharedDecision(False, self.burst, 0, 1.0, 1.0, degraded=True)
            case Away.LOCAL:
                return _shared(self._local.check(key, cost), degraded=True)


def _shared(decision: Decision, *, degraded: bool = False) -> SharedDecision:
    return SharedDecision(
        decision.allowed,
        decision.limit,
        decision.remaining,
        decision.reset_after,
        decision.retry_after,
        degraded,
    )
