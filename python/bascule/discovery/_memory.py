"""A registry within the process."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import anyio

from bascule.discovery._endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bascule.discovery._endpoint import Resolver
    from bascule.discovery._registrar import Registered, Registration

__all__ = ["MemoryRegistry"]


class MemoryRegistry:
    """Knows the endpoints of services that run in this process or were told to it.

    Registering is synchronous and takes effect for watchers at their next turn.
    For use from one event loop.
    """

    _default: ClassVar[MemoryRegistry | None] = None

    def __init__(self) -> None:
        self._services: dict[str, tuple[Endpoint, ...]] = {}
        self._watchers: dict[str, set[anyio.Event]] = {}

    @classmethod
    def default(cls) -> MemoryRegistry:
        """The registry of the process, which ``memory:///`` targets mean."""
        if cls._default is None:
            cls._default = cls()
        return cls._default

    def register(self, service: str, endpoint: Endpoint) -> None:
        """Add an instance, or replace the one with the same address."""
        others = [e for e in self._services.get(service, ()) if e.address != endpoint.address]
        self._set(service, (*others, endpoint))

    def deregister(self, service: str, endpoint: Endpoint) -> None:
        """Remove the instance with the endpoint's address, if there is one."""
        before = self._services.get(service, ())
        self._set(service, tuple(e for e in before if e.address != endpoint.address))

    @asynccontextmanager
    async def registered(self, registration: Registration) -> AsyncIterator[Registered]:
        """As a :class:`Registrar`: the instance is known from entering to leaving."""
        endpoint = Endpoint(registration.address, registration.weight, registration.metadata)
        self.register(registration.service, endpoint)
        try:
            yield _Known()
        finally:
            self.deregister(registration.service, endpoint)

    def endpoints(self, service: str) -> tuple[Endpoint, ...]:
        """The instances now."""
        return self._services.get(service, ())

    def resolver(self, service: str) -> Resolver:
        """Follow the instances of a service."""
        return _MemoryResolver(self, service)

    def _set(self, service: str, endpoints: tuple[Endpoint, ...]) -> None:
        if endpoints == self._services.get(service, ()):
            return
        if endpoints:
            self._services[service] = endpoints
        else:
            self._services.pop(service, None)
        for changed in self._watchers.get(service, ()):
            changed.set()


class _Known:
    problem = None


class _MemoryResolver:
    def __init__(self, registry: MemoryRegistry, service: str) -> None:
        self._registry = registry
        self._service = service

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[Sequence[Endpoint]]]:
        registry, service = self._registry, self._service
        watchers = registry._watchers.setdefault(service, set())
        changed = anyio.Event()
        watchers.add(changed)

        async def states() -> AsyncIterator[Sequence[Endpoint]]:
            nonlocal changed
            while True:
                watchers.discard(changed)
                changed = anyio.Event()
                watchers.add(changed)
                yield registry.endpoints(service)
                await changed.wait()

        try:
            yield states()
        finally:
            watchers.discard(changed)
            if not watchers and registry._watchers.get(service) is watchers:
                del registry._watchers[service]
