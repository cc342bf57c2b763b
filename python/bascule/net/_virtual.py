"""Event loops whose time is virtual: it stands still while anything has work to do."""

from __future__ import annotations

import asyncio
import math
import selectors
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
__all__ = ["VirtualTime", "virtual_options", "virtual_time"]

#: Where virtual time begins, in seconds: any number but 0, which some take for "not set".
BEGIN = 1000.0

#: Added to each step, in nanoseconds: a timer must not wake a trifle before the time that it was set
#: for, as what is a float here is an integer there, and would then be set again for ever.
MORE_NS = 2


class _AsyncioTime:
    """The time of one :class:`VirtualLoop`."""

    def __init__(self) -> None:
        self.now_ns = int(BEGIN * 1e9)
        #: Whether to go on to the next timer whenever nothing else is to be done.
        self.auto = True
        self._goal_ns = 0
        self._reached: asyncio.Future[None] | None = None

    def now(self) -> float:
        return self.now_ns / 1e9

    async def advance(self, seconds: float) -> None:
        if self._reached is not None:
            message = "another task advances this clock already"
            raise RuntimeError(message)
        self._goal_ns = self.now_ns + _nanoseconds(seconds) + MORE_NS
        self._reached = asyncio.get_running_loop().create_future()
        try:
            await self._reached
        finally:
            self._reached = None

    def idle(self, timeout: float | None) -> bool:
        """Nothing is to be done for so many seconds: whether time has gone on."""
        step_ns = None if timeout is None else _nanoseconds(timeout) + MORE_NS
        if self._reached is None:
            if not self.auto or step_ns is None:
                return False
            self.now_ns += step_ns
        elif self._reached.done():
            return False
        elif self.now_ns < self._goal_ns:
            left_ns = self._goal_ns - self.now_ns
            self.now_ns += left_ns if step_ns is None else min(left_ns, step_ns)
        else:
            self._reached.set_result(None)
        return True


class _Selector(selectors.DefaultSelector):
    """Does not wait where virtual time can go on instead."""

    def __init__(self, time: _AsyncioTime) -> None:
        super().__init__()
        self._time = time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0) or self._time.idle(timeout):
            return ready
        # Virtual time stands still: what can happen comes from outside.
        return super().select(None)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop of asyncio in virtual time."""

    def __init__(self) -> None:
        self.virtual = _AsyncioTime()
        super().__init__(_Selector(self.virtual))

    def time(self) -> float:
        """Virtual seconds."""
        return self.virtual.now()

    def time_ns(self) -> int:
        """Virtual nanoseconds, for the driver: see :class:`bascule.net._asyncio.AsyncioDriver`."""
        return self.virtual.now_ns


class _TrioTime:
    """The time of one run of trio."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock

    @property
    def auto(self) -> bool:
        return self._clock.autojump_threshold == 0

    @auto.setter
    def auto(self, value: bool) -> None:
        self._clock.autojump_threshold = 0 if value else math.inf

    def now(self) -> float:
        return self._clock.current_time()

    async def advance(self, seconds: float) -> None:
        # A task that waits for all others to block keeps time from going on by itself.
        goal = self.now() + seconds
        while True:
            await trio.testing.wait_all_tasks_blocked()
            left = goal - self.now()
            if left < 0:
                return
            step = trio.lowlevel.current_statistics().seconds_to_next_deadline
            self._clock.jump(max(0.0, min(step, left)))


VirtualTime = _AsyncioTime | _TrioTime


def virtual_options(backend: str) -> dict[str, Any]:
    """Options of :func:`anyio.run` for a run in virtual time; each run needs its own."""
    if backend == "asyncio":
        return {"loop_factory": VirtualLoop}
    clock: Any = trio.testing.MockClock(autojump_threshold=0)
    clock.jump(BEGIN)
    # An attribute of this one: the class must not be derived from.
    clock.jump = _a_trifle_more(clock.jump)
    return {"clock": clock}


def virtual_time() -> VirtualTime:
    """The time of the running loop.

    :raises ConfigurationError: if it is not virtual
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, trio.testing.MockClock):
            return _TrioTime(clock)
    else:
        if isinstance(loop, VirtualLoop):
            return loop.virtual
    message = (
        "this event loop runs in real time: start it with "
        "anyio.run(..., **bascule.testing.virtual_run('asyncio')), or give that pair as anyio_backend"
    )
    raise ConfigurationError(message)


def _a_trifle_more(jump: Callable[[float], None]) -> Callable[[float], None]:
    return lambda seconds: jump(seconds + MORE_NS / 1e9)


def _nanoseconds(seconds: float) -> int:
    return math.ceil(seconds * 1e9)
