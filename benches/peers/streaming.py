"""A Python client of streams: ``python -m benches.peers.streaming STACK BACKEND KIND TARGET SECONDS``.

It prints one number: the messages, rounds or bytes that it moved a second.
"""

import argparse
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio

from bascule.app import settle_memory
from benches._generated.bench.streams_pb2 import Blob, Item, Wanted
from benches.peers.serve import run
from benches.peers.streams import COUNT, ITEM, ITEMS, LARGE, LARGE_BYTES, PING_PONG, WORKERS

#: One turn of a load; it answers with how much it moved.
Turn = Callable[[], Awaitable[int]]
#: Makes a turn, for each of the workers.
Worker = Callable[[], AbstractAsyncContextManager[Turn]]
Client = Callable[[str, str], AbstractAsyncContextManager[Worker]]


def expect(good: bool, what: object) -> None:
    """Fail unless a server has answered rightly.

    :raises ValueError: if it has not
    """
    if not good:
        message = f"the server answered {what!r:.100}"
        raise ValueError(message)


@asynccontextmanager
async def bascule_client(target: str, kind: str) -> AsyncIterator[Worker]:
    """Stream through bascule."""
    from bascule.rpc import Channel
    from benches.peers import bascule_streams as methods

    async with Channel(target) as channel:

        @asynccontextmanager
        async def worker() -> AsyncIterator[Turn]:
            async def count() -> int:
                came = 0
                async with channel.server_stream(methods.COUNT, Wanted(items=ITEMS)) as stream:
                    async for _ in stream:
                        came += 1
                expect(came == ITEMS, came)
                return came

            async def large() -> int:
                reply = await channel.unary(methods.LARGE, Blob(data=bytes(LARGE_BYTES)))
                expect(len(reply.data) == LARGE_BYTES, len(reply.data))
                return LARGE_BYTES

            if kind != "pingpong":
                yield count if kind == "count" else large
                return
            async with channel.stream(methods.PING_PONG) as stream:

                async def ping_pong() -> int:
                    await stream.send_message(ITEM)
                    pong = await stream.recv_message()
                    expect(pong is not None and pong.id == ITEM.id, pong)
                    return 1

                yield ping_pong
                await stream.cancel()

        yield worker


@asynccontextmanager
async def grpcio_client(target: str, kind: str) -> AsyncIterator[Worker]:
    """Stream through grpcio.aio."""
    import grpc.aio

    async with grpc.aio.insecure_channel(target) as channel:
        count_method = channel.unary_stream(COUNT, Wanted.SerializeToString, Item.FromString)
        ping_pong_method = channel.stream_stream(PING_PONG, Item.SerializeToString, Item.FromString)
        large_method = channel.unary_unary(LARGE, Blob.SerializeToString, Blob.FromString)

        @asynccontextmanager
        async def worker() -> AsyncIterator[Turn]:
            async def count() -> int:
                came = 0
                async for _ in count_method(Wanted(items=ITEMS)):
                    came += 1
                expect(came == ITEMS, came)
                return came

            async def large() -> int:
                reply = await large_method(Blob(data=bytes(LARGE_BYTES)))
                expect(len(reply.data) == LARGE_BYTES, len(reply.data))
                return LARGE_BYTES

            if kind != "pingpong":
                yield count if kind == "count" else large
                return
            call: Any = ping_pong_method()

            async def ping_pong() -> int:
                await call.write(ITEM)
                pong = await call.read()
                expect(pong.id == ITEM.id, pong)
                return 1

            yield ping_pong
            call.cancel()

        yield worker


@asynccontextmanager
async def grpclib_client(target: str, kind: str) -> AsyncIterator[Worker]:
    """Stream through grpclib."""
    from grpclib.client import Channel, StreamStreamMethod, UnaryStreamMethod, UnaryUnaryMethod

    host, _, port = target.rpartition(":")
    async with Channel(host, int(port)) as channel:
        count_method = UnaryStreamMethod(channel, COUNT, Wanted, Item)
        ping_pong_method = StreamStreamMethod(channel, PING_PONG, Item, Item)
        large_method = UnaryUnaryMethod(channel, LARGE, Blob, Blob)

        @asynccontextmanager
        async def worker() -> AsyncIterator[Turn]:
            async def count() -> int:
                came = 0
                async with count_method.open() as stream:
                    await stream.send_message(Wanted(items=ITEMS), end=True)
                    async for _ in stream:
                        came += 1
                expect(came == ITEMS, came)
                return came

            async def large() -> int:
                reply = await large_method(Blob(data=bytes(LARGE_BYTES)))
                expect(len(reply.data) == LARGE_BYTES, len(reply.data))
                return LARGE_BYTES

            if kind != "pingpong":
                yield count if kind == "count" else large
                return
            async with ping_pong_method.open() as stream:

                async def ping_pong() -> int:
                    await stream.send_message(ITEM)
                    pong = await stream.recv_message()
                    expect(pong is not None and pong.id == ITEM.id, pong)
                    return 1

                yield ping_pong
                await stream.cancel()

        yield worker


STACKS: Mapping[str, Client] = {
    "bascule": bascule_client,
    "grpcio": grpcio_client,
    "grpclib": grpclib_client,
}


async def measure(stack: str, kind: str, target: str, seconds: float) -> float:
    """Answer with the messages, rounds or bytes that were moved a second."""
    moved = 0
    async with STACKS[stack](target, kind) as worker:
        settle_memory()  # as every program under test does
        started = time.perf_counter()
        end = started + seconds

        async def work() -> None:
            nonlocal moved
            async with worker() as turn:
                while time.perf_counter() < end:
                    part = await turn()
                    moved += part

        async with anyio.create_task_group() as group:
            for _ in range(WORKERS[kind]):
                group.start_soon(work)
        return moved / (time.perf_counter() - started)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stack", choices=STACKS)
    parser.add_argument("backend", choices=("asyncio", "uvloop", "trio"))
    parser.add_argument("kind", choices=WORKERS)
    parser.add_argument("target")
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()

    async def main() -> None:
        """Measure and print."""
        print(await measure(options.stack, options.kind, options.target, options.seconds))

    run(main, options.backend)
