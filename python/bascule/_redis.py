"""One Redis for both loops: a URL, scripts, and errors that say which server failed."""

from __future__ import annotations

import hashlib
import ssl
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import anyio

from bascule._tasks import owned_tasks
from bascule.errors import ClosedError, ConfigurationError, StoreUnavailableError
from bascule.observe import SpanKind, span, tracer_variable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from anyio.abc import TaskGroup, TaskStatus

__all__ = ["RedisClient", "RedisScript", "RedisValue"]

RedisValue = str | bytes | int | float

_UNSPANNED = nullcontext()

_SCHEMES = frozenset({"redis", "rediss", "unix"})
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS = frozenset({*_TLS_OPTIONS, "db"})


@dataclass(frozen=True)
class RedisScript:
    """A script in Lua, which Redis runs as one step.

    :ivar text: of the script
    :ivar sha: its name on the server
    """

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


class RedisClient:
    """Connections to one Redis. Use it with ``async with``, from one event loop.

    It needs no server to be entered, and none to stay: a command fails while there is none, and the
    next one connects anew. Commands of all tasks share one connection, which nobody waits for.
    Cancelling a command does not take it back: it may be carried out all the same.

    :param url: ``redis://user:password@host:6379/0``; ``rediss://`` for TLS, whose certificate must be
        good for the host, with ``?ssl_ca_certs=``, ``ssl_certfile=`` and ``ssl_keyfile=`` where needed;
        or ``unix:///path/to/socket?db=0``. What the user's name and password hold may be %-escaped
    :param timeout: seconds that connecting may take, and a command
    :raises ConfigurationError: if the URL cannot be read, or coredis is not installed
    """

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        self._server = _read(url)
        self.address = self._server.address
        self._named = {"server.address": self._server.path or self._server.host}
        self.timeout = timeout
        try:
            import coredis  # noqa: F401
        except ImportError as error:
            raise ConfigurationError(
                "Redis needs the library coredis: pip install 'bascule[redis]'"
            ) from error
        self._tasks: TaskGroup | None = None
        self._link: RedisLink | None = None
        self._attempt: _Attempt | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(owned_tasks())
            stack.callback(tasks.cancel_scope.cancel)
            self._tasks = tasks
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._tasks = None
        await self._stack.__aexit__(exc_type, exc, traceback)

    async def run(
        self,
        script: RedisScript,
        keys: Sequence[str],
        arguments: Sequence[RedisValue] = (),
        *,
        timeout: float | None = None,
    ) -> Any:
        """Run a script; a server that does not know it yet is told.

        :param timeout: seconds; None for the client's own
        :raises StoreUnavailableError: if it failed; it may have run all the same
        """
        from coredis.exceptions import NoScriptError

        with (
            self._spanned("EVALSHA"),
            self._reported(),
            anyio.fail_after(self.timeout if timeout is None else timeout),
        ):
            link = await self._shared()
            try:
                return await link.ask("EVALSHA", script.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return await link.ask("EVAL", script.text, len(keys), *keys, *arguments)

    async def call(self, command: str, *arguments: RedisValue) -> Any:
        """Send one command, which must not block, and give its answer as the server gave it.

        :raises StoreUnavailableError: if it failed; it may have been carried out all the same
        """
        with self._spanned(command), self._reported(), anyio.fail_after(self.timeout):
            link = await self._shared()
            return await link.ask(command, *arguments)

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
        """Connect apart, for commands that block: give what sends one and waits for its answer.

        :raises StoreUnavailableError: if that fails, also from within
        """
        with self._reported():
            async with owned_tasks() as tasks:
                attempt = _Attempt()
                await self._connect(tasks, attempt)
                yield attempt.result().ask
                tasks.cancel_scope.cancel()

    def warm(self) -> None:
        """Connect in the background, if there is no connection: the next command need not wait for it."""
        if self._tasks is not None and self._attempt is None and not self._connected:
            self._attempt = _Attempt()
            self._tasks.start_soon(self._reconnect, self._attempt, name=f"redis {self.address}")

    @property
    def _connected(self) -> bool:
        return self._link is not None and self._link.usable

    async def _shared(self) -> RedisLink:
        if self._tasks is None:
            raise ClosedError(f"Redis {self.address} is not open: use it within its 'async with'")
        if self._link is not None and self._link.usable:
            return self._link
        # In a task of its own: whoever is cancelled while it waits takes nobody's connection away.
        self.warm()
        attempt = self._attempt
        assert attempt is not None  # noqa: S101 (made by warm, since there is no connection)
        await attempt.done.wait()
        return attempt.result()

    async def _reconnect(self, attempt: _Attempt) -> None:
        assert self._tasks is not None  # noqa: S101 (this is one of them)
        try:
            await self._connect(self._tasks, attempt)
            self._link = attempt.link
        finally:
            self._attempt = None
            attempt.done.set()

    async def _connect(self, tasks: TaskGroup, attempt: _Attempt) -> None:
        from coredis.exceptions import RedisError

        link = RedisLink(self._server, self.timeout)
        try:
            with anyio.fail_after(self.timeout):
                await tasks.start(link.hold, name=f"connection to redis {self.address}")
        except (RedisError, OSError) as error:
            attempt.error = error
        else:
            attempt.link = link

    def _spanned(self, command: str) -> AbstractContextManager[Any]:
        """Put a command into the trace of the work that sends it, if it belongs to one."""
        if tracer_variable.get() is None:
            return _UNSPANNED
        attributes = {"db.system": "redis", "db.operation.name": command, **self._named}
        return span(command, attributes, kind=SpanKind.CLIENT, begins=False)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        from coredis.exceptions import ConnectionError as Unreachable
        from coredis.exceptions import RedisError

        try:
            yield
        except StoreUnavailableError:
            raise
        except TimeoutError as error:
            if self._link is not None:
                self._link.suspect()
            raise StoreUnavailableError(f"Redis {self.address} did not answer in time") from error
        except (Unreachable, OSError) as error:
            raise StoreUnavailableError(
                f"Redis {self.address} cannot be reached: {error}"
            ) from error
        except RedisError as error:
            raise StoreUnavailableError(f"Redis {self.address} refused: {error}") from error


class RedisLink:
    """One connection while it lasts."""

    def __init__(self, server: _Server, timeout: float) -> None:
        self._connection = _connection(server, timeout)
        self._timeout = timeout
        self._heard = anyio.current_time()

    @property
    def usable(self) -> bool:
        """Whether it is open, as far as anybody knows."""
        return bool(self._connection.usable)

    async def hold(self, *, task_status: TaskStatus[None]) -> None:
        """Connect and keep what was connected until it breaks."""
        connection = self._connection
        try:
            await connection.run(task_status=task_status)
        finally:
            # The library forgets its queues when it could not connect.
            for queue in (
                *(connection._write_buffer_in, connection._write_buffer_out),
                *(connection._push_message_buffer_in, connection._push_message_buffer_out),
                *(connection._streamed_message_buffer_in, connection._streamed_message_buffer_out),
            ):
                queue.close()

    async def ask(self, command: str, *arguments: RedisValue) -> Any:
        """Send a command and wait for its answer, without any limit of time."""
        answer = await self._connection.create_request(command.encode(), *arguments)
        self._heard = anyio.current_time()
        return answer

    def suspect(self) -> None:
        """Close it if nothing came for so long that it must be dead, though nobody has said so."""
        if anyio.current_time() - self._heard > self._timeout:
            self._connection.invalidate()


class _Attempt:
    """To connect, for all that wait for it."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.link: RedisLink | None = None
        self.error: Exception | None = None

    def result(self) -> RedisLink:
        if self.link is not None:
            return self.link
        raise self.error or OSError("the attempt to connect was given up")


@dataclass(frozen=True)
class _Server:
    """What a URL says.

    :ivar path: of a Unix socket; empty for host and port
    """

    host: str
    port: int
    path: str
    username: str | None
    password: str | None
    db: int
    context: ssl.SSLContext | None

    @property
    def address(self) -> str:
        """What to call it, without any secret."""
        return self.path or f"{self.host}:{self.port}"


def _read(url: str) -> _Server:
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
        given = {name: values[0] for name, values in parse_qs(parts.query).items()}
        is_unix = parts.scheme == "unix"
        db = int(given.get("db") or ("" if is_unix else parts.path.strip("/")) or 0)
    except ValueError as error:
        raise ConfigurationError(_unreadable("it is malformed")) from error
    if parts.scheme not in _SCHEMES or not (parts.path if is_unix else parts.hostname):
        raise ConfigurationError(_unreadable("it names no server"))
    unknown = sorted(set(given) - _OPTIONS)
    if unknown:
        raise ConfigurationError(_unreadable(f"it has {unknown}, which mean nothing here"))
    if parts.scheme != "rediss" and set(given) & set(_TLS_OPTIONS):
        raise ConfigurationError(_unreadable("certificates are for rediss://"))
    return _Server(
        unquote(parts.hostname or ""),
        port,
        unquote(parts.path) if is_unix else "",
        None if parts.username is None else unquote(parts.username) or None,
        None if parts.password is None else unquote(parts.password),
        db,
        _tls(given) if parts.scheme == "rediss" else None,
    )


def _tls(given: Mapping[str, str]) -> ssl.SSLContext:
    ca, certificate, key = (given.get(name) for name in _TLS_OPTIONS)
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as error:
        why = f"its certificates cannot be read ({error})"
        raise ConfigurationError(_unreadable(why)) from error
    return context


def _connection(server: _Server, timeout: float) -> Any:
    from coredis.connection import (
        TCPConnection,
        TCPLocation,
        UnixDomainSocketConnection,
        UnixDomainSocketLocation,
    )

    settings: dict[str, Any] = {
        "username": server.username,
        "password": server.password,
        "db": server.db,
        "connect_timeout": timeout,
        "decode_responses": False,
    }
    if server.path:
        return UnixDomainSocketConnection(UnixDomainSocketLocation(server.path), **settings)
    location = TCPLocation(server.host, server.port)
    return TCPConnection(location, ssl_context=server.context, **settings)


def _unreadable(why: str) -> str:
    return (
        f"the URL of Redis cannot be used, since {why}: "
        "it looks like redis://user:password@host:6379/0, rediss://... or unix:///path"
    )
