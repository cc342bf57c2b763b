"""One instance of a service, and how its list is followed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

__all__ = ["Endpoint", "Resolver"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one instance listens.

    :param address: ``host:port``, ``unix:/path`` or ``memory:name``
    :param weight: its share of the calls relative to the others; 0 takes none
    :param metadata: what the registry knows of it besides
    :raises ValueError: if the weight is negative
    """

    address: str
    weight: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.weight < 0:
            message = f"endpoint {self.address}: weight {self.weight} is negative"
            raise ValueError(message)


class Resolver(Protocol):
    """Follows the endpoints of one service."""

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Endpoint]]]:
        """The list now, and again whenever it changes; an empty list is a state.

        A slow reader misses states in between, never the last one.
        """
        ...
