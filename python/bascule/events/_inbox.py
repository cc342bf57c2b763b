"""The inbox: an event that comes twice has its effect once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from bascule.sql import database_micros, exact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bascule.events._bus import BatchHandler
    from bascule.events._event import Event
    from bascule.sql import Database

__all__ = ["SqlInbox", "inbox_tables"]

PayloadT = TypeVar("PayloadT")

_RACES = 5
_PURGED_AT_ONCE = 1_000


def inbox_tables(metadata: sa.MetaData) -> None:
    """Add the table of a :class:`SqlInbox` to those of a service, for its migrations to make."""
    sa.Table(
        "inbox",
        metadata,
        sa.Column("consumer", exact(100), primary_key=True),
        sa.Column("event_id", exact(64), primary_key=True),
        sa.Column("handled_at", sa.BigInteger, nullable=False, index=True),
    )


_METADATA = sa.MetaData()
inbox_tables(_METADATA)
_INBOX = _METADATA.tables["inbox"]


class _RacedError(Exception):
    """Somebody else has just marked one of the events."""

    def __init__(self, error: sa.exc.IntegrityError) -> None:
        super().__init__()
        self.error = error


class SqlInbox:
    """Marks the events that a consumer has handled, in the transaction that has their effect.

    ::

        inbox = SqlInbox(database, "stock")

        def effect(connection, event):
            connection.execute(update(stock)...)

        bus.subscribe_batches(ORDER_CREATED, inbox.handler(effect), name="stock")

    So an effect in this database happens exactly once, however often its event comes. What cannot be
    rolled back, such as an e-mail, can only be made idempotent by the event's id.

    :param database: must have the table of :func:`inbox_tables`
    :param consumer: whose events these are, up to 100 characters; the subscriber's name will do
    """

    def __init__(self, database: Database, consumer: str) -> None:
        self._database = database
        self._consumer = consumer

    def handler(
        self, effect: Callable[[sa.Connection, Event[PayloadT]], None]
    ) -> BatchHandler[PayloadT]:
        """Make a handler for :meth:`EventBus.subscribe_batches` that has an effect once an event.

        :param effect: runs in a worker thread within the transaction; it may be run again if that fails
        """

        def one_by_one(connection: sa.Connection, events: Sequence[Event[PayloadT]]) -> None:
            for event in events:
                effect(connection, event)

        return self.batch_handler(one_by_one)

    def batch_handler(
        self, effect: Callable[[sa.Connection, Sequence[Event[PayloadT]]], None]
    ) -> BatchHandler[PayloadT]:
        """Make a handler as :meth:`handler` does, for an effect that several events have together.

        :param effect: gets those events that have had none
        """

        async def handle(events: Sequence[Event[PayloadT]]) -> None:
            await self.once(events, effect)

        return handle

    async def once(
        self,
        events: Sequence[Event[PayloadT]],
        effect: Callable[[sa.Connection, Sequence[Event[PayloadT]]], None],
    ) -> int:
        """Have the effect of those events that have had none, in one transaction.

        Cancelling waits for the transaction under way.

        :param effect: gets them in their order; not called if there are none
        :return: how many there were
        :raises Exception: what ``effect`` raised; no event is marked and none had an effect
        """

        def work(connection: sa.Connection) -> int:
            fresh = self._mark(connection, events)
            if fresh:
                effect(connection, fresh)
            return len(fresh)

        for _ in range(_RACES):
            try:
                return await self._database.write(work)
            except _RacedError:
                continue
        return await self._database.write(work)

    def first(self, connection: sa.Connection, event: Event[Any]) -> bool:
        """Mark one event within a transaction of yours; false if it is marked already.

        :raises sqlalchemy.exc.IntegrityError: if another transaction marks it at the same time: try again
        """
        try:
            return bool(self._mark(connection, [event]))
        except _RacedError as raced:
            raise raced.error from None

    async def purge(self, age: float) -> int:
        """Forget the marks that are older than ``age`` seconds, in small transactions.

        Keep them for longer than an event may take to come again: days, not minutes.

        :return: how many were forgotten
        """
        total = 0
        while True:
            count = await self._database.write(lambda connection: self._purge(connection, age))
            total += count
            if count < _PURGED_AT_ONCE:
                return total

    def _mark(
        self, connection: sa.Connection, events: Sequence[Event[PayloadT]]
    ) -> list[Event[PayloadT]]:
        """Mark the events that are not marked yet and give them, each once."""
        new: dict[str, Event[PayloadT]] = {}
        for event in events:
            new.setdefault(event.id, event)
        known = sa.select(_INBOX.c.event_id).where(
            _INBOX.c.consumer == self._consumer, _INBOX.c.event_id.in_(list(new))
        )
        for event_id in connection.scalars(known):
            del new[event_id]
        if new:
            now = database_micros(connection)
            rows = [
                {"consumer": self._consumer, "event_id": event_id, "handled_at": now}
                for event_id in new
            ]
            try:
                # First, so that whoever does the same waits for us before it has any effect.
                connection.execute(sa.insert(_INBOX), rows)
            except sa.exc.IntegrityError as error:
                raise _RacedError(error) from error
        return list(new.values())

    def _purge(self, connection: sa.Connection, age: float) -> int:
        before = database_micros(connection) - round(age * 1e6)
        old = (_INBOX.c.consumer == self._consumer, _INBOX.c.handled_at < before)
        oldest = sa.select(_INBOX.c.event_id).where(*old).order_by(_INBOX.c.handled_at)
        ids = list(connection.scalars(oldest.limit(_PURGED_AT_ONCE)))
        if ids:
            connection.execute(sa.delete(_INBOX).where(*old, _INBOX.c.event_id.in_(ids)))
        return len(ids)
