"""Many small messages, and large ones: what every stack is measured with beside the one call."""

from collections.abc import AsyncIterator

from benches._generated.bench.streams_pb2 import Blob, Item, Wanted

COUNT = "/bench.Streams/Count"
PING_PONG = "/bench.Streams/PingPong"
LARGE = "/bench.Streams/Large"
ITEM = Item(id=1_234_567, name="Ada Lovelace", active=True)
ITEMS = 1000  #: a call, of `count`
LARGE_BYTES = 1 << 20
WORKERS = {"count": 1, "pingpong": 10, "large": 4}  #: at once, of each kind of load


async def count(request: Wanted, _context: object = None) -> AsyncIterator[Item]:
    """Send so many items."""
    for _ in range(request.items):
        yield Item(id=1_234_567, name="Ada Lovelace", active=True)


async def ping_pong(pings: AsyncIterator[Item], _context: object = None) -> AsyncIterator[Item]:
    """Answer each item with itself."""
    async for ping in pings:
        yield Item(id=ping.id, name=ping.name, active=ping.active)


async def large(request: Blob, _context: object = None) -> Blob:
    """Answer with what was sent."""
    return Blob(data=request.data)
