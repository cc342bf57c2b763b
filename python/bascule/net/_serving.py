"""Listeners, connections and their drain: what every server has in common."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol, Self

import anyio

from bascule.errors import ClosedError
from bascule.net._link import Driver, Event, Link, Listener, Machine, Session, open_driver
from bascule.net._tls import shown_certificates
from bascule.observe import ServerCounts

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from bascule._core import ServerConfig
    from bascule.observe import CertificateState

logger = logging.getLogger("bascule.net")

#: How often idle and handshake limits are looked at, in seconds.
TICK = 1.0

#: After the grace has passed, how long a cancelled handler may clean up, in seconds.
CLEAN_UP = 5.0

#: Ticks after which a peer that takes nothing of what is sent is dropped.
BLOCKED_TICKS = 60


class ServerSession(Session, Protocol):
    """A session that can be drained."""

    @property
    def machine(self) -> Machine: ...
    @property
    def link(self) -> Link: ...
    def cancel_calls(self) -> None:
        """Cancel every handler that still runs."""
        ...


class _Refused:
    """The machine and the session of a connection that is one too many: it is over, and knows nothing."""

    wants_read = False
    wants_write = True
    finished = True
    in_flight = 0

    def receive(self, data: bytes, now_ns: int) -> list[Event]:
        return []

    def receive_eof(self, now_ns: int) -> list[Event]:
        return []

    def tick(self, now_ns: int) -> list[Event]:
        return []

    def flush(self) -> tuple[bytes | None, list[Event]]:
        return None, []

    def shutdown(self) -> None:
        pass

    def handle_events(self, events: list[Event]) -> None:
        pass

    def handle_lost(self) -> None:
        pass


_REFUSED = _Refused()


class Serving:
    """The connections of one server.

    :param attach: makes the machine and the session of a link that was accepted
    :param listen: addresses to bind
    :param tls: for every TCP listener
    :param grace: seconds that calls in progress get when the server ends
    :param max_connections: connections at once; more are closed as soon as they are accepted
    """

    def __init__(
        self,
        attach: Callable[[Driver, Link], ServerSession],
        listen: Sequence[str],
        tls: ssl.SSLContext | None,
        grace: float,
        max_connections: int,
    ) -> None:
        self._attach = attach
        self._listen = listen
        self._tls = tls
        self._grace = grace
        self.max_connections = max_connections
        #: Connections that were closed because there were too many.
        self.refused = 0
        #: Connections that were taken so far.
        self.accepted = 0
        self._sessions: set[ServerSession] = set()
        self._listeners: list[Listener] = []
        self._all_gone: anyio.Event | None = None
        self._draining = False
        self._entered = False

    async def __aenter__(self) -> Self:
        if self._entered:
            message = "a server serves once: make another one"
            raise ClosedError(message)
        self._entered = True
        self._manager = open_driver()
        self._driver = await self._manager.__aenter__()
        try:
            for address in self._listen:
                tls = None if address.startswith("memory:") else self._tls
                self._listeners.append(await self._driver.listen(address, self._accept, tls))
        except BaseException as error:
            await self._close_listeners()
            await self._manager.__aexit__(type(error), error, error.__traceback__)
            raise
        self._driver.spawn(self._tick)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            try:
                if exc is None:
                    await self.drain()
            finally:
                await self._end()
        finally:
            await self._manager.__aexit__(exc_type, exc, traceback)

    def now_ns(self) -> int:
        """The clock of its connections."""
        return self._driver.now_ns()

    @property
    def addresses(self) -> tuple[str, ...]:
        """What was bound, with real ports."""
        return tuple(each for listener in self._listeners for each in listener.addresses)

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._sessions)

    def counts(self, config: ServerConfig, limits: Mapping[str, float | None]) -> ServerCounts:
        """What it does and has done.

        :param limits: beside the one of connections; None where there is none
        """
        refused, floods = config.refusals()
        known = {name: value for name, value in limits.items() if value is not None}
        return ServerCounts(
            connections=len(self._sessions),
            in_progress=sum(session.machine.in_flight for session in self._sessions),
            accepted=self.accepted,
            refused_connections=self.refused,
            incomplete=config.incomplete,
            refused=dict(refused),
            floods={what.replace(" ", "_"): count for what, count in floods},
            limits={"connections": self.max_connections, **known},
        )

    def certificates(self, name: str) -> list[CertificateState]:
        """What its listeners show to clients, as the certificates of ``name``."""
        return shown_certificates(self._tls, name)

    @property
    def draining(self) -> bool:
        """Whether new connections and calls are refused."""
        return self._draining

    async def drain(self) -> None:
        """Accept no more, tell every peer (GOAWAY), and wait for the calls in
        progress, at most the grace; then cancel the rest. Cancelling this ends the wait.
        """
        await self._refuse()
        with anyio.move_on_after(self._grace):
            await self._wait_gone()

    def lost(self, session: ServerSession) -> None:
        """To be called by a session when its link is gone."""
        self._sessions.discard(session)
        if not self._sessions and self._all_gone is not None:
            self._all_gone.set()

    def _accept(self, link: Link) -> tuple[Machine, Session]:
        if len(self._sessions) >= self.max_connections:
            self.refused += 1
            return _REFUSED, _REFUSED
        session = self._attach(self._driver, link)
        self._sessions.add(session)
        self.accepted += 1
        if self._draining:
            session.machine.shutdown()
        return session.machine, session

    async def _refuse(self) -> None:
        self._draining = True
        await self._close_listeners()
        for session in tuple(self._sessions):
            session.machine.shutdown()
            session.link.flush_soon()

    async def _end(self) -> None:
        await self._refuse()
        for session in tuple(self._sessions):
            session.cancel_calls()
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLEAN_UP):
            await self._wait_gone()

    async def _close_listeners(self) -> None:
        for listener in self._listeners:
            await listener.close()

    async def _wait_gone(self) -> None:
        while self._sessions:
            # Shared: several tasks may drain.
            if self._all_gone is None or self._all_gone.is_set():
                self._all_gone = anyio.Event()
            await self._all_gone.wait()

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(TICK)
            now_ns = self._driver.now_ns()
            for session in tuple(self._sessions):
                events: list[Event] = session.machine.tick(now_ns)
                if events:
                    session.handle_events(events)
                link = session.link
                link.flush_soon()
                if link.blocked:
                    link.blocked += 1
                    if link.blocked > BLOCKED_TICKS:
                        logger.info("connection from %s dropped: it does not read", link.peer)
                        link.close()
