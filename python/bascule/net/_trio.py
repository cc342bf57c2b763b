"""The driver for trio: raw sockets, and tasks of one nursery."""

from __future__ import annotations

import contextvars
import functools
import socket as stdlib_socket
import time
from typing import TYPE_CHECKING, Any, Self, cast

import outcome
import trio
from trio.lowlevel import current_task, reschedule, wait_task_rescheduled

from bascule.errors import TransportError
from bascule.net._address import format_peer, parse_address
from bascule.net._jobs import MOST_PARKED, do_jobs
from bascule.net._link import FULL_READ, LARGE_READ
from bascule.net._memory import connect_memory, listen_memory
from bascule.net._stream import StreamLink
from bascule.net._unix import UnixSocket

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

    import anyio

    from bascule.net._link import Future, Job, Link, Listener, Machine, Session, Timer

    Attach = Callable[[Link], tuple[Machine, Session]]

#: Errors that mean: this connection is over.
LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)

#: A TLS handshake that takes longer is given up.
TLS_HANDSHAKE_TIMEOUT = 10.0

_new_scope = cast("Callable[[], anyio.CancelScope]", trio.CancelScope)


def _nanoseconds(clock: trio.abc.Clock) -> Callable[[], int]:
    """The time of a clock as nanoseconds."""
    read, count = clock.current_time, time.perf_counter_ns
    if type(clock).__name__ != "SystemClock":  # but one of a test
        return lambda: int(read() * 1e9)
    # trio's own counts on from a random time, too: in thrice the time.
    offset = int(read() * 1e9) - count()
    return lambda: count() + offset


def living_tasks() -> int:
    """Tasks of the running loop that have not ended."""
    return trio.lowlevel.current_statistics().tasks_living


def _start(job: Job, scope: anyio.CancelScope) -> Awaitable[None]:
    """The task was given a context of its own before it woke."""
    return job.start(scope)


class TrioFuture:
    """A result that one task waits for, on trio's bare rescheduling."""

    __slots__ = ("_done", "_task", "_value")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._done = False
        self._value: Any = None

    def done(self) -> bool:
        return self._done

    def set_result(self, value: Any, /) -> None:
        self._done = True
        self._value = value
        task = self._task
        if task is not None:
            self._task = None
            reschedule(task)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def __await__(self) -> Generator[Any, Any, Any]:
        if not self._done:
            self._task = current_task()
            yield from wait_task_rescheduled(self._abort).__await__()  # noqa: ASYNC105
        return self._value


class _TrioTimer:
    def __init__(self) -> None:
        self.scope = trio.CancelScope()

    def cancel(self) -> None:
        self.scope.cancel()

    async def run(self, when_ns: int, callback: Callable[[], None]) -> None:
        with self.scope:
            await trio.sleep_until(when_ns / 1e9)
            callback()


class _TrioListener:
    def __init__(
        self,
        addresses: tuple[str, ...],
        listeners: list[trio.SocketListener],
        unix: UnixSocket | None,
    ) -> None:
        self.addresses = addresses
        self.scope = trio.CancelScope()
        self._listeners = listeners
        self._unix = unix

    async def close(self) -> None:
        self.scope.cancel()
        for listener in self._listeners:
            listener.socket.close()
        if self._unix is not None:
            self._unix.remove()


