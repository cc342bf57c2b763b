"""The limit of concurrency: how many calls may be in progress, given or learned."""

from __future__ import annotations

import functools
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from bascule import _core
from bascule.errors import (
    ConcurrencyLimitedError,
    ConfigurationError,
    RejectedError,
    RpcError,
)
from bascule.resilience._around import OVERLOADS, counts_as, require_coroutine_function
from bascule.resilience._breaker import Outcome
from bascule.resilience._entered import enter, leave
from bascule.resilience._time import Clock, count, span_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from types import TracebackType

    from bascule.resilience._around import FailureOn

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FixedLimit:
    """As many calls at once as are given.

    :ivar limit: calls
    :raises ConfigurationError: if it is below 1
    """

    limit: int

    def __post_init__(self) -> None:
        count("limit", self.limit)

    def _for_core(self) -> _core.ConcurrencyRule:
        return _core.ConcurrencyRule.fixed(self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aimd:
    """Additive increase, multiplicative decrease: what TCP does, for calls.

    The limit grows by one for each round of calls that went well, a round being as many calls as
    the limit is, and only while half of it is in use. It shrinks by a factor when a call is lost to
    overload, at most once for each round.

    Use it where overload shows as calls that are refused or too late, or where it is known how long
    a call may take: ``slow_call``.

    Source: Chiu and Jain, "Analysis of the Increase and Decrease Algorithms" (1989).

    :ivar initial_limit: calls at first
    :ivar min_limit: the fewest that the limit becomes
    :ivar max_limit: the most
    :ivar backoff_ratio: what remains of the limit after a loss
    :ivar slow_call: seconds; a call that takes longer counts as lost. If None, none does
    :raises ConfigurationError: if one of them is out of range
    """

    initial_limit: int = 20
    min_limit: int = 1
    max_limit: int = 1000
    backoff_ratio: float = 0.9
    slow_call: float | None = None

    def __post_init__(self) -> None:
        self._for_core()

    def _for_core(self) -> _core.ConcurrencyRule:
        slow = self.slow_call
        return _checked(
            _core.ConcurrencyRule.aimd,
            initial=count("initial_limit", self.initial_limit),
            least=count("min_limit", self.min_limit),
            most=count("max_limit", self.max_limit),
            backoff=self.backoff_ratio,
            slow_ns=None if slow is None else span_ns("slow_call", slow),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient2:
    """A limit that shrinks while calls take longer than they do in the long run.

    Calls that queue take longer, so no latency has to be known beforehand. Once a ``window``::

        gradient = tolerance * long_run / lately    from 0.5 to 1
        limit = limit * gradient + queue            smoothed

    It grows only while half of it is in use. At rest it is ``tolerance`` times what the service
    does at once, and a little: calls then take ``tolerance`` times as long as without load.

    The latency of the long run is an average, and in an overload that lasts an average comes to
    think the queue normal. So while half of the limit is in use, every ``probe_interval`` a quarter
    of it is let through for two rounds of calls, at most ``samples`` of them, to see how long calls
    take when few are in progress; a crowd teaches it nothing longer.

    Source: ``Gradient2Limit`` of Netflix's concurrency-limits; the probe is that of Envoy's
    adaptive concurrency filter.

    :ivar initial_limit: calls at first
    :ivar min_limit: the fewest that the limit becomes
    :ivar max_limit: the most
    :ivar tolerance: how many times as long as in the long run calls may take
    :ivar smoothing: how much of each change is made, up to 1
    :ivar queue: calls that may queue; if None, the square root of the limit, at least 2
    :ivar quick_call: seconds; calls that take no longer on average are never crowded, so that a
        burst of quick ones is not refused
    :ivar window: seconds after which the limit is looked at
    :ivar samples: calls that a window needs
    :ivar long_window: seconds of the long run
    :ivar probe_interval: seconds from one probe to the next, give or take 15 per cent; the first one
        comes after a tenth of it. If None, there are none, as in Netflix's
    :raises ConfigurationError: if one of them is out of range
    """

    initial_limit: int = 20
    min_limit: int = 1
    max_limit: int = 1000
    tolerance: float = 1.5
    smoothing: float = 0.2
    queue: int | None = None
    quick_call: float = 0.005
    window: float = 0.25
    samples: int = 25
    long_window: float = 600.0
    probe_interval: float | None = 30.0

    def __post_init__(self) -> None:
        self._for_core()

    def _for_core(self) -> _core.ConcurrencyRule:
        probe, queue = self.probe_interval, self.queue
        if queue is not None:
            count("queue", queue)
        return _checked(
            _core.ConcurrencyRule.gradient2,
            initial=count("initial_limit", self.initial_limit),
            least=count("min_limit", self.min_limit),
            most=count("max_limit", self.max_limit),
            window_ns=span_ns("window", self.window),
            samples=count("samples", self.samples),
            long_window_ns=span_ns("long_window", self.long_window),
            tolerance=self.tolerance,
            smoothing=self.smoothing,
            queue=queue,
            quick_ns=span_ns("quick_call", self.quick_call, least_ns=0),
            probe_interval_ns=None if probe is None else span_ns("probe_interval", probe),
        )


#: How many calls may be in progress: a number, or how one is learned.
ConcurrencyLimit: TypeAlias = FixedLimit | Aimd | Gradient2


def rule_of(limit: ConcurrencyLimit) -> _core.ConcurrencyRule:
    """The limit as the core has it."""
    return limit._for_core()


def _checked(make: Callable[..., _core.ConcurrencyRule], **settings: Any) -> _core.ConcurrencyRule:
    try:
        return make(**settings)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(str(error)) from error


@dataclass(frozen=True, slots=True)
class ConcurrencySnapshot:
    """A limit of concurrency at one moment.

    :ivar name: the limiter's or bulkhead's name
    :ivar limit: calls that there may be at once now
    :ivar in_progress: calls that there are
    :ivar waiting: callers that wait for room
    :ivar calls: calls so far by outcome: of a limiter ``success``, ``failure`` (lost to overload),
        ``abandoned`` (it says nothing of load) and ``rejected``; of a bulkhead ``admitted`` and
        ``rejected``
    """

    name: str
    limit: int
    in_progress: int
    waiting: int
    calls: Mapping[str, int]


def concurrency_snapshot(
    name: str, limit: int, in_progress: int, endings: list[int], rejected: int
) -> ConcurrencySnapshot:
    """Name the numbers of the core."""
    calls = dict(zip(("success", "failure", "abandoned"), endings, strict=True))
    return ConcurrencySnapshot(name, limit, in_progress, 0, {**calls, "rejected": rejected})


def shows_overload(error: Exception) -> bool:
    """Whether an exception says that there were too many calls: a timeout, or the status
    DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED or UNAVAILABLE.
    """
    if isinstance(error, RpcError):
        return error.status in OVERLOADS
    return isinstance(error, TimeoutError)


class ConcurrencyPermit:
    """The right to make one call, given by :meth:`AdaptiveLimiter.admit`."""

    __slots__ = ("_began", "_clock", "_core", "_reported")

    def __init__(self, core: _core.ConcurrencyLimiter, clock: Clock, began: int) -> None:
        self._core = core
        self._clock = clock
        self._began = began
        self._reported = False

    def report(self, outcome: Outcome) -> None:
        """Give the permit back and tell how the call ended; later reports do nothing.

        ``FAILURE`` is for a call that was lost to overload, ``ABANDONED`` for one that says nothing
        of it, such as one that failed for another reason.
        """
        if not self._reported:
            self._reported = True
            self._core.complete(self._began, outcome, self._clock())


class AdaptiveLimiter:
    """Keep as many calls in progress as a dependency does well, and refuse the others at once.

    Use it around each call, as a context manager or as the decorator of a coroutine function::

        limiter = AdaptiveLimiter("payments", Gradient2())

        async with limiter:
            await charge(order)

        @limiter
        async def charge(order): ...

    A block that ends well teaches the limit how long it took. An exception that leaves it has lost
    the call to overload if ``lost_on`` says so; any other one, and cancellation, give the permit
    back and teach nothing. So put a deadline inside the block, where it shows as
    :class:`TimeoutError`.

    One limiter may be used by many tasks and threads at once.

    :param name: what errors and metrics call it
    :param limit: how the limit moves
    :param lost_on: exception types that show overload, or a function that tells
    :param clock: nanoseconds that never go backwards
    """

    def __init__(
        self,
        name: str,
        limit: ConcurrencyLimit | None = None,
        *,
        lost_on: FailureOn = shows_overload,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self.name = name
        self._lost_on = lost_on
        self._clock = clock
        rule = rule_of(limit or Gradient2())
        self._core = _core.ConcurrencyLimiter(rule, random.getrandbits(63))

    @property
    def limit(self) -> int:
        """Calls that there may be at once now."""
        return self._core.snapshot()[0]

    @property
    def in_progress(self) -> int:
        """Calls that there are."""
        return self._core.snapshot()[1]

    def snapshot(self) -> ConcurrencySnapshot:
        """Return limit and counts, for metrics."""
        return concurrency_snapshot(self.name, *self._core.snapshot())

    def admit(self) -> ConcurrencyPermit:
        """Ask to make a call, whose end the permit must be told on every path.

        For what neither a block nor a decorator fits: a call that spans tasks, or one whose end is
        no matter of exceptions.

        :raises ConcurrencyLimitedError: if refused
        """
        return ConcurrencyPermit(self._core, self._clock, self._admit())

    async def __aenter__(self) -> None:
        """Ask to make a call; the block runs only if it may. No checkpoint.

        :raises ConcurrencyLimitedError: if refused
        """
        enter(self, self._admit())

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Report how the call ended. No checkpoint.

        :raises RuntimeError: if another task entered the block
        """
        self._report(leave(self, self.name), exc)

    def __call__(
        self, function: Callable[_P, Coroutine[Any, Any, _T]]
    ) -> Callable[_P, Coroutine[Any, Any, _T]]:
        """Put each call of a coroutine function within the limit.

        :raises TypeError: if it is no coroutine function
        """
        require_coroutine_function(function)

        @functools.wraps(function)
        async def limited(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            permit = self._admit()
            try:
                result = await function(*args, **kwargs)
            except BaseException as exc:
                self._report(permit, exc)
                raise
            self._report(permit, None)
            return result

        return limited

    def __repr__(self) -> str:
        return f"AdaptiveLimiter({self.name!r}, limit={self.limit})"

    def _admit(self) -> int:
        permit = self._core.admit(self._clock())
        if permit < 0:
            raise ConcurrencyLimitedError(self.name)
        return permit

    def _report(self, permit: int, exc: BaseException | None) -> None:
        outcome = Outcome.ABANDONED
        try:
            if exc is None:
                outcome = Outcome.SUCCESS
            elif self._is_lost(exc):
                outcome = Outcome.FAILURE
        finally:  # The user's function may raise; the permit comes back all the same.
            self._core.complete(permit, outcome, self._clock())

    def _is_lost(self, exc: BaseException) -> bool:
        if isinstance(exc, BaseExceptionGroup):
            return any(self._is_lost(inner) for inner in exc.exceptions)
        if isinstance(exc, RejectedError) or not isinstance(exc, Exception):
            return False
        return counts_as(exc, self._lost_on)
