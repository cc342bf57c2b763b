"""The bus within a process."""

from __future__ import annotations

import logging
import math
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio

from bascule._tasks import owned_tasks
from bascule.errors import ClosedError
from bascule.events._delivery import Redelivery, Subscription
from bascule.events._event import Event
from bascule.events._stats import BusStats

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import TaskGroup
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from bascule.events._bus import BatchHandler, Handler
    from bascule.events._event import Topic
    from bascule.observe import Tracer

__all__ = ["MemoryEventBus"]

PayloadT = TypeVar("PayloadT")

_logger = logging.getLogger("bascule.events")


class MemoryEventBus:
    """A bus within the process. Use it with ``async with``; its subscribers live in its task group.

    Each subscriber has a queue of its own. When it is full, ``publish`` waits: a slow subscriber slows
    its publishers and never fills the memory. An event whose handler keeps raising is lost; the error
    is logged and counted.

    :param queue_size: events that may wait for one subscriber
    :param grace: seconds that subscribers get to handle what is queued when the bus closes
    :param redelivery: how often handlers are called that raise
    :param tracer: where the spans of handlers go; None for the tracer of whoever subscribes
    :ivar stats: what it has done
    :raises ValueError: if ``queue_size < 1`` or ``grace < 0``
    """

    def __init__(
        self,
        *,
        queue_size: int = 1_024,
        grace: float = 5.0,
        redelivery: Redelivery | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        if queue_size < 1:
            raise ValueError(f"queue_size must be at least 1, not {queue_size}")
        if grace < 0 or math.isnan(grace):
            raise ValueError(f"grace must be 0 s or more, not {grace}")
        self.stats = BusStats()
        self._queue_size = queue_size
        self._grace = grace
        self._redelivery = redelivery or Redelivery()
        self._tracer = tracer
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

    async def publish(self, *events: Event[Any]) -> None:
        """Put events in the queue of every subscriber of their topics. See :class:`EventBus`."""
        self._open()
        for event in events:
            traced = event.traced()
            for queue in tuple(self._queues.get(event.topic.name, {}).values()):
                try:
                    await queue.send(traced)
                except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
                    raise ClosedError(
                        f"the bus closed before {event.topic.name!r} was sent"
                    ) from error
        for topic, count in Counter(event.topic.name for event in events).items():
            self.stats.count(topic, count)

    def subscribe(self, topic: Topic[PayloadT], handler: Handler[PayloadT], *, name: str) -> None:
        """Have a handler called for each event of a topic. See :class:`EventBus`."""
        self._subscribe(topic, name, handler, None, 1)

    def subscribe_batches(
        self, topic: Topic[PayloadT], handler: BatchHandler[PayloadT], *, name: str, size: int = 100
    ) -> None:
        """Have a handler called for what is queued of a topic. See :class:`EventBus`."""
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        self._subscribe(topic, name, None, handler, size)

    def _subscribe(
        self,
        topic: Topic[Any],
        name: str,
        handler: Handler[Any] | None,
        batch_handler: BatchHandler[Any] | None,
        size: int,
    ) -> None:
        tasks = self._open()
        queues = self._queues.setdefault(topic.name, {})
        if name in queues:
            raise ValueError(f"topic {topic.name!r} has a subscriber named {name!r}")
        send, receive = anyio.create_memory_object_stream[Event[Any]](self._queue_size)
        queues[name] = send
        self._receivers.append(receive)
        stats = self.stats.subscriber(topic.name, name)
        subscription = Subscription(
            topic, name, handler, batch_handler, size, self._redelivery, stats, self._tracer
        )
        tasks.start_soon(_consume, receive, subscription, name=f"{topic.name} -> {name}")

    def _open(self) -> TaskGroup:
        if self._tasks is None:
            raise ClosedError("the event bus is not open: use it within its 'async with'")
        return self._tasks


async def _consume(
    queue: MemoryObjectReceiveStream[Event[Any]], subscription: Subscription
) -> None:
    async with queue:
        async for event in queue:
            events = [event]
            while len(events) < subscription.size:
                try:
                    events.append(queue.receive_nowait())
                except (anyio.WouldBlock, anyio.EndOfStream):
                    break
            await subscription.deliver(events, _drop)


async def _drop(event: Event[Any], attempts: int, error: Exception) -> bool:
    _logger.error("%s %s is given up after %d attempts", event.topic.name, event.id, attempts)
    return True
