"""The gRPC client."""

from __future__ import annotations

import functools
import logging
import random
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio

from bascule import _core
from bascule.errors import (
    BreakerOpenError,
    ClosedError,
    NoEndpointError,
    RateLimitedError,
    RpcError,
    Status,
)
from bascule.net._link import open_driver
from bascule.observe import current_trace
from bascule.resilience import BreakerSettings, endpoint_snapshots
from bascule.rpc._attempt_stream import open_stream
from bascule.rpc._call import ABANDONED, Slot, unary
from bascule.rpc._codec import codec_for
from bascule.rpc._compression import ENCODING, require_compression
from bascule.rpc._context import ClientCallContext, ClientInterceptor, _current, pairs, traced
from bascule.rpc._keepalive import ConnectionSettings
from bascule.rpc._method import Cardinality, Method
from bascule.rpc._retry import Attempts
from bascule.rpc._subchannel import BACKOFF_FIRST, BACKOFF_GROWTH, Subchannel
from bascule.rpc._target import resolve_target

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from grpclib.metadata import Deadline

    from bascule._core import CallPolicy, CallTable
    from bascule.discovery import Endpoint, MemoryRegistry, Resolver
    from bascule.net import ClientTLS
    from bascule.net._link import Driver
    from bascule.resilience import EndpointSnapshot
    from bascule.rpc._client_stream import Stream
    from bascule.rpc._context import MetadataLike, MetadataValue
    from bascule.rpc._keepalive import KeepaliveSettings
    from bascule.rpc._method_config import MethodConfig

    #: Index in the call table, encoder, decoder and settings of a method.
    Prepared = tuple[int, Any, Any, MethodConfig | None]

__all__ = ["Channel"]

logger = logging.getLogger("bascule.rpc")

Request = TypeVar("Request")
Reply = TypeVar("Reply")

#: The longest pause before a resolver that failed is asked again, in seconds.
RESOLVE_MOST = 30.0

#: Methods that a channel remembers: programs may make them as they go.
MOST_METHODS = 10_000


