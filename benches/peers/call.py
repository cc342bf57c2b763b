"""A Python client under test: ``python -m benches.peers.call STACK BACKEND TARGET``.

It prints one JSON object: calls, wall seconds and CPU seconds with many calls in flight, then the
latencies of calls made one after the other.
"""

import argparse
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import anyio

from bascule.app import settle_memory
from benches._generated.bench.echo_pb2 import Message
from benches.peers import echo
from benches.peers.serve import run

Call = Callable[[], Awaitable[Message]]
_DEADLINE = 5.0  #: seconds, on every call
_WARM_UP = 0.3  #: seconds


@asynccontextmanager
async def bascule_client(target: str) -> AsyncIterator[Call]:
    """Call through bascule with all on: deadline, breaker, balancer, interceptor, metrics."""
    from bascule.resilience import BreakerSettings
    from bascule.rpc import Channel
    from benches.peers.bascule_echo import UNARY, ClientPassThrough

    interceptors = [ClientPassThrough()]
    async with Channel(target, interceptors=interceptors, breaker=BreakerSettings()) as channel:

        async def call() -> Message:
            return await channel.unary(UNARY, echo.REQUEST, timeout=_DEADLINE)

        yield call


@asynccontextmanager
async def grpcio_client(target: str) -> AsyncIterator[Call]:
    """Call through grpcio.aio with a deadline."""
    import grpc.aio

    async with grpc.aio.insecure_channel(target) as channel:
        unary = channel.unary_unary(echo.UNARY, Message.SerializeToString, Message.FromString)

        async def call() -> Message:
            reply: Message = await unary(echo.REQUEST, timeout=_DEADLINE)
            return reply

        yield call


@asynccontextmanager
async def grpclib_client(target: str) -> AsyncIterator[Call]:
    """Call through grpclib with a deadline."""
    from grpclib.client import Channel, UnaryUnaryMethod

    host, _, port = target.rpartition(":")
    async with Channel(host, int(port)) as channel:
        unary = UnaryUnaryMethod(channel, echo.UNARY, Message, Message)

        async def call() -> Message:
            return await unary(echo.REQUEST, timeout=_DEADLINE)

        yield call


STACKS: Mapping[str, Callable[[str], AbstractAsyncContextManager[Call]]] = {
    "bascule": bascule_client,
    "grpcio": grpcio_client,
    "grpclib": grpclib_client,
}


@dataclass
class Load:
    """What a stretch of calls took; times in seconds."""

    latencies: list[float]
    seconds: float
    cpu_seconds: float


async def drive(call: Call, in_flight: int, seconds: float) -> Load:
    """Keep so many calls in flight for so many seconds.

    :raises ValueError: if a reply is not what was sent
    """
    latencies: list[float] = []
    clock = time.perf_counter
    started, cpu = clock(), time.process_time()
    end = started + seconds

    async def caller() -> None:
        before = clock()
        while before < end:
            reply = await call()
            after = clock()
            latencies.append(after - before)
            if reply.id != echo.REQUEST.id:
                message = f"the server answered {reply}, not {echo.REQUEST}"
                raise ValueError(message)
            before = after

    async with anyio.create_task_group() as group:
        for _ in range(in_flight):
            group.start_soon(caller)
    return Load(latencies, clock() - started, time.process_time() - cpu)


async def check(stack: str, target: str) -> None:
    """Make one call.

    :raises ValueError: if the reply is not what was sent
    """
    async with STACKS[stack](target) as call:
        if (reply := await call()) != echo.REQUEST:
            message = f"the server answered {reply}, not {echo.REQUEST}"
            raise ValueError(message)


async def measure(stack: str, target: str, in_flight: int, seconds: float) -> dict[str, float]:
    """Measure throughput, then latency."""
    await check(stack, target)
    async with STACKS[stack](target) as call:
        settle_memory()  # as every server under test does
        await drive(call, in_flight, min(_WARM_UP, seconds))
        many = await drive(call, in_flight, seconds)
        single = await drive(call, 1, seconds)
    calls = len(many.latencies)
    percentiles = statistics.quantiles(single.latencies, n=100)
    return {
        "calls": calls,
        "calls_per_second": calls / many.seconds,
        "cpu_per_call": many.cpu_seconds / calls,
        "sequential_p50": percentiles[49],
        "sequential_p99": percentiles[98],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stack", choices=STACKS)
    parser.add_argument("backend", choices=("asyncio", "uvloop", "trio"))
    parser.add_argument("target")
    parser.add_argument("--in-flight", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument(
        "--check", action="store_true", help="only see that one call is answered rightly"
    )
    options = parser.parse_args()

    async def main() -> None:
        """Measure and print, or only check."""
        if options.check:
            await check(options.stack, options.target)
            return
        print(
            json.dumps(
                await measure(options.stack, options.target, options.in_flight, options.seconds)
            )
        )

    run(main, options.backend)
