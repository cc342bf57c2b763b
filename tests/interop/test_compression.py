"""Compressed messages, with grpcio as client and as server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio.to_thread
import grpc
import pytest
from tests.generated.echo_bascule import ECHO_SERVER_STREAM, ECHO_UNARY, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.generated.echo_pb2_grpc import EchoStub as GrpcioStub
from tests.interop.echo import BasculeGoogle, Behaviour
from tests.interop.peers import grpcio_server

from bascule.rpc import Channel, RpcError, Server, ServerLimits, Status, call_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
ENCODINGS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}

LARGE = bytes(range(256)) * 400


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_grpcios_client_sends_and_takes_compressed_messages(encoding: str) -> None:
    def play(address: str) -> list[bytes]:
        options: dict[str, Any] = {"compression": ENCODINGS[encoding], "timeout": 20.0}
        with grpc.insecure_channel(address) as channel:
            stub = GrpcioStub(channel)
            request = EchoRequest(payload=LARGE, replies=2)
            replies = [stub.Unary(request, **options)]
            replies += stub.ServerStream(request, **options)
            replies += [stub.ClientStream(iter([request]), **options)]
            replies += stub.Bidi(iter([request, EchoRequest(replies=1), request]), **options)
            return [reply.payload for reply in replies]

    async with Server([BasculeGoogle(Behaviour())], compression=encoding) as server:
        payloads = await anyio.to_thread.run_sync(play, server.addresses[0])
    assert payloads == [*[LARGE] * 4, *[LARGE] * 2, b"", *[LARGE] * 2]


@pytest.mark.parametrize("replies", ENCODINGS)
@pytest.mark.parametrize("requests", ENCODINGS)
async def test_grpcios_server_takes_and_sends_compressed_messages(
    requests: str, replies: str
) -> None:
    with grpcio_server(compression=ENCODINGS[replies]) as peer:
        async with Channel(peer.address, compression=requests, timeout=20.0) as channel:
            stub: Any = EchoStub(channel)
            request = EchoRequest(payload=LARGE, replies=2)
            assert (await stub.unary(request)).payload == LARGE
            async with stub.server_stream(request) as stream:
                assert [reply.payload async for reply in stream] == [LARGE] * 2
            async with stub.client_stream() as stream:
                await stream.send_message(request, end=True)
                assert (await stream.recv_message()).payload == LARGE
            async with stub.bidi() as stream:
                for _ in range(3):
                    await stream.send_message(request)
                    for _ in range(2):
                        assert (await stream.recv_message()).payload == LARGE
                await stream.end()


async def test_grpcios_server_refuses_zstd() -> None:
    with grpcio_server() as peer:
        async with Channel(peer.address, timeout=20.0) as channel:
            request = EchoRequest(payload=LARGE)
            with pytest.raises(RpcError) as raised:
                await channel.unary(ECHO_UNARY, request, compression="zstd")
            # It should be UNIMPLEMENTED; grpcio does not get so far.
            assert raised.value.status in {Status.UNIMPLEMENTED, Status.INTERNAL}
            reply = await channel.unary(ECHO_UNARY, request, compression="identity")
            assert reply.payload == LARGE


async def test_zstd_goes_both_ways_between_our_own() -> None:
    async with (
        Server([BasculeGoogle(Behaviour())], compression="zstd") as server,
        Channel(server.addresses[0], compression="zstd") as channel,
    ):
        request = EchoRequest(payload=LARGE, replies=3)
        assert (await channel.unary(ECHO_UNARY, request)).payload == LARGE
        async with channel.server_stream(ECHO_SERVER_STREAM, request) as stream:
            assert [reply.payload async for reply in stream] == [LARGE] * 3


@pytest.mark.parametrize("encoding", [*ENCODINGS, "zstd"])
async def test_a_bomb_is_refused_by_either_side(encoding: str) -> None:
    bomb = bytes(4 * MIB)

    class Bombs(BasculeGoogle):
        async def unary(self, request: EchoRequest) -> EchoReply:
            call_context().compression = encoding
            return EchoReply(payload=bomb)

    limits = ServerLimits(max_message=MIB, max_send_message=8 * MIB)
    async with (
        Server([Bombs(Behaviour())], limits=limits) as server,
        Channel(server.addresses[0], max_message=MIB, max_send_message=8 * MIB) as channel,
    ):
        for request in (EchoRequest(payload=bomb), EchoRequest()):
            with pytest.raises(RpcError, match="limit of 1048576 bytes") as raised:
                await channel.unary(ECHO_UNARY, request, compression=encoding)
            assert raised.value.status is Status.RESOURCE_EXHAUSTED
    # A client that allows more gets it.
    async with (
        Server([Bombs(Behaviour())], limits=limits) as server,
        Channel(server.addresses[0], max_message=8 * MIB) as channel,
    ):
        assert (await channel.unary(ECHO_UNARY, EchoRequest())).payload == bomb


async def test_a_bomb_from_grpcios_client_is_refused() -> None:
    def play(address: str) -> grpc.StatusCode:
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(address, options, compression=grpc.Compression.Gzip) as channel:
            with pytest.raises(grpc.RpcError) as raised:
                GrpcioStub(channel).Unary(EchoRequest(payload=bytes(64 * MIB)), timeout=20.0)
            code: grpc.StatusCode = raised.value.code()
            return code

    async with Server([BasculeGoogle(Behaviour())]) as server:
        code = await anyio.to_thread.run_sync(play, server.addresses[0])
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_handler_chooses_message_by_message() -> None:
    class Choosy(BasculeGoogle):
        async def server_stream(self, request: EchoRequest) -> AsyncIterator[EchoReply]:
            context = call_context()
            context.compression = "gzip"
            for name in ("gzip", "identity", "gzip"):
                context.compression = name
                yield EchoReply(payload=LARGE)

    async with (
        Server([Choosy(Behaviour())]) as server,
        Channel(server.addresses[0]) as channel,
    ):
        async with channel.server_stream(ECHO_SERVER_STREAM, EchoRequest()) as stream:
            assert [reply.payload async for reply in stream] == [LARGE] * 3
