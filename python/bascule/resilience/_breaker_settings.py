"""When a circuit breaker opens and closes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from bascule.errors import ConfigurationError
from bascule.resilience._time import count, span_ns

__all__ = ["BreakerSettings", "CoreWindow", "CountWindow", "TimeWindow"]

#: What the core remembers at most: a byte for each call, or 12 for each bucket, an endpoint.
_MOST_CALLS = 65_536
_MOST_BUCKETS = 1_000

#: Size, nanoseconds of a bucket or 0, minimum of calls, rate of failures, slow call, rate of those.
CoreWindow: TypeAlias = tuple[int, int, int, float, int | None, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    minimum_calls: int = 20
    failure_rate: float = 0.5
    slow_call: float | None = None
    slow_call_rate: float = 1.0

    def __post_init__(self) -> None:
        count("minimum_calls", self.minimum_calls)
        _check_share("failure_rate", self.failure_rate)
        _check_share("slow_call_rate", self.slow_call_rate)
        if self.slow_call is not None:
            span_ns("slow_call", self.slow_call)
        elif self.slow_call_rate != 1.0:
            msg = (
                f"slow_call_rate is {self.slow_call_rate}, but without slow_call no call is slow:"
                " give the seconds after which one is"
            )
            raise ConfigurationError(msg)

    def _core(self, size: int, width_ns: int) -> CoreWindow:
        slow_ns = None if self.slow_call is None else span_ns("slow_call", self.slow_call)
        rates = (self.failure_rate, slow_ns, self.slow_call_rate)
        return (size, width_ns, self.minimum_calls, *rates)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountWindow(_Window):
    """The last calls: for traffic that is steady, or so little that a span of time has too few.

    The breaker opens when, of the calls in the window, the share that failed or the share that was
    slow reaches its rate. A call that failed and was slow counts for both.

    Source: resilience4j's ``COUNT_BASED`` sliding window.

    :ivar calls: how many of the last calls count, 65,536 at most
    :ivar minimum_calls: calls in the window below which the rates say nothing yet
    :ivar failure_rate: share of failures, above 0 and at most 1, at which it opens
    :ivar slow_call: a call that takes longer than so many seconds is slow; None: no call is
    :ivar slow_call_rate: share of slow calls, above 0 and at most 1, at which it opens
    :raises ConfigurationError: if one of them is out of range, or ``minimum_calls`` is more than
        ``calls``
    """

    calls: int = 100

    def __post_init__(self) -> None:
        # By name: slots make another class, which `super()` without arguments does not know.
        _Window.__post_init__(self)
        count("calls", self.calls, most=_MOST_CALLS)
        if self.minimum_calls > self.calls:
            msg = (
                f"minimum_calls is {self.minimum_calls}, more than the window ever holds: give at"
                f" most its calls, {self.calls}"
            )
            raise ConfigurationError(msg)

    def for_core(self) -> CoreWindow:
        """What the core takes."""
        return self._core(self.calls, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeWindow(_Window):
    """The calls of the last time: for traffic that comes and goes, so that what is old is forgotten.

    Opens as a :class:`CountWindow` does. The time is counted in buckets, and the oldest one is
    forgotten as a whole: with 10 buckets of 6 seconds, the calls of the last 54 to 60 count.

    Source: resilience4j's ``TIME_BASED`` sliding window, whose buckets are a second each.

    :ivar seconds: how long a call counts
    :ivar buckets: parts of that time, 1,000 at most: more forget more evenly
    :ivar minimum_calls: calls in the window below which the rates say nothing yet
    :ivar failure_rate: share of failures, above 0 and at most 1, at which it opens
    :ivar slow_call: a call that takes longer than so many seconds is slow; None: no call is
    :ivar slow_call_rate: share of slow calls, above 0 and at most 1, at which it opens
    :raises ConfigurationError: if one of them is out of range
    """

    seconds: float = 60.0
    buckets: int = 10

    def __post_init__(self) -> None:
        _Window.__post_init__(self)
        count("buckets", self.buckets, most=_MOST_BUCKETS)
        if span_ns("seconds", self.seconds) < self.buckets:
            msg = f"seconds is {self.seconds}, too short for {self.buckets} buckets: give more"
            raise ConfigurationError(msg)

    def for_core(self) -> CoreWindow:
        """What the core takes."""
        return self._core(self.buckets, span_ns("seconds", self.seconds) // self.buckets)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When a breaker opens and closes: by results in a row, or by a window of the last calls.

    With a window, a half-open breaker lets ``half_open_permits`` calls through in all, and when
    they have ended, the window's rates among them decide whether it closes or opens again.

    :ivar failure_threshold: failures in a row that open a closed breaker; not with a window
    :ivar success_threshold: successes, without a failure between them, that close a half-open one;
        not with a window
    :ivar timeout: seconds for which an open breaker refuses before it lets a probe through
    :ivar half_open_permits: probes of a half-open breaker: those in flight together, 1 if None;
        with a window, those it lets through in all, 3 if None
    :ivar half_open_timeout: seconds after which the probes still in flight are taken for lost:
        others may start; with a window they count as failures. Choose it longer than a call may
        take
    :ivar window: what is judged by rates instead of results in a row
    :raises ConfigurationError: if one of them is out of range, or a threshold is given beside a
        window
    """

    failure_threshold: int = 5
    success_threshold: int = 3
    timeout: float = 30.0
    half_open_permits: int | None = None
    half_open_timeout: float = 30.0
    window: CountWindow | TimeWindow | None = None

    def __post_init__(self) -> None:
        count("failure_threshold", self.failure_threshold)
        count("success_threshold", self.success_threshold)
        count("half_open_permits", self.permits)
        span_ns("timeout", self.timeout, least_ns=0)
        span_ns("half_open_timeout", self.half_open_timeout)
        if self.window is not None:
            _check_unused("failure_threshold", self.failure_threshold, 5, "failure_rate")
            _check_unused("success_threshold", self.success_threshold, 3, "half_open_permits")

    @property
    def permits(self) -> int:
        """``half_open_permits``, or what stands for None."""
        if self.half_open_permits is not None:
            return self.half_open_permits
        return 1 if self.window is None else 3

    @property
    def timeout_ns(self) -> int:
        """``timeout`` in nanoseconds."""
        return span_ns("timeout", self.timeout, least_ns=0)

    @property
    def half_open_timeout_ns(self) -> int:
        """``half_open_timeout`` in nanoseconds."""
        return span_ns("half_open_timeout", self.half_open_timeout)

    @property
    def core_window(self) -> CoreWindow | None:
        """The window as the core takes it."""
        return None if self.window is None else self.window.for_core()


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        msg = f"{name} is {value}: give a share above 0 and at most 1, such as 0.5 for half of them"
        raise ConfigurationError(msg)


def _check_unused(name: str, value: int, default: int, instead: str) -> None:
    if value != default:
        msg = (
            f"{name} is {value}, but it counts in a row, and a window does not: leave it out and"
            f" give {instead}, or leave window out"
        )
        raise ConfigurationError(msg)
