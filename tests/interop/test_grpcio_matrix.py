"""What ends a call early, with grpcio on either side: every kind of call, with and without TLS.

Cancellation and deadlines without TLS are where the services and stubs of every generator are tried.
"""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import grpc
import pytest
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.generated.echo_pb2_grpc import EchoStub
from tests.interop.echo import BasculeGoogle as Service
from tests.interop.echo import Behaviour
from tests.interop.peers import Peer, grpcio_server
from tests.interop.stubs import BasculeGoogle as Stub

from bascule.net import ClientTLS, ServerTLS
from bascule.rpc import Channel, RpcError, Server, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.certificates import Certificates

pytestmark = pytest.mark.anyio

KINDS = ["unary", "server_stream", "client_stream", "bidi"]
METHODS = ["Unary", "ServerStream", "ClientStream", "Bidi"]

#: Seconds after which a test has hung.
PATIENCE = 20.0

#: Seconds for calls that hang. On a busy machine, the first may be over before a handler begins.
TIMEOUTS = [0.2, 1.0, 5.0]

either = pytest.mark.parametrize("secure", [False, True], ids=["h2c", "tls"])


class Held(Behaviour):
    """A handler that asks the test when it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.released = anyio.Event()

    async def act(self, request: EchoRequest) -> None:
        if request.text == "held":
            self.started.set()
            await self.released.wait()


@asynccontextmanager
async def our_server(
    behaviour: Behaviour, certificates: Certificates | None
) -> AsyncIterator[tuple[Server, EchoStub]]:
    """Run bascule's server, and grpcio's client of it."""
    tls = certificates and ServerTLS(certificates.certificate, certificates.key)
    async with Server([Service(behaviour)], tls=tls, grace=PATIENCE) as server:
        if certificates is None:
            channel = grpc.insecure_channel(server.addresses[0])
        else:
            trust = grpc.ssl_channel_credentials(certificates.ca.read_bytes())
            channel = grpc.secure_channel(server.addresses[0], trust)
        with channel:
            await anyio.to_thread.run_sync(grpc.channel_ready_future(channel).result)
            yield server, EchoStub(channel)


@asynccontextmanager
async def our_channel(certificates: Certificates | None) -> AsyncIterator[tuple[Peer, Channel]]:
    """Run grpcio's server, and bascule's client of it."""
    identity = certificates and grpc.ssl_server_credentials(
        [(certificates.key.read_bytes(), certificates.certificate.read_bytes())]
    )
    tls = certificates and ClientTLS(certificates.ca)
    with grpcio_server(credentials=identity) as peer:
        async with Channel(peer.address, tls=tls) as channel:
            await channel.wait_ready()
            yield peer, channel


def start(stub: Any, method: str, request: EchoRequest, **options: Any) -> Any:
    """Begin a call of grpcio's client."""
    match method:
        case "Unary":
            return stub.Unary.future(request, **options)
        case "ServerStream":
            return stub.ServerStream(request, **options)
        case "ClientStream":
            return stub.ClientStream.future(iter([request]), **options)
        case _:
            return stub.Bidi(iter([request]), **options)


def finish(call: Any, method: str) -> list[EchoReply]:
    """Wait for what such a call receives."""
    return list(call) if method in {"ServerStream", "Bidi"} else [call.result()]


async def invoke(
    channel: Channel, kind: str, request: EchoRequest, replies: list[EchoReply], **options: Any
) -> None:
    """Do a call of bascule's client."""
    client = Stub(channel)
    match kind:
        case "unary":
            replies.append(await client.unary(request, **options))
        case "server_stream":
            replies.extend([each async for each in client.server_stream(request, **options)])
        case "client_stream":
            replies.append(await client.client_stream([request], **options))
        case _:
            replies.extend([each async for each in client.bidi([request], **options)])


@pytest.mark.parametrize("method", METHODS)
async def test_the_clients_cancellation_reaches_our_handler(
    method: str, certificates: Certificates
) -> None:
    behaviour = Behaviour()
    with anyio.fail_after(PATIENCE):
        async with our_server(behaviour, certificates) as (_, stub):
            call = start(stub, method, EchoRequest(hang=True))
            await behaviour.started.wait()
            assert call.cancel()
            await behaviour.cancelled.wait()
    assert call.cancelled()


