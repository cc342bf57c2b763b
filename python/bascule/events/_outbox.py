"""The outbox: events are stored with the change that they tell of, and published afterwards."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol, Self

import anyio

from bascule._tasks import owned_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from bascule.events._bus import EventBus
    from bascule.events._event import Event

__all__ = ["OutboxRelay", "OutboxStore"]

_logger = logging.getLogger("bascule.events")
_BATCH = 100


class OutboxStore(Protocol):
    """Where a service's unpublished events wait, in the same database as its data."""

    async def pending(self, limit: int) -> Sequence[tuple[int, Event[Any]]]:
        """Give the oldest unpublished events with their numbers, in the order they were stored."""

    async def published(self, numbers: Sequence[int]) -> None:
        """Forget events that the bus has taken."""


class OutboxRelay:
    """Moves events from an outbox to the bus, in order, each at least once.

    Use it with ``async with``: what a former process left behind goes first; what is there when it ends
    is published before it returns, if the bus takes it within ``grace``.

    :param retry: seconds to wait after the store or the bus failed
    :param grace: seconds to publish what is left at the end
    """

    def __init__(
        self, store: OutboxStore, bus: EventBus, *, retry: float = 1.0, grace: float = 5.0
    ) -> None:
        self._store = store
        self._bus = bus
        self._retry = retry
        self._grace = grace
        self._wanted = anyio.Event()
        self._closing = False
        self._stack = AsyncExitStack()

    def notify(self) -> None:
        """Tell the relay that a transaction has stored events. Safe to call at any time."""
        self._wanted.set()

    async def __aenter__(self) -> Self:
        self._tasks = await self._stack.enter_async_context(owned_tasks())
        self._tasks.start_soon(self._run, name="outbox relay")
        self.notify()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing = True
        self.notify()
        self._tasks.cancel_scope.deadline = anyio.current_time() + self._grace
        await self._stack.__aexit__(exc_type, exc, traceback)

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            closing = self._closing
            try:
                await self._drain()
            except Exception:
                _logger.exception("the outbox could not be published")
                await anyio.sleep(self._retry)
                self.notify()
            else:
                if closing:
                    return

    async def _drain(self) -> None:
        full = True
        while full:
            events = await self._store.pending(_BATCH)
            for _, event in events:
                await self._bus.publish(event)
            if events:
                await self._store.published([number for number, _ in events])
            # What was stored meanwhile has notified.
            full = len(events) == _BATCH
