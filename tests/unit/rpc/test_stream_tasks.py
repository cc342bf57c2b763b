"""Tasks that share a stream: none of them waits for what will not come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from grpclib.const import Handler
from grpclib.exceptions import ProtocolError
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.unit.rpc.services import Echo

from bascule.errors import RpcError, Status
from bascule.rpc import (
    Cardinality,
    Channel,
    ClientInterceptor,
    MethodConfig,
    RetryPolicy,
    Server,
    ServerStream,
    ServiceConfig,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

pytestmark = pytest.mark.anyio

#: More than a stream and its connection take at once.
LARGE = b"x" * 300_000

#: How many tasks send, and how much each of them.
SENDERS, EACH = 3, 6

ONCE: ServiceConfig | None = None
RETRIED = ServiceConfig({"": MethodConfig(retry=RetryPolicy())})
SMALL_REPLIES = ServiceConfig({"": MethodConfig(max_response_bytes=100)})


class Slow(Echo):
    """Takes a message only when a test lets it."""

    async def bidi(self, requests: AsyncIterator[EchoRequest]) -> AsyncIterator[EchoReply]:
        number = 0
        async for _ in requests:
            await anyio.lowlevel.checkpoint()
            number += 1
            yield EchoReply(number=number)


class Crowded:
    """Several tasks of its handler send."""

    def __mapping__(self) -> Mapping[str, Handler]:
        handler = Handler(self._send, Cardinality.UNARY_STREAM, EchoRequest, EchoReply)
        return {"/echo.Echo/ServerStream": handler}

    async def _send(self, stream: ServerStream[EchoRequest, EchoReply]) -> None:
        await stream.recv_message()

        async def send() -> None:
            for _ in range(EACH):
                await stream.send_message(EchoReply(payload=LARGE))

        async with anyio.create_task_group() as group:
            for _ in range(SENDERS):
                group.start_soon(send)


@pytest.mark.parametrize("config", [ONCE, RETRIED])
async def test_several_tasks_of_a_caller_may_send(config: ServiceConfig | None) -> None:
    async with (
        Server([Slow()]) as server,
        Channel(server.addresses[0], service_config=config) as channel,
    ):

        async def send() -> None:
            for _ in range(EACH):
                await stream.send_message(EchoRequest(payload=LARGE))

        with anyio.fail_after(60):
            async with EchoStub(channel).bidi() as stream:
                await stream.send_request()
                async with anyio.create_task_group() as group:
                    for _ in range(SENDERS):
                        group.start_soon(send)
                    for number in range(SENDERS * EACH):
                        reply = await stream.recv_message()
                        assert reply is not None
                        assert reply.number == number + 1


async def test_several_tasks_of_a_handler_may_send() -> None:
    async with Server([Crowded()]) as server, Channel(server.addresses[0]) as channel:
        with anyio.fail_after(60):
            async with EchoStub(channel).server_stream(EchoRequest()) as stream:
                replies = [reply async for reply in stream]
        assert [each.payload == LARGE for each in replies] == [True] * SENDERS * EACH


async def test_who_waits_for_a_call_to_start_starts_it_when_the_first_is_cancelled() -> None:
    """Both send before there is a connection."""
    address = "memory:not there yet"
    async with Channel(address, wait_for_ready=True) as channel, anyio.create_task_group() as group:
        with anyio.fail_after(60):
            async with EchoStub(channel).bidi() as stream:
                sent = anyio.Event()

                async def give_up() -> None:
                    with anyio.CancelScope() as scope:
                        first.append(scope)
                        await stream.send_message(EchoRequest(text="first", replies=1))

                async def go_on() -> None:
                    await stream.send_message(EchoRequest(text="second", replies=1))
                    sent.set()

                first: list[anyio.CancelScope] = []
                group.start_soon(give_up)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(go_on)
                await anyio.wait_all_tasks_blocked()
                first[0].cancel()
                async with Server([Echo()], listen=address):
                    channel.reset_backoff()
                    await sent.wait()
                    reply = await stream.recv_message()
                    assert reply is not None
                    assert reply.text == "second"
                    await stream.cancel()


@pytest.mark.parametrize("config", [ONCE, RETRIED])
@pytest.mark.parametrize("receives_first", [True, False])
async def test_a_receiver_learns_that_the_call_cannot_start(
    config: ServiceConfig | None, receives_first: bool
) -> None:
    seen: list[RpcError] = []

    async def receive(stream: Any) -> None:
        while True:
            try:
                await stream.recv_message()
            except ProtocolError:  # the other task has not begun
                await anyio.lowlevel.checkpoint()
            except RpcError as error:
                seen.append(error)
                return

    async with (
        Server([Echo()]) as server,
        Channel(server.addresses[0], service_config=config) as channel,
        anyio.create_task_group() as group,
    ):
        with anyio.fail_after(60):
            async with EchoStub(channel).bidi(metadata={"name": "\n"}) as stream:

                async def send() -> None:
                    with pytest.raises(ValueError, match="printable ASCII"):
                        await stream.send_message(EchoRequest())

                group.start_soon(send)
                if receives_first:
                    group.start_soon(receive, stream)
                await anyio.wait_all_tasks_blocked()
                if not receives_first:
                    await receive(stream)
                while not seen:
                    await anyio.lowlevel.checkpoint()
    assert "printable ASCII" in str(seen[0])


async def test_a_sender_goes_on_when_a_reply_is_larger_than_the_method_allows() -> None:
    class Sudden(Echo):
        async def bidi(self, requests: AsyncIterator[EchoRequest]) -> AsyncIterator[EchoReply]:
            await anext(requests)
            await sends.wait()
            yield EchoReply(payload=LARGE)
            await anyio.sleep_forever()

    sends = anyio.Event()
    async with (
        Server([Sudden()]) as server,
        Channel(server.addresses[0], service_config=SMALL_REPLIES) as channel,
    ):

        async def send() -> None:
            for _ in range(EACH):
                await stream.send_message(EchoRequest(payload=LARGE))

        with anyio.fail_after(60):
            async with EchoStub(channel).bidi() as stream:
                async with anyio.create_task_group() as group:
                    group.start_soon(send)
                    await anyio.wait_all_tasks_blocked()
                    sends.set()
                with pytest.raises(RpcError, match="larger than the method's 100") as raised:
                    await stream.recv_message()
                assert raised.value.status is Status.RESOURCE_EXHAUSTED


class Counted(ClientInterceptor):
    """Counts the blocks around streams."""

    entered = left = 0

    def stream(self, call: Any) -> Any:
        return self

    async def __aenter__(self) -> None:
        self.entered += 1

    async def __aexit__(self, *_: object) -> None:
        self.left += 1


async def test_a_stream_is_entered_once() -> None:
    counted = Counted()
    async with (
        Server([Echo()]) as server,
        Channel(server.addresses[0], interceptors=[counted]) as channel,
    ):
        stream = EchoStub(channel).bidi()
        async with stream:
            with pytest.raises(ProtocolError, match="open another one"):
                async with stream:
                    pass
            await stream.send_message(EchoRequest(replies=1), end=True)
            assert len([reply async for reply in stream]) == 1
        with pytest.raises(ProtocolError, match="open another one"):
            async with stream:
                pass
    assert (counted.entered, counted.left) == (1, 1)


@pytest.mark.parametrize("config", [ONCE, RETRIED])
async def test_a_stream_that_was_not_entered_sends_nothing(config: ServiceConfig | None) -> None:
    """Its timeout and its interceptors would be passed over, and nobody would end it."""
    async with (
        Server([Echo()]) as server,
        Channel(server.addresses[0], service_config=config) as channel,
    ):
        stream = EchoStub(channel).bidi(timeout=0.0)
        with pytest.raises(ProtocolError, match="enter the stream first"):
            await stream.send_message(EchoRequest())
