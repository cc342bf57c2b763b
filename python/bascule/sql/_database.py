"""One SQL database, worked on in threads: the same code for both loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import anyio.to_thread
import sqlalchemy as sa

from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping
    from types import TracebackType

__all__ = ["Database"]

ResultT = TypeVar("ResultT")

#: The drivers that are meant where a URL names none.
_DRIVERS = {
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "postgresql": "postgresql+psycopg",
}


class Database:
    """A pool of connections and as many worker threads as it has connections.

    Use it with ``async with``, from one event loop. Cancelling waits for the transaction under way,
    so its outcome is always known.

    :param url: ``sqlite:///path/to/file``, ``mysql://user:password@host:3306/name`` or
        ``postgresql://...``; any other URL that SQLAlchemy takes
    :param metadata: tables to create if they are missing; None if migrations make them
    :param pool_size: transactions at a time; SQLite writes one at a time whatever this is
    :param connect_timeout: seconds that connecting may take
    :param lock_timeout: seconds to wait for somebody else's lock
    :raises ConfigurationError: if the URL cannot be read
    """

    def __init__(
        self,
        url: str | sa.URL,
        metadata: sa.MetaData | None = None,
        *,
        pool_size: int = 4,
        connect_timeout: float = 5.0,
        lock_timeout: float = 5.0,
    ) -> None:
        self.url = _read(url)
        self.dialect = self.url.get_backend_name()
        is_sqlite = self.dialect == "sqlite"
        self._engine = sa.create_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=not is_sqlite,
            connect_args=_connect_args(self.dialect, connect_timeout, lock_timeout),
        )
        self._writer = self._engine
        if is_sqlite:
            sa.event.listen(self._engine, "connect", _configure_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
            self._writer = self._engine.execution_options(immediate=True)
            # Writers queue here, in order, rather than in SQLite, whose waiters sleep and poll.
            self._readers = anyio.CapacityLimiter(max(1, pool_size - 1))
            self._writers = anyio.CapacityLimiter(1)
        else:
            self._readers = self._writers = anyio.CapacityLimiter(pool_size)
        self._metadata = metadata

    async def __aenter__(self) -> Self:
        """Create missing tables, if the database was given any."""
        if self._metadata is not None:
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


def _read(url: str | sa.URL) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise ConfigurationError(
            "the database's URL cannot be read: it looks like sqlite:///file or mysql://user:password@host/name"
        ) from error
    return parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))


def _connect_args(dialect: str, connect_timeout: float, lock_timeout: float) -> Mapping[str, Any]:
    match dialect:
        case "sqlite":
            return {"timeout": lock_timeout}
        case "mysql":
            return {
                "connect_timeout": max(1, round(connect_timeout)),
                "charset": "utf8mb4",
                # InnoDB's default takes locks on gaps, which makes writers of different rows wait.
                "init_command": "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED,"
                f" innodb_lock_wait_timeout = {max(1, round(lock_timeout))}",
            }
        case "postgresql":
            return {"connect_timeout": max(1, round(connect_timeout))}
        case _:
            return {}


def _run(engine: sa.Engine, work: Callable[[sa.Connection], ResultT]) -> ResultT:
    with engine.begin() as connection:
        return work(connection)


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not begin transactions by itself: it would do so at the first write, when a
    # reader may no longer become the writer.
    connection.isolation_level = None
    # A commit survives the end of the process; one that must survive a power cut needs FULL.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sa.Connection) -> None:
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
