"""The gRPC server."""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import anyio

from bascule import _core
from bascule.errors import ConfigurationError
from bascule.net._serving import Serving
from bascule.observe import current_tracer
from bascule.rpc._admission import Admission
from bascule.rpc._binding import Binding
from bascule.rpc._compression import require_compression
from bascule.rpc._keepalive import KeepaliveSettings, nanoseconds
from bascule.rpc._server_call import ServerSession
from bascule.rpc._tracing import ServerTracing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from bascule._core import CallTable
    from bascule.net import ServerTLS
    from bascule.observe import CertificateState, ServerCounts
    from bascule.resilience import ConcurrencyLimit
    from bascule.rpc._binding import Servable
    from bascule.rpc._context import ServerInterceptor
    from bascule.rpc._web import WebSettings

__all__ = ["Server", "ServerLimits"]


#: Far less often than a connection's greatest age: for those who have none.
_KEEPALIVE = KeepaliveSettings(7200.0, 20.0, without_calls=True)


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds of each connection, and of all. Sizes are bytes, times are seconds.

    What a peer may do for nothing besides (floods of every kind of frame, resets) is bounded
    by fixed limits: beyond them its connection ends by ``ENHANCE_YOUR_CALM``.

    :param max_streams: calls at once; a handler counts until it ends
    :param max_message: largest message that is received, after decompression
    :param max_send_message: largest that is sent; ``max_message`` if None
    :param max_header_bytes: largest header list
    :param idle_timeout: without any call for this long, a connection is closed
    :param handshake_timeout: until HTTP/2's preface has come, and for each head of a request
    :param stream_idle_timeout: a streaming request that has not ended, and on which nothing
        came or went for this long, is ended; ``math.inf`` lets it wait
    :param blocked_timeout: a reply that the peer has no room for, all this long, is reset
    :param max_connections: connections at once; more are closed as soon as they are accepted
    :param max_calls: calls at once over all connections; more are refused before their handler
        starts, by RESOURCE_EXHAUSTED and a time to come back (``grpc-retry-pushback-ms``). A health
        check (not a watch) always finds room
    :param concurrency: the same for unary calls, but by a number that is learned:
        :class:`bascule.resilience.Gradient2` or ``Aimd``. Health checks are never refused by it
    :param shed_late: whether a unary call is refused, by DEADLINE_EXCEEDED, if its deadline leaves
        less time than the shortest call of its method took within the last 10 to 20 seconds
    :param keepalive: pings that find dead clients; None for none. Its timeout is also how long the
        system waits for an acknowledgement of what was sent (TCP_USER_TIMEOUT, on Linux)
    :param min_ping_interval: a client that pings more often, three times, is cut off; what it is
        sent makes its pings forgiven
    :param pings_without_calls: whether that interval holds for a client without calls too;
        otherwise it may ping every two hours
    :param max_connection_age: a connection takes no new calls from then on, give or take a tenth;
        clients make another one. ``math.inf`` for no limit
    :param max_connection_age_grace: its calls then have so long to end before they are cancelled
    :param max_incomplete: bytes of requests that are not whole yet, held by a connection. Beyond
        half of it, only the oldest requests that fit into the other half get flow-control credit;
        the rest waits for its turn with what its window let through (256 KiB)
    :param max_incomplete_of_all: the same for all connections; beyond it, calls whose requests
        are larger than 16 KiB are refused by RESOURCE_EXHAUSTED
    :raises ConfigurationError: if ``max_connections``, ``max_calls`` or one of the last two is
        less than 1
    """

    max_streams: int = 100
    max_message: int = 4 * 1024 * 1024
    max_send_message: int | None = None
    max_header_bytes: int = 16 * 1024
    idle_timeout: float = 3600.0
    handshake_timeout: float = 10.0
    keepalive: KeepaliveSettings | None = _KEEPALIVE
    min_ping_interval: float = 300.0
    pings_without_calls: bool = False
    max_connection_age: float = 1800.0
    max_connection_age_grace: float = 30.0
    stream_idle_timeout: float = 300.0
    blocked_timeout: float = 60.0
    max_connections: int = 10_000
    max_calls: int | None = None
    concurrency: ConcurrencyLimit | None = None
    shed_late: bool = False
    max_incomplete: int = 16 * 1024 * 1024
    max_incomplete_of_all: int = 512 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in ("max_connections", "max_calls", "max_incomplete", "max_incomplete_of_all"):
            most = getattr(self, name)
            if most is not None and most < 1:
                message = f"{name} {most!r}: a server needs room for 1 at least"
                raise ConfigurationError(message)


class Server:
    """A gRPC server for asyncio and trio.

    Every task and socket lives inside its ``async with``. Leaving it drains:
    peers get GOAWAY, calls in progress have ``grace`` seconds to end, the rest
    is cancelled. Leaving by an exception or a cancellation cancels at once.

    :param services: objects with ``__mapping__``: bascule's, grpclib's or betterproto2's bases
    :param listen: address or addresses: ``host:port`` (port 0 picks one), ``unix:/path``, ``memory:name``
    :param tls: serve TLS on the TCP and Unix listeners
    :param interceptors: run around every handler, the first one outermost; where there is a tracer
        when the server is made, :class:`ServerTracing` is around them all
    :param limits: bounds of each connection
    :param grace: seconds that calls in progress get when the server ends
    :param web: also answer gRPC-Web and Connect, over HTTP/1.1 as well
    :param compression: of gRPC's replies to clients that accept it: ``gzip``, ``deflate`` or
        ``zstd``; a handler may choose otherwise by its ``call_context()``. Requests may be
        compressed by any of them
    :raises ConfigurationError: if two services serve the same method, none is given, or the
        compression is unknown
    :raises TransportError: on entering, if an address cannot be bound
    """

    def __init__(
        self,
        services: Sequence[Servable],
        *,
        listen: str | Sequence[str] = "127.0.0.1:0",
        tls: ServerTLS | None = None,
        interceptors: Sequence[ServerInterceptor] = (),
        limits: ServerLimits | None = None,
        grace: float = 30.0,
        web: WebSettings | None = None,
        compression: str | None = None,
    ) -> None:
        limits = limits or ServerLimits()
        tracer = current_tracer()
        if tracer is None or any(isinstance(each, ServerTracing) for each in interceptors):
            traced = interceptors
        else:
            traced = (ServerTracing(tracer), *interceptors)
        require_compression(compression)
        if grace < 0 or grace == math.inf:
            message = f"grace {grace!r}: expected a finite number of seconds, 0 or more"
            raise ConfigurationError(message)
        #: The counters of every call, for metrics.
        self.stats: CallTable = _core.CallTable()
        self.bindings: list[Binding] = []
        #: The same methods for calls whose messages are JSON.
        self.json_bindings: list[Binding] = []
        self.keepalive = limits.keepalive
        self._services = tuple(services)
        self._limits = limits
        max_send_message = limits.max_send_message
        if max_send_message is None:
            max_send_message = limits.max_message
        for service in services:
            for path, handler in service.__mapping__().items():
                index = self.stats.register(path, not handler.cardinality.client_streaming)
                if index != len(self.bindings):
                    message = f"{path} is served twice: give each service once"
                    raise ConfigurationError(message)
                # Probes ask for health every few seconds, for ever: no trace is begun by them.
                around = interceptors if path.startswith("/grpc.") else traced
                self.bindings.append(Binding(path, handler, around, max_send_message))
        if not self.bindings:
            message = "a server needs at least one service with a method"
            raise ConfigurationError(message)
        protocols: tuple[str, ...] = ("h2",)
        web_config = None
        if web is not None:
            from bascule.rpc._json_codec import json_codec_for
            from bascule.rpc._web import configure_web

            protocols = ("h2", "http/1.1")
            handlers = [each for service in services for each in service.__mapping__().items()]
            web_config = configure_web(web, handlers)
            self.json_bindings = [
                Binding(path, handler, traced, max_send_message, json_codec_for)
                for path, handler in handlers
            ]
        self.admission = None
        if limits.concurrency is not None or limits.shed_late:
            self.admission = Admission(
                limits.concurrency, self.bindings, sheds_late=limits.shed_late
            )
        self.config = _core.ServerConfig(
            calls=self.stats,
            max_streams=limits.max_streams,
            max_message=limits.max_message,
            max_header_bytes=limits.max_header_bytes,
            idle_timeout_ns=int(limits.idle_timeout * 1e9),
            handshake_timeout_ns=int(limits.handshake_timeout * 1e9),
            web=web_config,
            compression=compression,
            max_calls=limits.max_calls,
            blocked_timeout_ns=nanoseconds(limits.blocked_timeout),
            stream_idle_timeout_ns=nanoseconds(limits.stream_idle_timeout),
            keepalive=None if limits.keepalive is None else limits.keepalive.to_core(),
            min_ping_interval_ns=nanoseconds(limits.min_ping_interval),
            pings_without_calls=limits.pings_without_calls,
            max_age_ns=nanoseconds(limits.max_connection_age),
            max_age_grace_ns=nanoseconds(limits.max_connection_age_grace),
            max_incomplete=limits.max_incomplete,
            max_incomplete_of_all=limits.max_incomplete_of_all,
        )
        context = None if tls is None else tls.context(protocols)
        addresses = (listen,) if isinstance(listen, str) else tuple(listen)
        attach = functools.partial(ServerSession, self)
        self.serving = Serving(attach, addresses, context, grace, limits.max_connections)

    async def __aenter__(self) -> Self:
        await self.serving.__aenter__()
        self.stats.align(time.time_ns() - self.serving.now_ns())
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
        """What was bound, with real ports: ``127.0.0.1:50051``."""
        return self.serving.addresses

    @property
    def services(self) -> tuple[str, ...]:
        """Names of the services, as ``package.Service``."""
        return tuple(dict.fromkeys(each.path.split("/")[1] for each in self.bindings))

    def counts(self) -> ServerCounts:
        """What its listeners do and have done, for metrics."""
        limits = self._limits
        counts = self.serving.counts(
            self.config,
            {"calls": limits.max_calls, "incomplete_bytes": limits.max_incomplete_of_all},
        )
        return counts if self.admission is None else self.admission.counted(counts)

    def certificates(self, name: str) -> list[CertificateState]:
        """The certificates that it shows to clients, for metrics: those of ``name``."""
        return self.serving.certificates(name)

    async def drain(self) -> None:
        """Accept no more and wait for the calls in progress, at most the grace.

        Cancelling this ends the wait; leaving the ``async with`` then cancels the calls.
        """
        await self.serving.drain()

    async def serve_forever(self) -> None:
        """Wait until cancelled."""
        await anyio.sleep_forever()
