"""What a connection's driver offers to the code above it, whatever the event loop.

A *machine* is a sans-IO connection of ``bascule._core``. A *link* moves its
bytes through a socket. A *session* reacts to its events. A *driver* is the
event loop's own way to do all this: it makes links, tasks, futures and timers.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from contextlib import AbstractAsyncContextManager

    from anyio import CancelScope

T = TypeVar("T")

#: Events are tuples that begin with their kind; see ``_core.pyi``.
Event = tuple[Any, ...]

#: Seconds that a peer gets to read the last bytes of a connection and to close its side. A socket
#: closed before that answers what still comes with a reset, and the peer may lose what it has not
#: read: the last replies, or the GOAWAY that says which calls may be repeated.
LINGER = 0.5

#: Calls that are begun in one turn go to the peer so many at a time: it works on these while the others are
#: being made. A write costs as much as a twentieth of a call for each.
FLUSH_EVERY = 24

#: Replies of one turn go no fewer at a time.
FLUSH_LEAST = 4

#: So many reads in a row from one connection: there is no other to work for while its peer works.
ALONE = 4

#: A flush that gave this much may have left more behind.
FULL_FLUSH = 200 * 1024

#: Bytes asked for in one read. From 128 KiB on glibc maps pages for each, which costs three reads.
FULL_READ = 64 * 1024

#: What is asked for once a read was full, and :func:`bascule.net._malloc.keep_freed_memory` called.
LARGE_READ = 256 * 1024


class Reading(threading.local):
    """How the connections of a thread take turns."""

    #: Of the link that was read from last: the link itself would be kept when it is closed.
    _id = 0
    _times = 0

    def alone(self, link: Link) -> bool:
        """Note that a link was read from: whether it is the only one that is, for a while now."""
        if self._id == id(link):
            self._times += 1
            return self._times >= ALONE
        self._id, self._times = id(link), 1
        return False


reading = Reading()


class Machine(Protocol):
    """A sans-IO connection. Times are nanoseconds of :meth:`Driver.now_ns`."""

    def receive(self, data: bytes, now_ns: int) -> list[Event]: ...
    def receive_eof(self, now_ns: int) -> list[Event]: ...
    def tick(self, now_ns: int) -> list[Event]: ...
    def flush(self) -> tuple[bytes | None, list[Event]]: ...
    def shutdown(self) -> None: ...
    @property
    def wants_read(self) -> bool: ...
    @property
    def wants_write(self) -> bool:
        """Whether a flush has anything to do: bytes to send, or an end to see."""
        ...

    @property
    def finished(self) -> bool: ...
    @property
    def in_flight(self) -> int: ...


class Session(Protocol):
    """Reacts to a connection's events. Both methods run on the loop and must not block."""

    def handle_events(self, events: list[Event]) -> None: ...
    def handle_lost(self) -> None:
        """The link is gone: nothing can be sent or received any more."""
        ...


class AnySocket(Protocol):
    """What the sockets of either loop have in common, as far as it is needed."""

    @property
    def family(self) -> int: ...
    def fileno(self) -> int: ...
    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


class Link(Protocol):
    """One connection's socket."""

    #: The peer's address as ``host:port``, ``unix:path`` or ``memory:name``.
    peer: str
    #: The TLS connection, if the link has one.
    tls: ssl.SSLObject | None
    #: What carries it; None if that is no socket.
    sock: AnySocket | None
    #: 0 while the peer takes what is sent; otherwise a count of the ticks since it stopped.
    blocked: int

    def flush_soon(self) -> None:
        """Send what the machine has, once, after the current batch of work."""

    def flush_some(self) -> None:
        """As :meth:`flush_soon`, for one of many calls that may begin in this turn: every
        :data:`FLUSH_EVERY` of them are sent at once.
        """

    def flush_part(self, expected: int) -> None:
        """As :meth:`flush_soon`, for one of many replies that may come in this turn: so many of them
        are sent at once, from :data:`FLUSH_LEAST` to :data:`FLUSH_EVERY`, if there is no other
        connection to work for. Where there are, fewer and larger writes are better.
        """

    def flush_now(self) -> None:
        """Send what the machine has before returning, as far as the socket takes it.
        For a caller that knows of no other work that would go along.
        """

    def close(self) -> None:
        """Close the socket now; what was not sent is lost."""


class Future(Protocol[T]):
    """A result that one task waits for."""

    def done(self) -> bool: ...
    def set_result(self, value: T, /) -> None: ...
    def __await__(self) -> Generator[Any, Any, T]: ...


class Timer(Protocol):
    """A callback that was scheduled."""

    def cancel(self) -> None: ...


class Listener(Protocol):
    """A bound socket that accepts."""

    #: What was bound, with real ports: a host name may stand for several.
    addresses: tuple[str, ...]

    async def close(self) -> None:
        """Accept no more; links that were accepted live on."""


class Job(Protocol):
    """Work that a task does in a cancel scope, both its own until it ends: a server's call."""

    #: When the scope is to be cancelled, in the clock of :func:`anyio.current_time`. On asyncio
    #: the owner cancels it: a timer each would cost as much as the rest of the scope.
    deadline: float

    def start(self, scope: CancelScope) -> Coroutine[Any, Any, None]:
        """What to await. The scope is this job's until :meth:`end`, and no longer."""
        ...

    def end(self, error: Exception | None, returned: bool) -> None:
        """Called at last, whatever happens, outside of a scope that was cancelled.

        :param error: what was raised
        :param returned: False if it raised, or was cancelled
        """
        ...


class Driver(Protocol):
    """The event loop's own way to own tasks and sockets.

    Use as ``async with``: on leaving, every task that it spawned is cancelled
    and awaited, and every link is closed.
    """

    def spawn(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task that this driver owns. The function handles its own errors:
        an exception that escapes it ends the driver's whole scope.
        """

    def spawn_job(self, job: Job) -> None:
        """Do a job in a task that this driver owns."""

    def future(self) -> Future[Any]: ...
    def now_ns(self) -> int: ...
    def scope_deadline(self) -> float:
        """:func:`anyio.current_effective_deadline`, without finding out the event loop each time."""
        ...

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer: ...

    async def listen(
        self,
        address: str,
        accept: Callable[[Link], tuple[Machine, Session]],
        tls: ssl.SSLContext | None,
    ) -> Listener:
        """:raises TransportError: if the address cannot be bound"""
        ...

    async def connect(
        self,
        address: str,
        attach: Callable[[Link], tuple[Machine, Session]],
        tls: ssl.SSLContext | None,
        server_name: str | None,
    ) -> Link:
        """:raises TransportError: if no connection can be made"""
        ...


def open_driver() -> AbstractAsyncContextManager[Driver]:
    """The driver of the running event loop.

    :raises RuntimeError: if neither asyncio nor trio is running
    """
    import sniffio

    library = sniffio.current_async_library()
    if library == "asyncio":
        from bascule.net._asyncio import AsyncioDriver

        return AsyncioDriver()
    if library == "trio":
        from bascule.net._trio import TrioDriver

        return TrioDriver()
    message = f"bascule runs on asyncio and trio, not on {library}"
    raise RuntimeError(message)
