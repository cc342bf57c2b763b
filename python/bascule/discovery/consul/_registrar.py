"""Keeps instances registered with the agent of their machine."""

from __future__ import annotations

import enum
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from bascule._backoff import grown
from bascule._tasks import finish, owned_tasks
from bascule.discovery.consul._agent import (
    Check,
    GrpcCheck,
    ServiceDefinition,
    TtlCheck,
)
from bascule.discovery.consul._blocking import jitter
from bascule.discovery.consul._client import ConsulClient, shared_client
from bascule.discovery.consul._errors import ConsulError, ConsulStatusError
from bascule.discovery.consul._settings import ConsulSettings
from bascule.discovery.consul._wire import Weights
from bascule.errors import ConfigurationError
from bascule.net import parse_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from bascule.discovery._registrar import Registration

__all__ = ["ConsulRegistrar", "ConsulRegistration", "RegistrationState"]

#: Seconds that the first attempt may take, and deregistering.
FIRST, LAST = 3.0, 5.0

#: Seconds until the agent has done a request that was sent.
OVERTAKEN = 0.5

#: Seconds after which an attempt that failed is repeated, at the most; it begins with 1 s.
MOST_PAUSE = 10.0

#: The largest weight that Consul takes.
MOST_WEIGHT = 65_535


class RegistrationState(enum.StrEnum):
    """What Consul's agent knows of an instance."""

    UNKNOWN = "unknown"
    """It could not be registered yet, or the agent is away."""
    REGISTERED = "registered"
    MAINTENANCE = "maintenance"
    """It is registered, and left out by resolvers."""
    DEREGISTERED = "deregistered"


@dataclass(eq=False)
class ConsulRegistration:
    """One instance for as long as its ``async with`` lasts.

    :ivar definition: what is registered
    :ivar problem: why the agent does not know it now; None if it does
    :ivar registered: how often it has been registered: more than once if the agent forgot it
    """

    definition: ServiceDefinition
    client: ConsulClient
    state: RegistrationState = RegistrationState.UNKNOWN
    problem: str | None = "it has not been registered yet"
    registered: int = 0
    _reason: str | None = None
    _told: str | None = None
    _cut: bool = False
    _changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def id(self) -> str:
        """Its name on its agent."""
        return self.definition.id

    async def wait_registered(self) -> None:
        """Wait until the agent knows it."""
        while self.problem is not None:
            await self._changed.wait()

    async def maintenance(self, enable: bool, *, reason: str = "") -> None:
        """Have resolvers leave it out, or not any more. An agent that forgets is told again.

        :raises ConsulError: if the agent is away or refuses; it is told when it knows the instance
        """
        self._reason = (reason or "for no reason given") if enable else None
        await self.attempt()

    async def attempt(self, *, anew: bool = False) -> None:
        """Register it if the agent does not know it as it is.

        :param anew: whether or not
        """
        try:
            known = None if anew else await self.client.agent.service(self.id)
            if known is None or not self.definition.is_as(known):
                self._cut = True
                await self.client.agent.register(self.definition)
                self._cut = False
                self.registered += 1
                self._told = None
            if self._told != self._reason:
                reason = self._reason
                enable = reason is not None
                await self.client.agent.maintenance(self.id, enable, reason=reason)
                self._told = reason
        except ConsulError as error:
            self._tell(str(error))
            raise
        self._tell(None)

    async def deregister(self) -> None:
        """Remove it, in a few seconds even if cancelled; an agent that is away has to notice by itself."""
        try:
            await finish(self._deregister, LAST)
        finally:
            self.state, self.problem = RegistrationState.DEREGISTERED, "it is deregistered"

    async def _deregister(self) -> None:
        if self._cut:
            # The agent may still be about to do what was given up.
            await anyio.sleep(OVERTAKEN)
        for _ in range(3):
            try:
                await self.client.agent.deregister(self.id)
            except ConsulError as error:
                if not error.retryable:
                    return
                await anyio.sleep(jitter(0.2, 0.5))
            else:
                return

    def _tell(self, problem: str | None) -> None:
        self.problem = problem
        self.state = RegistrationState.UNKNOWN
        if problem is None:
            self.state = RegistrationState.REGISTERED
            if self._told is not None:
                self.state = RegistrationState.MAINTENANCE
        self._changed.set()
        self._changed = anyio.Event()


