"""The driver for asyncio (and uvloop): one ``asyncio.Protocol`` a connection."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import socket
import time
import types
from typing import TYPE_CHECKING, Any, Self, cast

import anyio

from bascule.errors import TransportError
from bascule.net._address import Address, format_peer, parse_address
from bascule.net._jobs import MOST_PARKED, do_jobs
from bascule.net._link import (
    FLUSH_EVERY,
    FLUSH_LEAST,
    FULL_FLUSH,
    FULL_READ,
    LARGE_READ,
    LINGER,
    reading,
)
from bascule.net._malloc import keep_freed_memory
from bascule.net._memory import connect_memory, listen_memory
from bascule.net._scopes import scope_deadline, scope_type
from bascule.net._unix import UnixSocket
from bascule.net._unsent import unsent

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

    from bascule.net._link import AnySocket, Job, Link, Listener, Machine, Session, Timer

    Attach = Callable[[Link], tuple[Machine, Session]]

#: Bytes that wait in the transport before the machine has to keep its own.
WRITE_HIGH_WATER = 256 * 1024

#: Seconds after which a TLS handshake is given up; the loop's own default is a minute.
TLS_HANDSHAKE_TIMEOUT = 10.0


def living_tasks() -> int:
    """Tasks of the running loop that have not ended."""
    return len(asyncio.all_tasks())


def _handshake_timeout(tls: ssl.SSLContext | None) -> float | None:
    """Asyncio refuses a timeout for a handshake that will not be."""
    return None if tls is None else TLS_HANDSHAKE_TIMEOUT


class AsyncioLink(asyncio.Protocol):
    """Feeds a machine from a transport; flushes once a loop tick."""

    def __init__(self, driver: AsyncioDriver, attach: Attach) -> None:
        self.driver = driver
        self.peer = "unknown"
        self.tls: ssl.SSLObject | None = None
        self.sock: AnySocket | None = None
        self.blocked = 0
        self._attach = attach
        self._loop = driver.loop
        self._now_ns = driver.now_ns
        self._flush_scheduled = False
        self._unsent = 0
        self._alone = False
        self._write_paused = False
        self._read_paused = False
        self._linger: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.driver.closing:
            # Accepted in the turn in which the listener was closed.
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        self._read_at_most(FULL_READ)
        sock = self.sock = transport.get_extra_info("socket")
        self.peer = format_peer(sock.family, transport.get_extra_info("peername"))
        self.tls = transport.get_extra_info("ssl_object")
        self.machine, self._session = self._attach(self)
        self.driver.links.add(self)
        self.flush_soon()

    def data_received(self, data: bytes) -> None:
        if len(data) >= FULL_READ:
            keep_freed_memory()
            self._read_at_most(LARGE_READ)
        self._alone = reading.alone(self)
        events = self.machine.receive(data, self._now_ns())
        if events:
            self._session.handle_events(events)
        # Behind the tasks that these have woken, so that what they send goes in this turn. One alone
        # knows of no other, and flushes by itself.
        several = self._alone and len(events) > 1
        if not self._flush_scheduled and (several or self.machine.wants_write):
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def eof_received(self) -> bool:
        self._session.handle_events(self.machine.receive_eof(self._now_ns()))
        self.flush_soon()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self not in self.driver.links:
            return
        self.driver.links.discard(self)
        if self._linger is not None:
            self._linger.cancel()
        self._session.handle_events(self.machine.receive_eof(self._now_ns()))
        self._session.handle_lost()

    def pause_writing(self) -> None:
        self._write_paused = True
        self.blocked = 1

    def resume_writing(self) -> None:
        self._write_paused = False
        self.blocked = 0
        self.flush_soon()

    def flush_soon(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def flush_some(self) -> None:
        self._unsent += 1
        if self._unsent >= FLUSH_EVERY:
            self._flush()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def flush_part(self, expected: int) -> None:
        self._unsent = unsent = self._unsent + 1
        if self._alone and unsent >= FLUSH_LEAST and (unsent >= expected or unsent >= FLUSH_EVERY):
            self._flush()
        elif not self._flush_scheduled:
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
        self._unsent = 0
        transport = self._transport
        if transport.is_closing():
            self._watch_close()
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
            if more:
                keep_freed_memory()
        if machine.finished:
            self._finish()
            self._watch_close()
        elif machine.wants_read == self._read_paused:
            self._read_paused = not self._read_paused
            if self._read_paused:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def _read_at_most(self, size: int) -> None:
        transport: Any = self._transport
        if hasattr(transport, "max_size"):  # asyncio's own, without TLS; others have one buffer
            transport.max_size = size

    def _finish(self) -> None:
        """Close this side, and the connection when the peer has closed its own."""
        transport = self._transport
        if not transport.can_write_eof():
            transport.close()
            self._linger = self._loop.call_later(LINGER, self._give_up)
            return
        try:
            transport.write_eof()
        except OSError:  # the peer was faster
            transport.abort()
            return
        transport.resume_reading()
        self._linger = self._loop.call_later(LINGER, transport.close)

    def _give_up(self) -> None:
        """Wait no longer for the peer's end of TLS once it has all that was written: asyncio would, for 30 s."""
        if self.sock is None or self._transport.get_write_buffer_size() or unsent(self.sock):
            self._linger = self._loop.call_later(LINGER, self._give_up)
        else:
            self._transport.abort()

    def _watch_close(self) -> None:
        """Closing waits for the peer to take what was written."""
        if not self.blocked and self._transport.get_write_buffer_size():
            self.blocked = 1


