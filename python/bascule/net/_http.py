"""A server for whole HTTP requests, over HTTP/2 and HTTP/1.1."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from bascule import _core
from bascule.net._serving import Serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from types import TracebackType

    import anyio

    from bascule.net._link import Driver, Event, Link
    from bascule.net._tls import ServerTLS
    from bascule.observe import CertificateState, ServerCounts

    Handler = Callable[["HttpRequest"], Awaitable["HttpResponse"]]

__all__ = ["HttpLimits", "HttpRequest", "HttpResponse", "HttpServer"]

logger = logging.getLogger("bascule.net")

#: HTTP/2's RST_STREAM codes (RFC 9113, 7).
INTERNAL_ERROR = 2


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of each connection. Sizes are bytes, times are seconds.

    :param max_body: largest request body
    :param max_header_bytes: largest request head
    :param max_headers: most header fields in a request
    :param max_streams: requests at once on a connection
    :param header_timeout: from the first byte of a head to its last
    :param body_timeout: from the end of the head to the end of the body
    :param idle_timeout: without any request for this long, a connection is closed
    :param max_connections: connections at once; more are closed as soon as they are accepted
    """

    max_body: int = 1024 * 1024
    max_header_bytes: int = 32 * 1024
    max_headers: int = 100
    max_streams: int = 100
    header_timeout: float = 10.0
    body_timeout: float = 15.0
    idle_timeout: float = 3600.0
    max_connections: int = 10_000


@dataclass(slots=True)
class HttpRequest:
    """A request that is complete, or that has a problem and will not be.

    :ivar target: path and query as sent, not decoded
    :ivar headers: fields as sent, names in lower case
    :ivar peer: the client's address, ``host:port``
    :ivar problem: ``malformed``, ``body_too_large``, ``headers_too_large`` or ``timeout``
        if the engine could not take the request: answer 400, 413, 431 or 408
    """

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    peer: str
    scheme: str
    version: str
    problem: str | None = None


@dataclass(slots=True)
class HttpResponse:
    """An answer. ``content-length`` is added."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


class _Exchange:
    """One request until its answer: a job of the driver."""

    deadline = math.inf

    def __init__(self, session: _HttpSession, stream: int, request: HttpRequest) -> None:
        self._session = session
        self._stream = stream
        self._request = request
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False
        self._answered = False

    def cancel(self) -> None:
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def start(self, scope: anyio.CancelScope) -> Coroutine[Any, Any, None]:
        self._scope = scope
        if self._cancelled:
            scope.cancel()
        return self._answer()

    async def _answer(self) -> None:
        session = self._session
        answer = await session.server.handler(self._request)
        session.machine.respond_http(
            self._stream, answer.status, answer.headers, answer.body, session.driver.now_ns()
        )
        self._answered = True

    def end(self, error: Exception | None, returned: bool) -> None:
        self._scope = None
        session, machine, now_ns = self._session, self._session.machine, self._session.driver.now_ns
        if error is not None:
            method, target = self._request.method, self._request.target
            logger.error("handler of %s %s failed", method, target, exc_info=error)
            machine.respond_http(self._stream, 500, [], b"", now_ns())
        elif not self._answered:
            machine.reset(self._stream, INTERNAL_ERROR, now_ns())
        session.ended(self._stream)


class _HttpSession:
    def __init__(self, server: HttpServer, driver: Driver, link: Link) -> None:
        alpn = None if link.tls is None else link.tls.selected_alpn_protocol()
        self.machine = _core.ServerConnection(server.config, driver.now_ns(), alpn)
        self.link = link
        self.server = server
        self.driver = driver
        self._scheme = "http" if link.tls is None else "https"
        self._exchanges: dict[int, _Exchange] = {}
        self._lost = False

    def handle_events(self, events: list[Event]) -> None:
        for event in events:
            if event[0] == 5:
                _, stream, method, target, headers, body, problem, version = event
                request = HttpRequest(
                    method, target, headers, body, self.link.peer, self._scheme, version, problem
                )
                exchange = self._exchanges[stream] = _Exchange(self, stream, request)
                self.driver.spawn_job(exchange)
            elif event[0] == 4 and (running := self._exchanges.get(event[1])) is not None:
                running.cancel()

    def handle_lost(self) -> None:
        self._lost = True
        self.cancel_calls()
        if not self._exchanges:
            self.server.serving.lost(self)

    def cancel_calls(self) -> None:
        for exchange in self._exchanges.values():
            exchange.cancel()

    def ended(self, stream: int) -> None:
        del self._exchanges[stream]
        self.link.flush_soon()
        if self._lost and not self._exchanges:
            self.server.serving.lost(self)


class HttpServer:
    """Answers HTTP requests with a handler, on asyncio and trio.

    :param handler: called in a task of its own for each request; it is cancelled
        when the client gives up. An exception that escapes it is logged and
        answered with a bare 500.
    :param listen: address or addresses: ``host:port``, ``unix:/path``, ``memory:name``
    :param tls: serve TLS, with HTTP/2 and HTTP/1.1 by ALPN
    :param limits: bounds of each connection
    :param grace: seconds that requests in progress get when the server ends
    :raises TransportError: on entering, if an address cannot be bound
    """

    def __init__(
        self,
        handler: Handler,
        *,
        listen: str | Sequence[str],
        tls: ServerTLS | None = None,
        limits: HttpLimits | None = None,
        grace: float = 30.0,
    ) -> None:
        limits = limits or HttpLimits()
        self.handler = handler
        self.config = _core.ServerConfig(
            max_streams=limits.max_streams,
            max_header_bytes=limits.max_header_bytes,
            http_max_body=limits.max_body,
            http_max_headers=limits.max_headers,
            http_header_timeout_ns=int(limits.header_timeout * 1e9),
            http_body_timeout_ns=int(limits.body_timeout * 1e9),
            idle_timeout_ns=int(limits.idle_timeout * 1e9),
        )
        context = None if tls is None else tls.context(("h2", "http/1.1"))
        addresses = (listen,) if isinstance(listen, str) else tuple(listen)

        def attach(driver: Driver, link: Link) -> _HttpSession:
            return _HttpSession(self, driver, link)

        self.serving = Serving(attach, addresses, context, grace, limits.max_connections)

    async def __aenter__(self) -> Self:
        await self.serving.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.serving.__aexit__(exc_type, exc, traceback)

    @property
    def addresses(self) -> tuple[str, ...]:
        """What was bound, with real ports."""
        return self.serving.addresses

    #: It serves no gRPC: see :meth:`bascule.observe.Metrics.add_server`.
    stats = None

    def counts(self) -> ServerCounts:
        """What its listeners do and have done, for metrics."""
        return self.serving.counts(self.config, {})

    def certificates(self, name: str) -> list[CertificateState]:
        """The certificates that it shows to clients, for metrics: those of ``name``."""
        return self.serving.certificates(name)

    async def drain(self) -> None:
        """Take no new requests and wait for those in progress, at most the grace."""
        await self.serving.drain()
