"""How each service is put together, whatever process it runs in: its store, its clients, its events."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from bascule.events import MemoryEventBus, OutboxRelay, RedisEventBus, SqlOutbox
from bascule.rpc import Channel
from bascule.saga import SagaClientInterceptor, SagaCoordinator, SqlSagaLog
from bascule.sql import Database
from bascule_shop._caller import current_caller
from bascule_shop._generated.payment.services import PaymentServiceStub
from bascule_shop._generated.product.services import ProductServiceStub
from bascule_shop._generated.user.services import UserServiceStub
from bascule_shop._seed import PRODUCTS, USERS
from bascule_shop.migrations import migrate
from bascule_shop.order import ORDER_CREATED, OrderService, SqlOrderStore
from bascule_shop.order import _store as order_tables
from bascule_shop.payment import PaymentProvider, PaymentService, SimulatedProvider, SqlPaymentStore
from bascule_shop.product import ProductService, open_product_store
from bascule_shop.user import USER_CREATED, SqlUserStore, UserService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from argon2 import PasswordHasher

    from bascule.discovery import MemoryRegistry, Registrar
    from bascule.events import EventBus
    from bascule.observe import MetricSources
    from bascule.resilience import BreakerSettings

__all__ = [
    "CALLED",
    "SERVICES",
    "add_consul",
    "consul_registrar",
    "consul_target",
    "event_bus",
    "open_channels",
    "open_order",
    "open_payment",
    "open_product",
    "open_user",
]

SERVICES: Mapping[str, str] = {
    "user": "user.UserService",
    "product": "product.ProductService",
    "payment": "payment.PaymentService",
    "order": "order.OrderService",
}
"""The shop's services by short name, each after those that it calls."""

CALLED = ("user", "product", "payment")
"""The services that the order service calls."""


def event_bus(redis: str | None) -> MemoryEventBus | RedisEventBus:
    """Make the bus that events go through.

    :param redis: its URL; None for a bus within the process
    """
    return MemoryEventBus() if redis is None else RedisEventBus(redis)


def consul_target(agent: str, name: str) -> str:
    """Give the target of a service, by short name, that is to be found in Consul.

    :param agent: ``host:port``
    """
    return f"consul://{agent}/{SERVICES[name]}"


def add_consul(metrics: MetricSources) -> None:
    """Show how fresh what Consul said of each service is."""
    from bascule.discovery.consul import ConsulStats

    metrics.add_discovery(ConsulStats.default())


def consul_registrar(agent: str) -> Registrar:
    """Make what registers services in Consul.

    :param agent: ``host:port``
    """
    from bascule.discovery.consul import ConsulRegistrar, ConsulSettings

    return ConsulRegistrar(settings=ConsulSettings.read(agent))


@asynccontextmanager
async def open_user(
    url: str, bus: EventBus, metrics: MetricSources, *, hasher: PasswordHasher | None = None
) -> AsyncIterator[UserService]:
    """Open the user service on a database that is brought up to date and seeded.

    :param bus: where ``user.created`` is published
    :param metrics: what shows its database and its outbox
    """
    await migrate("user", url)
    async with Database(url) as database:
        metrics.add_database(database.stats)
        outbox = SqlOutbox(database, USER_CREATED, name="user")
        async with OutboxRelay(outbox, bus) as relay:
            metrics.add_events(relay.stats)
            store = SqlUserStore(database, outbox)
            await store.seed(USERS)
            yield UserService(store, notify=relay.notify, hasher=hasher)


@asynccontextmanager
async def open_product(url: str, metrics: MetricSources) -> AsyncIterator[ProductService]:
    """Open the product service on a database that is brought up to date and seeded.

    :param metrics: what shows its database
    """
    await migrate("product", url)
    async with open_product_store(url, metrics) as store:
        await store.seed(PRODUCTS)
        yield ProductService(store)


@asynccontextmanager
async def open_payment(
    url: str, metrics: MetricSources, *, provider: PaymentProvider | None = None
) -> AsyncIterator[PaymentService]:
    """Open the payment service on a database that is brought up to date.

    :param metrics: what shows its database
    :param provider: who moves the money; None for a simulated one
    """
    await migrate("payment", url)
    async with Database(url) as database:
        metrics.add_database(database.stats)
        yield PaymentService(SqlPaymentStore(database), provider or SimulatedProvider())


@asynccontextmanager
async def open_order(
    url: str,
    bus: EventBus,
    metrics: MetricSources,
    channels: Mapping[str, Channel],
    *,
    lease: float = 30.0,
) -> AsyncIterator[OrderService]:
    """Open the order service on a database that is brought up to date.

    Orders that the last process left go on when a :class:`bascule.saga.SagaWorker` is given its
    ``coordinator`` and ``saga``.

    :param bus: where ``order.created`` is published
    :param metrics: what shows its database, its outbox and its sagas
    :param channels: to the services that it calls, by short name
    :param lease: seconds after which other processes go on with the orders of one that died
    """
    await migrate("order", url)
    async with Database(url) as database:
        metrics.add_database(database.stats)
        coordinator = SagaCoordinator(SqlSagaLog(database, order_tables.SAGAS), lease=lease)
        metrics.add_sagas(coordinator.stats)
        outbox = SqlOutbox(database, ORDER_CREATED, name="order")
        async with OutboxRelay(outbox, bus) as relay:
            metrics.add_events(relay.stats)
            yield OrderService(
                SqlOrderStore(database, outbox),
                UserServiceStub(channels["user"]),
                ProductServiceStub(channels["product"]),
                PaymentServiceStub(channels["payment"]),
                coordinator=coordinator,
                notify=relay.notify,
                caller=current_caller,
            )


@asynccontextmanager
async def open_channels(
    target: Callable[[str], str],
    metrics: MetricSources,
    *,
    registry: MemoryRegistry | None = None,
    breaker: BreakerSettings | None = None,
) -> AsyncIterator[Mapping[str, Channel]]:
    """Open the order service's channels.

    :param target: gives a service's target for its short name
    :param metrics: what shows their calls
    :param registry: for ``memory:///`` targets
    :param breaker: for each endpoint
    """
    async with AsyncExitStack() as stack:
        channels: dict[str, Channel] = {}
        for name in CALLED:
            channel = Channel(
                target(name),
                registry=registry,
                breaker=breaker,
                interceptors=[SagaClientInterceptor()],
            )
            channels[name] = await stack.enter_async_context(channel)
            metrics.add_channel(channel, SERVICES[name])
        yield channels
