"""What a handler or a caller may do wrong, and what must not end more than its call."""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from google.rpc.error_details_pb2 import DebugInfo
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest

from bascule.errors import RpcError, Status
from bascule.rpc import Channel, ConnectivityState, Server, call_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.anyio

KINDS = ["unary", "server_stream"]


class Scripted(EchoBase):
    """Runs a function of the test, then answers."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act

    async def unary(self, request: EchoRequest) -> EchoReply:
        if not request.text:
            await self._act()
        return EchoReply(text=request.text)

    async def server_stream(self, request: EchoRequest) -> AsyncIterator[EchoReply]:
        yield EchoReply()
        await self._act()


async def invoke(stub: EchoStub, kind: str, **options: Any) -> Any:
    if kind == "unary":
        return await stub.unary(EchoRequest(), **options)
    async with stub.server_stream(EchoRequest(), **options) as stream:
        return [reply async for reply in stream]


@asynccontextmanager
async def serve(act: Callable[[], Any], within: float | None = 10.0) -> AsyncIterator[EchoStub]:
    """The server must be of use whatever the handler did."""
    async with Server([Scripted(act)]) as server, Channel(server.addresses[0]) as channel:
        stub = EchoStub(channel)
        with anyio.fail_after(within):
            yield stub
            assert await stub.unary(EchoRequest(text="next")) == EchoReply(text="next")
        (endpoint,) = channel.snapshot().subchannels
        assert (endpoint.state, endpoint.in_flight) == (ConnectivityState.READY, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Bad Key", "a"),
        ("a", "b\n"),
        ("a-bin", "text"),
        ("a", b"bytes"),
        ("a", 5),
        (":a", "b"),
        ("a", "b" * 20_000),
    ],
)
async def test_bad_trailing_metadata_fails_its_call_only(
    kind: str, name: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> None:
        call_context().trailing_metadata.add(name, value)

    async with serve(act) as stub:
        with pytest.raises(RpcError) as raised:
            await invoke(stub, kind)
    assert raised.value.status is Status.UNKNOWN
    assert "handler of /echo.Echo/" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_keeps_its_status_when_its_metadata_is_bad(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> None:
        call_context().trailing_metadata.add("a", "b" * 20_000)
        raise RpcError(Status.NOT_FOUND, "gone")

    async with serve(act) as stub:
        with pytest.raises(RpcError, match="gone") as raised:
            await invoke(stub, kind)
    assert raised.value.status is Status.NOT_FOUND
    assert "the status cannot be sent as it is" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("letter", ["x", "ä", "\U0001f600"])
async def test_a_long_status_message_is_cut(kind: str, letter: str) -> None:
    async def act() -> None:
        raise RpcError(Status.NOT_FOUND, letter * 100_000)

    async with serve(act) as stub:
        with pytest.raises(RpcError) as raised:
            await invoke(stub, kind)
    assert raised.value.status is Status.NOT_FOUND
    assert raised.value.message == letter * (2048 // len(letter.encode()))


async def test_details_that_no_client_would_take_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def act() -> None:
        raise RpcError(Status.NOT_FOUND, "gone", [DebugInfo(detail="x" * 20_000)])

    async with serve(act) as stub:
        with pytest.raises(RpcError, match="gone") as raised:
            await invoke(stub, "unary")
    assert raised.value.details is None
    assert caplog.records[-1].levelno == logging.ERROR


@pytest.mark.parametrize("kind", KINDS)
async def test_the_one_error_of_a_handlers_task_group_is_the_calls(kind: str) -> None:
    async def fail() -> None:
        raise RpcError(Status.NOT_FOUND, "gone")

    async def act() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            group.start_soon(fail)

    async with serve(act) as stub:
        with pytest.raises(RpcError, match="gone") as raised:
            await invoke(stub, kind)
    assert raised.value.status is Status.NOT_FOUND


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timeout", [0, 0.0, -1.0, 1e-9])
async def test_a_timeout_that_is_over_ends_the_call(kind: str, timeout: float) -> None:
    async with serve(anyio.lowlevel.checkpoint) as stub:
        with pytest.raises(RpcError) as raised:
            await invoke(stub, kind, timeout=timeout)
    assert raised.value.status is Status.DEADLINE_EXCEEDED


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timeout", [math.inf, 1e300, 1e10, 1e9, 9.9e8])
async def test_a_timeout_of_ages_is_none(kind: str, timeout: float) -> None:
    deadlines = []

    async def act() -> None:
        deadlines.append(call_context().deadline)

    async with serve(act, within=None) as stub:
        await invoke(stub, kind, timeout=timeout)
    assert deadlines[0] > anyio.current_time() + 9e8


@pytest.mark.parametrize("kind", KINDS)
async def test_a_channels_own_timeout_holds_unless_a_call_has_one(kind: str) -> None:
    async with Server([Scripted(anyio.lowlevel.checkpoint)]) as server:
        async with Channel(server.addresses[0], timeout=0.0) as channel:
            with pytest.raises(RpcError) as raised:
                await invoke(EchoStub(channel), kind)
            assert raised.value.status is Status.DEADLINE_EXCEEDED
            await invoke(EchoStub(channel), kind, timeout=10.0)
