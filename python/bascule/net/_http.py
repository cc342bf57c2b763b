"""A server for whole HTTP requests, over HTTP/2 and HTTP/1.1."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import anyio

from bascule import _core
from bascule.net._serving import Serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from bascule.net._link import Driver, Event, Link
    from bascule.net._tls import ServerTLS

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
    """

    max_body: int = 1024 * 1024
    max_header_bytes: int = 32 * 1024
    max_headers: int = 100
    max_streams: int = 100
    header_timeout: float = 10.0
    body_timeout: float = 15.0
    idle_timeout: float = 3600.0


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


class _HttpSession:
    def __init__(self, server: HttpServer, driver: Driver, link: Link) -> None:
        alpn = None if link.tls is None else link.tls.selected_alpn_protocol()
        self.machine = _core.ServerConnection(server.config, driver.now_ns(), alpn)
        self.link = link
        self._server = server
        self._driver = driver
        self._scheme = "http" if link.tls is None else "https"
        self._scopes: dict[int, anyio.CancelScope] = {}
        self._ended = False

    def handle_events(self, events: list[Event]) -> None:
        for event in events:
            if event[0] == 5:
                _, stream, method, target, headers, body, problem, version = event
                request = HttpRequest(
                    method, target, headers, body, self.link.peer, self._scheme, version, problem
                )
                scope = anyio.CancelScope()
                self._scopes[stream] = scope
                self._driver.spawn(self._handle, stream, scope, request)
            elif event[0] == 4 and (running := self._scopes.get(event[1])) is not None:
                running.cancel()

    def handle_lost(self) -> None:
        self._ended = True
        self.cancel_calls()
        if not self._scopes:
            self._server._serving.lost(self)

    def cancel_calls(self) -> None:
        for scope in self._scopes.values():
            scope.cancel()

    async def _handle(self, stream: int, scope: anyio.CancelScope, request: HttpRequest) -> None:
        machine, now_ns = self.machine, self._driver.now_ns
        answered = False
        try:
            with scope:
                response = await self._server.handler(request)
                machine.respond_http(
                    stream, response.status, response.headers, response.body, now_ns()
                )
                answered = True
        except Exception:
            # Caught outside of the scope, which takes cancellations out of groups.
            logger.exception("handler of %s %s failed", request.method, request.target)
            machine.respond_http(stream, 500, [], b"", now_ns())
            answered = True
        finally:
            del self._scopes[stream]
            if not answered:
                machine.reset(stream, INTERNAL_ERROR, now_ns())
            self.link.flush_soon()
            if self._ended and not self._scopes:
                self._server._serving.lost(self)


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

        self._serving = Serving(attach, addresses, context, grace)

    async def __aenter__(self) -> Self:
        await self._serving.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._serving.__aexit__(exc_type, exc, traceback)

    @property
    def addresses(self) -> tuple[str, ...]:
        """What was bound, with real ports."""
        return self._serving.addresses

    async def drain(self) -> None:
        """Take no new requests and wait for those in progress, at most the grace."""
        await self._serving.drain()
