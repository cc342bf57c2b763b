"""Connections within the process: ``memory:name`` addresses, for both loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from bascule.errors import TransportError
from bascule.net._stream import StreamLink

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from bascule.net._address import Address
    from bascule.net._link import Driver, Link, Machine, Session

    Attach = Callable[[Link], tuple[Machine, Session]]

#: Errors that mean: the other end is gone.
LOST = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)

#: Chunks on their way in each direction; a chunk is at most one flush.
CHUNKS = 16


class MemoryListener:
    """What ``memory:name`` resolves to while it is open."""

    def __init__(self, driver: Driver, where: Address, accept: Attach) -> None:
        self.address = str(where)
        self.addresses: tuple[str, ...] = (self.address,)
        self.driver = driver
        self.accept = accept
        self.loop = anyio.lowlevel.current_token()

    async def close(self) -> None:
        if _listeners.get(self.address) is self:
            del _listeners[self.address]


#: Listeners of this process. A name is bound from ``listen`` until ``close``.
_listeners: dict[str, MemoryListener] = {}


def listen_memory(driver: Driver, where: Address, accept: Attach) -> MemoryListener:
    """Bind a name.

    :raises TransportError: if it is bound already
    """
    listener = MemoryListener(driver, where, accept)
    if _listeners.setdefault(listener.address, listener) is not listener:
        message = f"cannot listen on {where}: the name is in use in this process"
        raise TransportError(message)
    return listener


async def connect_memory(driver: Driver, where: Address, attach: Attach) -> Link:
    """Connect to a bound name, which must live on the same event loop.

    :raises TransportError: if nothing listens there
    """
    await anyio.lowlevel.checkpoint()
    listener = _listeners.get(str(where))
    if listener is None:
        message = f"cannot connect to {where}: nothing in this process listens there"
        raise TransportError(message)
    if listener.loop != anyio.lowlevel.current_token():
        message = (
            f"cannot connect to {where}: its server belongs to another event loop: serve it in this "
            "one, or on a unix: or TCP address"
        )
        raise TransportError(message)
    to_server = anyio.create_memory_object_stream[bytes](CHUNKS)
    to_client = anyio.create_memory_object_stream[bytes](CHUNKS)
    _start(listener.driver, str(where), to_server[1], to_client[0], listener.accept)
    return _start(driver, str(where), to_client[1], to_server[0], attach)


def _start(
    driver: Driver,
    peer: str,
    incoming: MemoryObjectReceiveStream[bytes],
    outgoing: MemoryObjectSendStream[bytes],
    attach: Attach,
) -> StreamLink:
    def close() -> None:
        incoming.close()
        outgoing.close()

    link = StreamLink(driver, peer, incoming.receive, outgoing.send, close, LOST)
    link.start(attach)
    return link
