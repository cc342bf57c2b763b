"""One SQL database, worked on in threads: the same code for both loops."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Self, TypeVar

import anyio
import anyio.to_thread
import sqlalchemy as sa

from bascule.errors import CommitUnknownError, ConfigurationError, DatabaseUnavailableError
from bascule.observe import SpanKind, add_event, tracer_variable
from bascule.observe._tracing import begin_span, recorded_first
from bascule.sql._dialects import (
    Fault,
    Timeouts,
    beginner,
    create_engine,
    fault_of,
    read_url,
    shown,
)
from bascule.sql._stats import DatabaseStats

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from bascule.observe import AttributeValue

__all__ = ["Database"]

ResultT = TypeVar("ResultT")

#: Seconds before a transaction is run again, doubled each time, of which a random part is waited.
_PAUSE = 0.02


class Database:
    """A pool of connections and as many worker threads as it has connections.

    Use it with ``async with``, from one event loop. Nothing connects before the first transaction, unless
    there are tables to create.

    A transaction is a function of a connection. **It may be run more than once**: after a deadlock, a lock
    that was waited for in vain, or a connection that broke before COMMIT, it is rolled back and run again,
    so it must have no effect but on the database, and must not commit by itself. An error that it raises
    rolls it back and is passed on.

    Cancelling waits for the attempt under way, so its outcome is always known; the time that this can take
    is bounded by the time-outs.

    :param url: ``sqlite:///path/to/file``, ``mysql://user:password@host:3306/name``, ``mariadb://...`` or
        ``postgresql://...``; any other URL that SQLAlchemy takes
    :param metadata: tables to create if they are missing; None if migrations make them
    :param pool_size: transactions at a time; SQLite writes one at a time whatever this is
    :param pool_timeout: seconds to wait for one of them to end
    :param connect_timeout: seconds that connecting may take
    :param statement_timeout: seconds that a statement may take; on SQLite, a transaction; on MySQL (not
        MariaDB) only what reads is bounded by the server
    :param lock_timeout: seconds to wait for somebody else's lock; MySQL and MariaDB round it up
    :param attempts: how often a transaction is run at most, and not once more after ``statement_timeout``
    :raises ConfigurationError: if the URL cannot be read, its driver is not installed, or a number cannot
        work
    :ivar name: the database as messages and metrics show it, without user and password
    :ivar dialect: ``sqlite``, ``mysql`` (MariaDB too) or ``postgresql``
    :ivar stats: what happened to its transactions
    """

    def __init__(
        self,
        url: str | sa.URL,
        metadata: sa.MetaData | None = None,
        *,
        pool_size: int = 4,
        pool_timeout: float = 5.0,
        connect_timeout: float = 5.0,
        statement_timeout: float = 30.0,
        lock_timeout: float = 5.0,
        attempts: int = 4,
    ) -> None:
        if pool_size < 1 or attempts < 1:
            raise ConfigurationError("pool_size and attempts must be 1 or more")
        if min(connect_timeout, statement_timeout, lock_timeout) <= 0.0:
            raise ConfigurationError(
                "connect_timeout, statement_timeout and lock_timeout must be more than 0 s"
            )
        parsed = read_url(url)
        self.name = shown(parsed)
        self.dialect = parsed.get_backend_name()
        self._names = f"read {_short(parsed)}", f"write {_short(parsed)}"
        self._attributes = _attributes(parsed)
        is_sqlite = self.dialect == "sqlite"
        # SQLite's writers queue here, in order, rather than in SQLite, whose waiters sleep and poll.
        readers = max(1, pool_size - 1) if is_sqlite else pool_size
        connections = readers + is_sqlite
        self.stats = DatabaseStats(self.name, connections)
        timeouts = Timeouts(connect_timeout, statement_timeout, lock_timeout)
        self._engine = create_engine(parsed, connections, timeouts)
        self._begin = beginner(self.dialect, timeouts)
        self._reading = anyio.Semaphore(readers, fast_acquire=True)
        self._writing = anyio.Semaphore(1, fast_acquire=True) if is_sqlite else self._reading
        self._threads = anyio.CapacityLimiter(connections)
        self._pool_timeout = pool_timeout
        self._attempts = attempts
        self._patience = statement_timeout
        self._metadata = metadata

    def __repr__(self) -> str:
        return f"<Database {self.name}>"

    async def __aenter__(self) -> Self:
        """Create missing tables, if the database was given any.

        :raises DatabaseUnavailableError: if it was, and cannot be reached
        """
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
            await anyio.to_thread.run_sync(self._engine.dispose, limiter=self._threads)

    async def read(self, work: Callable[[sa.Connection], ResultT]) -> ResultT:
        """Run a function that only reads, in one transaction.

        :param work: may be run more than once
        :raises DatabaseUnavailableError: if it could not be run to its end
        """
        return await self._transact(work, self._reading, writes=False)

    async def write(self, work: Callable[[sa.Connection], ResultT]) -> ResultT:
        """Run a function in one transaction; commit, or roll back if it raises.

        :param work: may be run more than once, of which one run at most is kept
        :raises DatabaseUnavailableError: if nothing of it was kept
        :raises CommitUnknownError: if the connection broke during COMMIT
        """
        return await self._transact(work, self._writing, writes=True)

    async def ping(self) -> None:
        """Ask the database whether it is there.

        :raises DatabaseUnavailableError: if it is not
        """
        await self.read(lambda connection: connection.scalar(sa.select(1)))

    async def _transact(
        self,
        work: Callable[[sa.Connection], ResultT],
        permits: anyio.Semaphore,
        *,
        writes: bool,
    ) -> ResultT:
        if tracer_variable.get() is None:
            return await self._run_until(work, permits, writes)
        # Not by itself: what looks at a database from time to time is no trace.
        around = begin_span(self._names[writes], self._attributes, SpanKind.CLIENT, begins=False)
        try:
            result = await self._run_until(work, permits, writes)
        except BaseException as error:
            around.end(_failure(error))
            raise
        around.end()
        return result

    async def _run_until(
        self, work: Callable[[sa.Connection], ResultT], permits: anyio.Semaphore, writes: bool
    ) -> ResultT:
        """Run a transaction until it is neither lost nor in the way of others, within limits."""
        attempt, latest = 1, anyio.current_time() + self._patience
        while True:
            try:
                return await self._attempt(work, permits, writes)
            except _RerunError as error:
                self.stats.lost += error.fault is Fault.LOST
                if attempt == self._attempts or anyio.current_time() > latest:
                    raise DatabaseUnavailableError(
                        self.name,
                        error.fault.value,
                        f"given up after {attempt} attempts: {error.__cause__}",
                    ) from error.__cause__
            self.stats.reruns += 1
            add_event("rerun", {"attempt": attempt + 1})
            # The permit is free meanwhile: whoever held the lock may need it.
            await anyio.sleep(random.uniform(0.0, _PAUSE * 2**attempt))  # noqa: S311 - no secret
            attempt += 1

    async def _attempt(
        self,
        work: Callable[[sa.Connection], ResultT],
        permits: anyio.Semaphore,
        writes: bool,
    ) -> ResultT:
        try:
            permits.acquire_nowait()
        except anyio.WouldBlock:
            await self._wait(permits)
        self.stats.in_use += 1
        try:
            return await anyio.to_thread.run_sync(self._run, work, writes, limiter=self._threads)
        except CommitUnknownError:
            self.stats.unknown += 1
            raise
        finally:
            self.stats.in_use -= 1
            permits.release()

    async def _wait(self, permits: anyio.Semaphore) -> None:
        self.stats.waiting += 1
        try:
            with anyio.fail_after(self._pool_timeout):
                await permits.acquire()
        except TimeoutError:
            self.stats.timeouts += 1
            raise DatabaseUnavailableError(
                self.name,
                "exhausted",
                f"no connection became free within {self._pool_timeout:g} s; {self.stats.in_use} are in use",
            ) from None
        finally:
            self.stats.waiting -= 1

    def _run(self, work: Callable[[sa.Connection], ResultT], writes: bool) -> ResultT:
        """Run one attempt, in a worker thread."""
        try:
            connection = self._engine.connect()
        except sa.exc.DBAPIError as error:
            if fault_of(self.dialect, error) is Fault.CONTENDED:
                raise _RerunError(Fault.CONTENDED) from error
            raise DatabaseUnavailableError(
                self.name, "unreachable", f"no connection can be made: {error.orig}"
            ) from error
        committing = False
        try:
            with connection, connection.begin():
                self._begin(connection, writes)
                result = work(connection)
                committing = True
            return result
        except sa.exc.DBAPIError as error:
            fault = fault_of(self.dialect, error)
            if fault is None:
                raise
            # To read has no outcome that could be unknown.
            if fault is Fault.LOST and committing and writes:
                raise CommitUnknownError(self.name) from error
            if fault is Fault.SLOW:
                raise DatabaseUnavailableError(self.name, fault.value, str(error.orig)) from error
            raise _RerunError(fault) from error


def _attributes(url: sa.URL) -> dict[str, AttributeValue]:
    """What spans say of a database: never a statement's values, which may be anybody's data.

    Source: OpenTelemetry's semantic conventions for databases.
    """
    attributes: dict[str, AttributeValue] = {
        "db.system": url.get_backend_name(),
        "db.namespace": _short(url),
    }
    if url.host:
        attributes["server.address"] = url.host
    if url.port:
        attributes["server.port"] = url.port
    return attributes


def _failure(error: BaseException) -> BaseException | str | None:
    """Why a transaction counts as failed: not for what its own function has raised, or a constraint has
    refused. The database did as it was told, and the caller knows what that means.
    """
    if isinstance(error, (DatabaseUnavailableError, CommitUnknownError)):
        return error
    if not isinstance(error, sa.exc.DBAPIError):
        return None
    # Never recorded as it is, here or further out: databases put values into their messages.
    recorded_first(error)
    return None if isinstance(error, sa.exc.IntegrityError) else type(error).__name__


def _short(url: sa.URL) -> str:
    return (url.database or "").rpartition("/")[2] or "memory"


class _RerunError(Exception):
    """The transaction was rolled back for no fault of its own."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault
