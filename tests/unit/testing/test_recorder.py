"""Calls are recorded on either side, and played again without the service."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from google.rpc.error_details_pb2 import BadRequest
from tests.generated.better import echo as echo_better
from tests.generated.better.echo.services import EchoStub as BetterStub
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest, Failure
from tests.interop.echo import BasculeBetterproto2, BasculeGoogle, Behaviour

from bascule.errors import RpcError, Status
from bascule.rpc import Channel
from bascule.testing import Recorder, memory_channel

pytestmark = pytest.mark.anyio


def interceptors(recorder: Recorder, side: str) -> dict[str, Any]:
    if side == "client":
        return {"interceptors": [recorder.client]}
    return {"server_interceptors": [recorder.server]}


sides = pytest.mark.parametrize("side", ["client", "server"])


async def converse(channel: Channel) -> list[Any]:
    """Use every kind of method, and answer with all that came of it."""
    stub = EchoStub(channel)
    seen: list[Any] = [await stub.unary(EchoRequest(text="a"), metadata={"x-echo": "e"})]
    async with stub.server_stream(EchoRequest(text="b", replies=2)) as stream:
        seen += [each async for each in stream]
    async with stub.client_stream() as sending:
        await sending.send_message(EchoRequest(text="c"))
        await sending.send_message(EchoRequest(text="d"), end=True)
        seen.append(await sending.recv_message())
    async with stub.bidi() as talk:
        for text in ("e", "f"):
            await talk.send_message(EchoRequest(text=text, replies=1))
            seen.append(await talk.recv_message())
        await talk.end()
        seen.append(await talk.recv_message())
    with pytest.raises(RpcError) as caught:
        await stub.unary(EchoRequest(failure=Failure(code=5, message="gone", field="x")))
    error = caught.value
    return [*seen, error.status, error.message, error.detail(BadRequest)]


@sides
async def test_every_kind_of_call_is_recorded_and_replayed(side: str) -> None:
    recorder = Recorder()
    service = BasculeGoogle(Behaviour())
    async with memory_channel(service, **interceptors(recorder, side)) as channel:
        seen = await converse(channel)
    names = [each.method.rpartition("/")[2] for each in recorder.calls]
    assert names == ["Unary", "ServerStream", "ClientStream", "Bidi", "Unary"]
    unary, serving, sending, talk, failed = recorder.calls
    assert unary.requests == [EchoRequest(text="a")]
    assert unary.replies == [EchoReply(text="a")]
    assert ("x-echo", "e") in unary.metadata
    assert ("x-echo", "e") in unary.trailing_metadata
    assert [each.number for each in serving.replies] == [0, 1]
    assert [each.text for each in sending.requests] == ["c", "d"]
    assert [direction for direction, _ in talk.messages] == ["request", "reply"] * 2
    assert (failed.status, failed.message, failed.replies) == (Status.NOT_FOUND, "gone", [])
    assert recorder.of("Unary") == recorder.of("/echo.Echo/Unary") == [unary, failed]

    async with memory_channel(recorder.replay()) as channel:
        assert await converse(channel) == seen


@sides
async def test_messages_of_betterproto2(side: str) -> None:
    recorder = Recorder()
    service = BasculeBetterproto2(Behaviour())
    request = echo_better.EchoRequest(text="a")
    async with memory_channel(service, **interceptors(recorder, side)) as channel:
        reply = await BetterStub(channel).unary(request)
    async with memory_channel(recorder.replay()) as channel:
        assert await BetterStub(channel).unary(request) == reply
        # What is played need not be played with the same library.
        assert (await EchoStub(channel).unary(EchoRequest(text="a"))).text == "a"


async def test_answers_to_equal_requests_come_in_their_order() -> None:
    recorder = Recorder()
    for text in ("first", "second"):
        recorder.calls += Recorder().calls
        async with memory_channel(
            _Answering(text), server_interceptors=[recorder.server]
        ) as channel:
            await EchoStub(channel).unary(EchoRequest())
    async with memory_channel(recorder.replay()) as channel:
        answers = [(await EchoStub(channel).unary(EchoRequest())).text for _ in range(3)]
    assert answers == ["first", "second", "second"]


class _Answering(BasculeGoogle):
    def __init__(self, text: str) -> None:
        super().__init__(Behaviour())
        self.text = text

    async def unary(self, request: EchoRequest) -> EchoReply:
        return EchoReply(text=self.text)


async def test_what_was_not_recorded_is_told() -> None:
    recorder = Recorder()
    service = BasculeGoogle(Behaviour())
    async with memory_channel(service, server_interceptors=[recorder.server]) as channel:
        await EchoStub(channel).unary(EchoRequest(text="a"))
    async with memory_channel(recorder.replay()) as channel:
        with pytest.raises(
            RpcError, match="no recorded call of /echo.Echo/Unary goes on"
        ) as caught:
            await EchoStub(channel).unary(EchoRequest(text="b"))
        assert caught.value.status is Status.FAILED_PRECONDITION
        with pytest.raises(RpcError) as caught:
            await EchoStub(channel).missing(EchoRequest())
        assert caught.value.status is Status.UNIMPLEMENTED


@sides
async def test_a_call_that_was_given_up_is_cancelled(side: str) -> None:
    recorder = Recorder()
    service = BasculeGoogle(Behaviour())
    async with memory_channel(service, **interceptors(recorder, side)) as channel:
        with anyio.move_on_after(0.05):
            await EchoStub(channel).unary(EchoRequest(hang=True))
    assert [each.status for each in recorder.calls] == [Status.CANCELLED]
