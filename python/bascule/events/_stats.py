"""What buses, outboxes and inboxes count: plain numbers, turned into metrics when somebody scrapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bascule.observe import EventRow

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BusStats", "OutboxStats", "SubscriberStats"]


class SubscriberStats:
    """What became of one subscriber's events.

    :ivar handled: handled by this process
    :ivar retried: calls of the handler after one that had raised
    :ivar dead_lettered: put aside since their handler kept raising, or nobody could read them
    :ivar lag: not handled yet by any process when the bus last looked; None if it cannot know
    :ivar oldest: seconds that the oldest of those had waited; None if it cannot know
    """

    __slots__ = ("dead_lettered", "handled", "lag", "oldest", "retried")

    def __init__(self) -> None:
        self.handled = self.retried = self.dead_lettered = 0
        self.lag: int | None = None
        self.oldest: float | None = None


class BusStats:
    """What a bus has done since it was made. :meth:`bascule.observe.Metrics.add_events` renders it.

    :ivar published: events taken, by topic
    :ivar subscribers: by topic and subscriber's name
    """

    def __init__(self) -> None:
        self.published: dict[str, int] = {}
        self.subscribers: dict[tuple[str, str], SubscriberStats] = {}

    def count(self, topic: str, events: int) -> None:
        """Count events that were published."""
        self.published[topic] = self.published.get(topic, 0) + events

    def subscriber(self, topic: str, name: str) -> SubscriberStats:
        """Give the counters of a subscriber."""
        return self.subscribers.setdefault((topic, name), SubscriberStats())

    def rows(self) -> Iterator[EventRow]:
        """Give each number with its metric's name and labels."""
        for topic, count in list(self.published.items()):
            yield EventRow("events_published", (topic,), count)
        for labels, one in list(self.subscribers.items()):
            yield EventRow("events_handled", labels, one.handled)
            yield EventRow("events_retried", labels, one.retried)
            yield EventRow("events_dead_lettered", labels, one.dead_lettered)
            if one.lag is not None:
                yield EventRow("events_lag", labels, one.lag)
            if one.oldest is not None:
                yield EventRow("events_lag_seconds", labels, one.oldest)


class OutboxStats:
    """What a relay knows of its outbox.

    :ivar outbox: its name in the metrics
    :ivar relayed: events that this relay has moved to the bus
    :ivar pending: events that waited when the relay last looked
    :ivar oldest: seconds that the oldest of those had waited
    """

    __slots__ = ("oldest", "outbox", "pending", "relayed")

    def __init__(self, outbox: str) -> None:
        self.outbox = outbox
        self.relayed = self.pending = 0
        self.oldest = 0.0

    def rows(self) -> Iterator[EventRow]:
        """Give each number with its metric's name and labels."""
        labels = (self.outbox,)
        yield EventRow("outbox_relayed", labels, self.relayed)
        yield EventRow("outbox_pending", labels, self.pending)
        yield EventRow("outbox_oldest_seconds", labels, self.oldest)
