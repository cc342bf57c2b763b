"""grpclib as client, in a thread with an event loop, against bascule's server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import grpclib.client
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.client import UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.reflection.v1.reflection_grpc import ServerReflectionStub
from grpclib.reflection.v1.reflection_pb2 import ServerReflectionRequest
from multidict import MultiDict
from tests.generated.echo_grpc import EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest, Failure
from tests.interop.echo import SERVICES, Behaviour
from tests.interop.peers import violation
from tests.interop.stubs import Betterproto2, Grpclib

from bascule.rpc import HealthService, ReflectionService, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.anyio


class Pair:
    """A server in the test's loop, and grpclib's channel in another one."""

    def __init__(self, behaviour: Behaviour, server: Server) -> None:
        self.behaviour = behaviour
        self._address = server.addresses[0]

    async def run(self, play: Callable[[Any], Awaitable[Any]]) -> Any:
        """Await ``play(channel)`` in a thread with an asyncio loop."""
        host, _, port = self._address.rpartition(":")

        async def main() -> Any:
            async with grpclib.client.Channel(host, int(port)) as channel:
                return await asyncio.wait_for(play(channel), 10.0)

        return await anyio.to_thread.run_sync(asyncio.run, main())


@pytest.fixture(params=SERVICES, ids=lambda kind: kind.__name__)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    behaviour = Behaviour()
    service, health = request.param(behaviour), HealthService(["echo.Echo"])
    reflection = ReflectionService([service, health])
    async with Server([service, health, reflection], grace=1.0) as server:
        yield Pair(behaviour, server)


@pytest.mark.parametrize("kind", [Grpclib, Betterproto2])
async def test_every_kind_of_call(pair: Pair, kind: Any) -> None:
    async def play(channel: Any) -> None:
        client, request = kind(channel), kind.messages.EchoRequest
        reply = await client.unary(request(text="ä✓", payload=b"\0\xff"))
        assert reply == kind.messages.EchoReply(text="ä✓", payload=b"\0\xff")
        streamed = [reply.number async for reply in client.server_stream(request(replies=300))]
        assert streamed == list(range(300))
        joined = await client.client_stream([request(text=str(number)) for number in range(300)])
        assert joined.text == "".join(map(str, range(300)))
        requests = [request(text=str(number), replies=2) for number in range(20)]
        replies = [reply.text async for reply in client.bidi(requests)]
        assert replies == [str(number) for number in range(20) for _ in range(2)]
        futures = [client.unary(request(text=str(number))) for number in range(300)]
        assert [reply.text for reply in await asyncio.gather(*futures)] == [*map(str, range(300))]

    await pair.run(play)


async def test_metadata_and_rich_errors(pair: Pair) -> None:
    async def play(channel: Any) -> None:
        stub = EchoStub(channel)
        sent = MultiDict([("x-echo", "one"), ("x-echo", "two"), ("x-echo-bin", b"\0\xff")])
        async with stub.Unary.open(metadata=sent) as stream:
            await stream.send_message(EchoRequest(text="a"), end=True)
            assert await stream.recv_message() == EchoReply(text="a")
            await stream.recv_trailing_metadata()
            assert stream.trailing_metadata.getall("x-echo") == ["one", "two"]
            assert stream.trailing_metadata.getall("x-echo-bin") == [b"\0\xff"]
        failure = Failure(code=9, message="no ✓", field="text")
        with pytest.raises(GRPCError) as raised:
            await stub.Unary(EchoRequest(failure=failure))
        assert raised.value.status is Status.FAILED_PRECONDITION
        assert raised.value.message == "no ✓"
        assert raised.value.details == [violation("text")]
        with pytest.raises(GRPCError) as raised:
            await stub.Missing(EchoRequest())
        assert raised.value.status is Status.UNIMPLEMENTED

    await pair.run(play)


@pytest.mark.parametrize("kind", ["Unary", "ServerStream"])
async def test_the_clients_deadline_cancels_the_handler(pair: Pair, kind: str) -> None:
    async def play(channel: Any) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await getattr(EchoStub(channel), kind)(EchoRequest(hang=True), timeout=0.2)

    with anyio.fail_after(10):
        await pair.run(play)
        await pair.behaviour.cancelled.wait()


async def test_the_clients_cancellation_reaches_the_handler(pair: Pair) -> None:
    async def play(channel: Any) -> None:
        async with EchoStub(channel).ServerStream.open() as stream:
            await stream.send_message(EchoRequest(replies=1, hang=True), end=True)
            assert await stream.recv_message() == EchoReply()
            await stream.cancel()

    with anyio.fail_after(10):
        await pair.run(play)
        await pair.behaviour.cancelled.wait()


async def test_health_and_reflection(pair: Pair) -> None:
    async def play(channel: Any) -> None:
        # grpcio's messages: grpclib's own cannot live in one process with them.
        path = "/grpc.health.v1.Health/Check"
        check = UnaryUnaryMethod(channel, path, HealthCheckRequest, HealthCheckResponse)
        response = await check(HealthCheckRequest(service="echo.Echo"))
        assert response.status == HealthCheckResponse.SERVING
        (listed,) = await ServerReflectionStub(channel).ServerReflectionInfo(
            [ServerReflectionRequest(list_services="")]
        )
        names = [service.name for service in listed.list_services_response.service]
        assert names[:2] == ["echo.Echo", "grpc.health.v1.Health"]

    await pair.run(play)
