"""Calls that begin in one turn, sent some at a time."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoRequest
from tests.unit.rpc.services import Echo

from bascule.net._link import FLUSH_EVERY
from bascule.rpc import Channel, Server

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
