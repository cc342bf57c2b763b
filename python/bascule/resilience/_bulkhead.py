"""The bulkhead: one dependency that hangs takes no more than its share of the callers."""

from __future__ import annotations

import functools
from collections import deque
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import anyio

from bascule.errors import BulkheadFullError, ConfigurationError
from bascule.resilience._around import require_coroutine_function
from bascule.resilience._concurrency import ConcurrencySnapshot
from bascule.resilience._time import count, span_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

_P = ParamSpec("_P")
_T = TypeVar("_T")


class BulkheadPermit:
    """A place in a bulkhead, given by :meth:`Bulkhead.admit` or :meth:`Bulkhead.acquire`."""

    __slots__ = ("_bulkhead", "_held")

    def __init__(self, bulkhead: Bulkhead) -> None:
        self._bulkhead = bulkhead
        self._held = True

    def release(self) -> None:
        """Give the place back, to who waits longest; later calls do nothing."""
        if self._held:
            self._held = False
            self._bulkhead._release()


class Bulkhead:
    """Keep the calls to one dependency within bounds, so that it cannot take all callers with it.

    Use it around each call, as a context manager or as the decorator of a coroutine function::

        bulkhead = Bulkhead("payments", max_concurrent=10, max_waiting=20, max_wait=0.5)

        async with bulkhead:
            await charge(order)

    Callers that find no room wait in a queue, first come, first served; those that find the queue
    full are refused at once. A caller that is cancelled in the queue leaves it, and if its turn had
    come by then, its place goes to the next one.

    One bulkhead is used by the tasks of one event loop.

    Source: Nygard, *Release It!* (2nd ed.), "Bulkheads".

    :param name: what errors and metrics call it
    :param max_concurrent: calls in progress at once
    :param max_waiting: callers in the queue
    :param max_wait: seconds in the queue; None for as long as it takes
    :raises ConfigurationError: if a number is out of range
    """

    def __init__(
        self,
        name: str,
        *,
        max_concurrent: int = 25,
        max_waiting: int = 0,
        max_wait: float | None = None,
    ) -> None:
        if max_waiting < 0:
            msg = f"max_waiting is {max_waiting}: give a whole number, 0 or more"
            raise ConfigurationError(msg)
        if max_wait is not None:
            span_ns("max_wait", max_wait)
        self.name = name
        self.max_concurrent = count("max_concurrent", max_concurrent)
        self.max_waiting = max_waiting
        self.max_wait = max_wait
        self._in_progress = 0
        self._admitted = 0
        self._rejected = 0
        self._waiting: deque[_Waiter] = deque()

    @property
    def in_progress(self) -> int:
        """Calls that there are."""
        return self._in_progress

    @property
    def waiting(self) -> int:
        """Callers in the queue."""
        return len(self._waiting)

    def snapshot(self) -> ConcurrencySnapshot:
        """Return bounds and counts, for metrics."""
        calls = {"admitted": self._admitted, "rejected": self._rejected}
        return ConcurrencySnapshot(
            self.name, self.max_concurrent, self._in_progress, self.waiting, calls
        )

    def admit(self) -> BulkheadPermit:
        """Take a place without waiting; the permit must be released on every path.

        :raises BulkheadFullError: if there is none
        """
        if not self._take():
            raise self._full()
        return BulkheadPermit(self)

    async def acquire(self) -> BulkheadPermit:
        """Take a place, waiting in the queue if need be; the permit must be released on every path.

        A checkpoint only if it has to wait. Cancelled while it waits, it holds nothing.

        :raises BulkheadFullError: if the queue is full, or ``max_wait`` has passed
        """
        await self._enter()
        return BulkheadPermit(self)

    async def __aenter__(self) -> None:
        """Take a place as :meth:`acquire` does; the block runs only with one.

        :raises BulkheadFullError: if the queue is full, or ``max_wait`` has passed
        """
        await self._enter()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the place back. No checkpoint."""
        self._release()

    def __call__(
        self, function: Callable[_P, Coroutine[Any, Any, _T]]
    ) -> Callable[_P, Coroutine[Any, Any, _T]]:
        """Put each call of a coroutine function inside the bulkhead.

        :raises TypeError: if it is no coroutine function
        """
        require_coroutine_function(function)

        @functools.wraps(function)
        async def bounded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            async with self:
                return await function(*args, **kwargs)

        return bounded

    def __repr__(self) -> str:
        return f"Bulkhead({self.name!r}, {self._in_progress} of {self.max_concurrent})"

    def _take(self) -> bool:
        # A place that is free while somebody waits is on its way to them: never so, see _release.
        if self._in_progress >= self.max_concurrent:
            return False
        self._in_progress += 1
        self._admitted += 1
        return True

    async def _enter(self) -> None:
        if self._take():
            return
        if len(self._waiting) >= self.max_waiting:
            raise self._full()
        waiter = _Waiter()
        self._waiting.append(waiter)
        began = anyio.current_time()
        try:
            with anyio.move_on_after(self.max_wait):
                await waiter.turn.wait()
        except BaseException:
            if waiter.is_served:
                self._release()
            else:
                self._waiting.remove(waiter)
            raise
        if not waiter.is_served:
            self._waiting.remove(waiter)
            raise self._full(anyio.current_time() - began)
        self._admitted += 1

    def _release(self) -> None:
        """Give a place to who waits longest, without it ever being free in between."""
        if self._waiting:
            waiter = self._waiting.popleft()
            waiter.is_served = True
            waiter.turn.set()
        else:
            self._in_progress -= 1

    def _full(self, waited: float = 0.0) -> BulkheadFullError:
        self._rejected += 1
        return BulkheadFullError(self.name, waited)


class _Waiter:
    """Somebody in the queue; served once the place is theirs, even if they do not know yet."""

    __slots__ = ("is_served", "turn")

    def __init__(self) -> None:
        self.turn = anyio.Event()
        self.is_served = False
