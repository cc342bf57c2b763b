"""gRPC's interoperability cases of compression, with grpcio on either side; the flags are read off the wire.

The cases have servers tell whether a request was compressed. grpcio's and bascule's handlers cannot know, so here it
is the wire that tells.

Source: the gRPC project's "Interoperability Test Case Descriptions".
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import grpc
import pytest
from tests.generated.interop import testing_pb2_grpc
from tests.generated.interop.testing_bascule import (
    TEST_SERVICE_STREAMING_INPUT_CALL as STREAMING_INPUT_CALL,
)
from tests.generated.interop.testing_bascule import TEST_SERVICE_UNARY_CALL as UNARY_CALL
from tests.generated.interop.testing_bascule import TestServiceStub as Stub
from tests.generated.interop.testing_pb2 import (
    BoolValue,
    ResponseParameters,
    SimpleRequest,
    SimpleResponse,
    StreamingInputCallRequest,
    StreamingInputCallResponse,
    StreamingOutputCallRequest,
    StreamingOutputCallResponse,
)
from tests.interop.cases import LARGE_REPLY, LARGE_REQUEST, zeros
from tests.interop.service import Interop
from tests.interop.tap import Tap, tap

from bascule.rpc import Channel, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.anyio

#: Sizes of the streamed messages in bytes, the first of which is compressed.
STREAMED = [27_182, 45_904]
REPLIES = [(True, 31_415), (False, 92_653)]

GZIP, PLAIN = grpc.Compression.Gzip, grpc.Compression.NoCompression


class GrpcioService(testing_pb2_grpc.TestServiceServicer):
    """What compresses replies as they are asked for."""

    def UnaryCall(self, request: SimpleRequest, context: Any) -> SimpleResponse:
        if not request.response_compressed.value:
            context.disable_next_message_compression()
        return SimpleResponse(payload=zeros(request.response_size))

    def StreamingInputCall(
        self, request_iterator: Iterator[StreamingInputCallRequest], context: Any
    ) -> StreamingInputCallResponse:
        size = sum(len(request.payload.body) for request in request_iterator)
        return StreamingInputCallResponse(aggregated_payload_size=size)

    def StreamingOutputCall(
        self, request: StreamingOutputCallRequest, context: Any
    ) -> Iterator[StreamingOutputCallResponse]:
        for parameters in request.response_parameters:
            if not parameters.compressed.value:
                context.disable_next_message_compression()
            yield StreamingOutputCallResponse(payload=zeros(parameters.size))


def large(*, compressed: bool) -> SimpleRequest:
    return SimpleRequest(
        response_size=LARGE_REPLY,
        payload=zeros(LARGE_REQUEST),
        response_compressed=BoolValue(value=compressed),
        expect_compressed=BoolValue(value=compressed),
    )


def streamed_replies() -> StreamingOutputCallRequest:
    return StreamingOutputCallRequest(
        response_parameters=[
            ResponseParameters(size=size, compressed=BoolValue(value=compressed))
            for compressed, size in REPLIES
        ]
    )


@asynccontextmanager
async def our_server() -> AsyncIterator[tuple[Tap, Any]]:
    """Run bascule's server and grpcio's client of it, and read along."""
    async with Server([Interop()], grace=1.0) as server, tap(server.addresses[0]) as found:
        with grpc.insecure_channel(found.address) as channel:
            yield found, testing_pb2_grpc.TestServiceStub(channel)


@asynccontextmanager
async def our_client() -> AsyncIterator[tuple[Tap, Channel]]:
    """Run grpcio's server and bascule's client of it, and read along."""
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, compression=GZIP)
        testing_pb2_grpc.add_TestServiceServicer_to_server(GrpcioService(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            async with tap(f"127.0.0.1:{port}") as found, Channel(found.address) as channel:
                yield found, channel
        finally:
            server.stop(0).wait()


async def test_client_compressed_unary_of_grpcio() -> None:
    def play(stub: Any) -> None:
        for compression in (GZIP, PLAIN):
            reply = stub.UnaryCall(large(compressed=compression is GZIP), compression=compression)
            assert reply.payload == zeros(LARGE_REPLY)

    async with our_server() as (found, stub):
        await anyio.to_thread.run_sync(play, stub)
    assert found.requests.compressed == [True, False]


async def test_client_compressed_streaming_of_grpcio() -> None:
    def play(stub: Any) -> None:
        requests = [StreamingInputCallRequest(payload=zeros(size)) for size in STREAMED]
        reply = stub.StreamingInputCall(iter(requests), compression=GZIP)
        assert reply.aggregated_payload_size == sum(STREAMED)

    async with our_server() as (found, stub):
        await anyio.to_thread.run_sync(play, stub)
    # Neither grpcio's client nor ours chooses within a call.
    assert found.requests.compressed == [True, True]


async def test_server_compressed_unary_to_grpcio() -> None:
    def play(stub: Any) -> None:
        for compressed in (True, False):
            assert stub.UnaryCall(large(compressed=compressed)).payload == zeros(LARGE_REPLY)

    async with our_server() as (found, stub):
        await anyio.to_thread.run_sync(play, stub)
    assert found.replies.compressed == [True, False]


async def test_server_compressed_streaming_to_grpcio() -> None:
    def play(stub: Any) -> None:
        replies = list(stub.StreamingOutputCall(streamed_replies()))
        assert [len(reply.payload.body) for reply in replies] == [size for _, size in REPLIES]

    async with our_server() as (found, stub):
        await anyio.to_thread.run_sync(play, stub)
    assert found.replies.compressed == [compressed for compressed, _ in REPLIES]


async def test_client_compressed_unary() -> None:
    async with our_client() as (found, channel):
        for compression in ("gzip", "identity"):
            request = large(compressed=compression == "gzip")
            reply = await channel.unary(UNARY_CALL, request, compression=compression)
            assert reply.payload == zeros(LARGE_REPLY)
    assert found.requests.compressed == [True, False]


async def test_client_compressed_streaming() -> None:
    async with our_client() as (found, channel):
        async with channel.stream(STREAMING_INPUT_CALL, compression="gzip") as stream:
            for size in STREAMED:
                await stream.send_message(StreamingInputCallRequest(payload=zeros(size)))
            await stream.end()
            reply = await stream.recv_message()
    assert reply is not None
    assert reply.aggregated_payload_size == sum(STREAMED)
    assert found.requests.compressed == [True, True]


async def test_server_compressed_unary() -> None:
    async with our_client() as (found, channel):
        for compressed in (True, False):
            reply = await Stub(channel).unary_call(large(compressed=compressed))
            assert reply.payload == zeros(LARGE_REPLY)
    assert found.replies.compressed == [True, False]


async def test_server_compressed_streaming() -> None:
    async with our_client() as (found, channel):
        async with Stub(channel).streaming_output_call(streamed_replies()) as stream:
            sizes = [len(reply.payload.body) async for reply in stream]
    assert sizes == [size for _, size in REPLIES]
    assert found.replies.compressed == [compressed for compressed, _ in REPLIES]
