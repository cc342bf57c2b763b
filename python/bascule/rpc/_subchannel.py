"""One endpoint of a channel: its connection, and the calls on it."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from bascule import _core
from bascule.errors import TransportError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from bascule._core import CallTable, ClientConnection
    from bascule.discovery import Endpoint
    from bascule.net._link import Driver, Event, Future, Link, Machine, Session, Timer
    from bascule.rpc._keepalive import ConnectionSettings

logger = logging.getLogger("bascule.rpc")

#: gRPC's connection backoff document: first delay, growth, jitter and most, in seconds.
BACKOFF_FIRST, BACKOFF_GROWTH, BACKOFF_JITTER, BACKOFF_MOST = 1.0, 1.6, 0.2, 120.0

#: An attempt to connect that takes longer has failed, in seconds.
CONNECT_TIMEOUT = 20.0

#: A connection that is lost sooner counts as a failed attempt, in seconds.
STABLE = 1.0


class StreamCall(Protocol):
    """A streaming call that a connection reports to."""

    def handle_headers(self, headers: Any) -> None: ...
    def handle_message(self, data: bytes) -> None: ...
    def handle_writable(self) -> None: ...
    def handle_end(self, event: Event) -> None: ...


class Connection:
    """A client connection that is up: the session of its link."""

    def __init__(
        self,
        driver: Driver,
        link: Link,
        machine: ClientConnection,
    ) -> None:
        self.driver = driver
        self.link = link
        self.machine = machine
        #: Futures of calls whose reply is one message.
        self.replies: dict[int, Future[Event]] = {}
        #: Calls that stream.
        self.streams: dict[int, StreamCall] = {}
        self.draining = driver.future()
        self.lost = driver.future()
        #: Called at once when no new call may start here: what waits for `draining` runs too late
        #: for the calls of the same turn.
        self.on_draining: Callable[[], None] | None = None
        #: Whether it is over, and why if not by agreement.
        self.closed = False
        self.error: str | None = None
        self._timer: Timer | None = None
        self._timer_at = 0

    def handle_events(self, events: list[Event]) -> None:
        """React to what the machine reports; kinds are those of ``_core.ClientConnection``."""
        for event in events:
            kind = event[0]
            if kind == 0:
                reply = self.replies.pop(event[1], None)
                if reply is not None and not reply.done():
                    reply.set_result(event)
            elif kind == 5:
                self.drain()
            elif kind == 6:
                self.closed, self.error = True, event[1]
            elif (stream := self.streams.get(event[1])) is None:
                continue
            elif kind == 1:
                stream.handle_message(event[2])
            elif kind == 2:
                stream.handle_headers(event[2])
            elif kind == 3:
                stream.handle_writable()
            else:
                del self.streams[event[1]]
                stream.handle_end(event)

    def handle_lost(self) -> None:
        """The socket is gone; the machine has ended every call."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.drain()
        if not self.lost.done():
            self.lost.set_result(None)

    def drain(self) -> None:
        """Take no new calls."""
        if not self.draining.done():
            self.draining.set_result(None)
            if self.on_draining is not None:
                self.on_draining()

    def arm(self, deadline_ns: int) -> None:
        """See to it that a call ends at its deadline."""
        if self._timer is None or deadline_ns < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline_ns
            self._timer = self.driver.call_at(deadline_ns, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self.handle_events(self.machine.tick(self.driver.now_ns()))
        self.link.flush_soon()
        following = self.machine.next_timeout()
        if following is not None:
            self.arm(following)


class Subchannel:
    """Keeps one endpoint connected until it is stopped.

    :ivar connection: None while there is none that takes calls
    :ivar failure: why the last attempt failed; None while connecting or connected
    """

    def __init__(
        self,
        driver: Driver,
        endpoint: Endpoint,
        calls: CallTable,
        tls: ssl.SSLContext | None,
        server_name: str | None,
        settings: ConnectionSettings,
        changed: Callable[[Subchannel], None],
    ) -> None:
        self.endpoint = endpoint
        self.connection: Connection | None = None
        self.failure: str | None = None
        self.id = -1
        self._driver = driver
        self._calls = calls
        self._tls = tls
        self._server_name = server_name
        self._settings = settings
        self._changed = changed
        self._scope = anyio.CancelScope()
        # Whether the last connection was lost right after it was made.
        self._hasty = False

    async def run(self) -> None:
        """Connect, and again when the connection is lost, until stopped."""
        delay = 0.0
        with self._scope:
            while True:
                failure = await self._keep_connected()
                if failure is None:
                    delay = 0.0
                    continue
                self.failure = failure
                logger.debug("%s: %s", self.endpoint.address, failure)
                self._changed(self)
                delay = min(max(delay * BACKOFF_GROWTH, BACKOFF_FIRST), BACKOFF_MOST)
                jitter = random.uniform(-BACKOFF_JITTER, BACKOFF_JITTER)  # noqa: S311
                await anyio.sleep(delay * (1 + jitter))

    async def _keep_connected(self) -> str | None:
        """Connect and wait for the end. Why to pause before the next attempt; None if
        the connection has served, or its server has asked for another one.
        """
        try:
            with anyio.fail_after(CONNECT_TIMEOUT):
                connection = await self._connect()
        except TimeoutError as error:
            return str(error) or f"no connection within {CONNECT_TIMEOUT:g} s"
        except TransportError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - an address is data, whatever is wrong with it
            return f"cannot connect to {self.endpoint.address}: {error}"
        made = anyio.current_time()
        self.failure = None
        connection.on_draining = self._withdraw
        if not connection.draining.done():
            self.connection = connection
            self._changed(self)
        try:
            await connection.draining
        finally:
            self._withdraw()
            # Calls in progress may end on a connection that takes no new ones.
            connection.machine.shutdown()
            connection.link.flush_soon()
        again = self._hasty
        self._hasty = connection.closed and anyio.current_time() - made < STABLE
        # A server may ask for another connection at once, but not for one after the other.
        if self._hasty and (again or connection.error is not None):
            reason = connection.error or "the server asks for another one, again and again"
            return f"{self.endpoint.address}: the connection was lost right after it was made: {reason}"
        return None

    def _withdraw(self) -> None:
        self.connection = None
        self._changed(self)

    def stop(self) -> None:
        """Take no new calls; those in progress may end."""
        self._scope.cancel()

    async def _connect(self) -> Connection:
        made: list[Connection] = []

        address = self.endpoint.address
        authority = self._server_name or address
        if authority.startswith(("unix:", "memory:")):
            authority = "localhost"
        machine = _core.ClientConnection(
            self._calls,
            authority,
            self._driver.now_ns(),
            tls=self._tls is not None,
            user_agent="grpc-python-bascule/0.1.0",
            max_message=self._settings.max_message,
            compression=self._settings.compression,
        )

        def attach(link: Link) -> tuple[Machine, Session]:
            made.append(Connection(self._driver, link, machine))
            return machine, made[0]

        tls = None if address.startswith("memory:") else self._tls
        await self._driver.connect(address, attach, tls, self._server_name)
        return made[0]
