"""The gateway put together: routes, middleware, upstream channels and the listener."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from grpclib.const import Cardinality

from bascule._tasks import owned_tasks
from bascule.errors import ConfigurationError
from bascule.gateway._access import LineLog
from bascule.gateway._auth import JwtAuthenticator
from bascule.gateway._cors import Cors
from bascule.gateway._endpoints import DeclaredEndpoint
from bascule.gateway._idempotency import Idempotency
from bascule.gateway._limits import RateLimit
from bascule.gateway._operations import health, metrics_text, readiness
from bascule.gateway._pipeline import Pipeline
from bascule.gateway._router import Router
from bascule.gateway._stats import GatewayStats
from bascule.gateway._transcode import Transcoder
from bascule.net import HttpLimits, HttpServer
from bascule.net._watch import watched_loop
from bascule.observe import Metrics, current_tracer, open_tracing, shared_metrics
from bascule.resilience import RedisClient, SharedRateLimiter
from bascule.rpc import Channel, Method

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from types import TracebackType

    from bascule.discovery import MemoryRegistry
    from bascule.gateway._access import AccessLog
    from bascule.gateway._auth import Authenticator
    from bascule.gateway._config import GatewayConfig, LimitConfig
    from bascule.gateway._endpoints import Endpoint
    from bascule.gateway._limits import Admission
    from bascule.gateway._transcode import Binding
    from bascule.net import HttpRequest, HttpResponse
    from bascule.observe import Tracer

__all__ = ["Gateway"]


class Gateway:
    """An HTTP/2 (and HTTP/1.1) listener in front of gRPC services, and of Python handlers.

    ::

        gateway = Gateway(GatewayConfig({"user.UserService": "memory:///user.UserService"}), descriptors)
        gateway.router.get("/api/v1/version", HandlerEndpoint(version, RouteConfig(public=True)))
        async with gateway:
            print(gateway.addresses)

    :param config: what to serve, and how
    :param descriptor_set: a serialized ``FileDescriptorSet`` with the ``google.api.http`` annotations of
        the services in ``config.upstreams``
    :param access_log: where a line for each request goes; None for JSON lines on standard error
    :param metrics: what ``config.metrics_path`` shows; None for metrics of its own
    :param tracer: where spans go; None for the tracer of the work that makes it, and if there is none,
        for what the ``OTEL_`` variables say (:func:`bascule.observe.open_tracing`)
    :param ready: asked by ``config.ready_path`` while the gateway serves
    :param authenticator: verifies credentials; None for JSON Web Tokens by ``config.auth``
    :param subject_admission: decides ``config.subject_limit``; None for a limiter in this process
    :param registry: resolves ``memory:///`` targets; None for the process-wide one
    :raises ConfigurationError: if an annotation is invalid or missing, a route exists twice, one needs
        tokens that nobody could verify, or ``config.routes`` names none
    """

    def __init__(
        self,
        config: GatewayConfig,
        descriptor_set: bytes,
        *,
        access_log: AccessLog | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        ready: Callable[[], Awaitable[bool]] | None = None,
        authenticator: Authenticator | None = None,
        subject_admission: Admission | None = None,
        registry: MemoryRegistry | None = None,
    ) -> None:
        self.config = config
        self.metrics = metrics if metrics is not None else Metrics()
        self._ready = ready
        self._serving = False
        self._stack = AsyncExitStack()
        self._server: HttpServer | None = None
        self._access_log = access_log if access_log is not None else LineLog()
        self._channels = {
            service: Channel(
                upstream.target,
                registry=registry,
                tls=upstream.tls,
                breaker=upstream.breaker,
                balancer=upstream.balancer,
                service_config=upstream.service_config,
                wait_for_ready=upstream.wait_for_ready,
            )
            for service in config.upstreams
            for upstream in [config.upstream(service)]
        }
        if authenticator is None and config.auth is not None:
            authenticator = JwtAuthenticator(config.auth)
        transcoder = Transcoder(
            descriptor_set, services=config.upstreams, max_depth=config.max_json_depth
        )
        _check(config, transcoder, authenticated=authenticator is not None)
        #: the declared routes
        self.bindings = transcoder.bindings
        #: declared routes and Python handlers; add handlers before the gateway starts
        self.router: Router[Endpoint] = Router()
        self._declare(transcoder)
        self._add_operations()
        address = (
            RateLimit("address", config.address_limit) if config.address_limit is not None else None
        )
        self._redis = RedisClient(config.redis) if config.redis is not None else None
        self._shared = (
            _shared_limit(config, config.subject_limit, self._redis)
            if self._redis is not None
            and config.subject_limit is not None
            and subject_admission is None
            else None
        )
        subject = (
            RateLimit("subject", config.subject_limit, subject_admission, shared=self._shared)
            if config.subject_limit is not None
            else None
        )
        idempotency = (
            Idempotency(config.idempotency, self._redis) if config.idempotency is not None else None
        )
        stats = GatewayStats(
            [limit for limit in (address, subject) if limit is not None], idempotency
        )
        self.metrics.add_http(stats)
        for service, channel in self._channels.items():
            self.metrics.add_channel(channel, service)
        if any(channel.target.startswith("consul:") for channel in self._channels.values()):
            from bascule.discovery.consul import ConsulStats

            self.metrics.add_discovery(ConsulStats.default())
        if self._shared is not None:
            self.metrics.add_breakers(self._breakers)
        #: the handler itself: ``async (HttpRequest) -> HttpResponse``, of use without a listener too
        self.handle: Callable[[HttpRequest], Awaitable[HttpResponse]]
        self.handle = self._pipeline = Pipeline(
            self.router,
            stats,
            access_log=self._access_log,
            authenticator=authenticator,
            realm=config.auth.realm if config.auth is not None else "bascule",
            address_limit=address,
            subject_limit=subject,
            idempotency=idempotency,
            tracer=tracer or current_tracer(),
            probes=frozenset({config.health_path, config.ready_path, config.metrics_path}),
            cors=Cors(config.cors) if config.cors is not None else None,
        )

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens: ``("127.0.0.1:8443",)``; empty while it does not."""
        return self._server.addresses if self._server is not None else ()

    @property
    def channels(self) -> Mapping[str, Channel]:
        """The channel of each service."""
        return self._channels

    async def __aenter__(self) -> Self:
        """Open the channels, then listen.

        :raises ConfigurationError: if an address or the TLS files cannot be used
        """
        config = self.config
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(watched_loop(self.metrics))
            await stack.enter_async_context(shared_metrics(self.metrics))
            if self._pipeline.tracer is None:
                self._pipeline.tracer = await stack.enter_async_context(open_tracing("gateway"))
                stack.callback(self._pipeline.forget_tracer)
            tasks = await stack.enter_async_context(owned_tasks())
            stack.callback(tasks.cancel_scope.cancel)
            tasks.start_soon(self._access_log.run)
            if self._redis is not None:
                await stack.enter_async_context(self._redis)
                self._redis.warm()
            for channel in self._channels.values():
                await stack.enter_async_context(channel)
            self._server = await stack.enter_async_context(
                HttpServer(
                    self.handle,
                    listen=config.listen,
                    tls=config.tls,
                    limits=config.http if config.http is not None else HttpLimits(),
                    grace=config.grace,
                )
            )
            self.metrics.add_server(self._server, "gateway")
            stack.callback(self.leave)
            self._serving = True
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop accepting, let requests finish for ``config.grace`` seconds, close the channels."""
        try:
            await self._stack.__aexit__(kind, error, traceback)
        finally:
            self._server = None

    def leave(self) -> None:
        """Be not ready from now on, so that load balancers send no more; what comes is still served."""
        self._serving = False

    def _declare(self, transcoder: Transcoder) -> None:
        config = self.config
        for binding in transcoder.bindings:
            endpoint = DeclaredEndpoint(
                binding.index,
                binding.rpc_path,
                transcoding=transcoder,
                upstream=_upstream(self._channels[binding.service], binding),
                settings=config.settings(binding.rpc_path),
                forward=config.forward_headers,
            )
            self.router.route(binding.http_method, binding.template, endpoint)

    def _add_operations(self) -> None:
        config = self.config
        if config.health_path is not None:
            self.router.get(config.health_path, health())
        if config.ready_path is not None:
            self.router.get(config.ready_path, readiness(self._is_ready))
        if config.metrics_path is not None:
            self.router.get(config.metrics_path, metrics_text(self.metrics))

    def _breakers(self) -> Iterable[tuple[str, str]]:
        if self._shared is not None:
            yield "redis for limits", self._shared.breaker_state

    async def _is_ready(self) -> bool:
        return self._serving and (self._ready is None or await self._ready())


def _check(config: GatewayConfig, transcoder: Transcoder, *, authenticated: bool) -> None:
    """Refuse now what no request could make sense of later."""
    bindings = transcoder.bindings
    declared = {binding.service for binding in bindings}
    bare = sorted(set(config.upstreams) - declared)
    if bare:
        raise ConfigurationError(
            f"GatewayConfig.upstreams names {bare}: the descriptors declare no routes of them"
        )
    known = {binding.rpc_path for binding in bindings} | {f"/{service}/*" for service in declared}
    unknown = sorted(set(config.routes) - known)
    if unknown:
        raise ConfigurationError(
            f"GatewayConfig.routes names {unknown}: the descriptors declare {sorted(known)}"
        )
    for binding in bindings:
        if binding.client_streaming or binding.server_streaming:
            raise ConfigurationError(
                f"{binding.rpc_path} streams: the gateway serves unary methods only"
            )
        if not authenticated and not config.settings(binding.rpc_path).public:
            raise ConfigurationError(
                f"{binding.rpc_path} needs a token: set GatewayConfig.auth, or make it public"
            )


def _shared_limit(
    config: GatewayConfig, limit: LimitConfig, redis: RedisClient
) -> SharedRateLimiter:
    return SharedRateLimiter(
        redis,
        limit.requests,
        limit.per,
        burst=limit.burst,
        algorithm=limit.algorithm,
        max_keys=limit.max_keys,
        name="gateway-subject",
        away=config.limit_away,
        timeout=config.limit_timeout,
    )


def _upstream(
    channel: Channel, binding: Binding
) -> Callable[[bytes, float, Mapping[str, str]], Awaitable[bytes]]:
    method = Method(binding.rpc_path, Cardinality.UNARY_UNARY, bytes, bytes)
    unary = channel.unary

    def call(message: bytes, timeout: float, metadata: Mapping[str, str]) -> Awaitable[bytes]:
        return unary(method, message, timeout=timeout, metadata=metadata)

    return call