class _Handshake(asyncio.Protocol):
    """A connection that was accepted, until TLS is agreed on: in a task of the
    driver, where asyncio's own would outlive it.
    """

    def __init__(self, driver: AsyncioDriver, accept: Attach, tls: ssl.SSLContext) -> None:
        self._driver = driver
        self._accept = accept
        self._tls = tls
        self._early: list[bytes] = []
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        plain = cast("asyncio.Transport", transport)
        if self._driver.closing:
            plain.abort()
            return
        plain.pause_reading()  # start_tls resumes it
        self._driver.spawn(self._run, plain)

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True

    async def _run(self, plain: asyncio.Transport) -> None:
        try:
            transport = await self._driver.loop.start_tls(
                plain,
                self,
                self._tls,
                server_side=True,
                ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT,
            )
        except OSError:
            plain.abort()
            return
        except BaseException:
            plain.abort()
            raise
        if transport is None or self._lost:
            return
        link = AsyncioLink(self._driver, self._accept)
        transport.set_protocol(link)
        link.connection_made(transport)
        for data in self._early:
            link.data_received(data)


#: What a worker gives when a job has returned, where others give what they wait for.
_RETURNED: Any = object()


@types.coroutine
def _work(scope: anyio.CancelScope) -> Generator[Any, Any, None]:
    """Start what is sent in and see it through. One generator for many jobs: each that ended would
    cost an exception.
    """
    while True:
        yield from (yield _RETURNED)(scope)


class _Contexts:
    """Runs one job after another, each in a copy of the current context, as a task of its own would."""

    __slots__ = ("_scope", "_send", "_throw")

    def __init__(self) -> None:
        self._scope: anyio.CancelScope | None = None

    @types.coroutine
    def run(self, job: Job, scope: anyio.CancelScope) -> Generator[Any, Any, None]:
        if scope is not self._scope:  # the first one, or the last one's job failed
            worker = _work(scope)
            next(worker)
            self._scope, self._send, self._throw = scope, worker.send, worker.throw
        run = contextvars.copy_context().run
        send = self._send
        waited = run(send, job.start)
        while waited is not _RETURNED:
            try:
                yield waited
            except BaseException as error:  # noqa: BLE001 - whatever the loop throws in
                waited = run(self._throw, error)
            else:
                waited = run(send, None)


class _AsyncioListener:
    def __init__(
        self, server: asyncio.Server, addresses: tuple[str, ...], unix: UnixSocket | None
    ) -> None:
        self.addresses = addresses
        self._server = server
        self._unix = unix

    async def close(self) -> None:
        # What asyncio has accepted, it attaches in a task; before Python 3.12, that fails if the server is
        # closed by then, and leaves the connection open. So accept no more, and let these tasks begin.
        loop = self._server.get_loop()
        if isinstance(loop, asyncio.SelectorEventLoop):
            for listening in self._server.sockets:
                loop.remove_reader(listening)
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.sleep(0)
        finally:
            self._server.close()
        if self._unix is not None:
            self._unix.remove()


