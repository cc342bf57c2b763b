"""The bus: from who publishes to who subscribed."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypeVar

import anyio

from bascule._tasks import owned_tasks
from bascule.errors import ClosedError
from bascule.events._event import Event, Topic

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import TaskGroup
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

__all__ = ["EventBus", "Handler", "MemoryEventBus"]

PayloadT = TypeVar("PayloadT")
Handler: TypeAlias = Callable[[Event[PayloadT]], Awaitable[None]]
"""Handles one event. It may see an event again and must handle it once, by its id."""

_logger = logging.getLogger("bascule.events")


class EventBus(Protocol):
    """Where events are published. To publish within a database transaction, see :class:`OutboxRelay`."""

    async def publish(self, event: Event[Any]) -> None:
        """Hand an event to every subscriber of its topic; return when the bus has taken it.

        :raises ClosedError: if the bus is closed
        """

    def subscribe(self, topic: Topic[PayloadT], handler: Handler[PayloadT], *, name: str) -> None:
        """Have a handler called for each event of a topic, one after the other.

        :param name: of the subscriber, unique in the topic: its place in the stream is kept under it
        :raises ValueError: if the topic has a subscriber of this name
        :raises ClosedError: if the bus is closed
        """


class MemoryEventBus:
    """A bus within the process. Use it with ``async with``; its subscribers live in its task group.

    Each subscriber has a queue of its own. When it is full, ``publish`` waits: a slow subscriber slows
    its publishers and never fills the memory. A handler that raises loses the event; the error is logged.

    :param queue_size: events that may wait for one subscriber
    :param grace: seconds that subscribers get to handle what is queued when the bus closes
    :raises ValueError: if ``queue_size < 1`` or ``grace < 0``
    """

    def __init__(self, *, queue_size: int = 1_024, grace: float = 5.0) -> None:
        if queue_size < 1:
            raise ValueError(f"queue_size must be at least 1, not {queue_size}")
        if grace < 0 or math.isnan(grace):
            raise ValueError(f"grace must be 0 s or more, not {grace}")
        self._queue_size = queue_size
        self._grace = grace
        self._queues: dict[str, dict[str, MemoryObjectSendStream[Event[Any]]]] = {}
        self._receivers: list[MemoryObjectReceiveStream[Event[Any]]] = []
        self._tasks: TaskGroup | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._tasks = await self._stack.enter_async_context(owned_tasks())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = self._open()
        self._tasks = None
        for queues in self._queues.values():
            for queue in queues.values():
                queue.close()
        self._queues.clear()
        # The group ends when its subscribers have emptied their queues, or at this deadline.
        tasks.cancel_scope.deadline = anyio.current_time() + self._grace
        try:
            await self._stack.__aexit__(exc_type, exc, traceback)
        finally:
            for receiver in self._receivers:
                receiver.close()

    async def publish(self, event: Event[Any]) -> None:
        """Put an event in the queue of every subscriber of its topic. See :class:`EventBus`."""
        self._open()
        for queue in tuple(self._queues.get(event.topic.name, {}).values()):
            try:
                await queue.send(event)
            except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
                raise ClosedError(f"the bus closed before {event.topic.name!r} was sent") from error

    def subscribe(self, topic: Topic[PayloadT], handler: Handler[PayloadT], *, name: str) -> None:
        """Have a handler called for each event of a topic. See :class:`EventBus`."""
        tasks = self._open()
        queues = self._queues.setdefault(topic.name, {})
        if name in queues:
            raise ValueError(f"topic {topic.name!r} has a subscriber named {name!r}")
        send, receive = anyio.create_memory_object_stream[Event[Any]](self._queue_size)
        queues[name] = send
        self._receivers.append(receive)
        tasks.start_soon(_consume, receive, handler, name, name=f"{topic.name} -> {name}")

    def _open(self) -> TaskGroup:
        if self._tasks is None:
            raise ClosedError("the event bus is not open: use it within its 'async with'")
        return self._tasks


async def _consume(
    events: MemoryObjectReceiveStream[Event[Any]], handler: Handler[Any], name: str
) -> None:
    async with events:
        async for event in events:
            try:
                await handler(event)
            except Exception:
                _logger.exception("%s could not handle %s %s", name, event.topic.name, event.id)
