"""How an instance makes itself known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

__all__ = ["Registered", "Registrar", "Registration"]


@dataclass(frozen=True, slots=True)
class Registration:
    """One instance of a service, as it wants to be known.

    :param service: the name that clients look for
    :param address: where clients reach it: ``host:port``, ``unix:/path`` or ``memory:name``
    :param instance: its name among the instances, the same after a restart; by default it is made
        from the service and the address, see :attr:`id`
    :param weight: its share of the calls relative to the others; 0 takes none
    :param health: what a registry that checks its instances asks their gRPC health service for;
        None: it is not to be asked
    :raises ConfigurationError: if the service or the address is empty, or the weight negative
    """

    service: str
    address: str
    instance: str | None = None
    weight: int = 1
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    health: str | None = None

    def __post_init__(self) -> None:
        if not self.service or not self.address or self.weight < 0:
            message = (
                f"registration of {self.service!r} at {self.address!r} with weight {self.weight}: "
                "give a name, an address and a weight of 0 or more"
            )
            raise ConfigurationError(message)

    @property
    def id(self) -> str:
        """What the registry tells instances apart by."""
        return self.instance or f"{self.service}-{self.address.replace(':', '-')}"


class Registered(Protocol):
    """What a registrar tells about an instance that is to be registered."""

    @property
    def problem(self) -> str | None:
        """Why the registry does not know the instance now; None if it does."""
        ...


class Registrar(Protocol):
    """Keeps instances known to a registry for as long as they live."""

    def registered(self, registration: Registration) -> AbstractAsyncContextManager[Registered]:
        """Register on entering, keep it so, deregister on leaving.

        Entering ends after the first attempt, whether it worked or not: an instance starts
        without its registry as well. Then the registrar's own task tries again, and it registers
        again what the registry forgot. Leaving deregisters even if it is cancelled, but takes
        no more than a few seconds: a registry that is away has to notice by itself.

        :raises ConfigurationError: on entering, if the registry says that this cannot be registered
        """
        ...
