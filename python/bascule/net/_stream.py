"""A link over any pair of async ``receive`` and ``send`` functions.

Serves trio's sockets, TLS where the loop has no protocol for it, and the
in-memory pairs. A reader task and a writer task a link; the writer is parked
on a future while there is nothing to send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from bascule.net._link import (
    FLUSH_EVERY,
    FLUSH_LEAST,
    FULL_FLUSH,
    FULL_READ,
    LINGER,
    AnySocket,
    Driver,
    Future,
    Link,
    Machine,
    Session,
    reading,
)
from bascule.net._malloc import keep_freed_memory

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable


class StreamLink:
    """Feeds a machine from ``receive``.

    Empty bytes are the end; so is any of the exceptions in ``lost``.
    """

    def __init__(
        self,
        driver: Driver,
        peer: str,
        receive: Callable[[], Awaitable[bytes]],
        send: Callable[[bytes], Awaitable[None]],
        close: Callable[[], None],
        lost: tuple[type[Exception], ...],
        tls: ssl.SSLObject | None = None,
        send_now: Callable[[bytes], int] | None = None,
        send_eof: Callable[[], None] | None = None,
    ) -> None:
        self.peer = peer
        self.tls = tls
        self.sock: AnySocket | None = None
        self._driver = driver
        self._receive = receive
        self._send = send
        self._close = close
        self._lost = lost
        self.blocked = 0
        self._send_now = send_now
        self._send_eof = send_eof
        self._ended: Future[None] = driver.future()
        self._left = b""
        self._unsent = 0
        self._alone = False
        self._closed = False
        self._dirty = False
        self._parked: Future[None] | None = None
        self._readable: Future[None] | None = None

    def start(self, attach: Callable[[Link], tuple[Machine, Session]]) -> None:
        """Attach the machine and start both tasks."""
        self.machine, self._session = attach(self)
        self._driver.spawn(self._read)
        self._driver.spawn(self._write)

    def flush_soon(self) -> None:
        self._dirty = True
        parked = self._parked
        if parked is not None:
            self._parked = None
            if not parked.done():
                parked.set_result(None)

    def flush_some(self) -> None:
        self._unsent += 1
        self._flush_if(self._unsent >= FLUSH_EVERY)

    def flush_part(self, expected: int) -> None:
        self._unsent = unsent = self._unsent + 1
        enough = unsent >= FLUSH_LEAST and (unsent >= expected or unsent >= FLUSH_EVERY)
        self._flush_if(enough and self._alone)

    def _flush_if(self, enough: bool) -> None:
        send_now = self._send_now
        # While the writer is at it, nothing may overtake what it sends.
        busy = not enough or self._left or self.blocked or self._closed
        if busy or send_now is None:
            self.flush_soon()
        else:
            self._flush(send_now)

    def flush_now(self) -> None:
        send_now = self._send_now
        if send_now is None or self._parked is None or self._closed:
            self.flush_soon()
            return
        self._flush(send_now)

    def _flush(self, send_now: Callable[[bytes], int]) -> None:
        """Send before returning, while the writer sends nothing itself; leave it what the socket does not take."""
        self._unsent = 0
        data, events = self.machine.flush()
        if data:
            self._left = data[send_now(data) :]
        if events:
            self._session.handle_events(events)
        if self._left or self.machine.wants_write:
            self.flush_soon()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._close()
            self._session.handle_events(self.machine.receive_eof(self._driver.now_ns()))
            self._session.handle_lost()
            self.flush_soon()
            self._resume_reading()

    async def _read(self) -> None:
        machine, session, now_ns = self.machine, self._session, self._driver.now_ns
        receive: Any = self._receive
        try:
            while not self._closed:
                data = await receive()
                if not data:
                    break
                if len(data) >= FULL_READ:
                    keep_freed_memory()
                self._alone = reading.alone(self)
                events = machine.receive(data, now_ns())
                if events:
                    session.handle_events(events)
                if machine.wants_write:
                    self.flush_soon()
                # What is read after the end, before the peer has taken that, is passed over.
                if not machine.wants_read or (machine.finished and self.blocked):
                    self._readable = self._driver.future()
                    await self._readable
        except self._lost:
            pass
        finally:
            if not self._ended.done():
                self._ended.set_result(None)
            if not self._closed:
                session.handle_events(machine.receive_eof(now_ns()))
                self.flush_soon()

    async def _write(self) -> None:
        machine, session = self.machine, self._session
        try:
            while not self._closed:
                self._dirty = False
                self._unsent = 0
                if self._left:
                    left, self._left = self._left, b""
                    self.blocked = 1
                    await self._send(left)
                    self.blocked = 0
                data, events = machine.flush()
                if events:
                    session.handle_events(events)
                if data:
                    if len(data) >= FULL_FLUSH:
                        keep_freed_memory()
                    self.blocked = 1
                    await self._send(data)
                    self.blocked = 0
                self._resume_reading()
                if machine.finished:
                    if self._send_eof is not None and not self._ended.done():
                        self._send_eof()
                        with anyio.move_on_after(LINGER):
                            await self._ended
                    break
                if not self._dirty and not (data and len(data) >= FULL_FLUSH):
                    self._parked = self._driver.future()
                    await self._parked
        except self._lost:
            pass
        finally:
            self.close()

    def _resume_reading(self) -> None:
        readable = self._readable
        if readable is not None and (self._closed or self.machine.wants_read):
            self._readable = None
            if not readable.done():
                readable.set_result(None)
