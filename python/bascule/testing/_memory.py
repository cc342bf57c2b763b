"""A server and a channel joined in memory."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bascule.rpc import Channel, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bascule.rpc import ClientInterceptor, Servable, ServerInterceptor

__all__ = ["memory_channel"]

_names = itertools.count(1)


@asynccontextmanager
async def memory_channel(
    *services: Servable,
    interceptors: Sequence[ClientInterceptor] = (),
    server_interceptors: Sequence[ServerInterceptor] = (),
    timeout: float | None = None,
    grace: float = 1.0,
) -> AsyncIterator[Channel]:
    """A channel to services that are served in memory: all of gRPC but the sockets.

    :param services: what a :class:`bascule.rpc.Server` takes
    :param interceptors: the channel's
    :param server_interceptors: the server's
    :param timeout: seconds for calls that give none
    :param grace: seconds that calls in progress get on leaving
    """
    address = f"memory:testing-{next(_names)}"
    async with (
        Server(services, listen=address, interceptors=server_interceptors, grace=grace),
        Channel(address, interceptors=interceptors, timeout=timeout) as channel,
    ):
        yield channel
