"""A Python echo server under test: ``python -m benches.peers.serve STACK BACKEND``."""

import argparse
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio

from bascule.app import settle_memory
from benches._generated.bench.echo_pb2 import Message
from benches._generated.bench.streams_pb2 import Blob, Item, Wanted
from benches.peers import echo, streams


async def serve_bascule() -> None:
    """Serve bascule with what a service has on: deadline, cancel scope, an interceptor, metrics."""
    from bascule.rpc import Servable, Server
    from benches.peers.bascule_echo import EchoService, PassThrough
    from benches.peers.bascule_streams import StreamsService

    services: list[Servable] = [EchoService(), StreamsService()]
    async with Server(services, listen="127.0.0.1:0", interceptors=[PassThrough()]) as server:
        ready(server.addresses[0])
        await anyio.sleep_forever()


async def serve_grpcio() -> None:
    """Serve grpcio.aio as its documentation sets it up: no interceptor, no metrics."""
    import grpc
    import grpc.aio

    async def unary(request: Message, _: object) -> Message:
        return await echo.unary(request)

    echo_handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(
            unary, Message.FromString, Message.SerializeToString
        )
    }
    streams_handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Count": grpc.unary_stream_rpc_method_handler(
            streams.count, Wanted.FromString, Item.SerializeToString
        ),
        "PingPong": grpc.stream_stream_rpc_method_handler(
            streams.ping_pong, Item.FromString, Item.SerializeToString
        ),
        "Large": grpc.unary_unary_rpc_method_handler(
            streams.large, Blob.FromString, Blob.SerializeToString
        ),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("bench.Echo", echo_handlers),
            grpc.method_handlers_generic_handler("bench.Streams", streams_handlers),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ready(f"127.0.0.1:{port}")
    await server.wait_for_termination()


async def serve_grpclib() -> None:
    """Serve grpclib as its documentation sets it up: no interceptor, no metrics."""
    from grpclib.const import Cardinality, Handler
    from grpclib.server import Server, Stream

    class Service:
        async def unary(self, stream: Stream[Message, Message]) -> None:
            request = await stream.recv_message()
            assert request is not None
            await stream.send_message(await echo.unary(request))

        async def count(self, stream: Stream[Wanted, Item]) -> None:
            request = await stream.recv_message()
            assert request is not None
            async for item in streams.count(request):
                await stream.send_message(item)

        async def ping_pong(self, stream: Stream[Item, Item]) -> None:
            async for item in streams.ping_pong(stream):
                await stream.send_message(item)

        async def large(self, stream: Stream[Blob, Blob]) -> None:
            request = await stream.recv_message()
            assert request is not None
            await stream.send_message(await streams.large(request))

        def __mapping__(self) -> Mapping[str, Handler]:
            bidi = Cardinality.STREAM_STREAM
            return {
                echo.UNARY: Handler(self.unary, Cardinality.UNARY_UNARY, Message, Message),
                streams.COUNT: Handler(self.count, Cardinality.UNARY_STREAM, Wanted, Item),
                streams.PING_PONG: Handler(self.ping_pong, bidi, Item, Item),
                streams.LARGE: Handler(self.large, Cardinality.UNARY_UNARY, Blob, Blob),
            }

    # asyncio switches Nagle's algorithm off only where the protocol is named; with it, a call
    # takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = Server([Service()])
    await server.start(sock=listener)
    ready(f"127.0.0.1:{listener.getsockname()[1]}")
    await server.wait_closed()


STACKS: Mapping[str, Callable[[], Awaitable[None]]] = {
    "bascule": serve_bascule,
    "grpcio": serve_grpcio,
    "grpclib": serve_grpclib,
}


def ready(address: str) -> None:
    """Say where the server listens; end with standard input, so as never to outlive the harness."""
    # Every Python server alike, whatever its stack: as a main function in production would.
    settle_memory()
    print("ready", address, flush=True)
    threading.Thread(target=_exit_with_input, daemon=True).start()


def _exit_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


def run(main: Callable[[], Awaitable[None]], backend: str) -> None:
    """Run on "asyncio", "uvloop" or "trio"."""
    if backend == "trio":
        anyio.run(main, backend="trio")
    else:
        anyio.run(main, backend="asyncio", backend_options={"use_uvloop": backend == "uvloop"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stack", choices=STACKS)
    parser.add_argument("backend", choices=("asyncio", "uvloop", "trio"))
    options = parser.parse_args()
    run(STACKS[options.stack], options.backend)
