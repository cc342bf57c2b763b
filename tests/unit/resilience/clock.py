"""A clock that stands still until it is told to go on."""

from __future__ import annotations

import anyio


class ManualClock:
    """Nanoseconds for policies, and the sleep that goes with them."""

    def __init__(self) -> None:
        self.now_ns = 0
        self._sleepers: list[tuple[int, anyio.Event]] = []

    def __call__(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has gone on by so much."""
        sleeper = (self.now_ns + round(seconds * 1e9), anyio.Event())
        self._sleepers.append(sleeper)
        try:
            await sleeper[1].wait()
        finally:
            self._sleepers.remove(sleeper)

    def advance(self, seconds: float) -> None:
        """Go on, without letting anybody run."""
        self.now_ns += round(seconds * 1e9)
        for due, woken in self._sleepers:
            if due <= self.now_ns:
                woken.set()

    async def run(self, seconds: float) -> None:
        """Go on, waking each sleeper in its time, until everybody waits again."""
        end = self.now_ns + round(seconds * 1e9)
        await anyio.wait_all_tasks_blocked()
        while due := [due for due, _ in self._sleepers if due <= end]:
            self.advance((min(due) - self.now_ns) / 1e9)
            await anyio.wait_all_tasks_blocked()
        self.advance((end - self.now_ns) / 1e9)
