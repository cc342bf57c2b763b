"""The life of a gateway: start, serve, be ready; then the same way back."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import anyio

from bascule.app._app import Phase
from bascule.app._operations import operations_server
from bascule.errors import ClosedError
from bascule.observe import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anyio.abc import TaskStatus

    from bascule.gateway import Gateway, GatewayFile

__all__ = ["GatewayApp", "GatewayLife", "GatewayStatus"]

logger = logging.getLogger("bascule.app")


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """What a gateway is doing.

    :ivar ready: whether requests should be sent to it
    :ivar upstreams: state of the channel of each service, such as ``ready``; for information only
    """

    name: str
    phase: Phase
    ready: bool
    addresses: tuple[str, ...]
    upstreams: Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class GatewayApp:
    """A gateway as a process of its own: give it to :func:`run`.

    It starts without its services and is ready: what needs one that is away is answered by 503, the
    rest is served.

    :param gateway: not started yet
    :param name: for logs
    :param operations: address for ``/livez``, ``/readyz`` and ``/metrics`` by HTTP, without
        authentication; None for none
    :param propagation: seconds from not ready to the drain: until load balancers know
    """

    gateway: Gateway
    name: str = "gateway"
    operations: str | None = None
    propagation: float = 3.0

    @classmethod
    def of(cls, file: GatewayFile) -> Self:
        """The gateway that a file describes.

        :raises ConfigurationError: if its routes and settings do not fit together
        """
        return cls(file.gateway(), operations=file.operations, propagation=file.propagation)


class GatewayLife:
    """One run of a gateway, for programs that embed it; a program of its own calls :func:`run`.

    :ivar phase: where it is
    :ivar operations: address of the page for operators; None if there is none
    """

    def __init__(self, app: GatewayApp) -> None:
        self.app = app
        self.phase = Phase.NEW
        self.operations: str | None = None
        self._gateway = app.gateway
        self._scope = anyio.CancelScope()
        self._stopping = anyio.Event()

    @property
    def ready(self) -> bool:
        """Whether requests should be sent to it."""
        return self.phase is Phase.SERVING

    def status(self) -> GatewayStatus:
        """What it is doing."""
        channels = self._gateway.channels.items()
        return GatewayStatus(
            name=self.app.name,
            phase=self.phase,
            ready=self.ready,
            addresses=self._gateway.addresses,
            upstreams={service: str(channel.state) for service, channel in channels},
        )

    def stop(self) -> None:
        """End it in order. What has not served yet ends at once."""
        if self.phase in {Phase.NEW, Phase.STARTING}:
            self._scope.cancel()
        self._stopping.set()

    def hurry(self) -> None:
        """End it now: requests in progress are cancelled."""
        self._stopping.set()
        self._scope.cancel()

    async def live(
        self, *, task_status: TaskStatus[GatewayLife] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Start, serve until stopped, and end. Cancelling it is like :meth:`hurry`.

        :raises ConfigurationError: if an address or the TLS files cannot be used
        :raises TransportError: if an address cannot be bound
        :raises ClosedError: if it has lived already
        """
        if self.phase is not Phase.NEW:
            message = f"gateway {self.app.name!r}: a life is lived once: make another one"
            raise ClosedError(message)
        self._enter(Phase.STARTING)
        try:
            with self._scope:
                async with AsyncExitStack() as stack:
                    await self._start(stack)
                    task_status.started(self)
                    await self._stopping.wait()
                    self._gateway.leave()
                    self._enter(Phase.LEAVING)
                    await anyio.sleep(self.app.propagation)
                    self._enter(Phase.DRAINING)
        finally:
            self._enter(Phase.STOPPED)

    async def _start(self, stack: AsyncExitStack) -> None:
        metrics = self._gateway.metrics
        metrics.add_samples(self._samples)
        listen = self.app.operations
        if listen is not None:
            server = operations_server(listen, metrics, lambda: self.ready, self.status)
            await stack.enter_async_context(server)
            self.operations = server.addresses[0]
            extra = {"app": self.app.name, "address": self.operations}
            logger.info("operations are served", extra=extra)
        await stack.enter_async_context(self._gateway)
        self._enter(Phase.SERVING)
        logger.info("ready", extra={"app": self.app.name, "missing": {}})

    def _samples(self) -> Iterable[Sample]:
        yield Sample("app_ready", "1 while calls should be sent to this service", self.ready)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        logger.info(phase, extra={"app": self.app.name, "addresses": self._gateway.addresses})