class TrioDriver:
    """Owns one nursery."""

    def __init__(self) -> None:
        self._manager = trio.open_nursery(strict_exception_groups=True)

    async def __aenter__(self) -> Self:
        self._nursery = await self._manager.__aenter__()
        self._parked: list[trio.lowlevel.Task] = []
        # A name spares trio looking for one at each task.
        self.spawn = functools.partial(self._nursery.start_soon, name="bascule")
        self.scope_deadline = trio.current_effective_deadline
        self.now_ns = _nanoseconds(trio.lowlevel.current_clock())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._nursery.cancel_scope.cancel()
        try:
            await self._manager.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            # The body's own exception is not ours to wrap.
            if exc is not None and group.exceptions == (exc,):
                return
            raise

    def spawn_job(self, job: Job) -> None:
        parked = self._parked
        if parked:
            task = parked.pop()
            task.context = contextvars.copy_context()
            trio.lowlevel.reschedule(task, outcome.Value(job))
        else:
            self.spawn(do_jobs, job, _new_scope, _start, self._park)

    async def _park(self) -> Job | None:
        """Wait for a job; None if enough others do."""
        parked = self._parked
        if len(parked) >= MOST_PARKED:
            return None
        task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            parked.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        parked.append(task)
        return cast("Job", await trio.lowlevel.wait_task_rescheduled(abort))

    future: Callable[[], Future[Any]] = TrioFuture

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        timer = _TrioTimer()
        self.spawn(timer.run, when_ns, callback)
        return timer

    async def listen(self, address: str, accept: Attach, tls: ssl.SSLContext | None) -> Listener:
        where = parse_address(address)
        if where.kind == "memory":
            return listen_memory(self, where, accept)
        unix: UnixSocket | None = None
        try:
            if where.kind == "unix":
                unix = UnixSocket(where.host)
                sock = trio.socket.from_stdlib_socket(unix.socket)
                sock.listen(1024)
                listeners = [trio.SocketListener(sock)]
            else:
                listeners = await trio.open_tcp_listeners(where.port, host=where.host, backlog=1024)
        except OSError as error:
            message = f"cannot listen on {address}: {error.strerror or error}"
            raise TransportError(message) from error
        bound = (each.socket for each in listeners)
        addresses = tuple(format_peer(each.family, each.getsockname()) for each in bound)
        listener = _TrioListener(addresses, listeners, unix)
        for each in listeners:
            self.spawn(self._accept_loop, each, listener.scope, accept, tls)
        return listener

    async def _accept_loop(
        self,
        listener: trio.SocketListener,
        scope: trio.CancelScope,
        accept: Attach,
        tls: ssl.SSLContext | None,
    ) -> None:
        with scope:
            while True:
                try:
                    stream = await listener.accept()
                except OSError:
                    # Out of descriptors, or a peer that was gone at once: others may wait.
                    await trio.sleep(0.05)
                    continue
                except trio.ClosedResourceError:
                    return
                self.spawn(self._serve, stream.socket, accept, tls)

    async def _serve(
        self, sock: trio.socket.SocketType, accept: Attach, tls: ssl.SSLContext | None
    ) -> None:
        try:
            link = await self._link(sock, tls, None, server_side=True)
            link.start(accept)
        except LOST:
            sock.close()
        except BaseException:
            sock.close()
            raise

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
            if where.kind == "unix":
                stream = await trio.open_unix_socket(where.host)
            else:
                stream = await trio.open_tcp_stream(where.host, where.port)
            sock = stream.socket
            try:
                link = await self._link(sock, tls, server_name or where.host, server_side=False)
            except BaseException:
                sock.close()
                raise
        except LOST as error:
            reason = _reason(error)
            message = f"cannot connect to {address}: {reason}"
            raise TransportError(message) from error
        link.start(attach)
        return link

    async def _link(
        self,
        sock: trio.socket.SocketType,
        tls: ssl.SSLContext | None,
        server_name: str | None,
        *,
        server_side: bool,
    ) -> StreamLink:
        if sock.family != stdlib_socket.AF_UNIX:
            sock.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        peer = format_peer(sock.family, sock.getpeername())
        if tls is None:
            raw = _raw(sock)
            link = StreamLink(self, peer, *raw[:3], LOST, send_now=raw[3], send_eof=raw[4])
            link.sock = raw[5]
            return link
        stream = trio.SSLStream(
            trio.SocketStream(sock),
            tls,
            server_hostname=server_name,
            server_side=server_side,
            https_compatible=True,
        )
        try:
            with trio.fail_after(TLS_HANDSHAKE_TIMEOUT):
                await stream.do_handshake()
        except trio.TooSlowError as error:
            message = f"no TLS handshake with {peer} within {TLS_HANDSHAKE_TIMEOUT:g} s"
            raise TimeoutError(message) from error

        async def receive() -> bytes:
            return bytes(await stream.receive_some(FULL_READ))

        # trio's stream has the inquiries of ssl.SSLObject (getpeercert, selected_alpn_protocol).
        tls_object = cast("ssl.SSLObject", stream)
        link = StreamLink(self, peer, receive, stream.send_all, sock.close, LOST, tls_object)
        link.sock = sock
        return link


def _reason(error: BaseException) -> str:
    """What went wrong: trio wraps the errors of handshakes, and of several addresses."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(_reason(each) for each in cause.exceptions)
    told = error if cause is None else cause
    return getattr(told, "strerror", None) or str(told) or type(told).__name__


def _raw(
    sock: trio.socket.SocketType,
) -> tuple[
    Callable[[], Awaitable[bytes]],
    Callable[[bytes], Awaitable[None]],
    Callable[[], None],
    Callable[[bytes], int],
    Callable[[], None],
    stdlib_socket.socket,
]:
    """Receive, send, close, send at once and send the end, and the socket, one level below trio's socket.

    Its methods try before they wait, and let the loop turn once more when they need not wait. Here
    the reader waits first, which is its checkpoint, and the writer parks between its batches.
    """
    raw = stdlib_socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
    raw.setblocking(False)
    size = FULL_READ

    async def receive() -> bytes:
        nonlocal size
        while True:
            await trio.lowlevel.wait_readable(raw)
            try:
                data = raw.recv(size)
            except BlockingIOError:
                continue
            if len(data) == size:
                size = LARGE_READ
            return data

    async def send(data: bytes) -> None:
        left = memoryview(data)
        while True:
            try:
                left = left[raw.send(left) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(raw)
            if not left:
                return

    def close() -> None:
        trio.lowlevel.notify_closing(raw)
        raw.close()

    def send_now(data: bytes) -> int:
        try:
            return raw.send(data)
        except OSError:
            # Full, or broken: the writer will wait, or find out.
            return 0

    def send_eof() -> None:
        raw.shutdown(stdlib_socket.SHUT_WR)

    return receive, send, close, send_now, send_eof, raw
