"""Where a service keeps the events that it has not published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bascule.events import Event, Topic
    from bascule.sql import Database

__all__ = ["Outbox", "outbox_table"]


class Outbox:
    """A service's unpublished events. See :class:`bascule.events.OutboxRelay`.

    :param table: made by :func:`outbox_table`
    :param topics: of the events that the service stores
    """

    def __init__(self, database: Database, table: sa.Table, *topics: Topic[Any]) -> None:
        self._database = database
        self._table = table
        self._topics: Mapping[str, Topic[Any]] = {topic.name: topic for topic in topics}

    def add(self, connection: sa.Connection, event: Event[Any]) -> None:
        """Store an event in the transaction that changes what it tells of."""
        connection.execute(
            sa.insert(self._table).values(topic=event.topic.name, event=event.topic.encode(event))
        )

    async def pending(self, limit: int) -> Sequence[tuple[int, Event[Any]]]:
        """Give the oldest unpublished events with their numbers."""
        columns = self._table.c
        query = sa.select(self._table).order_by(columns.number).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [(row.number, self._topics[row.topic].decode(row.event)) for row in rows]

    async def published(self, numbers: Sequence[int]) -> None:
        """Forget events that the bus has taken."""
        query = sa.delete(self._table).where(self._table.c.number.in_(numbers))
        await self._database.write(lambda connection: connection.execute(query))


def outbox_table(metadata: sa.MetaData) -> sa.Table:
    """Define the table that an :class:`Outbox` keeps its events in."""
    return sa.Table(
        "outbox",
        metadata,
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("topic", sa.String(100), nullable=False),
        sa.Column("event", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
