"""bascule's channel, with the stubs of every generator, against grpcio's and grpclib's servers."""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from multidict import MultiDict
from tests.generated import echo_bascule
from tests.generated.echo_pb2 import EchoReply, EchoRequest, Failure
from tests.interop.peers import SERVERS, Peer, grpcio_server, grpclib_server, violation
from tests.interop.stubs import ON_TRIO_TOO, STUBS, BasculeGoogle

from bascule.rpc import Cardinality, Channel, Method, RpcError, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
KINDS = ["unary", "server_stream", "client_stream", "bidi"]

#: Seconds for calls that hang. On a busy machine, the first may be over before a handler begins.
TIMEOUTS = [0.2, 1.0, 5.0]


@pytest.fixture(params=SERVERS)
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    with SERVERS[request.param]() as peer:
        yield peer


@pytest.fixture
async def channel(peer: Peer) -> AsyncIterator[Channel]:
    async with Channel(peer.address) as channel:
        yield channel


@pytest.fixture(params=STUBS, ids=lambda kind: kind.__name__)
def client(request: pytest.FixtureRequest, channel: Channel) -> Any:
    return request.param(channel)


async def invoke(
    client: Any, kind: str, request: Any, received: list[Any] | None = None, **options: Any
) -> None:
    """Call any kind of method with one request; put the replies into ``received``."""
    received = [] if received is None else received
    if kind == "unary":
        received.append(await client.unary(request, **options))
    elif kind == "client_stream":
        received.append(await client.client_stream([request], **options))
    else:
        replies = (
            client.server_stream(request, **options)
            if kind == "server_stream"
            else client.bidi([request], **options)
        )
        async with aclosing(replies):
            async for reply in replies:
                received.append(reply)


async def test_unary(client: Any) -> None:
    request = client.messages.EchoRequest(text="ä✓", payload=b"\0\xff")
    assert await client.unary(request) == client.messages.EchoReply(text="ä✓", payload=b"\0\xff")
    assert await client.unary(client.messages.EchoRequest()) == client.messages.EchoReply()


async def test_server_stream(client: Any) -> None:
    for count in (300, 0):
        request = client.messages.EchoRequest(text="a", replies=count)
        replies = [reply async for reply in client.server_stream(request)]
        assert replies == [
            client.messages.EchoReply(text="a", number=number) for number in range(count)
        ]


async def test_client_stream(client: Any) -> None:
    requests = [client.messages.EchoRequest(text=str(number)) for number in range(300)]
    assert (await client.client_stream(requests)).text == "".join(map(str, range(300)))
    assert await client.client_stream([]) == client.messages.EchoReply()


@pytest.mark.parametrize("kind", ON_TRIO_TOO, ids=lambda kind: kind.__name__)
async def test_bidi(channel: Channel, kind: Any) -> None:
    requests = [kind.messages.EchoRequest(text=str(number), replies=2) for number in range(20)]
    replies = [reply async for reply in kind(channel).bidi(requests)]
    assert [reply.text for reply in replies] == [
        str(number) for number in range(20) for _ in range(2)
    ]
    assert [reply async for reply in kind(channel).bidi([])] == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_bidi_of_betterproto2s_stub(channel: Channel) -> None:
    client = STUBS[-1](channel)
    requests = [client.messages.EchoRequest(text=str(number), replies=2) for number in range(20)]
    replies = [reply async for reply in client.bidi(requests)]
    assert [reply.text for reply in replies] == [
        str(number) for number in range(20) for _ in range(2)
    ]


async def test_many_calls_at_once(client: Any) -> None:
    texts: dict[int, str] = {}

    async def call(number: int) -> None:
        texts[number] = (await client.unary(client.messages.EchoRequest(text=str(number)))).text

    async with anyio.create_task_group() as group:
        for number in range(500):
            group.start_soon(call, number)
    assert texts == {number: str(number) for number in range(500)}


async def test_metadata_with_bytes_and_repeated_names(channel: Channel) -> None:
    sent: MultiDict[str | bytes] = MultiDict(
        [
            ("x-echo", "one"),
            ("x-echo", "two"),
            ("x-echo-bin", b"\0\x01\xff"),
            ("x-echo-bin", b""),
            ("x-echo-bin", b"a,b"),
            ("x-other", "left there"),
        ]
    )
    stub = echo_bascule.EchoStub(channel)
    async with stub.server_stream(EchoRequest(replies=1), metadata=sent) as stream:
        await stream.recv_initial_metadata()
        assert stream.initial_metadata is not None
        assert stream.initial_metadata["x-initial"] == "here"
        assert len([reply async for reply in stream]) == 1
    assert stream.trailing_metadata is not None
    assert stream.trailing_metadata.getall("x-echo") == ["one", "two"]
    assert stream.trailing_metadata.getall("x-echo-bin") == [b"\0\x01\xff", b"", b"a,b"]
    assert "x-other" not in stream.trailing_metadata