class Channel:
    """A client for one service, balanced over its endpoints, on asyncio and trio.

    Connections live inside its ``async with``; leaving it cancels the calls in
    progress. For use from the event loop that entered it.

    :param target: ``host:port``, ``static:///a:1,b:2``, ``unix:/path``, ``memory:name``
        or ``memory:///service`` for what ``registry`` knows
    :param registry: for ``memory:///``; the process's own by default
    :param resolver: instead of what the target's scheme means
    :param tls: talk TLS to every TCP and Unix endpoint
    :param interceptors: run around every call, the first one outermost
    :param timeout: seconds for calls that give none; None for no limit
    :param breaker: one circuit breaker for each endpoint, with these settings
    :param balancer: ``round_robin`` or ``least_request``
    :param metadata: sent with every call
    :param max_message: largest message in bytes that is received, after decompression
    :param max_send_message: largest that is sent; ``max_message`` if None
    :param compression: of requests: ``gzip``, ``deflate``, ``zstd`` or ``identity``; replies may be
        compressed by any of them
    :param keepalive: pings that find dead connections; none by default
    :param propagate_trace: tell the server which trace a call belongs to, if it is made inside of a
        handler or a span (``traceparent``, ``tracestate``)
    :raises ConfigurationError: if the target has no form that is known, or the compression is unknown
    """

    def __init__(
        self,
        target: str,
        *,
        registry: MemoryRegistry | None = None,
        resolver: Resolver | None = None,
        tls: ClientTLS | None = None,
        interceptors: Sequence[ClientInterceptor] = (),
        timeout: float | None = None,
        breaker: BreakerSettings | None = None,
        balancer: str = "round_robin",
        metadata: MetadataLike | None = None,
        max_message: int = 4 * 1024 * 1024,
        max_send_message: int | None = None,
        compression: str | None = None,
        keepalive: KeepaliveSettings | None = None,
        propagate_trace: bool = True,
    ) -> None:
        self.target = target
        #: The counters of every call, for metrics.
        self.stats: CallTable = _core.CallTable()
        #: What retries and hedges of all its calls share, and their counters.
        self.attempts = Attempts()
        self._resolver = resolver or resolve_target(target, registry)
        self._tls = None if tls is None else tls.context(("h2",))
        self._server_name = None if tls is None else tls.server_name
        self._timeout = timeout
        self._metadata = pairs(metadata)
        self.max_send_message = max_message if max_send_message is None else max_send_message
        require_compression(compression)
        self._settings = ConnectionSettings(max_message, compression, keepalive)
        self._trace = propagate_trace
        self._interceptors = tuple(interceptors)
        self._around_unary = [
            each for each in interceptors if type(each).unary is not ClientInterceptor.unary
        ]
        self._policy: CallPolicy = _core.CallPolicy(
            balancer=balancer,
            seed=random.getrandbits(63),
            breaker=None
            if breaker is None
            else (
                breaker.failure_threshold,
                breaker.success_threshold,
                breaker.timeout_ns,
                breaker.half_open_permits,
            ),
            half_open_for_ns=(breaker or BreakerSettings()).half_open_timeout_ns,
        )
        self._methods: dict[Method[Any, Any], Prepared] = {}
        self._requested: dict[tuple[Any, ...], Method[Any, Any]] = {}
        self._subchannels: dict[str, Subchannel] = {}
        self._by_id: dict[int, Subchannel] = {}
        self._resolved = False
        self._unresolved: str | None = None
        self._open = False
        self._changed: anyio.Event | None = None

    async def __aenter__(self) -> Self:
        if self._open:
            message = "this channel is entered already"
            raise ClosedError(message)
        self._manager = open_driver()
        self.driver: Driver = await self._manager.__aenter__()
        self._open = True
        self.driver.spawn(self._follow)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = False
        for subchannel in self._subchannels.values():
            if subchannel.connection is not None:
                subchannel.connection.machine.shutdown()
                subchannel.connection.link.flush_soon()
        self._wake()
        try:
            await self._manager.__aexit__(exc_type, exc, traceback)
        finally:
            self._subchannels.clear()
            self._by_id.clear()
            self._policy.update([], self.driver.now_ns())
            self._resolved = False

    async def unary(
        self,
        method: Method[Request, Reply],
        request: Request,
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        compression: str | None = None,
    ) -> Reply:
        """Call a method with one request and one reply.

        The call ends at the earliest of ``timeout`` and the deadlines of the
        cancel scopes around it, and the server is told that deadline.
        Cancelling it resets its stream.

        :param timeout: seconds; the channel's own if None
        :param compression: of this request; the channel's own if None
        :raises RpcError: if it ends with a status other than OK
        :raises BreakerOpenError: if the breakers of all endpoints refuse; nothing was sent
        :raises NoEndpointError: if the resolver knows no endpoint; nothing was sent
        :raises EncodeError: if the request cannot be encoded; nothing was sent
        """
        if timeout is None:
            timeout = self._timeout
        headers = self._metadata if metadata is None else self._merge(metadata)
        if compression is not None:
            headers = _with_compression(headers, compression)
        if self._trace and (current_trace() is not None or _current.get() is not None):
            headers = traced(headers)
        if not self._around_unary:
            reply, _, _ = await unary(self, method, request, timeout, headers)
            return reply  # type: ignore[no-any-return]
        context = ClientCallContext(method.path, headers, timeout)

        async def innermost(request: Any) -> Any:
            reply, context.peer, trailers = await unary(
                self, method, request, context.timeout, context.pairs()
            )
            if trailers is not None:
                context.trailing_metadata.extend(trailers.items())
            return reply

        proceed: Callable[[Any], Awaitable[Any]] = innermost
        for each in reversed(self._around_unary):
            proceed = functools.partial(_around, each, context, proceed)
        return await proceed(request)  # type: ignore[no-any-return]

    def stream(
        self,
        method: Method[Request, Reply],
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        compression: str | None = None,
    ) -> Stream[Request, Reply]:
        """Call a method that streams: ``async with channel.stream(...) as stream``.

        :param timeout: seconds for the whole call; the channel's own if None
        :param compression: of the request's messages; the channel's own if None
        """
        headers = self._merge(metadata)
        if compression is not None:
            headers = _with_compression(headers, compression)
        if self._trace:
            headers = traced(headers)
        if timeout is None:
            timeout = self._timeout
        context = ClientCallContext(method.path, headers, timeout)
        return open_stream(self, method, context, self._interceptors)

    def server_stream(
        self,
        method: Method[Request, Reply],
        request: Request,
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        compression: str | None = None,
    ) -> Stream[Request, Reply]:
        """Like :meth:`stream`, with the one request sent on entering."""
        stream = self.stream(method, timeout=timeout, metadata=metadata, compression=compression)
        stream.send_on_enter(request)
        return stream

    def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: type[Request],
        reply_type: type[Reply],
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        metadata: MetadataLike | None = None,
    ) -> Stream[Request, Reply]:
        """What the stubs of grpclib's and betterproto2's plugins call."""
        key = (name, cardinality, request_type, reply_type)
        method = self._requested.get(key)
        if method is None:
            method = Method(name, cardinality, request_type, reply_type)
            if len(self._requested) < MOST_METHODS:
                self._requested[key] = method
        if deadline is not None:
            left = max(deadline.time_remaining(), 0.0)
            timeout = left if timeout is None else min(left, timeout)
        return self.stream(method, timeout=timeout, metadata=metadata)

    def snapshot(self) -> list[EndpointSnapshot]:
        """What each endpoint does."""
        return endpoint_snapshots(self._policy)

    async def wait_ready(self) -> None:
        """Wait until a call could be sent at once.

        :raises ClosedError: if the channel ends meanwhile
        """
        while not any(each.connection for each in self._subchannels.values()):
            await self._wait_change()

    def prepare(self, method: Method[Any, Any]) -> Prepared:
        """Index, encoder, decoder and settings of a method; made at its first call."""
        found = self._methods.get(method)
        if found is None:
            index = self.stats.register(method.path, not method.cardinality.client_streaming)
            request_type: Any = method.request_type
            reply_type: Any = method.reply_type
            found = (index, codec_for(request_type).encode, codec_for(reply_type).decode, None)
            if len(self._methods) < MOST_METHODS:
                self._methods[method] = found
        return found

    def limit(self, timeout: float | None) -> tuple[int | None, bool]:
        """The earlier of a timeout and the enclosing cancel scopes' deadline, in
        nanoseconds, and whether it is the scopes' own, which then end the call.
        0 means that a scope is cancelled already.
        """
        self._require_open()
        scope_deadline = self.driver.scope_deadline()
        if timeout is not None and timeout < _FOREVER:
            own = self.driver.now_ns() + int(timeout * 1e9)
            if scope_deadline * 1e9 >= own:
                return own, False
        elif scope_deadline >= _FOREVER:
            return None, False
        return int(max(scope_deadline, 0.0) * 1e9), True

    def _require_open(self) -> None:
        if not self._open:
            message = f"channel to {self.target} is not open: use it inside its `async with`"
            raise ClosedError(message)

    async def admit(self, deadline_ns: int | None) -> Slot:
        """Pick a connection and take a permit, waiting while endpoints connect.

        :raises RejectedError: if nothing may be sent
        :raises RpcError: UNAVAILABLE if no endpoint can be reached, DEADLINE_EXCEEDED if
            the deadline comes first
        """
        while True:
            self._require_open()
            verdict, endpoint, permit, retry_ns = self._policy.admit(self.driver.now_ns())
            if verdict == 0:
                subchannel = self._by_id.get(endpoint)
                if subchannel is not None and subchannel.connection is not None:
                    return Slot(subchannel.connection, endpoint, permit)
                self._policy.complete(endpoint, permit, ABANDONED, self.driver.now_ns())
                self._policy.set_ready(endpoint, False)
                continue
            retry_after = None if retry_ns < 0 else retry_ns / 1e9
            if verdict == 1:
                raise RateLimitedError(self.target, retry_after)
            if verdict == 2:
                raise BreakerOpenError(self.target, retry_after)
            await self._wait_ready_once(deadline_ns)

    def complete(self, slot: Slot, outcome: int) -> None:
        """Give a permit back."""
        self._policy.complete(slot.endpoint, slot.permit, outcome, self.driver.now_ns())

    def _merge(self, metadata: MetadataLike | None) -> list[tuple[str, MetadataValue]] | None:
        own = pairs(metadata)
        if self._metadata is None or own is None:
            return own or self._metadata
        return [*self._metadata, *own]

    async def _follow(self) -> None:
        """Keep the subchannels as the resolver says; what it said last holds while it fails."""
        delay = 0.0
        while True:
            try:
                async with self._resolver.watch() as states:
                    async for endpoints in states:
                        self._update(endpoints)
                        delay = 0.0
                return
            except Exception as error:
                logger.exception("cannot follow %s: the last endpoints stay", self.target)
                self._unresolved = f"cannot resolve {self.target}: {error}"
                self._wake()
            delay = min(max(delay * BACKOFF_GROWTH, BACKOFF_FIRST), RESOLVE_MOST)
            await anyio.sleep(delay)

    def _update(self, endpoints: Sequence[Endpoint]) -> None:
        wanted = {each.address: each for each in endpoints}
        for address in self._subchannels.keys() - wanted.keys():
            self._subchannels.pop(address).stop()
        for address, endpoint in wanted.items():
            if address not in self._subchannels:
                subchannel = Subchannel(
                    self.driver,
                    endpoint,
                    self.stats,
                    self._tls,
                    self._server_name,
                    self._settings,
                    self._subchannel_changed,
                )
                self._subchannels[address] = subchannel
                self.driver.spawn(subchannel.run)
            else:
                self._subchannels[address].endpoint = endpoint
        listed = [(each.address, each.weight) for each in wanted.values()]
        ids = self._policy.update(listed, self.driver.now_ns())
        self._by_id = {}
        for endpoint_id, address in zip(ids, wanted, strict=True):
            subchannel = self._subchannels[address]
            subchannel.id = endpoint_id
            self._by_id[endpoint_id] = subchannel
            self._policy.set_ready(endpoint_id, subchannel.connection is not None)
        self._resolved = True
        self._unresolved = None
        self._wake()

    def _subchannel_changed(self, subchannel: Subchannel) -> None:
        if self._by_id.get(subchannel.id) is subchannel:
            self._policy.set_ready(subchannel.id, subchannel.connection is not None)
        self._wake()

    async def _wait_ready_once(self, deadline_ns: int | None) -> None:
        """Wait for a change, unless waiting cannot help.

        Source: gRPC's wait-for-ready document: without it, a call waits while
        endpoints connect and fails when the last one has failed.
        """
        if self._resolved:
            failures = [s.failure for s in self._subchannels.values() if s.endpoint.weight]
            if not failures:
                raise NoEndpointError(self.target)
            if all(failures):
                raise RpcError(Status.UNAVAILABLE, "; ".join(str(each) for each in failures))
        elif self._unresolved is not None:
            raise RpcError(Status.UNAVAILABLE, self._unresolved)
        left = None if deadline_ns is None else (deadline_ns - self.driver.now_ns()) / 1e9
        with anyio.move_on_after(left) as scope:
            await self._wait_change()
        if scope.cancelled_caught:
            text = f"no connection to {self.target} before the deadline"
            raise RpcError(Status.DEADLINE_EXCEEDED, text)

    async def _wait_change(self) -> None:
        self._require_open()
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


#: Seconds that are no limit: 31 years. No clock of a loop has run for as long either.
_FOREVER = 1e9


def _with_compression(
    headers: list[tuple[str, MetadataValue]] | None, compression: str
) -> list[tuple[str, MetadataValue]]:
    """The compression goes with the call as what announces it on the wire."""
    require_compression(compression)
    return [*(headers or ()), (ENCODING, compression)]


def _around(
    interceptor: ClientInterceptor,
    context: ClientCallContext,
    proceed: Callable[[Any], Awaitable[Any]],
    request: Any,
) -> Awaitable[Any]:
    return interceptor.unary(context, request, proceed)
