"""The gRPC client."""

from __future__ import annotations

import functools
import math
import time
from threading import get_ident
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio

from bascule import _core
from bascule.errors import ClosedError, ConfigurationError, WrongLoopError
from bascule.net._link import open_driver
from bascule.net._tls import shown_certificates
from bascule.observe import trace_variable, tracer_variable
from bascule.rpc._attempt_stream import open_stream
from bascule.rpc._call import unary
from bascule.rpc._codec import codec_for
from bascule.rpc._compression import ENCODING, require_compression
from bascule.rpc._context import ClientCallContext, ClientInterceptor, _current, pairs, traced
from bascule.rpc._keepalive import ConnectionSettings, user_agent_of
from bascule.rpc._load_balancing import LoadBalancing
from bascule.rpc._method import Cardinality, Method
from bascule.rpc._pool import Pool
from bascule.rpc._retry import Attempts
from bascule.rpc._service_config import ServiceConfig
from bascule.rpc._snapshot import AttemptsSnapshot, ChannelSnapshot, ConnectivityState
from bascule.rpc._subchannel import ConnectionBackoff, Terms
from bascule.rpc._target import resolve_target
from bascule.rpc._tracing import ClientTracing, begin_call, end_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

    from grpclib.metadata import Deadline

    from bascule._core import CallTable
    from bascule.discovery import MemoryRegistry, Resolver
    from bascule.net import ClientTLS
    from bascule.net._link import Driver
    from bascule.observe import CertificateState, Span
    from bascule.resilience import BreakerSettings, ConcurrencyLimit
    from bascule.rpc._client_stream import Stream
    from bascule.rpc._context import MetadataLike, MetadataValue
    from bascule.rpc._keepalive import KeepaliveSettings
    from bascule.rpc._method_config import MethodConfig

    #: Index in the call table, encoder, decoder and settings of a method.
    Prepared = tuple[int, Any, Any, MethodConfig | None]

__all__ = ["Channel"]

Request = TypeVar("Request")
Reply = TypeVar("Reply")

#: Methods that a channel remembers: programs may make them as they go.
MOST_METHODS = 10_000


