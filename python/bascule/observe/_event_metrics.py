"""Metrics of events: what buses and outbox relays count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bascule.observe._families import Families, Family, Row

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EVENTS", "EventRow", "EventStats"]

EventRow = Row


class EventStats(Protocol):
    """What buses and outbox relays count."""

    def rows(self) -> Iterable[EventRow]:
        """Return each number with its metric's name and labels."""
        ...


_SUBSCRIBER = ("topic", "subscriber")

#: Topics and subscribers are named in code: few.
EVENTS: Families = {
    "events_published": Family("counter", ("topic",), "Events that the bus has taken"),
    "events_handled": Family("counter", _SUBSCRIBER, "Events handled"),
    "events_retried": Family(
        "counter", _SUBSCRIBER, "Calls of a handler after one that had raised"
    ),
    "events_dead_lettered": Family(
        "counter",
        _SUBSCRIBER,
        "Events put aside, since their handler kept raising or nobody could read them",
    ),
    "events_lag": Family("gauge", _SUBSCRIBER, "Events published and not handled yet"),
    "events_lag_seconds": Family("gauge", _SUBSCRIBER, "Age of the oldest event not handled yet"),
    "outbox_relayed": Family("counter", ("outbox",), "Events moved from an outbox to the bus"),
    "outbox_pending": Family("gauge", ("outbox",), "Events that wait in an outbox"),
    "outbox_oldest_seconds": Family("gauge", ("outbox",), "Age of the oldest event in an outbox"),
}
