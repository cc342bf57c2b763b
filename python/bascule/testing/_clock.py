"""Time that a test moves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

from bascule.net._virtual import virtual_options, virtual_time

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["VirtualClock", "virtual_backend", "virtual_run"]


def virtual_run(backend: str = "asyncio") -> dict[str, Any]:
    """Arguments for :func:`anyio.run`: ``anyio.run(main, **virtual_run("trio"))``.

    Time is virtual in such a run: when all tasks wait, it goes on to the next deadline at once, so
    that an hour of :func:`anyio.sleep` takes no time. Threads and peers outside of the process do
    not know of it: what waits for them, waits in real time while virtual time runs away.
    """
    return {"backend": backend, "backend_options": virtual_options(backend)}


def virtual_backend(backend: str = "asyncio") -> tuple[str, dict[str, Any]]:
    """What a fixture ``anyio_backend`` answers, so that its tests run in virtual time."""
    return backend, virtual_options(backend)


class VirtualClock:
    """Holds virtual time still, and moves it when the test says so.

    ``async with VirtualClock() as clock: await clock.advance(5)``; before and after that, time goes
    on by itself, as in any run of :func:`virtual_run`.

    :raises ConfigurationError: on entering, if the event loop was started without virtual time
    """

    async def __aenter__(self) -> Self:
        self._time = virtual_time()
        self._was_auto = self._time.auto
        self._time.auto = False
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._time.auto = self._was_auto

    def now(self) -> float:
        """Virtual seconds, in the clock of :func:`anyio.current_time`."""
        return self._time.now()

    async def advance(self, seconds: float) -> None:
        """Move time, stopping at each deadline on the way until all tasks wait again.

        :raises ValueError: if ``seconds`` is negative or infinite
        """
        if not 0 <= seconds < math.inf:
            message = f"cannot advance by {seconds!r} s: expected a finite number, 0 or more"
            raise ValueError(message)
        await self._time.advance(seconds)

    async def settle(self) -> None:
        """Wait until all other tasks wait, without moving time."""
        await self._time.advance(0)
