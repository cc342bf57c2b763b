"""Calls that begin in one turn, and replies of one turn, sent some at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoRequest
from tests.unit.rpc.services import Echo

from bascule.net._asyncio import AsyncioLink
from bascule.net._link import ALONE, FLUSH_EVERY, Reading
from bascule.net._stream import StreamLink
from bascule.rpc import Channel, Server
from bascule.rpc._server_call import ServerCall, ServerSession
from bascule.rpc._streams import TURN, ServerStream

if TYPE_CHECKING:
    from bascule.net._link import Link

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("size", [0, 50_000])
async def test_no_call_overtakes_what_the_socket_has_not_taken(size: int) -> None:
    """Large ones fill the socket, so that its writer waits while others begin."""
    count = 8 * FLUSH_EVERY + 1
    replies: dict[int, str] = {}
    async with (
        Server([Echo()], listen="127.0.0.1:0") as server,
        Channel(server.addresses[0]) as channel,
        anyio.create_task_group() as tasks,
    ):
        stub = EchoStub(channel)

        async def call(number: int) -> None:
            text = f"{number}:" + "x" * size
            for _ in range(3):
                reply = await stub.unary(EchoRequest(text=text), timeout=60.0)
                assert reply.text == text
            replies[number] = reply.text[:10]

        for number in range(count):
            tasks.start_soon(call, number)
    assert len(replies) == count


async def test_the_first_ones_leave_before_the_last_one_has_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        Server([Echo()], listen="127.0.0.1:0") as server,
        Channel(server.addresses[0]) as channel,
        anyio.create_task_group() as tasks,
    ):
        stub = EchoStub(channel)
        await stub.unary(EchoRequest())
        (subchannel,) = channel._pool.subchannels.values()
        connection = subchannel.connection
        assert connection is not None
        seen: list[tuple[int, bool]] = []
        begun = connection.begun

        def spy(*about) -> None:
            begun(*about)
            seen.append((len(connection.replies), connection.machine.wants_write))

        monkeypatch.setattr(connection, "begun", spy)
        for _ in range(2 * FLUSH_EVERY):
            tasks.start_soon(stub.unary, EchoRequest())
        with anyio.fail_after(30):
            while len(seen) < 2 * FLUSH_EVERY:
                await anyio.lowlevel.checkpoint()
    sent_at = [calls for calls, waiting in seen if not waiting]
    assert sent_at[0] == 1, "there was nothing that it could go along with"
    assert len(sent_at) >= 2, "some while others are still to begin"


async def call_from_another_thread(
    address: str, callers: int, rounds: int, *, stream: bool
) -> None:
    """So many calls at once, again and again, by a loop of their own."""

    async def unary(stub: EchoStub) -> None:
        for _ in range(rounds):
            assert (await stub.unary(EchoRequest(text="x"), timeout=60.0)).text == "x"

    async def ping(stub: EchoStub) -> None:
        async with stub.bidi(timeout=60.0) as messages:
            for _ in range(rounds):
                await messages.send_message(EchoRequest(text="x", replies=1))
                assert (reply := await messages.recv_message()) is not None
                assert reply.text == "x"
            await messages.end()

    async def main() -> None:
        async with Channel(address) as channel, anyio.create_task_group() as tasks:
            for _ in range(callers):
                tasks.start_soon(ping if stream else unary, EchoStub(channel))

    await anyio.to_thread.run_sync(lambda: anyio.run(main))


def waits(session: ServerSession) -> bool:
    """Whether a reply waits for the link to send it."""
    link = session.link
    assert isinstance(link, AsyncioLink | StreamLink)
    return link._unsent > 0


async def test_the_first_replies_leave_before_the_last_one_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, bool]] = []
    end = ServerCall.end

    def spy(call: ServerCall, error: Exception | None, returned: bool) -> None:
        session = call.session
        end(call, error, returned)
        seen.append((len(session.calls), waits(session)))

    monkeypatch.setattr(ServerCall, "end", spy)
    async with Server([Echo()], listen="127.0.0.1:0") as server:
        await call_from_another_thread(server.addresses[0], 20, 50, stream=False)
    assert len(seen) == 20 * 50
    early = [left for left, waiting in seen if left and not waiting]
    assert early, "the client waits for replies, and there is no other to work for"
    assert len(early) < len(seen) / 2, "but not each for itself"


def watch_messages(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether something waits for the link after each message that a server's stream sends, as they are sent."""
    waiting: list[bool] = []
    send = ServerStream.send_message

    async def spy(stream: ServerStream[object, object], message: object) -> None:
        await send(stream, message)
        waiting.append(waits(stream._call.session))

    monkeypatch.setattr(ServerStream, "send_message", spy)
    return waiting


async def test_messages_of_streams_leave_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = watch_messages(monkeypatch)
    async with Server([Echo()], listen="127.0.0.1:0") as server:
        await call_from_another_thread(server.addresses[0], 20, 50, stream=True)
    sent = len(waiting) - sum(waiting)
    assert len(waiting) == 20 * 50
    assert 0 < sent < len(waiting) / 2


async def test_a_burst_of_one_stream_leaves_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = watch_messages(monkeypatch)
    async with (
        Server([Echo()], listen="127.0.0.1:0") as server,
        Channel(server.addresses[0]) as channel,
        EchoStub(channel).server_stream(EchoRequest(replies=TURN - 1)) as replies,
    ):
        assert [reply.number async for reply in replies] == list(range(TURN - 1))
    assert waiting == [True] * (TURN - 1)


def test_who_is_alone() -> None:
    reading = Reading()
    one, other = cast("Link", object()), cast("Link", object())
    assert [reading.alone(one) for _ in range(ALONE + 2)] == [False] * (ALONE - 1) + [True] * 3
    assert not reading.alone(other)
    assert not any(reading.alone(each) for each in (one, other) * ALONE)
    assert [reading.alone(other) for _ in range(ALONE)][-1]