class AsyncioDriver:
    """Owns raw asyncio tasks: a third of the cost of a task group's."""

    def __init__(self) -> None:
        self.links: set[AsyncioLink] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._parked: list[asyncio.Future[Job]] = []
        self._failure: BaseException | None = None
        self._host_cancelled = False
        #: Whether its end has begun: nothing new may start.
        self.closing = False

    async def __aenter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        self.scope_deadline = scope_deadline(self.loop)
        # A loop whose time is virtual tells it in nanoseconds; others have this clock.
        self.now_ns: Callable[[], int] = getattr(self.loop, "time_ns", time.monotonic_ns)
        self._scope = scope_type()
        self._host = asyncio.current_task()
        # What `create_future` does, without its detours, which uvloop pays for twice.
        self.future: Callable[[], asyncio.Future[Any]] = functools.partial(
            asyncio.Future, loop=self.loop
        )
        self._make_task: Callable[..., asyncio.Task[None]] = self.loop.create_task
        if type(self.loop).__module__.startswith("asyncio.") and not self.loop.get_task_factory():
            # What `create_task` does then, without its detours: a tenth of a call's time.
            self._make_task = functools.partial(asyncio.Task, loop=self.loop)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closing = True
        cancelled: asyncio.CancelledError | None = None
        asked: set[asyncio.Task[None]] = set()
        # Cancelled tasks are waited for even if this task is cancelled meanwhile. The
        # shield spares it anyio's cancellation, which would come again in every turn.
        with anyio.CancelScope(shield=True):
            while True:
                for link in tuple(self.links):
                    link.close()
                begun = self._tasks - asked
                try:
                    # A task that is cancelled before it began does no clean-up: let it begin.
                    await asyncio.sleep(0)
                    # Once each, or a task could await nothing while it cleans up.
                    for task in begun:
                        task.cancel()
                    asked |= begun
                    if self._tasks - asked:
                        continue
                    if self._tasks:
                        done, _ = await asyncio.wait(tuple(self._tasks))
                        self._tasks -= done
                    elif not self.links:
                        break
                except asyncio.CancelledError as error:
                    cancelled = error
        if self._failure is not None:
            if self._host_cancelled and self._host is not None:
                self._host.uncancel()
            raise self._failure
        if cancelled is not None:
            raise cancelled

    def spawn(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        self._tasks.add(self._make_task(self._own(function, args), name="bascule"))

    async def _own(self, function: Callable[..., Awaitable[None]], args: tuple[Any, ...]) -> None:
        # A frame of our own costs a tenth of a done callback, which the loop schedules.
        try:
            awaitable = function(*args)
            del args  # a kept task must not hold its first job
            await awaitable
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if self._failure is None:
                self._failure = error
                if not self.closing and self._host is not None:
                    self._host_cancelled = self._host.cancel()
            if not isinstance(error, Exception):
                raise
        finally:
            # With the loop named, asyncio need not ask the kernel whether it was forked.
            self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task(self.loop)))

    def spawn_job(self, job: Job) -> None:
        parked = self._parked
        while parked:
            future = parked.pop()
            if not future.done():  # or its task was cancelled
                future.set_result(job)
                return
        self.spawn(self._do_jobs, job)

    async def _do_jobs(self, first: Job) -> None:
        task = asyncio.current_task(self.loop)
        parked, make_future = self._parked, self.future

        async def park() -> Job | None:
            """Wait for a job; None if enough others do, or a job has left a cancellation behind."""
            if len(parked) >= MOST_PARKED or task is None or task.cancelling():
                return None
            future: asyncio.Future[Job] = make_future()
            parked.append(future)
            try:
                return await future
            except asyncio.CancelledError:
                if future.cancelled():
                    if future in parked:
                        parked.remove(future)
                else:  # it came in the same turn, too late
                    future.result().end(None, False)
                raise

        jobs = do_jobs(first, self._scope, _Contexts().run, park)
        del first
        await jobs

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        return self.loop.call_at(when_ns / 1e9, callback)

    async def listen(self, address: str, accept: Attach, tls: ssl.SSLContext | None) -> Listener:
        where = parse_address(address)
        if where.kind == "memory":
            return listen_memory(self, where, accept)

        def factory() -> asyncio.Protocol:
            return AsyncioLink(self, accept) if own is None else _Handshake(self, accept, own)

        # uvloop cannot start TLS on what it has just accepted: it does so by itself.
        foreign = tls if not isinstance(self.loop, asyncio.BaseEventLoop) else None
        own = tls if foreign is None else None
        loops_tls: dict[str, Any] = {
            "ssl": foreign,
            "ssl_handshake_timeout": _handshake_timeout(foreign),
        }

        unix: UnixSocket | None = None
        try:
            # What asyncio starts by itself, it leaves open if it is cancelled then.
            if where.kind == "unix":
                unix = UnixSocket(where.host)
                server = await self.loop.create_unix_server(
                    factory, sock=unix.socket, backlog=1024, start_serving=False, **loops_tls
                )
            else:
                server = await self.loop.create_server(
                    factory, where.host, where.port, backlog=1024, start_serving=False, **loops_tls
                )
        except OSError as error:
            message = f"cannot listen on {address}: {error.strerror or error}"
            raise TransportError(message) from error
        addresses = tuple(format_peer(each.family, each.getsockname()) for each in server.sockets)
        listener = _AsyncioListener(server, addresses, unix)
        try:
            await server.start_serving()
        except BaseException:
            await listener.close()
            raise
        return listener

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
