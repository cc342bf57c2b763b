"""One service of the shop as a process of its own: an app for :func:`bascule.app.run`."""

from __future__ import annotations

import inspect
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from bascule.app import App, Resource
from bascule.errors import ConfigurationError
from bascule.observe import Metrics
from bascule.saga import SagaWorker
from bascule_shop._descriptors import descriptor_set
from bascule_shop._faults import UnknownOutcomes
from bascule_shop._generated.order.services import OrderServiceBase
from bascule_shop._generated.payment.services import PaymentServiceBase
from bascule_shop._generated.product.services import ProductServiceBase
from bascule_shop._generated.user.services import UserServiceBase
from bascule_shop._services import (
    CALLED,
    SERVICES,
    add_consul,
    consul_registrar,
    consul_target,
    event_bus,
    open_channels,
    open_order,
    open_payment,
    open_product,
    open_user,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

    from bascule.rpc import Servable

__all__ = ["ProcessSettings", "shop_app"]

ServiceT = TypeVar("ServiceT")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """What one service of the shop needs to know.

    :param name: short name of the service
    :param database: its URL
    :param listen: address; port 0 for any free one
    :param advertise: address for clients, if it is not the one that it listens at
    :param consul: ``host:port`` of the agent where services register and find each other
    :param peers: targets by short name of services that are not to be found in Consul
    :param events: URL of the Redis that events go through; None to keep them in the process
    :param operations: address for ``/livez``, ``/readyz`` and ``/metrics``; None for none
    :param propagation: seconds between deregistering and the drain
    :param grace: seconds that calls in progress have to end in the drain
    :param lease: seconds after which other processes go on with the orders of one that died
    :raises ConfigurationError: if there is no such service, or it would not find those that it calls
    """

    name: str
    database: str
    listen: str = "127.0.0.1:0"
    advertise: str | None = None
    consul: str | None = None
    peers: Mapping[str, str] = field(default_factory=dict)
    events: str | None = None
    operations: str | None = None
    propagation: float = 1.0
    grace: float = 30.0
    lease: float = 30.0

    def __post_init__(self) -> None:
        if self.name not in SERVICES:
            message = f"no service is called {self.name!r}: use {', '.join(SERVICES)}"
            raise ConfigurationError(message)
        missing = [each for each in CALLED if each not in self.peers]
        if self.name == "order" and self.consul is None and missing:
            message = f"the order service cannot find {', '.join(missing)}: name a Consul agent or these peers"
            raise ConfigurationError(message)

    def target(self, name: str) -> str:
        """Give the target of another service."""
        return self.peers.get(name) or consul_target(str(self.consul), name)


def shop_app(settings: ProcessSettings) -> App:
    """Make the app of one service.

    It starts without its database and its Redis: its calls fail by UNAVAILABLE, and it is not ready,
    until they answer.
    """
    metrics = Metrics()
    if settings.consul is not None:
        add_consul(metrics)
    service: Resource[Any] = Resource(
        settings.name, lambda: _open(settings, metrics), open_timeout=_OPEN_TIMEOUT
    )
    return App(
        settings.name,
        services=[_late(_BASES[settings.name], service)],
        listen=settings.listen,
        advertise=settings.advertise,
        resources=[service],
        registrar=None if settings.consul is None else consul_registrar(settings.consul),
        operations=settings.operations,
        interceptors=[UnknownOutcomes()],
        reflection=descriptor_set(),
        propagation=settings.propagation,
        grace=settings.grace,
        metrics=metrics,
    )


_OPEN_TIMEOUT = 60.0
"""Seconds. Connecting is bounded by itself; migrating takes what it takes."""

_BASES: Mapping[str, type[Servable]] = {
    "user": UserServiceBase,
    "product": ProductServiceBase,
    "payment": PaymentServiceBase,
    "order": OrderServiceBase,
}


@asynccontextmanager
async def _open(settings: ProcessSettings, metrics: Metrics) -> AsyncIterator[object]:
    """Open what a service is made of, its own part of the event bus included."""
    url = settings.database
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        counted = stack.enter_context(metrics.passing())
        if settings.name == "product":
            yield await enter(open_product(url, counted))
            return
        if settings.name == "payment":
            yield await enter(open_payment(url, counted))
            return
        bus = event_bus(settings.events)
        await enter(bus)
        counted.add_events(bus.stats)
        if settings.name == "user":
            yield await enter(open_user(url, bus, counted))
            return
        channels = await enter(open_channels(settings.target, counted))
        orders = await enter(open_order(url, bus, counted, channels, lease=settings.lease))
        await enter(SagaWorker(orders.coordinator, orders.saga))
        yield orders


def _late(base: type[ServiceT], resource: Resource[Any]) -> ServiceT:
    """Make a service that hands each call to what the resource holds at that moment."""

    def forward(name: str) -> Callable[[object, Any], Coroutine[Any, Any, Any]]:
        async def call(_service: object, request: Any) -> Any:
            return await getattr(resource.get(), name)(request)

        return call

    methods = {
        name: forward(name) for name in vars(base) if inspect.iscoroutinefunction(vars(base)[name])
    }
    made: ServiceT = type(f"Late{base.__name__}", (base,), methods)()
    return made
