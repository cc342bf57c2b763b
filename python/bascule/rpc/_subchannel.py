"""One endpoint of a channel: its connection, and the calls on it."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from bascule import _core
from bascule.errors import ConfigurationError, TransportError
from bascule.net import parse_address
from bascule.net._user_timeout import give_up_after
from bascule.rpc._snapshot import ConnectivityState

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from bascule._core import CallTable, ClientConnection
    from bascule.discovery import Endpoint
    from bascule.net._link import Driver, Event, Future, Link, Machine, Session, Timer
    from bascule.rpc._keepalive import ConnectionSettings, KeepaliveSettings

__all__ = ["ConnectionBackoff"]

logger = logging.getLogger("bascule.rpc")

#: A connection that is lost sooner counts as a failed attempt, in seconds.
STABLE = 1.0


@dataclass(frozen=True, slots=True)
class ConnectionBackoff:
    """How attempts to connect to one endpoint follow each other, by gRPC's connection backoff document.

    :param initial: seconds from the start of the first attempt to the start of the second
    :param multiplier: growth of that from one attempt to the next
    :param jitter: its part that varies at random, either way
    :param most: seconds that it does not exceed but for the jitter
    :param connect_timeout: seconds after which an attempt has failed
    :raises ConfigurationError: if a value cannot work
    """

    initial: float = 1.0
    multiplier: float = 1.6
    jitter: float = 0.2
    most: float = 120.0
    connect_timeout: float = 20.0

    def __post_init__(self) -> None:
        values = (self.initial, self.most, self.connect_timeout, self.multiplier)
        well = all(0 < each < float("inf") for each in values)
        if not (well and self.multiplier >= 1 and 0 <= self.jitter < 1):
            message = (
                f"{self}: times must be above 0, multiplier from 1 and jitter from 0 to below 1"
            )
            raise ConfigurationError(message)

    def after(self, attempts: int) -> float:
        """Seconds from the start of the last of so many failed attempts to the start of the next."""
        growth = self.multiplier ** min(attempts - 1, 64)
        delay = min(self.initial * growth, self.most)
        return delay * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311


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

    def begun(self, deadline_ns: int | None, of_scope: bool) -> None:
        """A call has been started: send it, with others that begin in the same turn, and see to its deadline."""
        if len(self.replies) == 1:
            self.link.flush_now()
        else:
            self.link.flush_some()
        if (
            deadline_ns is not None
            and not of_scope
            and (self._timer is None or deadline_ns < self._timer_at)
        ):
            self.arm(deadline_ns)

    def arm(self, deadline_ns: int) -> None:
        """See to it that a call ends at its deadline."""
        if self._timer is None or deadline_ns < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline_ns
            self._timer = self.driver.call_at(deadline_ns, self._expire)

    def watch(self) -> None:
        """See to it that the machine is ticked when it has to be."""
        following = self.machine.next_timeout()
        if following is not None:
            self.arm(following)

    def _expire(self) -> None:
        self._timer = None
        self.handle_events(self.machine.tick(self.driver.now_ns()))
        self.link.flush_soon()
        self.watch()


@dataclass(frozen=True, slots=True)
class Terms:
    """What all connections of a channel have in common."""

    driver: Driver
    calls: CallTable
    tls: ssl.SSLContext | None
    server_name: str | None
    settings: ConnectionSettings
    backoff: ConnectionBackoff

    async def connect(self, endpoint: Endpoint, keepalive: KeepaliveSettings | None) -> Connection:
        """Make a connection.

        :raises TransportError: if that fails
        """
        made: list[Connection] = []
        address = endpoint.address
        authority = endpoint.authority or address
        server_name = self.server_name
        if server_name is not None:
            authority = server_name
        elif endpoint.authority is not None and self.tls is not None:
            server_name = _host(endpoint.authority)
        if authority.startswith(("unix:", "memory:")):
            authority = "localhost"
        machine = _core.ClientConnection(
            self.calls,
            authority,
            self.driver.now_ns(),
            tls=self.tls is not None,
            user_agent=self.settings.user_agent,
            max_message=self.settings.max_message,
            compression=self.settings.compression,
            keepalive=None if keepalive is None else keepalive.to_core(),
        )

        def attach(link: Link) -> tuple[Machine, Session]:
            made.append(Connection(self.driver, link, machine))
            return machine, made[0]

        tls = None if address.startswith("memory:") else self.tls
        await self.driver.connect(address, attach, tls, server_name)
        if keepalive is not None:
            give_up_after(made[0].link, keepalive.timeout)
        made[0].watch()
        return made[0]


def _host(authority: str) -> str:
    try:
        return parse_address(authority).host
    except ConfigurationError:  # a name without port
        return authority


class Subchannel:
    """One endpoint: connects to it while it is wanted, again and again until it is stopped.

    :param eager: be wanted from the start, and reconnect when a connection is lost; otherwise
        someone calls :meth:`connect`
    :param health: ask for this service's health before taking calls (gRFC A17); None takes them
    :param changed: called when the state or the connection has changed
    :ivar connection: None while there is none that takes calls
    :ivar failure: why no calls are taken; None until the first attempt has failed, and from the
        time that one has succeeded
    """

    def __init__(
        self,
        terms: Terms,
        endpoint: Endpoint,
        changed: Callable[[Subchannel], None],
        *,
        eager: bool = True,
        health: str | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.connection: Connection | None = None
        self.state = ConnectivityState.IDLE
        self.failure: str | None = None
        self.id = -1
        self._terms = terms
        # The terms' own, but slower once the server wants that.
        self._keepalive = terms.settings.keepalive
        self._changed = changed
        self._eager = self._wanted = eager
        self._health = health
        self._failed = 0  # attempts in a row
        self._dismissed = 0  # young connections in a row that the server asked to leave
        self._woken = anyio.Event()
        self._scope = anyio.CancelScope()
        self._attempt = anyio.CancelScope()

    def connect(self) -> None:
        """See to it that there is a connection, now or when the backoff is over."""
        if not self._wanted:
            self._wanted = True
            self._woken.set()

    def release(self) -> None:
        """Give up the attempt or the connection; calls in progress may end."""
        self._wanted = False
        self._attempt.cancel()

    def reset_backoff(self) -> None:
        """Try again now if it is waiting to, and as if for the first time."""
        self._failed = self._dismissed = 0
        self._woken.set()

    def stop(self) -> None:
        """Take no new calls; those in progress may end."""
        self.state = ConnectivityState.SHUTDOWN
        self._scope.cancel()

    async def run(self) -> None:
        """Connect while wanted, until stopped."""
        with self._scope:
            while True:
                while not self._wanted:
                    self.failure = None
                    self._become(ConnectivityState.IDLE)
                    await self._wait()
                with anyio.CancelScope() as self._attempt:
                    await self._try()

    async def _try(self) -> None:
        """One attempt, the connection if it succeeds, and the pause until the next."""
        begun = anyio.current_time()
        self._become(ConnectivityState.CONNECTING)
        failure = await self._keep_connected()
        self._wanted = self._eager or failure is not None
        pause = 0.0
        if failure is not None:
            self._failed += 1
            self.failure = failure
            logger.debug("%s", failure)
            self._become(ConnectivityState.TRANSIENT_FAILURE)
            pause = begun + self._terms.backoff.after(self._failed) - anyio.current_time()
        elif self._dismissed > 1:
            # Not a failure, but no reason to go round and round either.
            self._become(ConnectivityState.IDLE)
            pause = self._terms.backoff.after(self._dismissed - 1)
        if pause > 0:
            with anyio.move_on_after(pause):
                await self._wait()

    async def _wait(self) -> None:
        if self._woken.is_set():
            self._woken = anyio.Event()
        await self._woken.wait()

    def _become(self, state: ConnectivityState) -> None:
        if self.state is not ConnectivityState.SHUTDOWN:
            self.state = state
        self._changed(self)

    async def _keep_connected(self) -> str | None:
        """Connect and wait for the end: why it failed; None if the connection has served, or its
        server has asked for another one.
        """
        address, limit = self.endpoint.address, self._terms.backoff.connect_timeout
        try:
            with anyio.fail_after(limit):
                connection = await self._terms.connect(self.endpoint, self._keepalive)
        except TimeoutError as error:
            return str(error) or f"cannot connect to {address}: no connection within {limit:g} s"
        except TransportError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - an address is data, whatever is wrong with it
            return f"cannot connect to {address}: {error}"
        made = anyio.current_time()
        connection.on_draining = self._withdraw
        try:
            if self._health is None:
                self._offer(connection)
                await connection.draining
            else:
                await self._follow_health(connection, self._health)
        finally:
            self._withdraw()
            # Calls in progress may end on a connection that takes no new ones.
            connection.machine.shutdown()
            connection.link.flush_soon()
        if self._keepalive is not None and connection.machine.pings_refused:
            self._keepalive = self._keepalive.slower()
            text = "%s: the server wants fewer pings: after %g s from now on"
            logger.info(text, address, self._keepalive.time)
        if anyio.current_time() - made >= STABLE:
            self._failed = self._dismissed = 0
        elif connection.error is not None:
            return f"{address}: the connection was lost right after it was made: {connection.error}"
        else:
            # A GOAWAY is no failure to connect: a server that restarts is well.
            self._dismissed += 1
        return None

    async def _follow_health(self, connection: Connection, service: str) -> None:
        # Only for those who ask for it: google protobuf takes longer to import than all of bascule.
        from bascule.rpc._health_watch import watch_health

        def tell(problem: str | None) -> None:
            if problem is None:
                self._offer(connection)
                return
            self.failure = f"{self.endpoint.address}: {problem}"
            if self.connection is not None:
                self._withdraw()
            self._become(ConnectivityState.TRANSIENT_FAILURE)

        async with anyio.create_task_group() as group:
            group.start_soon(watch_health, connection, service, self._terms, tell)
            await connection.draining
            group.cancel_scope.cancel()

    def _offer(self, connection: Connection) -> None:
        """Let calls use the connection."""
        self.failure = None
        if not connection.draining.done():
            self.connection = connection
            self._become(ConnectivityState.READY)

    def _withdraw(self) -> None:
        """Let no new call use the connection."""
        self.connection = None
        if self.state is ConnectivityState.READY:
            self._become(ConnectivityState.IDLE)
        else:
            self._changed(self)