class Channel:
    """A client for one service, balanced over its endpoints, on asyncio and trio.

    Connections live inside its ``async with``; leaving it cancels the calls in
    progress. For use from the event loop that entered it: from another one, or another thread,
    calls raise :class:`bascule.errors.WrongLoopError`.

    :param target: ``host:port``, ``static:///a:1,b:2``, ``dns:///host:port``, ``consul:///service``,
        ``unix:/path``, ``memory:name`` or ``memory:///service`` for what ``registry`` knows
    :param registry: for ``memory:///``; the process's own by default
    :param resolver: instead of what the target's scheme means
    :param tls: talk TLS to every TCP and Unix endpoint
    :param interceptors: run around every call, the first one outermost
    :param timeout: seconds for calls that give none; None for no limit
    :param breaker: one circuit breaker for each endpoint, with these settings
    :param concurrency: how many unary calls an endpoint may have at once, each endpoint by itself:
        :class:`bascule.resilience.Gradient2` or ``Aimd`` learn it. One that has as many is passed
        over; streams are not counted
    :param balancer: how calls are shared by the endpoints: a name like ``round_robin`` or
        ``pick_first``, or settings; a service config that says something goes before it
    :param service_config: how calls behave, typed or as gRPC's JSON; one that the resolver gives
        goes before it
    :param metadata: sent with every call
    :param max_message: largest message in bytes that is received, after decompression
    :param max_send_message: largest that is sent; ``max_message`` if None
    :param compression: of requests: ``gzip``, ``deflate``, ``zstd`` or ``identity``; replies may be
        compressed by any of them
    :param keepalive: pings that find dead connections; none by default
    :param propagate_trace: tell the server which trace a call belongs to, if it is made inside of a
        handler or a span (``traceparent``, ``tracestate``)
    :param user_agent: what the program calls itself, such as ``shop/1.2``; stands before bascule's own
    :param wait_for_ready: whether calls wait, up to their deadline, while no endpoint can be
        reached, instead of failing with UNAVAILABLE; a call or its method may say otherwise
    :param backoff: how attempts to connect to an endpoint follow each other
    :param idle_timeout: seconds without a call, give or take a quarter, after which all connections
        are left until the next call; None for never
    :raises ConfigurationError: if the target has no form that is known, or a setting cannot work
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
        concurrency: ConcurrencyLimit | None = None,
        balancer: str | LoadBalancing = "round_robin",
        service_config: ServiceConfig | str | Mapping[str, Any] | None = None,
        metadata: MetadataLike | None = None,
        max_message: int = 4 * 1024 * 1024,
        max_send_message: int | None = None,
        compression: str | None = None,
        keepalive: KeepaliveSettings | None = None,
        propagate_trace: bool = True,
        user_agent: str | None = None,
        wait_for_ready: bool = False,
        backoff: ConnectionBackoff | None = None,
        idle_timeout: float | None = 1800.0,
    ) -> None:
        if idle_timeout is not None and not idle_timeout > 0:
            message = f"idle_timeout is {idle_timeout}: give seconds above 0, or None"
            raise ConfigurationError(message)
        self.target = target
        #: The counters of every call, for metrics.
        self.stats: CallTable = _core.CallTable()
        #: What retries and hedges of all its calls share, and their counters.
        self.attempts = Attempts()
        self._tls = None if tls is None else tls.context(("h2",))
        self._server_name = None if tls is None else tls.server_name
        self._timeout = timeout
        self._metadata = pairs(metadata)
        self.max_send_message = max_message if max_send_message is None else max_send_message
        require_compression(compression)
        self._settings = ConnectionSettings(
            max_message, compression, keepalive, user_agent_of(user_agent)
        )
        self._trace = propagate_trace
        self._interceptors = tuple(interceptors)
        #: Whether its calls have spans by a tracer of the channel's own.
        self._has_tracing = any(isinstance(each, ClientTracing) for each in interceptors)
        around = [each for each in interceptors if type(each).unary is not ClientInterceptor.unary]
        # The outermost is called without a detour, which is a fiftieth of a call.
        self._outermost = around[0] if around else None
        self._inner = around[:0:-1]
        self._backoff = backoff or ConnectionBackoff()
        self._idle_timeout = idle_timeout
        self._methods: dict[Method[Any, Any], Prepared] = {}
        self._requested: dict[tuple[Any, ...], Method[Any, Any]] = {}
        self._pool = Pool(
            target,
            resolver or resolve_target(target, registry),
            ServiceConfig.of(service_config),
            balancer if isinstance(balancer, LoadBalancing) else LoadBalancing(balancer=balancer),
            breaker,
            concurrency,
            wait_for_ready=wait_for_ready,
            configured=self._take_config,
        )
        self._take_config(self._pool.config)
        #: For calls: see :class:`Pool`.
        self.admit, self.complete = self._pool.admit, self._pool.complete
        self.pick = self._pool.pick
        #: The thread that may use it; 0 while nobody may.
        self._thread = 0

    async def __aenter__(self) -> Self:
        if self._thread:
            message = "this channel is entered already"
            raise ClosedError(message)
        self._manager = open_driver()
        self.driver: Driver = await self._manager.__aenter__()
        self._token = anyio.lowlevel.current_token()
        self._thread = get_ident()
        self.stats.align(time.time_ns() - self.driver.now_ns())
        self._pool.open(
            Terms(
                self.driver,
                self.stats,
                self._tls,
                self._server_name,
                self._settings,
                self._backoff,
            )
        )
        if self._idle_timeout is not None:
            self.driver.spawn(self._leave_when_idle, self._idle_timeout)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread = 0
        self._pool.shut()
        try:
            await self._manager.__aexit__(exc_type, exc, traceback)
        finally:
            self._pool.clear()

    @property
    def state(self) -> ConnectivityState:
        """Whether calls can be sent now."""
        return self._pool.state

    async def unary(
        self,
        method: Method[Request, Reply],
        request: Request,
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
        compression: str | None = None,
    ) -> Reply:
        """Call a method with one request and one reply.

        The call ends at the earliest of ``timeout`` and the deadlines of the
        cancel scopes around it, and the server is told that deadline.
        Cancelling it resets its stream.

        :param timeout: seconds; the channel's own if None
        :param wait_for_ready: wait while no endpoint can be reached; None: as the method's settings
            or the channel's say
        :param compression: of this request; the channel's own if None
        :raises WrongLoopError: if this is not the event loop that entered the channel
        :raises RpcError: if it ends with a status other than OK
        :raises BreakerOpenError: if the breakers of all endpoints refuse; nothing was sent
        :raises ConcurrencyLimitedError: if all endpoints have as many calls as they may; nothing was
            sent
        :raises NoEndpointError: if the resolver knows no endpoint; nothing was sent
        :raises EncodeError: if the request cannot be encoded; nothing was sent
        """
        if timeout is None:
            timeout = self._timeout
        headers = self._metadata if metadata is None else self._merge(metadata)
        if compression is not None:
            headers = _with_compression(headers, compression)
        span: Span | None = None
        if self._trace:
            tracer = tracer_variable.get()
            if tracer is not None and not self._has_tracing:
                span, headers = begin_call(tracer, method.path, headers)
            elif _current.get() is not None or trace_variable.get() is not None:
                headers = traced(headers)
        context = ClientCallContext(method.path, headers, timeout)
        proceed: Callable[[Any], Awaitable[Any]]
        proceed = functools.partial(unary, self, method, wait_for_ready, context)
        for each in self._inner:
            proceed = functools.partial(_around, each, context, proceed)
        outermost = self._outermost
        if span is not None:
            if outermost is not None:
                proceed = functools.partial(_around, outermost, context, proceed)
            proceed, outermost = functools.partial(_recorded, span, context, proceed), None
        try:
            if outermost is not None:
                return await outermost.unary(context, request, proceed)  # type: ignore[no-any-return]
            return await proceed(request)  # type: ignore[no-any-return]
        except WrongLoopError:
            raise
        except RuntimeError as error:
            self._require_loop(error)
            raise

    def stream(
        self,
        method: Method[Request, Reply],
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
        compression: str | None = None,
    ) -> Stream[Request, Reply]:
        """Call a method that streams: ``async with channel.stream(...) as stream``.

        :param timeout: seconds for the whole call; the channel's own if None
        :param wait_for_ready: as for :meth:`unary`
        :param compression: of the request's messages; the channel's own if None
        """
        headers = self._merge(metadata)
        if compression is not None:
            headers = _with_compression(headers, compression)
        interceptors = self._interceptors
        if self._trace:
            tracer = tracer_variable.get()
            if tracer is not None and not self._has_tracing:
                interceptors = (ClientTracing(tracer), *interceptors)
            else:
                headers = traced(headers)
        if timeout is None:
            timeout = self._timeout
        context = ClientCallContext(method.path, headers, timeout)
        stream = open_stream(self, method, context, interceptors)
        if wait_for_ready is not None:
            stream.wait_for_ready = wait_for_ready
        return stream

    def server_stream(
        self,
        method: Method[Request, Reply],
        request: Request,
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
        compression: str | None = None,
    ) -> Stream[Request, Reply]:
        """Like :meth:`stream`, with the one request sent on entering."""
        stream = self.stream(
            method,
            timeout=timeout,
            metadata=metadata,
            wait_for_ready=wait_for_ready,
            compression=compression,
        )
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

    def certificates(self, name: str) -> list[CertificateState]:
        """The certificates that it shows to servers, for metrics: those of ``name``."""
        return shown_certificates(self._tls, name)

    def snapshot(self) -> ChannelSnapshot:
        """What the channel, its resolver and each endpoint do at this moment."""
        pool, attempts = self._pool, self.attempts
        return ChannelSnapshot(
            target=self.target,
            state=pool.state,
            resolver=pool.resolver_snapshot(),
            balancer=pool.balancing,
            subchannels=pool.subchannel_snapshots(),
            attempts=AttemptsSnapshot(
                attempts=attempts.attempts,
                retries=attempts.retries,
                hedges=attempts.hedges,
                transparent=attempts.transparent,
                throttled=attempts.throttled,
                pushed_back=attempts.pushed_back,
                tokens=attempts.tokens,
            ),
            waiting=pool.waiting,
            refused=dict(pool.refused),
        )

    async def wait_for_state(self, *states: ConnectivityState) -> ConnectivityState:
        """Wait until the channel has one of these states, and return it. Those that it has only
        for a moment may be missed.

        :raises ClosedError: if the channel ends meanwhile, unless SHUTDOWN is one of them
        :raises WrongLoopError: if another thread has entered the channel
        """
        if self._thread:
            self._require_here()
        await anyio.lowlevel.checkpoint()
        while (state := self._pool.state) not in states:
            await self._pool.wait_change()
        return state

    async def wait_ready(self) -> None:
        """Wait until a call could be sent at once; a channel that is idle connects.

        :raises ClosedError: if the channel ends meanwhile
        """
        self._require_here()
        self._pool.wake_up()
        await self.wait_for_state(ConnectivityState.READY)

    def reset_backoff(self) -> None:
        """Let endpoints that failed try again now, as if for the first time.

        :raises WrongLoopError: if another thread has entered the channel
        """
        if self._thread:
            self._require_here()
        self._pool.reset_backoff()

    def prepare(self, method: Method[Any, Any]) -> Prepared:
        """Index, encoder, decoder and settings of a method; made at its first call."""
        found = self._methods.get(method)
        if found is None:
            index = self.stats.register(method.path, not method.cardinality.client_streaming)
            request_type: Any = method.request_type
            reply_type: Any = method.reply_type
            config = self._pool.config.method(method.path)
            found = (index, codec_for(request_type).encode, codec_for(reply_type).decode, config)
            if len(self._methods) < MOST_METHODS:
                self._methods[method] = found
        return found

    def limit(self, timeout: float | None) -> tuple[int | None, bool, int]:
        """The earlier of a timeout and the enclosing cancel scopes' deadline, in
        nanoseconds, whether it is the scopes' own, which then end the call, and the time.
        0 means that a scope is cancelled already.
        """
        if get_ident() != self._thread:
            self._require_here()
        driver = self.driver
        scope_deadline, now_ns = driver.scope_deadline(), driver.now_ns()
        if timeout is not None and not timeout >= _FOREVER:
            own = now_ns + int(timeout * 1e9) if timeout > 0 else _over(timeout, now_ns)
            if scope_deadline * 1e9 >= own:
                return own, False, now_ns
        elif scope_deadline >= _FOREVER:
            return None, False, now_ns
        return int(max(scope_deadline, 0.0) * 1e9), True, now_ns

    def _require_here(self) -> None:
        """:raises ClosedError, WrongLoopError: if calls cannot be made, or not by this thread"""
        if not self._thread:
            message = f"channel to {self.target} is not open: use it inside its `async with`"
            raise ClosedError(message)
        if get_ident() != self._thread:
            raise WrongLoopError(_WRONG.format(self.target, "another thread's"))

    def _require_loop(self, error: RuntimeError) -> None:
        """:raises WrongLoopError: if the error comes from an event loop that is not the channel's"""
        if anyio.lowlevel.current_token() != self._token and self._thread:
            raise WrongLoopError(_WRONG.format(self.target, "another")) from error

    def _take_config(self, config: ServiceConfig) -> None:
        self._methods.clear()
        self.attempts.configure(config.retry_throttling)

    async def _leave_when_idle(self, timeout: float) -> None:
        """Look from time to time whether there were calls: they need not tell."""
        seen, quiet = (0, 0), 0.0
        while True:
            await anyio.sleep(timeout / 4)
            picks, running = self._pool.activity()
            if running or (picks, running) != seen:
                seen, quiet = (picks, running), 0.0
                continue
            quiet += timeout / 4
            if quiet >= timeout:
                self._pool.enter_idle()
                seen, quiet = (0, 0), 0.0

    def _merge(self, metadata: MetadataLike | None) -> list[tuple[str, MetadataValue]] | None:
        own = pairs(metadata)
        if self._metadata is None or own is None:
            return own or self._metadata
        return [*self._metadata, *own]


