"""Limiters that remember everything, in exact fractions.

None keeps an arrival time, a token level or a pair of counters, so they share nothing with what they
check.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Expected(NamedTuple):
    """What a check should answer; spans in nanoseconds."""

    allowed: bool
    remaining: int
    reset_after: int
    retry_after: int | None


class WindowModel:
    """Allows what keeps every window ``w`` at or below ``burst + rate * w``.

    That is the definition of the traffic that GCRA admits (ITU-T I.371): it looks at each window
    that begins with an earlier admission and ends now.
    """

    def __init__(self, limit: int, period: int, burst: int) -> None:
        self.rate = Fraction(limit, period)
        self.burst = burst
        self.admitted: list[tuple[int, int]] = []

    def check(self, cost: int, now: int) -> Expected:
        """Admit ``cost`` if no window then holds too much."""
        excess = self._fullest(now) + cost - self.burst
        allowed = excess <= 0
        if allowed and cost:
            self.admitted.append((now, cost))
        level = self._fullest(now)
        retry_after = None if cost > self.burst else max(0, ceil(excess / self.rate))
        return Expected(allowed, floor(self.burst - level), ceil(level / self.rate), retry_after)

    def _fullest(self, now: int) -> Fraction:
        """By how much the fullest window that ends now is above what the rate alone explains."""
        fullest = Fraction(0)
        units = 0
        for time, cost in reversed(self.admitted):
            units += cost
            fullest = max(fullest, units - (now - time) * self.rate)
        return fullest


class LeakModel:
    """A bucket that each admission fills and time empties, replayed from the start each time."""

    def __init__(self, limit: int, period: int, burst: int) -> None:
        self.rate = Fraction(limit, period)
        self.burst = burst
        self.admitted: list[tuple[int, int]] = []

    def check(self, cost: int, now: int) -> Expected:
        """Admit ``cost`` if it does not overflow."""
        missing = self._level(now) + cost - self.burst
        allowed = missing <= 0
        if allowed:
            self.admitted.append((now, cost))
        level = self._level(now)
        retry_after = None if cost > self.burst else max(0, ceil(missing / self.rate))
        return Expected(allowed, floor(self.burst - level), ceil(level / self.rate), retry_after)

    def _level(self, now: int) -> Fraction:
        level = Fraction(0)
        before = 0
        for time, cost in [*self.admitted, (now, 0)]:
            level = max(Fraction(0), level - (time - before) * self.rate) + cost
            before = time
        return level


class SlidingModel:
    """Knows what was taken in every window of the clock, and finds by trying when more is due."""

    def __init__(self, limit: int, period: int, burst: int) -> None:
        assert burst == limit, "a sliding window has no other"
        self.limit = limit
        self.period = period
        self.taken: Counter[int] = Counter()

    def check(self, cost: int, now: int) -> Expected:
        """Admit ``cost`` if what is used leaves room for it."""
        allowed = self._used(now) + cost <= self.limit
        retry_after = None
        if cost <= self.limit:
            retry_after = self._first(lambda time: self._used(time) + cost <= self.limit, now)
        if allowed:
            self.taken[now // self.period] += cost
        reset_after = self._first(lambda time: self._used(time) == 0, now)
        return Expected(allowed, floor(self.limit - self._used(now)), reset_after, retry_after)

    def _used(self, now: int) -> Fraction:
        """All of this window, and of the one before what of it is within the last period."""
        window, elapsed = divmod(now, self.period)
        faded = Fraction(self.taken[window - 1] * elapsed, self.period)
        return self.taken[window] + self.taken[window - 1] - faded

    def _first(self, true: Callable[[int], bool], now: int) -> int:
        """How long until it is true, if it stays so: it is after two periods."""
        return bisect_left(range(2 * self.period), True, key=lambda span: true(now + span))
