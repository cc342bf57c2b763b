"""The life of a service: start, serve, become ready, register; then the same way back."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeVar

import anyio

from bascule.app._app import App, AppStatus, Phase
from bascule.app._operations import operations_server
from bascule.app._resource import Resources
from bascule.config import Config
from bascule.discovery import Registration
from bascule.errors import ClosedError, ConfigurationError
from bascule.net import parse_address
from bascule.net._watch import watched_loop
from bascule.observe import Sample, open_tracing, shared_metrics, traced_by
from bascule.rpc import HealthService, ReflectionService, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anyio.abc import TaskStatus

    from bascule.discovery import Registered
    from bascule.rpc import Servable

__all__ = ["LIVENESS", "READINESS", "STARTUP", "Life"]

T = TypeVar("T")

logger = logging.getLogger("bascule.app")

#: Names that the health service answers for beside the services' own and the empty one, which is
#: readiness too: one for each of Kubernetes' probes.
LIVENESS, READINESS, STARTUP = "liveness", "readiness", "startup"

#: Hosts that mean every address of the machine: clients cannot call them.
_WILDCARDS = {"0.0.0.0", "::", "*"}  # noqa: S104 - it is not bound here

#: Seconds that closing each resource may take after :meth:`Life.hurry`.
HURRY = 1.0


class Life:
    """One run of an app, for programs that embed it; a program of its own calls :func:`run`.

    ``life = await tasks.start(Life(app).live)`` returns when it takes calls.

    :param whole_process: whether this process is there for nothing else
    :ivar phase: where it is
    :ivar operations: address of the page for operators; None if there is none
    """

    def __init__(self, app: App, *, whole_process: bool = False) -> None:
        self.app = app
        self._whole_process = whole_process
        self.phase = Phase.NEW
        self.operations: str | None = None
        self._health = HealthService()
        self._services: tuple[str, ...] = ()
        self._server: Server | None = None
        self._resources = Resources(app.resources, self._change)
        self._registered: dict[str, Registered] = {}
        self._scope = anyio.CancelScope()
        self._changed = anyio.Event()
        self._said_ready: bool | None = None
        self._stopping = False

    @property
    def addresses(self) -> tuple[str, ...]:
        """What was bound, with real ports; empty before it serves."""
        return () if self._server is None else self._server.addresses

    @property
    def ready(self) -> bool:
        """Whether it serves and all that it requires is open."""
        return self.phase is Phase.SERVING and not any(
            each.problem for each in self.app.resources if each.required
        )

    def status(self) -> AppStatus:
        """What it is doing."""
        missing = {each.name: each.problem for each in self.app.resources}
        unregistered = {name: each.problem for name, each in self._registered.items()}
        return AppStatus(
            name=self.app.name,
            phase=self.phase,
            ready=self.ready,
            addresses=self.addresses,
            missing={name: why for name, why in missing.items() if why is not None},
            unregistered={name: why for name, why in unregistered.items() if why is not None},
        )

    def stop(self) -> None:
        """End it in order. What has not served yet ends at once."""
        self._stopping = True
        if self.phase in {Phase.NEW, Phase.STARTING}:
            self._scope.cancel()
        self._tell()

    def hurry(self) -> None:
        """End it now: calls in progress are cancelled, resources are still closed in order."""
        self._stopping = True
        self._resources.patience = HURRY
        self._scope.cancel()
        self._tell()

    async def wait_stopped(self) -> None:
        """Wait until it has ended."""
        while self.phase is not Phase.STOPPED:
            await self._changed.wait()

    async def live(self, *, task_status: TaskStatus[Life] = anyio.TASK_STATUS_IGNORED) -> None:
        """Start, serve until stopped, and end. Cancelling it is like :meth:`hurry`.

        :raises ConfigurationError: if a setting cannot work
        :raises TransportError: if an address cannot be bound
        :raises ClosedError: if it has lived already
        """
        if self.phase is not Phase.NEW:
            message = f"app {self.app.name!r}: a life is lived once: make another one"
            raise ClosedError(message)
        self._enter(Phase.STARTING)
        try:
            with self._scope:
                async with AsyncExitStack() as stack:
                    await self._start(stack)
                    task_status.started(self)
                    await self._serve()
        finally:
            self._enter(Phase.STOPPED)

    async def _start(self, stack: AsyncExitStack) -> None:
        """Load the configuration, open the resources and serve; the stack goes the same way back."""
        app = self.app
        if app.tracing is True:
            await stack.enter_async_context(open_tracing(app.name, install=self._whole_process))
        elif app.tracing is not False:
            stack.enter_context(traced_by(await stack.enter_async_context(app.tracing)))
        if app.config is not None:
            config = await stack.enter_async_context(app.config)
            if isinstance(config, Config):
                app.metrics.add_samples(config.samples)
            logger.info("configuration is loaded", extra={"app": app.name})
        await stack.enter_async_context(watched_loop(app.metrics))
        await stack.enter_async_context(shared_metrics(app.metrics))
        operations = _given(app.operations)
        if operations is not None:
            server = operations_server(operations, app.metrics, lambda: self.ready, self.status)
            await stack.enter_async_context(server)
            app.metrics.add_server(server, "operations")
            self.operations = server.addresses[0]
            extra = {"app": app.name, "address": self.operations}
            logger.info("operations are served", extra=extra)
        await stack.enter_async_context(self._resources.opened())
        self._server = self._make_server(_given(app.services))
        app.metrics.add_server(self._server)
        app.metrics.add_samples(self._samples)
        await stack.enter_async_context(self._server)
        self._enter(Phase.SERVING)

    def _make_server(self, services: Iterable[Servable]) -> Server:
        app = self.app
        served: list[Servable] = [*services, self._health]
        if app.reflection is not False:
            descriptors = None if app.reflection is True else app.reflection
            served.append(ReflectionService(served, descriptors=descriptors))
        server = Server(
            served,
            listen=_given(app.listen),
            tls=app.tls,
            interceptors=app.interceptors,
            limits=app.limits,
            grace=app.grace,
            web=app.web,
            compression=app.compression,
        )
        self._services = tuple(each for each in server.services if not each.startswith("grpc."))
        return server

    async def _serve(self) -> None:
        """From the first call taken to the drain."""
        while not (self.ready or self._stopping):
            await self._changed.wait()
        async with AsyncExitStack() as registrations:
            if not self._stopping:
                await self._register(registrations)
            while not self._stopping:
                await self._changed.wait()
            self._enter(Phase.LEAVING)
        if self._registered:
            logger.info("deregistered", extra={"app": self.app.name})
        self._registered = {}
        await anyio.sleep(self.app.propagation)
        self._enter(Phase.DRAINING)
        # It ends watches too, which would hold up the drain.
        self._health.shutdown()

    async def _register(self, registrations: AsyncExitStack) -> None:
        app = self.app
        registrar = _given(app.registrar)
        if registrar is None:
            return
        address = _given(app.advertise) or self._own_address()
        for name in app.register_as or self._services:
            registration = Registration(
                name,
                address,
                weight=app.weight,
                tags=tuple(app.tags),
                metadata=app.metadata,
                health=READINESS,
            )
            registered = registrar.registered(registration)
            self._registered[name] = await registrations.enter_async_context(registered)
            extra = {"service": name, "address": address, "instance": registration.id}
            problem = self._registered[name].problem
            if problem is None:
                logger.info("registered", extra=extra)
            else:
                extra["reason"] = problem
                logger.warning("could not be registered yet", extra=extra)

    def _own_address(self) -> str:
        address = self.addresses[0]
        if parse_address(address).host in _WILDCARDS:
            message = (
                f"app {self.app.name!r} listens at {address}, which clients cannot call: "
                "set advertise to an address that they can"
            )
            raise ConfigurationError(message)
        return address

    def _samples(self) -> Iterable[Sample]:
        yield Sample.declared("app_ready", self.ready)
        for each in self.app.resources:
            yield Sample.declared("resource_open", each.problem is None, resource=each.name)
        for name, registered in self._registered.items():
            yield Sample.declared("app_registered", registered.problem is None, service=name)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        logger.info(phase, extra={"app": self.app.name, "addresses": self.addresses})
        self._change()

    def _change(self) -> None:
        """Tell the health service and whoever waits."""
        self._health.set(LIVENESS, True)
        self._health.set(STARTUP, self.phase not in {Phase.NEW, Phase.STARTING})
        ready = self.ready
        for name in ("", READINESS, *self._services):
            self._health.set(name, ready)
        for each in self.app.resources:
            self._health.set(f"resource/{each.name}", each.problem is None)
        if self.phase is Phase.SERVING and ready is not self._said_ready:
            self._said_ready = ready
            missing = self.status().missing
            level, said = (logging.INFO, "ready") if ready else (logging.WARNING, "not ready")
            logger.log(level, said, extra={"app": self.app.name, "missing": missing})
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _given(value: T | Callable[[], T]) -> T:
    return value() if callable(value) else value
