"""One MongoDB database, worked on in threads: the same code for both loops."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from bascule.errors import ConfigurationError, DatabaseUnavailableError
from bascule.sql import DatabaseStats

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Collection", "MongoDatabase"]

ResultT = TypeVar("ResultT")

#: Gives a collection by name. What it has are pymongo's methods.
Collection: TypeAlias = Callable[[str], Any]

_PAUSE = 0.02


class MongoDatabase:
    """A client and as many worker threads as it has connections.

    Use it with ``async with``, from one event loop. Nothing connects before it is used. Writes are
    acknowledged by a majority, and in the journal, unless the URL says otherwise.

    :param url: ``mongodb://user:password@host:27017/name``
    :param pool_size: functions that run at a time
    :param pool_timeout: seconds to wait for one of them to end
    :param connect_timeout: seconds that finding and connecting to a server may take
    :param command_timeout: seconds that a command may take
    :param attempts: how often a function is run at most when its connection breaks
    :raises ConfigurationError: if the URL cannot be read or names no database, or pymongo is not installed
    :ivar name: the database as messages and metrics show it, without user and password
    :ivar stats: what happened to its connections
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 4,
        pool_timeout: float = 5.0,
        connect_timeout: float = 5.0,
        command_timeout: float = 30.0,
        attempts: int = 4,
    ) -> None:
        try:
            import pymongo
            from pymongo.errors import PyMongoError
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                "a mongodb:// URL needs the library pymongo: pip install 'bascule[mongo]'"
            ) from error
        options: dict[str, Any] = {
            "maxPoolSize": pool_size,
            "serverSelectionTimeoutMS": round(connect_timeout * 1_000),
            "connectTimeoutMS": round(connect_timeout * 1_000),
            "socketTimeoutMS": round(command_timeout * 1_000),
            "w": "majority",
            "journal": True,
        }
        parts = urlsplit(url)
        given = {option.partition("=")[0].lower() for option in parts.query.split("&")}
        try:
            self._client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
                url,
                connect=False,
                **{name: value for name, value in options.items() if name.lower() not in given},
            )
            self._database = self._client.get_default_database()
        except (PyMongoError, ValueError):
            # The cause would show pieces of the URL, its password among them.
            raise ConfigurationError(
                "the database's URL cannot be used: it looks like mongodb://user:password@host:27017/name,"
                " with @ : / % in a password written as %40 %3A %2F %25"
            ) from None
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{self._database.name}"
        self.stats = DatabaseStats(self.name, pool_size)
        self._permits = anyio.Semaphore(pool_size, fast_acquire=True)
        self._threads = anyio.CapacityLimiter(pool_size)
        self._pool_timeout = pool_timeout
        self._attempts = attempts

    def __repr__(self) -> str:
        return f"<MongoDatabase {self.name}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._client.close, limiter=self._threads)

    async def run(self, work: Callable[[Collection], ResultT]) -> ResultT:
        """Run a function of the collections in a worker thread.

        Cancelling waits for its end, which the time-outs bound.

        :param work: may be run more than once, from its beginning, when a connection breaks, and the
            command that it broke at may have been carried out: it must be idempotent
        :raises DatabaseUnavailableError: if it did not come to its end
        """
        from pymongo.errors import AutoReconnect, ConnectionFailure, ServerSelectionTimeoutError

        for attempt in range(1, self._attempts + 1):
            try:
                return await self._attempt(work)
            except ServerSelectionTimeoutError as error:
                raise self._unavailable("unreachable", "no server can be reached") from error
            except ConnectionFailure as error:
                self.stats.lost += 1
                if attempt == self._attempts or not isinstance(error, AutoReconnect):
                    raise self._unavailable("lost", "the connection broke") from error
            self.stats.reruns += 1
            await anyio.sleep(random.uniform(0.0, _PAUSE * 2**attempt))  # noqa: S311 - no secret
        raise AssertionError("unreachable")  # the last attempt returns or raises

    async def ping(self) -> None:
        """Ask the server whether it is there.

        :raises DatabaseUnavailableError: if it is not
        """
        await self.run(lambda _collection: self._client.admin.command("ping"))

    async def _attempt(self, work: Callable[[Collection], ResultT]) -> ResultT:
        self.stats.waiting += 1
        try:
            with anyio.fail_after(self._pool_timeout):
                await self._permits.acquire()
        except TimeoutError:
            self.stats.timeouts += 1
            raise self._unavailable(
                "exhausted", f"no connection became free within {self._pool_timeout:g} s"
            ) from None
        finally:
            self.stats.waiting -= 1
        self.stats.in_use += 1
        try:
            return await anyio.to_thread.run_sync(
                work, self._database.get_collection, limiter=self._threads
            )
        finally:
            self.stats.in_use -= 1
            self._permits.release()

    def _unavailable(self, reason: str, message: str) -> DatabaseUnavailableError:
        return DatabaseUnavailableError(self.name, reason, message)
