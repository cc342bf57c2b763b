"""One Redis for both loops: a URL, scripts, and errors that say which server failed."""

from __future__ import annotations

import hashlib
import ssl
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import anyio

from bascule._tasks import owned_tasks
from bascule.errors import ClosedError, ConfigurationError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    import coredis
    from anyio.abc import TaskStatus

__all__ = ["RedisClient", "RedisScript", "RedisValue"]

RedisValue = str | bytes | int | float

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
    """A pool of connections to one Redis. Use it with ``async with``, from one event loop.

    It needs no server to be entered, and none to stay: a command fails while there is none, and the
    next one connects anew.

    :param url: ``redis://user:password@host:6379/0``; ``rediss://`` for TLS, whose certificate must be
        good for the host, with ``?ssl_ca_certs=``, ``ssl_certfile=`` and ``ssl_keyfile=`` where needed;
        or ``unix:///path/to/socket?db=0``. What the user's name and password hold may be %-escaped
    :param timeout: seconds that a command may take, connecting and waiting for a connection included
    :param connections: the most that are open at once
    :raises ConfigurationError: if the URL cannot be read, or coredis is not installed
    """

    def __init__(self, url: str, *, timeout: float = 5.0, connections: int = 16) -> None:
        self._timeout = timeout
        self._connections = connections
        self._server = _read(url)
        self.address = self._server.address
        try:
            import coredis  # noqa: F401
        except ImportError as error:
            raise ConfigurationError(
                "Redis needs the library coredis: pip install 'bascule[redis]'"
            ) from error
        self._client: coredis.Redis[bytes] | None = None
        self._leaving = anyio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._leaving = anyio.Event()
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(owned_tasks())
            stack.callback(self._leaving.set)
            # The library's own task group lives in a task of its own: it would wrap what our body raises.
            await tasks.start(self._hold, name=f"redis {self.address}")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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

        client = self._open()
        with self._reported(), anyio.fail_after(self._timeout if timeout is None else timeout):
            try:
                return await client.evalsha(script.sha, keys=keys, args=arguments)
            except NoScriptError:
                return await client.eval(script.text, keys=keys, args=arguments)

    async def call(self, command: str, *arguments: RedisValue, timeout: float | None = None) -> Any:
        """Send one command and give its answer as the server gave it.

        :param timeout: seconds; None for the client's own
        :raises StoreUnavailableError: if it failed; it may have been carried out all the same
        """
        from coredis.response._callbacks import NoopCallback

        client = self._open()
        with self._reported(), anyio.fail_after(self._timeout if timeout is None else timeout):
            return await client.create_request(
                command.encode(), *arguments, callback=NoopCallback[Any]()
            )

    async def _hold(self, *, task_status: TaskStatus[None]) -> None:
        import coredis
        from coredis.retry import NoRetryPolicy

        client: coredis.Redis[bytes] = coredis.Redis(
            connection_pool=_pool(
                self._server,
                max_connections=self._connections,
                connect_timeout=self._timeout,
                decode_responses=False,
            ),
            decode_responses=False,
            verify_version=False,
            retry_policy=NoRetryPolicy(),
        )
        async with client:
            self._client = client
            try:
                task_status.started()
                await self._leaving.wait()
            finally:
                self._client = None

    def _open(self) -> coredis.Redis[bytes]:
        if self._client is None:
            raise ClosedError(f"Redis {self.address} is not open: use it within its 'async with'")
        return self._client

    @contextmanager
    def _reported(self) -> Iterator[None]:
        from coredis.exceptions import ConnectionError as Unreachable
        from coredis.exceptions import RedisError

        try:
            yield
        except TimeoutError as error:
            raise StoreUnavailableError(f"Redis {self.address} did not answer in time") from error
        except (Unreachable, OSError) as error:
            raise StoreUnavailableError(
                f"Redis {self.address} cannot be reached: {error}"
            ) from error
        except RedisError as error:
            raise StoreUnavailableError(f"Redis {self.address} refused: {error}") from error


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


def _pool(server: _Server, **settings: Any) -> Any:
    from anyio import TASK_STATUS_IGNORED
    from coredis import ConnectionPool
    from coredis.connection import (
        TCPConnection,
        TCPLocation,
        UnixDomainSocketConnection,
        UnixDomainSocketLocation,
    )

    location: Any
    kind: Any
    if server.path:
        location, kind = UnixDomainSocketLocation(server.path), UnixDomainSocketConnection
    else:
        location, kind = TCPLocation(server.host, server.port), TCPConnection

    class Connection(kind):  # type: ignore[misc]
        """Closes its queues when it could not connect, too, which the library forgets."""

        async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
            try:
                await super().run(task_status=task_status)
            finally:
                for queue in (
                    *(self._write_buffer_in, self._write_buffer_out),
                    *(self._push_message_buffer_in, self._push_message_buffer_out),
                    *(self._streamed_message_buffer_in, self._streamed_message_buffer_out),
                ):
                    queue.close()

    if server.context is not None:
        settings["ssl_context"] = server.context
    return ConnectionPool(
        connection_class=Connection,
        location=location,
        username=server.username,
        password=server.password,
        db=server.db,
        **settings,
    )


def _unreadable(why: str) -> str:
    return (
        f"the URL of Redis cannot be used, since {why}: "
        "it looks like redis://user:password@host:6379/0, rediss://... or unix:///path"
    )