@pytest.mark.parametrize("code", [code for code in Status if code is not Status.OK])
async def test_status_and_message(channel: Channel, code: Status) -> None:
    message = "broken: 100 % ä ✓ \U0001f600"
    with pytest.raises(RpcError) as raised:
        await BasculeGoogle(channel).unary(
            EchoRequest(failure=Failure(code=code.value, message=message))
        )
    assert (raised.value.status, raised.value.message, raised.value.details) == (
        code,
        message,
        None,
    )


@pytest.mark.parametrize("kind", KINDS[:3])
async def test_rich_errors(client: Any, kind: str) -> None:
    failure = client.messages.Failure(code=3, message="no ✓", field="text")
    received: list[Any] = []
    with pytest.raises(RpcError) as raised:
        await invoke(
            client, kind, client.messages.EchoRequest(replies=3, failure=failure), received
        )
    assert len(received) == (3 if kind == "server_stream" else 0)
    assert (raised.value.status, raised.value.message) == (Status.INVALID_ARGUMENT, "no ✓")
    assert raised.value.details == [violation("text")]


async def test_unimplemented(peer: Peer, channel: Channel) -> None:
    for path in ("/echo.Echo/Missing", "/echo.Echo/Unheard", "/no.Such/Method"):
        method = Method(path, Cardinality.UNARY_UNARY, EchoRequest, EchoReply)
        with pytest.raises(RpcError) as raised:
            await channel.unary(method, EchoRequest())
        assert raised.value.status is Status.UNIMPLEMENTED, path


@pytest.mark.parametrize("kind", KINDS[:3])
async def test_a_timeout_ends_the_call_on_both_sides(peer: Peer, client: Any, kind: str) -> None:
    with anyio.fail_after(30):
        for timeout in TIMEOUTS:
            with pytest.raises(RpcError) as raised:
                await invoke(client, kind, client.messages.EchoRequest(hang=True), timeout=timeout)
            assert raised.value.status is Status.DEADLINE_EXCEEDED
            if peer.started.is_set():
                break
        await anyio.to_thread.run_sync(peer.wait, peer.cancelled)
    assert peer.time_left is not None
    assert 0.0 < peer.time_left <= timeout


@pytest.mark.parametrize("kind", KINDS[:3])
async def test_the_deadline_of_a_scope_is_sent_and_ends_the_scope(
    peer: Peer, client: Any, kind: str
) -> None:
    with anyio.fail_after(30):
        for timeout in TIMEOUTS:
            with anyio.move_on_after(timeout) as scope:
                await invoke(client, kind, client.messages.EchoRequest(hang=True))
            assert scope.cancelled_caught
            if peer.started.is_set():
                break
        await anyio.to_thread.run_sync(peer.wait, peer.cancelled)
    assert peer.time_left is not None
    assert 0.0 < peer.time_left <= timeout


@pytest.mark.parametrize("kind", KINDS[:3])
async def test_cancelling_a_call_cancels_the_handler(peer: Peer, client: Any, kind: str) -> None:
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(invoke, client, kind, client.messages.EchoRequest(hang=True))
            await anyio.to_thread.run_sync(peer.wait, peer.started)
            group.cancel_scope.cancel()
        await anyio.to_thread.run_sync(peer.wait, peer.cancelled)
        assert await client.unary(client.messages.EchoRequest(text="next"))


async def test_a_bidi_call_is_cancelled_by_leaving_it(peer: Peer, channel: Channel) -> None:
    with anyio.fail_after(10):
        async with echo_bascule.EchoStub(channel).bidi() as stream:
            await stream.send_message(EchoRequest(text="a", replies=1, hang=True))
            assert (await stream.recv_message()) == EchoReply(text="a")
            await anyio.to_thread.run_sync(peer.wait, peer.started)
        await anyio.to_thread.run_sync(peer.wait, peer.cancelled)


@pytest.mark.parametrize("kind", ON_TRIO_TOO, ids=lambda kind: kind.__name__)
async def test_a_stream_left_in_the_middle_is_cancelled(
    peer: Peer, channel: Channel, kind: Any
) -> None:
    # betterproto2's stub leaves a generator of its own unclosed here, of which trio warns.
    client = kind(channel)
    replies = client.server_stream(client.messages.EchoRequest(replies=3, hang=True))
    with anyio.fail_after(10):
        async with aclosing(replies):
            async for _ in replies:
                break
            await anyio.to_thread.run_sync(peer.wait, peer.started)
        await anyio.to_thread.run_sync(peer.wait, peer.cancelled)


