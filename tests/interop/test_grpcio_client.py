"""grpcio as client, in a thread, against bascule's server with the services of every generator."""

from __future__ import annotations

import functools
import queue
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.to_thread
import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import BadRequest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tests.generated.echo_pb2 import EchoReply, EchoRequest, Failure
from tests.generated.echo_pb2_grpc import EchoStub
from tests.interop.echo import SERVICES, BasculeBetterproto2, BasculeGoogle, Behaviour

from bascule.rpc import HealthService, ReflectionService, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


class Pair:
    """A server in the test's loop and a client for threads."""

    def __init__(self, behaviour: Behaviour, server: Server, channel: grpc.Channel) -> None:
        self.behaviour = behaviour
        self.server = server
        self.channel = channel
        self.stub = EchoStub(channel)

    async def run(self, function: Callable[[Any], Any], *arguments: Any) -> Any:
        """Call ``function(stub, ...)`` in a thread."""
        return await anyio.to_thread.run_sync(
            function, self.stub, *arguments, abandon_on_cancel=True
        )


@asynccontextmanager
async def serve(service: Any, behaviour: Behaviour, *others: Any) -> AsyncIterator[Pair]:
    async with Server([service, *others], grace=1.0) as server:
        options = [("grpc.max_receive_message_length", 64 * MIB)]
        with grpc.insecure_channel(server.addresses[0], options) as channel:
            yield Pair(behaviour, server, channel)


def invoke(
    stub: Any, method: str, request: EchoRequest, received: list[Any] | None = None, **options: Any
) -> None:
    """Call any kind of method with one request; put the replies into ``received``."""
    call = getattr(stub, method)
    replies = call(iter([request]) if method in {"ClientStream", "Bidi"} else request, **options)
    received = [] if received is None else received
    for reply in replies if method in {"ServerStream", "Bidi"} else [replies]:
        received.append(reply)


def failure_of(function: Callable[[], Any]) -> Any:
    """Return the error that ``function`` ends with."""
    with pytest.raises(grpc.RpcError) as raised:
        function()
    return raised.value


@pytest.fixture(params=SERVICES, ids=lambda kind: kind.__name__)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    behaviour = Behaviour()
    async with serve(request.param(behaviour), behaviour) as pair:
        yield pair


async def test_unary(pair: Pair) -> None:
    reply = await pair.run(lambda stub: stub.Unary(EchoRequest(text="ä✓", payload=b"\0\xff")))
    assert reply == EchoReply(text="ä✓", payload=b"\0\xff")
    assert await pair.run(lambda stub: stub.Unary(EchoRequest())) == EchoReply()


async def test_server_stream(pair: Pair) -> None:
    replies = await pair.run(
        lambda stub: list(stub.ServerStream(EchoRequest(text="a", replies=300)))
    )
    assert replies == [EchoReply(text="a", number=number) for number in range(300)]
    assert await pair.run(lambda stub: list(stub.ServerStream(EchoRequest(replies=0)))) == []


async def test_client_stream(pair: Pair) -> None:
    requests = [EchoRequest(text=str(number)) for number in range(300)]
    reply = await pair.run(lambda stub: stub.ClientStream(iter(requests)))
    assert reply.text == "".join(map(str, range(300)))
    assert await pair.run(lambda stub: stub.ClientStream(iter(()))) == EchoReply()


async def test_bidi_ping_pong(pair: Pair) -> None:
    def play(stub: Any) -> None:
        requests: queue.SimpleQueue[EchoRequest | None] = queue.SimpleQueue()
        call = stub.Bidi(iter(requests.get, None))
        for number in range(20):
            requests.put(EchoRequest(text=str(number), replies=2))
            assert [next(call).text, next(call).text] == [str(number)] * 2
        requests.put(None)
        assert list(call) == []
        assert call.code() is grpc.StatusCode.OK

    await pair.run(play)


async def test_bidi_without_messages(pair: Pair) -> None:
    assert await pair.run(lambda stub: list(stub.Bidi(iter(())))) == []


