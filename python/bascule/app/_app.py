"""A service as its author declares it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bascule.errors import ConfigurationError
from bascule.observe import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from bascule.app._resource import Resource
    from bascule.discovery import Registrar
    from bascule.net import ServerTLS
    from bascule.observe import Tracer
    from bascule.rpc import Servable, ServerInterceptor, ServerLimits, WebSettings

__all__ = ["App", "AppStatus", "Phase"]


class Phase(enum.StrEnum):
    """Where a service is in its life."""

    NEW = "new"
    STARTING = "starting"
    """It loads its configuration and opens its resources."""
    SERVING = "serving"
    """It takes calls; whether it is ready, its resources decide."""
    LEAVING = "leaving"
    """It is not ready any more, deregisters, and waits until clients know."""
    DRAINING = "draining"
    """It takes no new calls, and waits for those in progress."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class AppStatus:
    """What a service is doing.

    :ivar ready: whether calls should be sent to it
    :ivar missing: why each resource that is not open is not, by its name
    :ivar unregistered: why the registry does not know it, by the name of the service
    """

    name: str
    phase: Phase
    ready: bool
    addresses: tuple[str, ...]
    missing: Mapping[str, str]
    unregistered: Mapping[str, str]


@dataclass(slots=True, eq=False)
class App:
    """A service and its life: give it to :func:`run`, or to ``bascule serve MODULE:APP``.

    Where a callable may stand for a value, it is called when the configuration has been loaded
    and the resources have been tried to open.

    :param name: of the service, for logs
    :param services: what to serve, beside health and reflection
    :param listen: address or addresses
    :param config: entered first and left last: a :class:`bascule.config.Config`
    :param resources: opened in this order, closed in the reverse one
    :param registrar: where it makes itself known when it is ready; None for nowhere
    :param register_as: the names by which clients look for it; the full names of ``services`` if empty
    :param advertise: address for clients; None for the first one that it listens at
    :param weight: its share of the calls relative to other instances
    :param propagation: seconds from NOT_SERVING and deregistering to the drain: until all clients
        and load balancers know
    :param grace: seconds that calls in progress have to end when it drains
    :param operations: address for ``/livez``, ``/readyz`` and ``/metrics`` by HTTP, without
        authentication; None for none
    :param reflection: whether clients may ask what it serves; or a serialized
        ``FileDescriptorSet`` that describes it
    :param tracing: a :class:`bascule.observe.OpenTelemetryTracer` of its own, entered first and left
        last; True for what the ``OTEL_`` variables say, under the name of the app: nothing, if they
        name no endpoint; False for none
    :ivar metrics: what ``/metrics`` shows: add channels, breakers and so on
    :raises ConfigurationError: if a time is negative, or two resources share a name
    """

    name: str
    services: Sequence[Servable] | Callable[[], Sequence[Servable]]
    listen: str | Sequence[str] | Callable[[], str | Sequence[str]] = "127.0.0.1:50051"
    config: AbstractAsyncContextManager[Any] | None = None
    resources: Sequence[Resource[Any]] = ()
    registrar: Registrar | Callable[[], Registrar | None] | None = None
    register_as: Sequence[str] = ()
    advertise: str | Callable[[], str] | None = None
    weight: int = 1
    tags: Sequence[str] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    propagation: float = 3.0
    grace: float = 30.0
    operations: str | Callable[[], str | None] | None = None
    reflection: bool | bytes = True
    tls: ServerTLS | None = None
    interceptors: Sequence[ServerInterceptor] = ()
    limits: ServerLimits | None = None
    web: WebSettings | None = None
    compression: str | None = None
    metrics: Metrics = field(default_factory=Metrics)
    tracing: bool | AbstractAsyncContextManager[Tracer] = True

    def __post_init__(self) -> None:
        if not (self.propagation >= 0 and self.grace >= 0):
            message = f"app {self.name!r}: propagation is {self.propagation} and grace {self.grace}: give seconds, 0 or more"
            raise ConfigurationError(message)
        names = [each.name for each in self.resources]
        if len(set(names)) != len(names):
            message = f"app {self.name!r}: its resources {names} need a name of their own each"
            raise ConfigurationError(message)
