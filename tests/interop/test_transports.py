"""grpcio as client and as server over TLS, mutual TLS and Unix sockets, and at a pace of its own."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import grpc
import pytest
from tests.certificates import Certificates
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.generated.echo_pb2_grpc import EchoStub as GrpcioStub
from tests.interop.echo import BasculeGoogle, Behaviour
from tests.interop.peers import grpcio_server

from bascule.net import ClientTLS, ServerTLS
from bascule.rpc import Channel, RpcError, Server, Status, call_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


class Introspective(BasculeGoogle):
    """Answers with who calls."""

    async def unary(self, request: EchoRequest) -> EchoReply:
        identity = call_context().identity
        name = (
            dict(pair for part in identity["subject"] for pair in part)["commonName"]
            if identity
            else "nobody"
        )
        return EchoReply(text=name)


@pytest.mark.parametrize("mutual", [False, True])
async def test_grpcios_client_over_tls(certificates: Certificates, mutual: bool) -> None:
    tls = ServerTLS(
        certificates.certificate, certificates.key, client_ca=certificates.ca if mutual else None
    )
    credentials = grpc.ssl_channel_credentials(
        certificates.ca.read_bytes(),
        *((certificates.key.read_bytes(), certificates.certificate.read_bytes()) if mutual else ()),
    )

    def play(address: str) -> str:
        port = address.rpartition(":")[2]
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            text: str = GrpcioStub(channel).Unary(EchoRequest(), timeout=10.0).text
            return text

    async with Server([Introspective(Behaviour())], tls=tls) as server:
        name = await anyio.to_thread.run_sync(play, server.addresses[0])
    assert name == ("somebody" if mutual else "nobody")


@pytest.mark.parametrize("mutual", [False, True])
async def test_grpcios_server_over_tls(certificates: Certificates, mutual: bool) -> None:
    credentials = grpc.ssl_server_credentials(
        [(certificates.key.read_bytes(), certificates.certificate.read_bytes())],
        root_certificates=certificates.ca.read_bytes() if mutual else None,
        require_client_auth=mutual,
    )
    own = (certificates.certificate, certificates.key) if mutual else ()
    with grpcio_server(credentials=credentials) as peer:
        port = peer.address.rpartition(":")[2]
        async with Channel(f"localhost:{port}", tls=ClientTLS(certificates.ca, *own)) as channel:
            payload = bytes(3 * MIB)
            reply = await EchoStub(channel).unary(EchoRequest(payload=payload), timeout=10.0)
            assert reply.payload == payload
        if mutual:
            async with Channel(f"localhost:{port}", tls=ClientTLS(certificates.ca)) as channel:
                with pytest.raises(RpcError) as raised:
                    await EchoStub(channel).unary(EchoRequest(), timeout=1.0)
                assert raised.value.status in {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED}


async def test_unix_sockets_both_ways(tmp_path: Path) -> None:
    def play() -> str:
        # Its own choice is the percent-encoded path, which the `http` crate takes for no authority.
        options = [("grpc.default_authority", "localhost")]
        with grpc.insecure_channel(f"unix:{tmp_path}/ours", options) as channel:
            text: str = GrpcioStub(channel).Unary(EchoRequest(text="a"), timeout=10.0).text
            return text

    async with Server([BasculeGoogle(Behaviour())], listen=f"unix:{tmp_path}/ours"):
        assert await anyio.to_thread.run_sync(play) == "a"
    with grpcio_server(listen=f"unix:{tmp_path}/theirs"):
        async with Channel(f"unix:{tmp_path}/theirs") as channel:
            assert await EchoStub(channel).unary(EchoRequest(text="b"), timeout=10.0) == EchoReply(
                text="b"
            )


async def test_a_client_that_does_not_read_stops_the_handler() -> None:
    class Flood(BasculeGoogle):
        sent = 0

        async def server_stream(self, request: EchoRequest) -> AsyncIterator[EchoReply]:
            while True:
                yield EchoReply(payload=bytes(MIB))
                self.sent += 1

    service = Flood(Behaviour())

    def play(address: str) -> None:
        # Its windows grow with what it measures of the path, unless told not to.
        options = [("grpc.max_receive_message_length", -1), ("grpc.http2.bdp_probe", 0)]
        with grpc.insecure_channel(address, options) as channel:
            stub = GrpcioStub(channel)
            flood = stub.ServerStream(EchoRequest())
            next(flood)
            for _ in range(200):
                stub.Unary(EchoRequest())
            flood.cancel()

    async with Server([service], grace=1.0) as server:
        await anyio.to_thread.run_sync(play, server.addresses[0])
    assert 1 <= service.sent < 20


async def test_a_server_that_does_not_read_stops_the_sender() -> None:
    sent = 0
    with grpcio_server() as peer:
        async with Channel(peer.address) as channel:
            stub: Any = EchoStub(channel)
            with anyio.fail_after(30):
                async with stub.bidi() as stream, anyio.create_task_group() as group:

                    async def send() -> None:
                        nonlocal sent
                        await stream.send_message(EchoRequest(hang=True))
                        while True:
                            await stream.send_message(EchoRequest(payload=bytes(MIB)))
                            sent += 1

                    group.start_soon(send)
                    await anyio.to_thread.run_sync(peer.wait, peer.started)
                    for _ in range(200):
                        await stub.unary(EchoRequest())
                    group.cancel_scope.cancel()
    assert sent < 20


async def test_connections_that_age_are_replaced_and_no_call_fails() -> None:
    # Younger ones would be counted as attempts that failed.
    options = [("grpc.max_connection_age_ms", 1_200), ("grpc.max_connection_age_grace_ms", 10_000)]
    with grpcio_server(options=options) as peer:
        async with Channel(peer.address) as channel:
            stub = EchoStub(channel)

            async def work() -> None:
                while len(peer.clients) < 3:
                    assert await stub.unary(EchoRequest(text="a")) == EchoReply(text="a")
                    async with stub.server_stream(EchoRequest(replies=3)) as stream:
                        assert len([reply async for reply in stream]) == 3

            with anyio.fail_after(20):
                async with anyio.create_task_group() as group:
                    for _ in range(8):
                        group.start_soon(work)


async def test_servers_that_take_turns_at_one_address_fail_no_call() -> None:
    options = [(f"grpc.{name}_reconnect_backoff_ms", 50) for name in ("initial", "min", "max")]
    answered = 0
    calling = 6
    over, ended = threading.Event(), anyio.Event()

    def call(stub: Any, streams: bool) -> None:
        nonlocal answered
        patient: Any = {"wait_for_ready": True, "timeout": 20.0}
        while not over.is_set():
            if streams:
                request = EchoRequest(replies=20, payload=bytes(1000))
                assert len(list(stub.ServerStream(request, **patient))) == 20
            else:
                assert stub.Unary(EchoRequest(text="a"), **patient).text == "a"
            answered += 1

    async def call_on(stub: Any, streams: bool) -> None:
        nonlocal calling
        await anyio.to_thread.run_sync(call, stub, streams)
        calling -= 1
        if not calling:
            ended.set()

    async with Server([BasculeGoogle(Behaviour())]) as server:
        address = server.addresses[0]
    with grpc.insecure_channel(address, options) as channel, anyio.fail_after(60):
        stub = GrpcioStub(channel)
        wake = functools.partial(stub.Unary, EchoRequest(), wait_for_ready=True)
        async with anyio.create_task_group() as group:
            for number in range(calling):
                group.start_soon(call_on, stub, bool(number % 2))
            for _ in range(15):
                async with Server([BasculeGoogle(Behaviour())], listen=address):
                    target = answered + 20
                    while answered < target:
                        await anyio.to_thread.run_sync(wake)
            # Calls of the last turn wait for another server.
            async with Server([BasculeGoogle(Behaviour())], listen=address):
                over.set()
                await ended.wait()