@pytest.mark.parametrize("method", METHODS)
async def test_the_clients_deadline_ends_our_handler(
    method: str, certificates: Certificates
) -> None:
    behaviour = Behaviour()
    with anyio.fail_after(PATIENCE):
        async with our_server(behaviour, certificates) as (_, stub):
            for timeout in TIMEOUTS:
                call = start(stub, method, EchoRequest(hang=True), timeout=timeout)
                with pytest.raises(grpc.RpcError):
                    await anyio.to_thread.run_sync(finish, call, method)
                assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                if behaviour.started.is_set():
                    break
            await behaviour.cancelled.wait()


@either
@pytest.mark.parametrize("method", METHODS)
async def test_our_goaway_lets_a_call_end(
    method: str, secure: bool, certificates: Certificates
) -> None:
    behaviour = Held()
    with anyio.fail_after(PATIENCE):
        async with (
            our_server(behaviour, certificates if secure else None) as (server, stub),
            anyio.create_task_group() as group,
        ):
            call = start(stub, method, EchoRequest(text="held", replies=3))
            await behaviour.started.wait()
            group.start_soon(server.drain)
            # Once the client knows, it connects anew for another call and finds nobody.
            with pytest.raises(grpc.RpcError) as raised:
                while True:
                    await anyio.to_thread.run_sync(stub.Unary, EchoRequest(text="late"))
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            behaviour.released.set()
            replies = await anyio.to_thread.run_sync(finish, call, method)
    assert [reply.text for reply in replies] == ["held"] * (
        3 if method in {"ServerStream", "Bidi"} else 1
    )
    assert call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("kind", KINDS)
async def test_our_cancellation_reaches_the_handler(kind: str, certificates: Certificates) -> None:
    with anyio.fail_after(PATIENCE):
        async with our_channel(certificates) as (peer, channel):
            async with anyio.create_task_group() as group:
                group.start_soon(invoke, channel, kind, EchoRequest(hang=True), [])
                await anyio.to_thread.run_sync(peer.wait, peer.started)
                group.cancel_scope.cancel()
            await anyio.to_thread.run_sync(peer.wait, peer.cancelled)


@pytest.mark.parametrize("kind", KINDS)
async def test_our_deadline_ends_the_handler(kind: str, certificates: Certificates) -> None:
    with anyio.fail_after(PATIENCE):
        async with our_channel(certificates) as (peer, channel):
            for timeout in TIMEOUTS:
                with pytest.raises(RpcError) as raised:
                    await invoke(channel, kind, EchoRequest(hang=True), [], timeout=timeout)
                assert raised.value.status is Status.DEADLINE_EXCEEDED
                if peer.started.is_set():
                    break
            await anyio.to_thread.run_sync(peer.wait, peer.cancelled)
    assert peer.time_left is not None
    assert 0 < peer.time_left <= timeout


@either
@pytest.mark.parametrize("kind", KINDS)
async def test_the_servers_goaway_lets_a_call_end(
    kind: str, secure: bool, certificates: Certificates
) -> None:
    replies: list[EchoReply] = []
    with anyio.fail_after(PATIENCE):
        async with our_channel(certificates if secure else None) as (peer, channel):
            peer.hold = threading.Event()
            async with anyio.create_task_group() as group:
                request = EchoRequest(text="held", replies=3)
                group.start_soon(invoke, channel, kind, request, replies)
                await anyio.to_thread.run_sync(peer.wait, peer.started)
                peer.drain()
                with pytest.raises(RpcError) as raised:
                    while True:
                        await Stub(channel).unary(EchoRequest(text="late"))
                # grpcio's server cancels what comes before its GOAWAY has arrived.
                assert raised.value.status in {Status.UNAVAILABLE, Status.CANCELLED}
                peer.hold.set()
    assert [reply.text for reply in replies] == ["held"] * (
        3 if kind in {"server_stream", "bidi"} else 1
    )
