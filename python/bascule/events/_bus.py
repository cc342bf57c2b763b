"""What a bus is: from who publishes to who subscribed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from bascule.events._event import Event, Topic

__all__ = ["BatchHandler", "EventBus", "Handler"]

PayloadT = TypeVar("PayloadT")
Handler: TypeAlias = Callable[[Event[PayloadT]], Awaitable[None]]
"""Handles one event. It may see an event again and must handle it once, by its id."""

BatchHandler: TypeAlias = Callable[[Sequence[Event[PayloadT]]], Awaitable[None]]
"""Handles several events in their order, all or none: if it raises, each comes again by itself."""


class EventBus(Protocol):
    """Where events are published. To publish within a database transaction, see :class:`SqlOutbox`."""

    async def publish(self, *events: Event[Any]) -> None:
        """Hand events to every subscriber of their topics; return when the bus has taken them all.

        If it raises, some of them may have been taken: publish all of them again, in the same order.

        :raises ClosedError: if the bus is closed
        :raises EncodeError: if an event is too large
        :raises StoreUnavailableError: if the server of the bus cannot be reached
        """

    def subscribe(self, topic: Topic[PayloadT], handler: Handler[PayloadT], *, name: str) -> None:
        """Have a handler called for the events of a topic, for those of one key one after the other.

        A handler that raises is called again, later each time; when it has failed as often as the
        bus's :class:`Redelivery` says, the event is put aside and the next one's turn comes.

        :param name: of the subscriber, unique in the topic: its place in the stream is kept under it
        :raises ValueError: if the topic has a subscriber of this name
        :raises ClosedError: if the bus is closed
        """

    def subscribe_batches(
        self, topic: Topic[PayloadT], handler: BatchHandler[PayloadT], *, name: str, size: int = 100
    ) -> None:
        """Have a handler called for as many events as there are, such as :meth:`SqlInbox.handler`.

        :param size: the most events at a time
        :raises ValueError: if the topic has a subscriber of this name, or ``size < 1``
        :raises ClosedError: if the bus is closed
        """
