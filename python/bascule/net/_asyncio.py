"""The driver for asyncio (and uvloop): one ``asyncio.Protocol`` a connection."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import time
from typing import TYPE_CHECKING, Any, Self, cast

import anyio

from bascule.errors import TransportError
from bascule.net._address import Address, format_peer, parse_address
from bascule.net._link import FULL_FLUSH, Future, Link, Listener, Machine, Session, Timer
from bascule.net._memory import connect_memory, listen_memory

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    Attach = Callable[[Link], tuple[Machine, Session]]

#: Bytes that wait in the transport before the machine has to keep its own.
WRITE_HIGH_WATER = 256 * 1024


#: Seconds after which a TLS handshake is given up; the loop's own default is a minute.
TLS_HANDSHAKE_TIMEOUT = 10.0


def _handshake_timeout(tls: ssl.SSLContext | None) -> float | None:
    """Asyncio refuses a timeout for a handshake that will not be."""
    return None if tls is None else TLS_HANDSHAKE_TIMEOUT


class AsyncioLink(asyncio.Protocol):
    """Feeds a machine from a transport; flushes once a loop tick."""

    def __init__(self, driver: AsyncioDriver, attach: Attach) -> None:
        self.driver = driver
        self.peer = "unknown"
        self.tls: ssl.SSLObject | None = None
        self._attach = attach
        self._loop = driver.loop
        self._flush_scheduled = False
        self._write_paused = False
        self._read_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        sock = transport.get_extra_info("socket")
        self.peer = format_peer(sock.family, transport.get_extra_info("peername"))
        self.tls = transport.get_extra_info("ssl_object")
        self.machine, self._session = self._attach(self)
        self.driver.links.add(self)
        self.flush_soon()

    def data_received(self, data: bytes) -> None:
        events = self.machine.receive(data, time.monotonic_ns())
        if events:
            self._session.handle_events(events)
        if not self._flush_scheduled and self.machine.wants_write:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def eof_received(self) -> bool:
        self._session.handle_events(self.machine.receive_eof(time.monotonic_ns()))
        self.flush_soon()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.driver.links.discard(self)
        self._session.handle_events(self.machine.receive_eof(time.monotonic_ns()))
        self._session.handle_lost()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self.flush_soon()

    def flush_soon(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def flush_now(self) -> None:
        if self._flush_scheduled:
            return
        self._flush()

    def close(self) -> None:
        self._transport.abort()

    def _flush(self) -> None:
        self._flush_scheduled = False
        transport = self._transport
        if transport.is_closing():
            return
        machine = self.machine
        more = True
        while more and not self._write_paused:
            data, events = machine.flush()
            if data:
                transport.write(data)
            if events:
                self._session.handle_events(events)
            more = data is not None and len(data) >= FULL_FLUSH
        if machine.finished:
            transport.close()
        elif machine.wants_read == self._read_paused:
            self._read_paused = not self._read_paused
            if self._read_paused:
                transport.pause_reading()
            else:
                transport.resume_reading()


@functools.cache
def _scope_type() -> type[anyio.CancelScope]:
    """The scope of anyio for asyncio, without its timer; only a running loop can name it."""

    class Scope(type(anyio.CancelScope())):  # type: ignore[misc]
        def _timeout(self) -> None:
            """Arm nothing. Should anyio rename this, every scope has its timer again: slower, not wrong."""

    return Scope


class _AsyncioListener:
    def __init__(self, server: asyncio.Server, address: str, path: str | None) -> None:
        self.address = address
        self._server = server
        self._path = path

    async def close(self) -> None:
        self._server.close()
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108 - no pathlib on the loop


class AsyncioDriver:
    """Owns raw asyncio tasks: a third of the cost of a task group's."""

    def __init__(self) -> None:
        self.links: set[AsyncioLink] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        self.scope = _scope_type()
        self._host = asyncio.current_task()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing = True
        for link in tuple(self.links):
            link.close()
        # A task may shield itself for a while, but it ends: cancelled tasks are
        # waited for even if this task is cancelled meanwhile.
        cancelled: asyncio.CancelledError | None = None
        while self._tasks or self.links:
            for task in tuple(self._tasks):
                task.cancel()
            try:
                if self._tasks:
                    # One that was cancelled before it began could not remove itself.
                    done, _ = await asyncio.wait(tuple(self._tasks))
                    self._tasks -= done
                else:
                    await asyncio.sleep(0)
            except asyncio.CancelledError as error:
                cancelled = error
        if self._failure is not None:
            raise self._failure
        if cancelled is not None:
            raise cancelled

    def spawn(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        self._tasks.add(self.loop.create_task(self._own(function, args)))

    async def _own(self, function: Callable[..., Awaitable[None]], args: tuple[Any, ...]) -> None:
        # A frame of our own costs a tenth of a done callback, which the loop schedules.
        try:
            await function(*args)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if self._failure is None:
                self._failure = error
                if not self._closing and self._host is not None:
                    self._host.cancel()
            if not isinstance(error, Exception):
                raise
        finally:
            self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def future(self) -> Future[Any]:
        return self.loop.create_future()

    now_ns = staticmethod(time.monotonic_ns)
    scope_deadline = staticmethod(anyio.current_effective_deadline)

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        return self.loop.call_at(when_ns / 1e9, callback)

    async def listen(self, address: str, accept: Attach, tls: ssl.SSLContext | None) -> Listener:
        where = parse_address(address)
        if where.kind == "memory":
            return listen_memory(self, where, accept)

        def factory() -> AsyncioLink:
            return AsyncioLink(self, accept)

        try:
            if where.kind == "unix":
                server = await self.loop.create_unix_server(
                    factory,
                    where.host,
                    ssl=tls,
                    ssl_handshake_timeout=_handshake_timeout(tls),
                    backlog=1024,
                )
                return _AsyncioListener(server, str(where), where.host)
            server = await self.loop.create_server(
                factory,
                where.host,
                where.port,
                ssl=tls,
                ssl_handshake_timeout=_handshake_timeout(tls),
                backlog=1024,
            )
        except OSError as error:
            message = f"cannot listen on {address}: {error.strerror or error}"
            raise TransportError(message) from error
        sock = server.sockets[0]
        return _AsyncioListener(server, format_peer(sock.family, sock.getsockname()), None)

    async def connect(
        self,
        address: str,
        attach: Attach,
        tls: ssl.SSLContext | None,
        server_name: str | None,
    ) -> Link:
        where = parse_address(address)
        if where.kind == "memory":
            return await connect_memory(self, where, attach)
        try:
            return await self._connect(where, attach, tls, server_name)
        except OSError as error:
            message = f"cannot connect to {address}: {error.strerror or error}"
            raise TransportError(message) from error

    async def _connect(
        self,
        where: Address,
        attach: Attach,
        tls: ssl.SSLContext | None,
        server_name: str | None,
    ) -> Link:
        def factory() -> AsyncioLink:
            return AsyncioLink(self, attach)

        name = (server_name or where.host) if tls is not None else None
        if where.kind == "unix":
            _, link = await self.loop.create_unix_connection(
                factory,
                where.host,
                ssl=tls,
                server_hostname=name,
                ssl_handshake_timeout=_handshake_timeout(tls),
            )
            return link
        _, link = await self.loop.create_connection(
            factory,
            where.host,
            where.port,
            ssl=tls,
            server_hostname=name,
            ssl_handshake_timeout=_handshake_timeout(tls),
        )
        sock: socket.socket = link._transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link