#: What is wrong, and what works.
_WRONG = (
    "channel to {} belongs to {} event loop: open one channel in each event loop, or "
    "call from this thread through anyio.from_thread.run in the loop that entered it"
)

#: Seconds that are no limit: 31 years. No clock of a loop has run for as long either.
_FOREVER = 1e9


def _over(timeout: float, now_ns: int) -> int:
    """The deadline of a timeout that is over; one of no number is a mistake of whoever made it up.

    :raises ConfigurationError: if it is ``nan``
    """
    if math.isnan(timeout):
        message = "timeout nan: give seconds, or None for no limit"
        raise ConfigurationError(message)
    return now_ns


def _with_compression(
    headers: list[tuple[str, MetadataValue]] | None, compression: str
) -> list[tuple[str, MetadataValue]]:
    """The compression goes with the call as what announces it on the wire."""
    require_compression(compression)
    return [*(headers or ()), (ENCODING, compression)]


async def _recorded(
    span: Span, context: ClientCallContext, proceed: Callable[[Any], Awaitable[Any]], request: Any
) -> Any:
    """Make a call in a span of its own."""
    span.enter()
    try:
        reply = await proceed(request)
    except BaseException as error:
        end_call(span, context.peer, error)
        raise
    end_call(span, context.peer, None)
    return reply


def _around(
    interceptor: ClientInterceptor,
    context: ClientCallContext,
    proceed: Callable[[Any], Awaitable[Any]],
    request: Any,
) -> Awaitable[Any]:
    return interceptor.unary(context, request, proceed)
