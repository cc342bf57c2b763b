"""Programs under test: ``python -m bascule.cli.bench._programs server|client STACK LOOP [TARGET SECONDS]``.

A server answers ``grpc.health.v1.Health/Check``, says where it listens, and the CPU seconds that it has
used for each line on its standard input; it ends with that. A client makes calls and prints JSON.
"""

from __future__ import annotations

import os
import resource
import socket
import statistics
import sys
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from bascule.app import settle_memory
from bascule.rpc._generated.health_pb2 import HealthCheckRequest, HealthCheckResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

__all__ = ["Measured", "main"]

_PATH = "/grpc.health.v1.Health/Check"
_SERVING = HealthCheckResponse(status=HealthCheckResponse.SERVING)

#: On every call, in seconds.
_DEADLINE = 5.0

#: Seconds before anything counts, and calls at a time.
_WARM_UP, _IN_FLIGHT = 0.3, 100

#: Calls that a percentile needs, however busy the machine is.
_LEAST = 20


class Measured(msgspec.Struct):
    """What a client has seen; times in seconds.

    :ivar calls: with 100 in flight, in ``seconds``
    :ivar all_calls: that the server has answered meanwhile
    :ivar cpu: of the client, in those seconds
    :ivar p50: of calls one after the other
    """

    calls: int
    seconds: float
    cpu: float
    all_calls: int
    p50: float
    p99: float


async def serve_bascule() -> None:
    """Serve as an app does, with metrics and deadlines."""
    from bascule.rpc import HealthService, Server

    async with Server([HealthService()], listen="127.0.0.1:0") as server:
        _ready(server.addresses[0])
        await anyio.sleep_forever()


async def serve_grpcio() -> None:
    """Serve grpcio.aio as its documentation sets it up."""
    import grpc
    import grpc.aio

    async def check(_: HealthCheckRequest, __: object) -> HealthCheckResponse:
        return _SERVING

    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Check": grpc.unary_unary_rpc_method_handler(
            check, HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString
        )
    }
    server = grpc.aio.server()
    service = _PATH.split("/")[1]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _ready(f"127.0.0.1:{port}")
    await server.wait_for_termination()


async def serve_grpclib() -> None:
    """Serve grpclib as its documentation sets it up."""
    from grpclib.const import Cardinality, Handler
    from grpclib.server import Server, Stream

    class Health:
        async def check(self, stream: Stream[HealthCheckRequest, HealthCheckResponse]) -> None:
            await stream.recv_message()
            await stream.send_message(_SERVING)

        def __mapping__(self) -> Mapping[str, Handler]:
            unary = Cardinality.UNARY_UNARY
            return {_PATH: Handler(self.check, unary, HealthCheckRequest, HealthCheckResponse)}

    # asyncio switches Nagle's algorithm off only where the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = Server([Health()])
    await server.start(sock=listener)
    _ready(f"127.0.0.1:{listener.getsockname()[1]}")
    await server.wait_closed()


@asynccontextmanager
async def call_bascule(target: str) -> AsyncIterator[Any]:
    """Call with a deadline, through a breaker and a balancer, counted."""
    from bascule.resilience import BreakerSettings
    from bascule.rpc import Channel
    from bascule.rpc._health import HEALTH_CHECK

    request = HealthCheckRequest()
    async with Channel(target, breaker=BreakerSettings()) as channel:
        yield lambda: channel.unary(HEALTH_CHECK, request, timeout=_DEADLINE)


@asynccontextmanager
async def call_grpcio(target: str) -> AsyncIterator[Any]:
    """Call with a deadline."""
    import grpc.aio

    request = HealthCheckRequest()
    async with grpc.aio.insecure_channel(target) as channel:
        unary = channel.unary_unary(
            _PATH, HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
        )

        async def call() -> HealthCheckResponse:
            reply: HealthCheckResponse = await unary(request, timeout=_DEADLINE)
            return reply

        yield call


@asynccontextmanager
async def call_grpclib(target: str) -> AsyncIterator[Any]:
    """Call with a deadline."""
    from grpclib.client import Channel, UnaryUnaryMethod

    host, _, port = target.rpartition(":")
    request = HealthCheckRequest()
    async with Channel(host, int(port)) as channel:
        unary = UnaryUnaryMethod(channel, _PATH, HealthCheckRequest, HealthCheckResponse)
        yield lambda: unary(request, timeout=_DEADLINE)


_SERVERS: Mapping[str, Callable[[], Awaitable[None]]] = {
    "bascule": serve_bascule,
    "grpcio": serve_grpcio,
    "grpclib": serve_grpclib,
}
_CLIENTS: Mapping[str, Callable[[str], AbstractAsyncContextManager[Any]]] = {
    "bascule": call_bascule,
    "grpcio": call_grpcio,
    "grpclib": call_grpclib,
}


async def measure(stack: str, target: str, seconds: float) -> Measured:
    """Measure throughput, then latency.

    :raises ValueError: if a reply is not what is due
    """
    async with _CLIENTS[stack](target) as call:
        settle_memory()
        warm, _, _ = await _drive(call, _IN_FLIGHT, min(_WARM_UP, seconds))
        many, took, cpu = await _drive(call, _IN_FLIGHT, seconds)
        single, _, _ = await _drive(call, 1, seconds / 2)
    percentiles = statistics.quantiles(single, n=100)
    answered = len(warm) + len(many) + len(single)
    return Measured(len(many), took, cpu, answered, percentiles[49], percentiles[98])


async def _drive(call: Any, in_flight: int, seconds: float) -> tuple[list[float], float, float]:
    """Keep so many calls in flight for so long, and make some; their latencies, and seconds of the clock and of the CPU."""
    latencies: list[float] = []
    clock = time.perf_counter
    started, cpu = clock(), time.process_time()
    end = started + seconds

    async def caller() -> None:
        before = clock()
        while before < end or len(latencies) < _LEAST:
            reply = await call()
            after = clock()
            latencies.append(after - before)
            if reply.status != HealthCheckResponse.SERVING:
                raise ValueError(f"the server answered {reply}")
            before = after

    async with anyio.create_task_group() as tasks:
        for _ in range(in_flight):
            tasks.start_soon(caller)
    return latencies, clock() - started, time.process_time() - cpu


def _ready(address: str) -> None:
    settle_memory()
    _say(address)
    threading.Thread(target=_answer, daemon=True).start()


def _answer() -> None:
    """Say the CPU seconds used for each line, and end the process with standard input."""
    for _ in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _say(repr(used.ru_utime + used.ru_stime))
    os._exit(0)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Be the program that the arguments ask for."""
    role, stack, loop, *rest = sys.argv[1:]

    async def run() -> None:
        if role == "server":
            await _SERVERS[stack]()
        else:
            target, seconds = rest
            measured = await measure(stack, target, float(seconds))
            _say(msgspec.json.encode(measured).decode())

    options = {} if loop == "trio" else {"use_uvloop": loop == "uvloop"}
    backend = "trio" if loop == "trio" else "asyncio"
    anyio.run(run, backend=backend, backend_options=options)


if __name__ == "__main__":
    main()
