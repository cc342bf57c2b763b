"""The shop put together: four services, each behind its own server, in one process."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio

from bascule.app import owned_tasks
from bascule.discovery import MemoryRegistry, Registration
from bascule.errors import Status
from bascule.observe import Metrics, current_tracer, traced_by
from bascule.resilience import BreakerSettings
from bascule.rpc import HealthService, ReflectionService, Server, ServerInterceptor
from bascule.saga import SagaWorker
from bascule_shop._descriptors import descriptor_set
from bascule_shop._faults import UnknownOutcomes, fault
from bascule_shop._seed import SOLD_OUT
from bascule_shop._services import (
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
from bascule_shop.payment import PaymentProvider, SimulatedProvider

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    from anyio.abc import TaskGroup, TaskStatus
    from argon2 import PasswordHasher

    from bascule.discovery import Registrar
    from bascule.observe import Tracer
    from bascule.rpc import CallContext, Channel, Servable

__all__ = ["SERVICES", "SOLD_OUT", "Outage", "Shop", "ShopServer"]


class Outage(ServerInterceptor):
    """Makes a service fail on demand, to show what its callers make of it.

    :ivar active: while true, every call is answered with UNAVAILABLE
    """

    def __init__(self) -> None:
        self.active = False

    async def unary(
        self, call: CallContext, request: Any, proceed: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        """Fail, or let the call through."""
        if self.active:
            raise fault(Status.UNAVAILABLE, "OUTAGE", "an outage is being simulated")
        return await proceed(request)


class ShopServer:
    """One service of the shop behind its own server, registered while it serves.

    :param name: short name
    :param service: what to serve, beside health and reflection
    :param listen: address; a restart binds the same port again
    :param registrar: where it makes itself known
    :param grace: seconds that calls in progress have to finish when it stops
    :ivar outage: makes it fail on demand
    :ivar server: the current or last server; None before the first start
    """

    def __init__(
        self, name: str, service: Servable, *, listen: str, registrar: Registrar, grace: float
    ) -> None:
        self.name = name
        self.outage = Outage()
        self.server: Server | None = None
        self._service = service
        self._listen = listen
        self._registrar = registrar
        self._grace = grace
        self._stop: anyio.Event | None = None
        self._stopped = anyio.Event()

    @property
    def address(self) -> str:
        """Where it serves, or will serve again."""
        return self._listen

    @property
    def serving(self) -> bool:
        """Whether it serves now."""
        return self._stop is not None

    async def start(self, tasks: TaskGroup) -> None:
        """Serve in a task of a group; return when calls are taken.

        :raises TransportError: if the address cannot be bound
        """
        if self._stop is None:
            await tasks.start(self._serve, name=f"{self.name} service")

    async def stop(self) -> None:
        """Deregister, let calls in progress finish, and stop; return when that is done."""
        if self._stop is not None:
            self._stop.set()
            await self._stopped.wait()

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        full_name = SERVICES[self.name]
        health = HealthService([full_name])
        services = [self._service, health]
        server = Server(
            [*services, ReflectionService(services, descriptors=descriptor_set())],
            listen=self._listen,
            interceptors=[self.outage, UnknownOutcomes()],
            grace=self._grace,
        )
        self._stopped = anyio.Event()
        try:
            async with server:
                self.server = server
                self._listen = server.addresses[0]
                self._stop = anyio.Event()
                registration = Registration(full_name, self._listen, health=full_name)
                try:
                    async with self._registrar.registered(registration):
                        task_status.started()
                        await self._stop.wait()
                finally:
                    health.shutdown()
        finally:
            self._stop = None
            self._stopped.set()


class Shop:
    """The whole shop but its gateway. Use it with ``async with``.

    :param data: folder of the databases; made, and filled with products and users, if there is none
    :param databases: URLs by short name of the service, for those that are to be kept elsewhere:
        ``mysql://...``, and for products ``mongodb://...`` too
    :param listen: addresses by short name; a free port of this machine for those not named
    :param registry: where the services register and find each other; None for one of its own
    :param consul: ``host:port`` of a Consul agent in place of the registry
    :param breaker: for each call between services
    :param provider: who moves the money; None for a simulated one
    :param hasher: of passwords; None for argon2id with its library's parameters
    :param events: URL of a Redis that its events go through; None to keep them in this process
    :param tracers: where spans go, by short name of the service
    :param grace: seconds that calls in progress have to finish when the shop closes
    :ivar servers: the services by short name
    :ivar bus: where ``user.created`` and ``order.created`` are published
    :ivar metrics: of all its parts
    :ivar channels: the order service's channels by short name of the service called
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
        *,
        databases: Mapping[str, str] | None = None,
        listen: Mapping[str, str] | None = None,
        registry: MemoryRegistry | None = None,
        consul: str | None = None,
        breaker: BreakerSettings | None = None,
        provider: PaymentProvider | None = None,
        hasher: PasswordHasher | None = None,
        events: str | None = None,
        tracers: Mapping[str, Tracer] | None = None,
        grace: float = 10.0,
    ) -> None:
        self.registry = registry or MemoryRegistry()
        self._consul = consul
        self.provider: PaymentProvider = provider or SimulatedProvider()
        self.bus = event_bus(events)
        self.metrics = Metrics()
        self.metrics.add_events(self.bus.stats)
        if consul is not None:
            add_consul(self.metrics)
        self.servers: dict[str, ShopServer] = {}
        self.channels: Mapping[str, Channel] = {}
        self._data = Path(data)
        self._databases = databases or {}
        self._listen = listen or {}
        self._breaker = breaker or BreakerSettings()
        self._hasher = hasher
        self._tracers = tracers or {}
        self._grace = grace
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Bring the databases up to date and open them, then start each service after those that it calls.

        :raises TransportError: if an address cannot be bound
        """
        self._data.mkdir(parents=True, exist_ok=True)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.bus)
            services = await self._open_services(stack)
            self._tasks = await stack.enter_async_context(owned_tasks())
            registrar = self._registrar()
            for name, service in services.items():
                server = self.servers[name] = ShopServer(
                    name,
                    service,
                    listen=self._listen.get(name, "127.0.0.1:0"),
                    registrar=registrar,
                    grace=self._grace,
                )
                await self.start(name)
                if server.server is not None:
                    self.metrics.add_server(server.server, name)
                stack.push_async_callback(server.stop)
            # Orders that the last process left go on now that the other services answer.
            with self._traced("order"):
                worker = SagaWorker(self._orders.coordinator, self._orders.saga)
                await stack.enter_async_context(worker)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Stop each service before those that it calls, then publish the last events and close."""
        return await self._stack.__aexit__(exc_type, exc, traceback)

    async def start(self, name: str) -> None:
        """Start a service again that was stopped, at its old address."""
        with self._traced(name):
            await self.servers[name].start(self._tasks)

    async def stop(self, name: str) -> None:
        """Stop one service."""
        await self.servers[name].stop()

    async def ready(self) -> bool:
        """Tell whether every service takes calls."""
        return all(server.serving for server in self.servers.values())

    def target(self, name: str) -> str:
        """Give the target of a service, by short name, for channels on the shop's registry."""
        if self._consul is None:
            return f"memory:///{SERVICES[name]}"
        return consul_target(self._consul, name)

    def _traced(self, name: str) -> AbstractContextManager[None]:
        """Send the spans of what is opened within to the tracer of a service."""
        return traced_by(self._tracers.get(name, current_tracer()))

    def _registrar(self) -> Registrar:
        return self.registry if self._consul is None else consul_registrar(self._consul)

    async def _open_services(self, stack: AsyncExitStack) -> dict[str, Servable]:
        urls = {name: f"sqlite:///{self._data / name}.db" for name in SERVICES}
        urls |= self._databases
        enter = stack.enter_async_context
        self.channels = await enter(
            open_channels(self.target, self.metrics, registry=self.registry, breaker=self._breaker)
        )
        services: dict[str, Servable] = {}
        with self._traced("order"):
            order = open_order(urls["order"], self.bus, self.metrics, self.channels)
            self._orders = await enter(order)
        with self._traced("user"):
            user = open_user(urls["user"], self.bus, self.metrics, hasher=self._hasher)
            services["user"] = await enter(user)
        with self._traced("product"):
            services["product"] = await enter(open_product(urls["product"], self.metrics))
        with self._traced("payment"):
            payment = open_payment(urls["payment"], self.metrics, provider=self.provider)
            services["payment"] = await enter(payment)
        # Each starts after those that it calls.
        return services | {"order": self._orders}
