"""The client of gRPC's interoperability cases: what each does, and what it asserts.

Source: the gRPC project's "Interoperability Test Case Descriptions".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration
from tests.generated.interop.load_report_pb2 import OrcaLoadReport
from tests.generated.interop.load_service_bascule import OpenRcaServiceStub
from tests.generated.interop.load_service_pb2 import OrcaLoadReportRequest
from tests.generated.interop.testing_bascule import (
    TEST_SERVICE_UNARY_CALL,
    UnimplementedServiceStub,
)
from tests.generated.interop.testing_bascule import (
    TestServiceStub as Stub,
)
from tests.generated.interop.testing_pb2 import (
    EchoStatus,
    Empty,
    Payload,
    ResponseParameters,
    SimpleRequest,
    SimpleResponse,
    StreamingInputCallRequest,
    StreamingInputCallResponse,
    StreamingOutputCallRequest,
)
from tests.generated.interop.testing_pb2 import (
    TestOrcaReport as Report,
)
from tests.interop.service import CALL_REPORT, INITIAL, TRAILING

from bascule.rpc import Channel, RpcError, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager

#: Sizes of messages in bytes.
REQUESTS = [27_182, 8, 1_828, 45_904]
REPLIES = [31_415, 9, 2_653, 58_979]
LARGE_REQUEST, LARGE_REPLY = 271_828, 314_159

#: Calls of a soak.
ITERATIONS = 1_000

SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"


def large() -> SimpleRequest:
    return SimpleRequest(response_size=LARGE_REPLY, payload=zeros(LARGE_REQUEST))


def zeros(size: int) -> Payload:
    return Payload(body=bytes(size))


def parameters(*sizes: int) -> Iterator[ResponseParameters]:
    return (ResponseParameters(size=size) for size in sizes)


def failure(message: str) -> EchoStatus:
    return EchoStatus(code=Status.UNKNOWN.value, message=message)


async def empty_unary(channel: Channel) -> None:
    assert await Stub(channel).empty_call(Empty()) == Empty()


async def large_unary(channel: Channel) -> None:
    assert await Stub(channel).unary_call(large()) == SimpleResponse(payload=zeros(LARGE_REPLY))


async def client_streaming(channel: Channel) -> None:
    async with Stub(channel).streaming_input_call() as stream:
        for size in REQUESTS:
            await stream.send_message(StreamingInputCallRequest(payload=zeros(size)))
        await stream.end()
        assert await stream.recv_message() == StreamingInputCallResponse(
            aggregated_payload_size=74_922
        )
        await stream.recv_trailing_metadata()


async def server_streaming(channel: Channel) -> None:
    request = StreamingOutputCallRequest(response_parameters=parameters(*REPLIES))
    async with Stub(channel).streaming_output_call(request) as stream:
        assert [reply.payload async for reply in stream] == [zeros(size) for size in REPLIES]


async def ping_pong(channel: Channel) -> None:
    async with Stub(channel).full_duplex_call() as stream:
        for request, reply in zip(REQUESTS, REPLIES, strict=True):
            await stream.send_message(
                StreamingOutputCallRequest(
                    response_parameters=parameters(reply), payload=zeros(request)
                )
            )
            received = await stream.recv_message()
            assert received is not None
            assert received.payload == zeros(reply)
        await stream.end()
        assert await stream.recv_message() is None


async def empty_stream(channel: Channel) -> None:
    async with Stub(channel).full_duplex_call() as stream:
        await stream.send_request(end=True)
        assert await stream.recv_message() is None


async def timeout_on_sleeping_server(channel: Channel) -> None:
    with pytest.raises(RpcError) as raised:
        async with Stub(channel).full_duplex_call(timeout=0.001) as stream:
            await stream.send_message(StreamingOutputCallRequest(payload=zeros(27_182)))
            await stream.recv_message()
    assert raised.value.status is Status.DEADLINE_EXCEEDED


async def cancel_after_begin(channel: Channel) -> None:
    metadata = {"key1": "value1", "key2": "value2"}
    async with Stub(channel).streaming_input_call(metadata=metadata) as stream:
        await stream.send_request()
        await stream.cancel()
        with pytest.raises(RpcError) as raised:
            await stream.recv_message()
    assert raised.value.status is Status.CANCELLED


async def cancel_after_first_response(channel: Channel) -> None:
    async with Stub(channel).full_duplex_call() as stream:
        await stream.send_message(
            StreamingOutputCallRequest(
                response_parameters=parameters(31_415), payload=zeros(27_182)
            )
        )
        received = await stream.recv_message()
        assert received is not None
        assert received.payload == zeros(31_415)
        await stream.cancel()
        with pytest.raises(RpcError) as raised:
            await stream.recv_message()
    assert raised.value.status is Status.CANCELLED


async def status_code_and_message(channel: Channel) -> None:
    wanted = (Status.UNKNOWN, "test status message")
    with pytest.raises(RpcError) as raised:
        await Stub(channel).unary_call(SimpleRequest(response_status=failure(wanted[1])))
    assert (raised.value.status, raised.value.message) == wanted

    with pytest.raises(RpcError) as raised:
        async with Stub(channel).full_duplex_call() as stream:
            request = StreamingOutputCallRequest(response_status=failure(wanted[1]))
            await stream.send_message(request, end=True)
            await stream.recv_message()
    assert (raised.value.status, raised.value.message) == wanted


async def special_status_message(channel: Channel) -> None:
    with pytest.raises(RpcError) as raised:
        await Stub(channel).unary_call(SimpleRequest(response_status=failure(SPECIAL)))
    assert (raised.value.status, raised.value.message) == (Status.UNKNOWN, SPECIAL)


async def custom_metadata(channel: Channel) -> None:
    initial, trailing = "test_initial_metadata_value", b"\x0a\x0b\x0a\x0b\x0a\x0b"
    metadata = {INITIAL: initial, TRAILING: trailing}

    def check(stream: Any) -> None:
        assert stream.initial_metadata.getall(INITIAL) == [initial]
        assert stream.trailing_metadata.getall(TRAILING) == [trailing]

    request = SimpleRequest(response_size=1, payload=zeros(1))
    async with channel.stream(TEST_SERVICE_UNARY_CALL, metadata=metadata) as unary:
        await unary.send_message(request, end=True)
        assert await unary.recv_message() == SimpleResponse(payload=zeros(1))
        await unary.recv_trailing_metadata()
        check(unary)

    async with Stub(channel).full_duplex_call(metadata=metadata) as stream:
        await stream.send_message(
            StreamingOutputCallRequest(response_parameters=parameters(1), payload=zeros(1))
        )
        await stream.recv_initial_metadata()
        received = await stream.recv_message()
        assert received is not None
        assert received.payload == zeros(1)
        await stream.end()
        assert await stream.recv_message() is None
        check(stream)


async def unimplemented_method(channel: Channel) -> None:
    with pytest.raises(RpcError) as raised:
        await Stub(channel).unimplemented_call(Empty())
    assert raised.value.status is Status.UNIMPLEMENTED


async def unimplemented_service(channel: Channel) -> None:
    with pytest.raises(RpcError) as raised:
        await UnimplementedServiceStub(channel).unimplemented_call(Empty())
    assert raised.value.status is Status.UNIMPLEMENTED


async def orca_per_rpc(channel: Channel) -> None:
    asked = Report(
        cpu_utilization=0.8210,
        memory_utilization=0.5847,
        request_cost={"cost": 3456.32},
        utilization={"util": 0.30499},
    )
    async with channel.stream(TEST_SERVICE_UNARY_CALL) as stream:
        await stream.send_message(SimpleRequest(orca_per_query_report=asked), end=True)
        await stream.recv_trailing_metadata()
        assert stream.trailing_metadata is not None
        (report,) = stream.trailing_metadata.getall(CALL_REPORT)
    assert isinstance(report, bytes)
    assert OrcaLoadReport.FromString(report) == OrcaLoadReport(
        cpu_utilization=0.8210,
        mem_utilization=0.5847,
        request_cost={"cost": 3456.32},
        utilization={"util": 0.30499},
    )


async def orca_oob(channel: Channel) -> None:
    async with Stub(channel).full_duplex_call() as stream:
        for cpu, memory, other in ((0.8210, 0.5847, 0.30499), (0.29309, 0.2, 0.2039)):
            asked = Report(
                cpu_utilization=cpu, memory_utilization=memory, utilization={"util": other}
            )
            await stream.send_message(
                StreamingOutputCallRequest(orca_oob_report=asked, response_parameters=parameters(1))
            )
            await stream.recv_message()
            # A server may insist on half a minute between reports, but begins with one.
            request = OrcaLoadReportRequest(report_interval=Duration(seconds=1))
            async with OpenRcaServiceStub(channel).stream_core_metrics(request) as reports:
                assert await reports.recv_message() == OrcaLoadReport(
                    cpu_utilization=cpu, mem_utilization=memory, utilization={"util": other}
                )
        await stream.end()
        assert await stream.recv_message() is None


async def rpc_soak(channel: Channel) -> None:
    for _ in range(ITERATIONS):
        await large_unary(channel)


#: Every case that needs one channel to one server.
CASES = [
    empty_unary,
    large_unary,
    client_streaming,
    server_streaming,
    ping_pong,
    empty_stream,
    timeout_on_sleeping_server,
    cancel_after_begin,
    cancel_after_first_response,
    status_code_and_message,
    special_status_message,
    custom_metadata,
    unimplemented_method,
    unimplemented_service,
    orca_per_rpc,
    orca_oob,
    rpc_soak,
]


async def channel_soak(connect: Callable[[], AbstractAsyncContextManager[Channel]]) -> None:
    for _ in range(ITERATIONS):
        async with connect() as channel:
            await large_unary(channel)


async def pick_first_unary(channel: Channel) -> None:
    """Needs a channel to several servers."""
    request = SimpleRequest(response_size=1, payload=zeros(1), fill_server_id=True)
    replies = [await Stub(channel).unary_call(request) for _ in range(100)]
    (server,) = {reply.server_id for reply in replies}
    assert server