async def test_leaving_the_channel_ends_its_calls(peer: Peer) -> None:
    errors: list[RpcError] = []

    async def call(channel: Channel) -> None:
        with pytest.raises(RpcError) as raised:
            await BasculeGoogle(channel).unary(EchoRequest(hang=True))
        errors.append(raised.value)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group, AsyncExitStack() as stack:
            channel = await stack.enter_async_context(Channel(peer.address))
            group.start_soon(call, channel)
            await anyio.to_thread.run_sync(peer.wait, peer.started)
        await anyio.to_thread.run_sync(peer.wait, peer.cancelled)
    (error,) = errors
    assert error.status in {Status.CANCELLED, Status.UNAVAILABLE}


async def test_a_server_that_goes_away_is_unavailable() -> None:
    with grpcio_server() as peer:
        async with Channel(peer.address) as channel:
            assert await BasculeGoogle(channel).unary(EchoRequest(text="a")) == EchoReply(text="a")
            errors: list[RpcError] = []

            async def call() -> None:
                with pytest.raises(RpcError) as raised:
                    await BasculeGoogle(channel).unary(EchoRequest(hang=True))
                errors.append(raised.value)

            with anyio.fail_after(10):
                async with anyio.create_task_group() as group:
                    group.start_soon(call)
                    await anyio.to_thread.run_sync(peer.wait, peer.started)
                    await anyio.to_thread.run_sync(peer.stop)
            assert errors[0].status in {Status.CANCELLED, Status.UNAVAILABLE}
            with pytest.raises(RpcError) as raised:
                await BasculeGoogle(channel).unary(EchoRequest(), timeout=0.3)
            assert raised.value.status in {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED}


async def test_messages_up_to_the_limit(client: Any) -> None:
    request = client.messages.EchoRequest
    payload = bytes(range(256)) * (4 * MIB // 256)
    fitting = payload[:-16]
    assert (await client.unary(request(payload=fitting))).payload == fitting
    with pytest.raises(RpcError) as raised:
        await client.unary(request(payload=payload))
    assert raised.value.status is Status.RESOURCE_EXHAUSTED
    assert (await client.unary(request(text="next"))).text == "next"


async def test_a_reply_above_the_limit_is_refused_here() -> None:
    options = [
        ("grpc.max_send_message_length", 64 * MIB),
        ("grpc.max_receive_message_length", 64 * MIB),
    ]
    with grpcio_server(options=options) as peer:
        async with Channel(peer.address) as channel:
            client = BasculeGoogle(channel)
            half = bytes(3 * MIB)
            with pytest.raises(RpcError) as raised:
                await client.client_stream([EchoRequest(payload=half), EchoRequest(payload=half)])
            assert raised.value.status is Status.RESOURCE_EXHAUSTED
            assert await client.unary(EchoRequest(text="next")) == EchoReply(text="next")


async def test_a_request_above_the_servers_limit_is_refused_there() -> None:
    with grpcio_server() as peer:
        async with Channel(peer.address, max_message=16 * MIB) as channel:
            client = BasculeGoogle(channel)
            with pytest.raises(RpcError) as raised:
                await client.unary(EchoRequest(payload=bytes(5 * MIB)))
            assert raised.value.status is Status.RESOURCE_EXHAUSTED
            assert await client.unary(EchoRequest(text="next")) == EchoReply(text="next")


@pytest.mark.parametrize("kind", ON_TRIO_TOO, ids=lambda kind: kind.__name__)
async def test_long_streams_of_large_messages_pass_both_ways(channel: Channel, kind: Any) -> None:
    payload = bytes(range(256)) * (MIB // 256)
    requests = [kind.messages.EchoRequest(payload=payload, replies=2) for _ in range(16)]
    count = 0
    async for reply in kind(channel).bidi(requests):
        assert reply.payload == payload
        count += 1
    assert count == 32


async def test_one_channel_balances_over_both_libraries() -> None:
    with grpcio_server() as first, grpclib_server() as second:
        async with Channel(f"static:///{first.address},{second.address}") as channel:
            await channel.wait_ready()
            for number in range(20):
                assert await BasculeGoogle(channel).unary(
                    EchoRequest(text=str(number))
                ) == EchoReply(text=str(number))