async def test_many_calls_at_once(pair: Pair) -> None:
    def play(stub: Any) -> list[str]:
        futures = [stub.Unary.future(EchoRequest(text=str(number))) for number in range(500)]
        return [future.result().text for future in futures]

    assert await pair.run(play) == [str(number) for number in range(500)]


async def test_metadata_comes_back_with_bytes_and_repeated_names(pair: Pair) -> None:
    sent = (
        ("x-echo", "one"),
        ("x-echo", "two"),
        ("x-echo-bin", b"\0\x01\xff"),
        ("x-echo-bin", b""),
        ("x-echo-bin", b"a,b"),
        ("x-other", "left here"),
    )

    def play(stub: Any) -> Any:
        _, call = stub.Unary.with_call(EchoRequest(), metadata=sent)
        streamed = stub.ServerStream(EchoRequest(replies=1), metadata=sent)
        assert len(list(streamed)) == 1
        return [
            [(item.key, item.value) for item in each.trailing_metadata()]
            for each in (call, streamed)
        ]

    for echoed in await pair.run(play):
        for name in ("x-echo", "x-echo-bin"):
            assert [value for key, value in echoed if key == name] == [
                value for key, value in sent if key == name
            ]
        assert "x-other" not in dict(echoed)


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
)
async def test_status_and_message(code: grpc.StatusCode) -> None:
    behaviour = Behaviour()
    message = "broken: 100 % ä ✓ \t\r\n\x7f \U0001f600"
    async with serve(BasculeGoogle(behaviour), behaviour) as pair:
        failure = Failure(code=code.value[0], message=message)
        error = await pair.run(
            lambda stub: failure_of(lambda: stub.Unary(EchoRequest(failure=failure)))
        )
    assert error.code() is code
    assert error.details() == message


@pytest.mark.parametrize("method", ["Unary", "ServerStream", "ClientStream", "Bidi"])
async def test_rich_errors_of_every_kind_of_call(pair: Pair, method: str) -> None:
    request = EchoRequest(replies=3, failure=Failure(code=3, message="no ✓", field="text"))

    received: list[EchoReply] = []
    error = await pair.run(lambda stub: failure_of(lambda: invoke(stub, method, request, received)))
    assert len(received) == (3 if method in {"ServerStream", "Bidi"} else 0)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "no ✓"
    trailing = {item.key: item.value for item in error.trailing_metadata()}
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert (status.code, status.message) == (3, "no ✓")
    (detail,) = status.details
    violation = BadRequest()
    assert detail.Unpack(violation)
    assert violation.field_violations[0].field == "text"


async def test_a_bug_in_a_handler_is_unknown_and_tells_no_details() -> None:
    class Buggy(BasculeGoogle):
        async def unary(self, request: Any) -> Any:
            raise ZeroDivisionError("secret")

    behaviour = Behaviour()
    async with serve(Buggy(behaviour), behaviour) as pair:
        error = await pair.run(lambda stub: failure_of(lambda: stub.Unary(EchoRequest())))
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "secret" not in error.details()


async def test_unimplemented_method_and_service(pair: Pair) -> None:
    for path in ("/echo.Echo/Missing", "/echo.Echo/Unheard", "/no.Such/Method"):
        call = pair.channel.unary_unary(path, request_serializer=EchoRequest.SerializeToString)
        error = await pair.run(lambda _, call=call: failure_of(lambda: call(EchoRequest())))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED, path


@pytest.mark.parametrize("method", ["Unary", "ServerStream", "ClientStream", "Bidi"])
async def test_the_clients_deadline_cancels_the_handler(pair: Pair, method: str) -> None:
    def play(stub: Any) -> Any:
        # On a busy machine the first deadlines may pass before the handler has begun.
        for timeout in (0.2, 1.0, 5.0):
            call = functools.partial(invoke, stub, method, EchoRequest(hang=True), timeout=timeout)
            code = failure_of(call).code()
            if pair.behaviour.started.is_set():
                break
        return code

    with anyio.fail_after(20):
        assert await pair.run(play) is grpc.StatusCode.DEADLINE_EXCEEDED
        await pair.behaviour.cancelled.wait()