class ConsulRegistrar:
    """A :class:`bascule.discovery.Registrar` for Consul.

    The agent is asked every ``check_every`` seconds whether it still knows the instance as it is, and
    told again if it does not. While it is away, it is tried again after 1 to 10 s.

    :param client: inside of its ``async with``; None: one that is shared by the event loop
    :param settings: of that one; by default what the environment says
    :param interval: seconds between the questions for its health
    :param timeout: seconds that the answer to one may take
    :param deregister_after: seconds, at least 60, after which Consul forgets an instance that stays
        critical; None for never
    :param ttl: instead of being asked, tell the agent every third of so many seconds that all is well
    :param tls: whether the agent has to ask by TLS
    :param tls_server_name: the name that the certificate has to carry then
    :param checks: more of them, or others than the one that is made from ``Registration.health``
    :param check_every: seconds between two looks whether the agent still knows the instance
    :raises ConfigurationError: if a setting cannot work
    """

    def __init__(
        self,
        client: ConsulClient | None = None,
        *,
        settings: ConsulSettings | None = None,
        interval: float = 10.0,
        timeout: float = 5.0,
        deregister_after: float | None = 60.0,
        ttl: float | None = None,
        tls: bool = False,
        tls_server_name: str | None = None,
        checks: Callable[[Registration], Sequence[Check]] | None = None,
        check_every: float = 10.0,
    ) -> None:
        if not check_every > 0:
            raise ConfigurationError(f"check_every is {check_every}: give seconds above 0")
        self._client = client
        self._settings = settings or (ConsulSettings.read() if client is None else client.settings)
        self._terms = (interval, timeout, deregister_after, tls, tls_server_name)
        self._ttl = ttl
        self._checks = checks
        self._check_every = check_every
        # What cannot work fails now, not when the service has started.
        GrpcCheck(target="-", interval=interval, timeout=timeout, deregister_after=deregister_after)
        if ttl is not None:
            TtlCheck(ttl=ttl)

    @asynccontextmanager
    async def registered(self, registration: Registration) -> AsyncIterator[ConsulRegistration]:
        """Register on entering, keep it so, deregister on leaving.

        Entering ends after the first attempt, at most 3 s, whether it worked or not. Leaving takes at most
        5 s, also if cancelled.

        :raises ConfigurationError: on entering, if the address is not ``host:port``, or Consul refuses
            the instance for good
        """
        definition = self.definition(registration)
        async with AsyncExitStack() as stack:
            client = self._client
            if client is None:
                client = await stack.enter_async_context(shared_client(self._settings))
            registered = ConsulRegistration(definition, client)
            async with owned_tasks() as tasks:
                try:
                    with anyio.move_on_after(FIRST), suppress(ConsulError):
                        await self._first(registered)
                    tasks.start_soon(self._keep, registered)
                    if self._ttl is not None:
                        tasks.start_soon(self._report, registered, self._ttl)
                    yield registered
                finally:
                    tasks.cancel_scope.cancel()
                    await registered.deregister()

    def definition(self, registration: Registration) -> ServiceDefinition:
        """What the agent is told.

        :raises ConfigurationError: if the address is not ``host:port``
        """
        where = parse_address(registration.address)
        if where.kind != "tcp" or where.port == 0:
            raise ConfigurationError(
                f"{registration.service} at {registration.address!r}: others reach it at host:port only"
            )
        weight = min(registration.weight, MOST_WEIGHT)
        if weight < 1:
            raise ConfigurationError(
                f"{registration.service}: Consul knows no weight {weight}: give at least 1, "
                "or use maintenance"
            )
        return ServiceDefinition(
            name=registration.service,
            id=registration.id,
            port=where.port,
            address=where.host,
            tags=registration.tags,
            meta=registration.metadata,
            weights=Weights(weight, weight),
            checks=self._checks_of(registration),
        )

    def _checks_of(self, registration: Registration) -> Sequence[Check]:
        if self._checks is not None:
            return self._checks(registration)
        interval, timeout, deregister_after, tls, tls_server_name = self._terms
        # It registers when it is ready, so it begins as passing: Consul's first question comes only
        # after up to a whole interval.
        if self._ttl is not None:
            return [
                TtlCheck(
                    id=_ttl_id(registration.id),
                    name="heartbeat",
                    ttl=self._ttl,
                    status="passing",
                    deregister_after=deregister_after,
                )
            ]
        if registration.health is None:
            return []
        service = f"/{registration.health}" if registration.health else ""
        return [
            GrpcCheck(
                id=f"grpc:{registration.id}",
                name="gRPC health",
                target=f"{registration.address}{service}",
                tls=tls,
                tls_server_name=tls_server_name,
                interval=interval,
                timeout=timeout,
                status="passing",
                deregister_after=deregister_after,
            )
        ]

    async def _first(self, registered: ConsulRegistration) -> None:
        try:
            await registered.attempt(anew=True)
        except ConsulStatusError as error:
            if error.status in {400, 403}:
                raise ConfigurationError(f"cannot register {registered.id!r}: {error}") from error
            raise

    async def _keep(self, registered: ConsulRegistration) -> None:
        """Have the agent know it, whatever it forgets."""
        pause = 0.0 if registered.problem is not None else self._check_every
        failures = 0
        while True:
            await anyio.sleep(jitter(pause * 0.8, pause * 1.2))
            try:
                await registered.attempt(anew=registered.registered == 0)
            except ConsulError:
                failures += 1
                pause = grown(failures, 1.0, MOST_PAUSE)
            else:
                pause, failures = self._check_every, 0

    async def _report(self, registered: ConsulRegistration, ttl: float) -> None:
        """Tell that all is well, in time for one report to be lost."""
        while True:
            with suppress(ConsulError):
                await registered.client.agent.update_check(_ttl_id(registered.id), "passing")
            await anyio.sleep(ttl / 3)


def _ttl_id(instance: str) -> str:
    return f"ttl:{instance}"
