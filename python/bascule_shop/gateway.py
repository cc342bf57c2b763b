"""The shop's front door: which routes it has, who may use them, and for how long.

Anybody may look at the products and open an account. Users and orders are for those who have a token;
whose orders they see is decided by the services, which are told the verified subject.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bascule.errors import ConfigurationError
from bascule.gateway import (
    Created,
    Gateway,
    GatewayConfig,
    GatewayFile,
    LimitConfig,
    RouteConfig,
    UpstreamConfig,
)
from bascule.resilience import BreakerSettings
from bascule_shop._descriptors import descriptor_set

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from bascule.discovery import MemoryRegistry
    from bascule.gateway import AccessLog, AuthConfig
    from bascule.net import ServerTLS
    from bascule.observe import Metrics, Tracer

__all__ = ["ROUTES", "SERVICES", "descriptor_set", "gateway_file", "shop_gateway"]

#: The services that have routes.
SERVICES = ("user.UserService", "order.OrderService", "product.ProductService")

_PUBLIC = RouteConfig(public=True)
_SUBJECT_LIMIT = LimitConfig(requests=1000, per=60.0)
# Coarse: a household or an office shares an address.
_ADDRESS_LIMIT = LimitConfig(requests=6000, per=60.0)

#: Routes that are served otherwise than "with a token, in 15 s".
ROUTES: Mapping[str, RouteConfig] = {
    "/product.ProductService/*": _PUBLIC,
    # argon2id takes its time, on purpose.
    "/user.UserService/CreateUser": RouteConfig(public=True, created=Created("/api/v1/users/{id}")),
    "/order.OrderService/CreateOrder": RouteConfig(created=Created("/api/v1/orders/{id}")),
}


def gateway_file(
    path: Path | None = None,
    *,
    listen: str | None = None,
    operations: str | None = None,
    consul: str | None = None,
    peers: Mapping[str, str] | None = None,
) -> GatewayFile:
    """Read the file that describes the gateway as a process of its own.

    :param path: of the file; None for the one beside this module, ``gateway.toml``
    :param listen: address, over what the file says; so is each of the others
    :param operations: address for ``/livez``, ``/readyz`` and ``/metrics``
    :param consul: ``host:port`` of the agent that knows where the services are
    :param peers: targets by short name of services that are not to be found in Consul
    :raises ConfigurationError: if something in it cannot work, or there is no such service
    """
    names = {service.partition(".")[0]: service for service in SERVICES}
    targets = {} if consul is None else {name: f"consul://{consul}/{names[name]}" for name in names}
    targets |= peers or {}
    unknown = sorted(set(targets) - set(names))
    if unknown:
        message = f"the gateway asks no service {unknown[0]!r}: use {', '.join(names)}"
        raise ConfigurationError(message)
    over: dict[str, Any] = {}
    if targets:
        over["upstreams"] = {names[name]: {"target": each} for name, each in targets.items()}
    if listen is not None:
        over["listen"] = listen
    if operations is not None:
        over["operations"] = {"listen": operations}
    return GatewayFile.read(path or Path(__file__).with_name("gateway.toml"), over=over)


def shop_gateway(
    auth: AuthConfig,
    *,
    listen: str | tuple[str, ...] = "127.0.0.1:8443",
    tls: ServerTLS | None = None,
    targets: Mapping[str, str] | None = None,
    registry: MemoryRegistry | None = None,
    subject_limit: LimitConfig | None = _SUBJECT_LIMIT,
    address_limit: LimitConfig | None = _ADDRESS_LIMIT,
    redis: str | None = None,
    limit_timeout: float = 0.05,
    breaker: BreakerSettings | None = None,
    access_log: AccessLog | None = None,
    metrics: Metrics | None = None,
    tracer: Tracer | None = None,
    ready: Callable[[], Awaitable[bool]] | None = None,
    grace: float = 30.0,
) -> Gateway:
    """Put the shop's gateway together; ``async with`` starts it.

    :param auth: which tokens are believed: ``DevelopmentKey(directory).auth`` for the tour
    :param listen: address or addresses
    :param tls: certificate and key; None for plain HTTP
    :param targets: where each service is; ``memory:///`` and its name if not given
    :param registry: resolves ``memory:///`` targets; None for the process-wide one
    :param subject_limit: for each subject; None for none
    :param address_limit: for each address; None for none
    :param redis: URL of the Redis that gateways share; None if this is the only one
    :param limit_timeout: seconds that Redis has to answer before this gateway counts by itself
    :param breaker: for each endpoint of each service; None for the defaults
    :param access_log: where a line for each request goes; None for standard error
    :param metrics: what ``/metrics`` shows
    :param tracer: where spans go
    :param ready: asked by ``/readyz``
    :param grace: seconds that requests in progress have to finish when it stops
    """
    breaker = breaker or BreakerSettings()
    upstreams = {
        service: UpstreamConfig(
            (targets or {}).get(service, f"memory:///{service}"), breaker=breaker
        )
        for service in SERVICES
    }
    config = GatewayConfig(
        upstreams,
        listen=listen,
        tls=tls,
        auth=auth,
        routes=ROUTES,
        subject_limit=subject_limit,
        address_limit=address_limit,
        redis=redis,
        limit_timeout=limit_timeout,
        grace=grace,
    )
    return Gateway(
        config,
        descriptor_set(),
        access_log=access_log,
        metrics=metrics,
        tracer=tracer,
        ready=ready,
        registry=registry,
    )