@pytest.mark.parametrize("method", ["Unary", "ServerStream", "ClientStream", "Bidi"])
async def test_the_clients_cancellation_reaches_the_handler(pair: Pair, method: str) -> None:
    request = EchoRequest(hang=True)
    stub = pair.stub
    match method:
        case "Unary":
            call = stub.Unary.future(request)
        case "ServerStream":
            call = stub.ServerStream(request)
        case "ClientStream":
            call = stub.ClientStream.future(iter([request]))
        case "Bidi":
            call = stub.Bidi(iter([request]))
    with anyio.fail_after(10):
        await pair.behaviour.started.wait()
        assert call.cancel()
        await pair.behaviour.cancelled.wait()
    assert call.cancelled()


async def test_a_stream_left_in_the_middle_is_cancelled(pair: Pair) -> None:
    def play(stub: Any) -> None:
        call = stub.ServerStream(EchoRequest(replies=3, hang=True))
        assert next(call).number == 0
        call.cancel()

    with anyio.fail_after(10):
        await pair.run(play)
        await pair.behaviour.cancelled.wait()


async def test_a_broken_connection_cancels_its_handlers(pair: Pair) -> None:
    call = pair.stub.Unary.future(EchoRequest(hang=True))
    with anyio.fail_after(10):
        await pair.behaviour.started.wait()
        pair.channel.close()
        await pair.behaviour.cancelled.wait()
    assert call.code() is grpc.StatusCode.CANCELLED


async def test_a_handler_may_end_before_its_client_does() -> None:
    class Hasty(BasculeGoogle):
        async def client_stream(self, requests: AsyncIterator[EchoRequest]) -> EchoReply:
            return EchoReply(text=(await anext(requests)).text)

        async def bidi(self, requests: AsyncIterator[EchoRequest]) -> AsyncIterator[EchoReply]:
            async for request in requests:
                yield EchoReply(text=request.text)
                return

    def endless() -> Iterator[EchoRequest]:
        while True:
            yield EchoRequest(text="first")

    behaviour = Behaviour()
    async with serve(Hasty(behaviour), behaviour) as pair:
        with anyio.fail_after(10):
            replies = await pair.run(lambda stub: list(stub.Bidi(endless())))
            assert [reply.text for reply in replies] == ["first"]
            reply = await pair.run(lambda stub: stub.ClientStream(endless()))
            assert reply.text == "first"


async def test_messages_up_to_the_limit(pair: Pair) -> None:
    overhead = len(EchoRequest(payload=bytes(4 * MIB)).SerializeToString()) - 4 * MIB
    payload = bytes(range(256)) * (4 * MIB // 256)
    fitting = EchoRequest(payload=payload[overhead:])
    reply = await pair.run(lambda stub: stub.Unary(fitting))
    assert reply.payload == fitting.payload
    for call in (pair.stub.Unary, lambda request: pair.stub.ClientStream(iter([request]))):
        error = await pair.run(
            lambda _, call=call: failure_of(lambda: call(EchoRequest(payload=payload)))
        )
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await pair.run(lambda stub: stub.Unary(EchoRequest(text="next")))).text == "next"


async def test_a_request_above_the_limit_ends_a_stream_that_is_answered_by_its_status(
    pair: Pair,
) -> None:
    def run(stub: EchoStub) -> Any:
        requests: queue.SimpleQueue[EchoRequest | None] = queue.SimpleQueue()
        requests.put(EchoRequest(text="fits", replies=1))
        call = stub.Bidi(iter(requests.get, None), timeout=20)
        assert next(call).text == "fits"
        requests.put(EchoRequest(payload=bytes(4 * MIB)))
        error = failure_of(lambda: next(call))
        requests.put(None)
        return error

    error = await pair.run(run)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than the limit of 4194304 bytes" in error.details()
    assert (await pair.run(lambda stub: stub.Unary(EchoRequest(text="next")))).text == "next"


