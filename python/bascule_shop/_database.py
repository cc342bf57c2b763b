"""One database of one service, worked on in threads: the same code for both loops."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import anyio.to_thread
import sqlalchemy as sa

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from bascule.events import Event, Topic

__all__ = ["Database", "Outbox", "from_micros", "outbox_table", "to_micros"]

ResultT = TypeVar("ResultT")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Database:
    """A pool of connections and as many worker threads as it has connections.

    Cancelling waits for the transaction under way, so its outcome is always known.

    :param path: of the SQLite file
    :param metadata: tables to create if they are missing
    :param pool_size: transactions at a time; SQLite writes one at a time whatever this is
    :param busy_timeout: seconds to wait for another process that holds SQLite's lock
    """

    def __init__(
        self,
        path: Path,
        metadata: sa.MetaData,
        *,
        pool_size: int = 4,
        busy_timeout: float = 5.0,
    ) -> None:
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            pool_size=pool_size,
            max_overflow=0,
            connect_args={"timeout": busy_timeout},
        )
        sa.event.listen(self._engine, "connect", _configure)
        sa.event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(immediate=True)
        self._metadata = metadata
        # Writers queue here, in order, rather than in SQLite, whose waiters sleep and poll.
        self._readers = anyio.CapacityLimiter(max(1, pool_size - 1))
        self._writers = anyio.CapacityLimiter(1)

    async def __aenter__(self) -> Self:
        await self.write(self._metadata.create_all)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._engine.dispose)

    async def read(self, work: Callable[[sa.Connection], ResultT]) -> ResultT:
        """Run a function that only reads, in one transaction."""
        return await anyio.to_thread.run_sync(_run, self._engine, work, limiter=self._readers)

    async def write(self, work: Callable[[sa.Connection], ResultT]) -> ResultT:
        """Run a function in one transaction; commit, or roll back if it raises."""
        return await anyio.to_thread.run_sync(_run, self._writer, work, limiter=self._writers)


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


def to_micros(moment: datetime) -> int:
    """Give a moment as microseconds of the Unix epoch: exact in every database."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """Give microseconds of the Unix epoch as a moment in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def _run(engine: sa.Engine, work: Callable[[sa.Connection], ResultT]) -> ResultT:
    with engine.begin() as connection:
        return work(connection)


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not begin transactions by itself: it would do so at the first write, when a
    # reader may no longer become the writer.
    connection.isolation_level = None
    # A commit survives the end of the process; one that must survive a power cut needs FULL.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: sa.Connection) -> None:
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
