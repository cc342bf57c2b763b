"""The circuit breaker."""

from __future__ import annotations

import functools
import time
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from bascule import _core
from bascule.errors import BreakerOpenError, RejectedError
from bascule.observe import BreakerCounts, BreakerWindow
from bascule.resilience._around import FailureOn, counts_as, require_coroutine_function
from bascule.resilience._breaker_settings import BreakerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from types import TracebackType

    from bascule.resilience._time import Clock

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: A permit that was not given, or a time that is not known.
_UNKNOWN = -1


class BreakerState(StrEnum):
    """What a breaker does with calls."""

    CLOSED = "closed"  #: lets every call through
    OPEN = "open"  #: refuses every call
    HALF_OPEN = "half_open"  #: lets a few probes through


class Outcome(IntEnum):
    """How a call that a breaker let through has ended."""

    SUCCESS = 0  #: the dependency answered
    FAILURE = 1  #: the dependency failed
    ABANDONED = 2  #: it says nothing of the dependency: cancelled, or refused further in


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """A breaker at one moment.

    :ivar name: the breaker's name
    :ivar state: what it does with calls
    :ivar forced: whether it is held open or closed by hand
    :ivar failures: failures in a row, while closed; 0 if it has a window
    :ivar successes: successes so far, while half-open
    :ivar probes: probes in flight, while half-open
    :ivar opened: how often it has opened
    :ivar rejected: how many calls it has refused
    :ivar counts: what it has done so far, for metrics
    """

    name: str
    state: BreakerState
    forced: bool
    failures: int
    successes: int
    probes: int
    opened: int
    rejected: int
    counts: BreakerCounts

    @property
    def window(self) -> BreakerWindow | None:
        """What a breaker with a window is judged by now."""
        return self.counts.window


def breaker_counts(
    transitions: Sequence[int],
    outcomes: Sequence[int],
    slow: int,
    rejected: int,
    window: tuple[int, int, int] | None,
) -> BreakerCounts:
    """Name the numbers of the core."""
    began = dict(zip(("open", "half_open", "closed"), transitions, strict=True))
    calls = dict(zip(("success", "failure", "abandoned"), outcomes, strict=True))
    judged = None if window is None else BreakerWindow(*window)
    return BreakerCounts(began, {**calls, "rejected": rejected}, slow, judged)


class Permit:
    """The right to make one call, given by :meth:`CircuitBreaker.admit`."""

    __slots__ = ("_began_ns", "_clock", "_core", "_generation", "_reported")

    def __init__(self, core: _core.Breaker, clock: Clock, generation: int, began_ns: int) -> None:
        self._core = core
        self._clock = clock
        self._generation = generation
        self._began_ns = began_ns
        self._reported = False

    def report(self, outcome: Outcome) -> None:
        """Report how the call ended.

        The first report counts; later ones do nothing. Nor does the report of a call that was let
        through before the breaker last changed its state.
        """
        if not self._reported:
            self._reported = True
            self._core.complete(self._generation, outcome, self._clock(), self._began_ns)


#: What this task is inside of, the innermost first: breaker, permit, when it was given if that
#: matters, the rest.
_Entered: TypeAlias = "tuple[CircuitBreaker, int, int, _Entered] | None"
_entered: ContextVar[_Entered] = ContextVar("bascule_breakers_entered", default=None)


