"""A network that fails on demand: between any two peers, in memory or by sockets."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from typing import TYPE_CHECKING, Self

from bascule.errors import TransportError
from bascule.net._link import open_driver

if TYPE_CHECKING:
    from types import TracebackType

    from bascule.net._link import Driver, Event, Link, Listener, Machine, Session, Timer

__all__ = ["FaultProxy"]

logger = logging.getLogger("bascule.testing")

#: Bytes that one direction of a connection holds before its sender has to wait.
HELD = 256 * 1024

#: Bytes of one flush.
FLUSH = 64 * 1024

_names = itertools.count(1)


class FaultProxy:
    """Passes bytes between clients and a target, and does so badly when told to.

    It knows nothing of HTTP/2, so both ends may be anything that talks by TCP, Unix sockets or
    bascule's own ``memory:`` addresses. What is set holds for both directions and all connections,
    at once.

    :param target: address to pass everything on to
    :param listen: address to accept at; by default one in memory if the target is, else any free port
    :ivar delay: seconds by which every byte is late; the order stays
    :ivar rate: bytes a second that a direction of a connection lets through; None for no limit
    :ivar refusing: whether new connections are closed as soon as they are made
    """

    def __init__(self, target: str, *, listen: str | None = None) -> None:
        self.delay = 0.0
        self.rate: float | None = None
        self.refusing = False
        #: Connections accepted so far.
        self.accepted = 0
        self._target = target
        if listen is None:
            memory = target.startswith("memory:")
            listen = f"memory:faults-{next(_names)}" if memory else "127.0.0.1:0"
        self._listen = listen
        self._ends: set[_End] = set()
        self._partitioned = False

    async def __aenter__(self) -> Self:
        self._manager = open_driver()
        self._driver: Driver = await self._manager.__aenter__()
        try:
            self._listener: Listener = await self._driver.listen(self._listen, self._accept, None)
        except BaseException as error:
            await self._manager.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._listener.close()
            self.reset()
        finally:
            await self._manager.__aexit__(exc_type, exc, traceback)

    @property
    def address(self) -> str:
        """Where clients should connect."""
        return self._listener.addresses[0]

    @property
    def connections(self) -> int:
        """Connections of clients that are open."""
        return sum(each.accepted for each in self._ends)

    @property
    def partitioned(self) -> bool:
        """Whether the two sides cannot reach each other now."""
        return self._partitioned

    def partition(self) -> None:
        """Let no byte through until :meth:`heal`. As with TCP, nothing is lost, and nobody is told."""
        self._partitioned = True

    def heal(self) -> None:
        """Pass on what was held, and go on without delay, limit, partition or refusal."""
        self._partitioned = False
        self.refusing = False
        self.delay, self.rate = 0.0, None
        for each in tuple(self._ends):
            each.hurry()

    def drop(self) -> None:
        """Lose everything from now on that the open connections carry, their ends included: as when
        a peer loses its power. Connections made later are well.
        """
        for each in self._ends:
            each.silent = True

    def reset(self) -> None:
        """Close the open connections at once, both ways, with what is on its way."""
        for each in tuple(self._ends):
            each.close()

    def _accept(self, link: Link) -> tuple[Machine, Session]:
        near, far = _End(self, self._driver), _End(self, self._driver)
        near.other, far.other = far, near
        near.accepted = True
        near.link = link
        self._ends.add(near)
        self.accepted += 1
        if self.refusing:
            near.refused = near.silent = True
        else:
            self._ends.add(far)
            self._driver.spawn(self._connect, near, far)
        return near, near

    async def _connect(self, near: _End, far: _End) -> None:
        def attach(link: Link) -> tuple[Machine, Session]:
            far.link = link
            return far, far

        try:
            await self._driver.connect(self._target, attach, None, None)
        except TransportError as error:
            logger.info("%s", error)
            near.close()
            self.forget(far)
            return
        if near not in self._ends:  # the client is gone already
            far.end()

    def forget(self, end: _End) -> None:
        """An end is closed."""
        self._ends.discard(end)


class _End:
    """One end of a proxied connection: the machine and the session of its link.

    What one end receives, the other sends.
    """

    other: _End
    link: Link | None = None
    #: Whether it is the client's.
    accepted = False
    #: Whether nothing that comes is passed on any more, and nothing is sent.
    silent = False
    #: Whether it is closed before anything is exchanged.
    refused = False
    #: Whether no more is to be sent than what is held.
    ended = False

    def __init__(self, proxy: FaultProxy, driver: Driver) -> None:
        self._proxy = proxy
        self._driver = driver
        #: What is to be sent, and when.
        self._held: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._free_ns = 0
        self._timer: Timer | None = None

    def put(self, data: bytes, now_ns: int) -> None:
        """Bytes to send, each in its time."""
        due_ns = now_ns + int(self._proxy.delay * 1e9)
        if self._held:
            due_ns = max(due_ns, self._held[-1][0])
        rate = self._proxy.rate
        if rate is not None:
            due_ns = self._free_ns = max(due_ns, self._free_ns) + int(len(data) / rate * 1e9)
        self._held.append((due_ns, data))
        self._size += len(data)
        self._wake()

    def end(self) -> None:
        """Nothing more will be put."""
        self.ended = True
        self.flush_soon()

    def hurry(self) -> None:
        """Send what is held now."""
        self._held = deque((0, data) for _, data in self._held)
        self._free_ns = 0
        self.flush_soon()

    def close(self) -> None:
        """Close the link with what is held."""
        self._held.clear()
        self._size = 0
        self.ended = True
        self.silent = False
        if self.link is not None:
            self.link.close()

    def flush_soon(self) -> None:
        """Send what is due, if there is a link yet."""
        if self.link is not None:
            self.link.flush_soon()

    def _wake(self) -> None:
        """Send what is due, and see to it that the rest is sent in its time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held and self._held[0][0] > self._driver.now_ns():
            self._timer = self._driver.call_at(self._held[0][0], self._wake)
        else:
            self.flush_soon()

    # What a link's machine has.

    def receive(self, data: bytes, now_ns: int) -> list[Event]:
        if not self.silent:
            self.other.put(data, now_ns)
        return []

    def receive_eof(self, now_ns: int) -> list[Event]:
        if not self.silent:
            self.other.end()
        return []

    def tick(self, now_ns: int) -> list[Event]:
        return []

    def flush(self) -> tuple[bytes | None, list[Event]]:
        if not self._due:
            return None, []
        now_ns = self._driver.now_ns()
        parts = []
        size = 0
        while self._held and self._held[0][0] <= now_ns and size < FLUSH:
            parts.append(self._held.popleft()[1])
            size += len(parts[-1])
        self._size -= size
        if self._held:
            self._wake()
        # Its reader may have waited for room here.
        self.other.flush_soon()
        return b"".join(parts), []

    def shutdown(self) -> None:
        self.end()

    @property
    def _due(self) -> bool:
        if self.silent or self._proxy.partitioned or not self._held:
            return False
        return self._held[0][0] <= self._driver.now_ns()

    @property
    def wants_read(self) -> bool:
        return self.other._size < HELD

    @property
    def wants_write(self) -> bool:
        return self._due

    @property
    def finished(self) -> bool:
        if self.silent or self._proxy.partitioned:
            return self.refused
        return self.ended and not self._held

    @property
    def in_flight(self) -> int:
        return 0

    # What a link's session has.

    def handle_events(self, events: list[Event]) -> None:
        pass

    def handle_lost(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._proxy.forget(self)
        if not self.silent:
            self.other.end()