async def test_a_reply_above_the_limit_is_refused_by_the_server() -> None:
    class Large(BasculeGoogle):
        async def unary(self, request: EchoRequest) -> EchoReply:
            return EchoReply(payload=bytes(4 * MIB))

    behaviour = Behaviour()
    async with serve(Large(behaviour), behaviour) as pair:
        error = await pair.run(lambda stub: failure_of(lambda: stub.Unary(EchoRequest())))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_long_streams_of_large_messages_pass_both_ways(pair: Pair) -> None:
    payload = bytes(range(256)) * (MIB // 256)

    def play(stub: Any) -> int:
        requests = (EchoRequest(payload=payload, replies=2) for _ in range(16))
        received = 0
        for reply in stub.Bidi(requests):
            assert reply.payload == payload
            received += 1
        return received

    assert await pair.run(play) == 32


async def test_the_server_finishes_what_it_has_before_it_ends() -> None:
    class Slow(BasculeGoogle):
        async def unary(self, request: EchoRequest) -> EchoReply:
            self.behaviour.started.set()
            await self.behaviour.ended.wait()
            return EchoReply(text="done")

    behaviour = Behaviour()
    async with Server([Slow(behaviour)], grace=10.0) as server:
        channel = grpc.insecure_channel(server.addresses[0])
        call = EchoStub(channel).Unary.future(EchoRequest())
        await behaviour.started.wait()
        behaviour.ended.set()
    with channel:
        reply = await anyio.to_thread.run_sync(call.result)
        assert reply.text == "done"
        late = functools.partial(EchoStub(channel).Unary, EchoRequest(), timeout=5.0)
        error = await anyio.to_thread.run_sync(failure_of, late)
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_health_by_grpcios_stub() -> None:
    behaviour, health = Behaviour(), HealthService(["echo.Echo"])
    async with serve(BasculeGoogle(behaviour), behaviour, health) as pair:
        stub = health_pb2_grpc.HealthStub(pair.channel)

        def play() -> None:
            assert (
                stub.Check(health_pb2.HealthCheckRequest()).status
                == health_pb2.HealthCheckResponse.SERVING
            )
            assert (
                stub.Check(health_pb2.HealthCheckRequest(service="echo.Echo")).status
                == health_pb2.HealthCheckResponse.SERVING
            )
            unknown = health_pb2.HealthCheckRequest(service="later")
            assert failure_of(lambda: stub.Check(unknown)).code() is grpc.StatusCode.NOT_FOUND
            watch = stub.Watch(health_pb2.HealthCheckRequest(service="later"))
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            anyio.from_thread.run_sync(health.set, "later", True)
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            listed = stub.List(health_pb2.HealthListRequest()).statuses
            assert {name: item.status for name, item in listed.items()} == dict.fromkeys(
                ("", "echo.Echo", "later"), 1
            )
            anyio.from_thread.run_sync(health.shutdown)
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert list(watch) == []
            assert (
                stub.Check(health_pb2.HealthCheckRequest()).status
                == health_pb2.HealthCheckResponse.NOT_SERVING
            )

        with anyio.fail_after(10):
            await anyio.to_thread.run_sync(play)


@pytest.mark.parametrize("kind", [BasculeGoogle, BasculeBetterproto2])
async def test_reflection_by_grpcios_client(kind: Any) -> None:
    behaviour, health = Behaviour(), HealthService()
    service = kind(behaviour)
    async with serve(service, behaviour, health, ReflectionService([service, health])) as pair:

        def play() -> None:
            database = ProtoReflectionDescriptorDatabase(pair.channel)
            assert list(database.get_services()) == [
                "echo.Echo",
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
            ]
            pool = DescriptorPool(database)
            described = pool.FindServiceByName("echo.Echo")
            assert described.methods_by_name["Unary"].input_type.full_name == "echo.EchoRequest"
            assert (
                pool.FindMessageTypeByName("grpc.health.v1.HealthCheckRequest").fields[0].name
                == "service"
            )

        with anyio.fail_after(10):
            await anyio.to_thread.run_sync(play)