class CircuitBreaker:
    """Fail fast while a dependency is down.

    Use it around each call, as a context manager or as the decorator of a coroutine function::

        breaker = CircuitBreaker("payments")

        async with breaker:
            await charge(order)

        @breaker
        async def charge(order): ...

    An exception that leaves the block is a failure if ``failure_on`` says so, else the dependency
    has answered and it is a success. Cancellation, and a :class:`~bascule.errors.RejectedError`
    from a policy further in, are neither: they give the permit back. So put a deadline inside the
    block, where it shows as :class:`TimeoutError`, if being slow shall count as failing; a window
    with ``slow_call`` counts how long the block took, without ending it.

    One breaker may be used by many tasks and threads at once.

    Source: Nygard, *Release It!* (2nd ed.), "Circuit Breaker".

    :param name: what errors and metrics call it
    :param settings: when it opens and closes
    :param failure_on: exception types that are failures, or a function that tells
    :param clock: nanoseconds that never go backwards
    """

    def __init__(
        self,
        name: str,
        settings: BreakerSettings | None = None,
        *,
        failure_on: FailureOn = Exception,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        settings = settings or BreakerSettings()
        self.name = name
        self.settings = settings
        self._failure_on = failure_on
        self._clock = clock
        #: Whether every report needs the time: only counting in a row can do without.
        self._timed = settings.window is not None
        self._core = _core.Breaker(
            failure_threshold=settings.failure_threshold,
            success_threshold=settings.success_threshold,
            open_for_ns=settings.timeout_ns,
            half_open_permits=settings.permits,
            half_open_for_ns=settings.half_open_timeout_ns,
            window=settings.core_window,
        )

    @property
    def state(self) -> BreakerState:
        """The state; open becomes half-open with the first call after the timeout."""
        return BreakerState(self._core.state)

    def snapshot(self) -> BreakerSnapshot:
        """Return state and counts, for metrics."""
        state, forced, failures, successes, probes, opened, rejected = self._core.snapshot()
        return BreakerSnapshot(
            self.name,
            BreakerState(state),
            forced,
            failures,
            successes,
            probes,
            opened,
            rejected,
            breaker_counts(*self._core.counts(self._clock())),
        )

    def force_open(self) -> None:
        """Refuse every call until forced closed or reset."""
        self._core.force_open()

    def force_closed(self) -> None:
        """Let every call through, whatever comes of it, until forced open or reset."""
        self._core.force_closed()

    def reset(self) -> None:
        """Start again: closed, nothing counted."""
        self._core.reset()

    def admit(self) -> Permit:
        """Ask to make a call, whose end the permit must be told on every path.

        For what neither a block nor a decorator fits: a call that spans tasks, or one whose end is
        no matter of exceptions.

        :raises BreakerOpenError: if refused
        """
        return Permit(self._core, self._clock, self._admit(), self._clock())

    async def __aenter__(self) -> None:
        """Ask to make a call; the block runs only if it may. No checkpoint.

        :raises BreakerOpenError: if refused
        """
        permit = self._core.admit_if_closed()
        if permit == _UNKNOWN:
            permit = self._admit()
        _entered.set((self, permit, self._clock() if self._timed else 0, _entered.get()))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Report how the call ended. No checkpoint.

        :raises RuntimeError: if another task entered the block
        """
        permit, began_ns, rest = self._leave(_entered.get())
        _entered.set(rest)
        if exc is None and not self._timed:
            self._core.succeed(permit)
        else:
            self._report(permit, began_ns, exc)

    def __call__(
        self, function: Callable[_P, Coroutine[Any, Any, _T]]
    ) -> Callable[_P, Coroutine[Any, Any, _T]]:
        """Put each call of a coroutine function inside the breaker.

        :raises TypeError: if it is no coroutine function
        """
        require_coroutine_function(function)

        @functools.wraps(function)
        async def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            permit = self._core.admit_if_closed()
            if permit == _UNKNOWN:
                permit = self._admit()
            began_ns = self._clock() if self._timed else 0
            try:
                result = await function(*args, **kwargs)
            except BaseException as exc:
                self._report(permit, began_ns, exc)
                raise
            if self._timed:
                self._report(permit, began_ns, None)
            else:
                self._core.succeed(permit)
            return result

        return guarded

    def __repr__(self) -> str:
        return f"CircuitBreaker({self.name!r}, state={self.state.value!r})"

    def _admit(self) -> int:
        permit, retry_after_ns = self._core.admit(self._clock())
        if permit == _UNKNOWN:
            retry_after = None if retry_after_ns == _UNKNOWN else retry_after_ns / 1e9
            raise BreakerOpenError(self.name, retry_after)
        return permit

    def _report(self, permit: int, began_ns: int, exc: BaseException | None) -> None:
        outcome = Outcome.ABANDONED
        try:
            outcome = Outcome.SUCCESS if exc is None else self._outcome(exc)
        finally:  # The user's function may raise; the permit comes back all the same.
            self._core.complete(permit, outcome, self._clock(), began_ns)

    def _leave(self, entered: _Entered) -> tuple[int, int, _Entered]:
        """Take this breaker's innermost permit out; blocks of generators need not nest."""
        if entered is None:
            msg = (
                f"circuit breaker {self.name!r} is left by a task that did not enter it:"
                " use admit() where a call spans tasks"
            )
            raise RuntimeError(msg)
        breaker, permit, began_ns, rest = entered
        if breaker is self:
            return permit, began_ns, rest
        mine, mine_began_ns, rest = self._leave(rest)
        return mine, mine_began_ns, (breaker, permit, began_ns, rest)

    def _outcome(self, exc: BaseException) -> Outcome:
        if isinstance(exc, BaseExceptionGroup):
            outcomes = {self._outcome(inner) for inner in exc.exceptions}
            order = (Outcome.FAILURE, Outcome.SUCCESS, Outcome.ABANDONED)
            return next(outcome for outcome in order if outcome in outcomes)
        if isinstance(exc, RejectedError) or not isinstance(exc, Exception):
            return Outcome.ABANDONED
        return Outcome.FAILURE if counts_as(exc, self._failure_on) else Outcome.SUCCESS
