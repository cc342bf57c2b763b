"""One instance of a service, and how its list is followed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

__all__ = ["Endpoint", "RefreshableResolver", "Resolver", "ResolverState"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one instance listens.

    :param address: ``host:port``, ``unix:/path`` or ``memory:name``
    :param weight: its share of the calls relative to the others; 0 takes none
    :param metadata: what the registry knows of it besides
    :param authority: the name that calls are addressed to and its certificate is checked for, with
        a port if need be; the address itself if None
    :raises ValueError: if the weight is negative
    """

    address: str
    weight: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    authority: str | None = None

    def __post_init__(self) -> None:
        if self.weight < 0:
            message = f"endpoint {self.address}: weight {self.weight} is negative"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class ResolverState:
    """What a resolver says, if that is more than a list of endpoints.

    :param endpoints: where the service is now
    :param service_config: how its calls behave, in gRPC's JSON form or read from it; it replaces
        the channel's own. None: the channel's own holds
    :param problem: why the endpoints are not known, or may be out of date, though the resolver goes on
        trying: calls that find no endpoint fail with it
    """

    endpoints: Sequence[Endpoint]
    service_config: str | Mapping[str, Any] | None = field(default=None, hash=False)
    problem: str | None = None


class Resolver(Protocol):
    """Follows the endpoints of one service.

    Write one for whatever knows where your services are::

        class FileResolver:
            def __init__(self, path: anyio.Path) -> None:
                self.path = path

            @asynccontextmanager
            async def watch(self):
                async def states():
                    while True:
                        lines = (await self.path.read_text()).split()
                        yield [Endpoint(line) for line in lines]
                        await anyio.sleep(10)

                yield states()

        async with Channel("users", resolver=FileResolver(anyio.Path("/run/users"))) as channel:
            ...

    An exception ends the watch: the channel keeps the last endpoints, says why in its snapshot and
    in the errors of calls that find no endpoint, and watches again after a pause that grows from
    1 s to 30 s.
    """

    def watch(
        self,
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Endpoint] | ResolverState]]:
        """The list now, and again whenever it changes; an empty list is a state.

        A slow reader misses states in between, never the last one.
        """
        ...


@runtime_checkable
class RefreshableResolver(Resolver, Protocol):
    """A resolver that learns of changes by asking: it can be told that now is a good time."""

    def refresh(self) -> None:
        """A connection failed or was lost. Ask again soon, but not too often: this is called for
        every endpoint and every attempt.
        """
        ...
