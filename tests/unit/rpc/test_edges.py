"""What a handler or a caller may do wrong, and what must not end more than its call."""

from __future__ import annotations

import logging
import math
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from google.protobuf.descriptor_pb2 import UninterpretedOption
from google.rpc.error_details_pb2 import DebugInfo
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.unit.rpc.services import Echo

from bascule.discovery import MemoryRegistry
from bascule.errors import BasculeError, ConfigurationError, RpcError, Status
from bascule.resilience import BreakerSettings
from bascule.rpc import (
    Channel,
    ConnectionBackoff,
    ConnectivityState,
    MethodConfig,
    RetryPolicy,
    Server,
    ServiceConfig,
    call_context,
)

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
        # Of one connection, and so malformed (RFC 9113, 8.2.2).
        ("Keep-Alive", "timeout=5"),
        ("upgrade", "h2c"),
        ("proxy-connection", "close"),
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


@pytest.mark.parametrize(
    "metadata",
    [
        {"keep-alive": "timeout=5"},
        {"a": "b" * 16_384},
        # So much would end the connection, and with it all of its calls.
        {"a": "b" * 70_000},
        [("a", "b")] * 10_001,
        [(f"a{number}", "b") for number in range(40_000)],
    ],
)
async def test_bad_initial_metadata_fails_its_call_only(
    metadata: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> None:
        await call_context().send_initial_metadata(metadata)

    async with serve(act) as stub:
        with pytest.raises(RpcError) as raised:
            await invoke(stub, "unary")
    assert raised.value.status is Status.UNKNOWN
    assert "ValueError: metadata" in caplog.text


async def test_a_handler_may_send_other_metadata_after_what_was_bad() -> None:
    class Second(EchoBase):
        async def server_stream(self, request: EchoRequest) -> AsyncIterator[EchoReply]:
            with pytest.raises(ValueError, match="16384"):
                await call_context().send_initial_metadata({"a": "b" * 20_000})
            await call_context().send_initial_metadata({"a": "c"})
            yield EchoReply()

    async with (
        Server([Second()]) as server,
        Channel(server.addresses[0]) as channel,
        EchoStub(channel).server_stream(EchoRequest()) as stream,
    ):
        await stream.recv_message()
    assert dict(stream.initial_metadata or ()) == {"a": "c"}


@pytest.mark.parametrize("letter", ["x", "ä", "%"])
async def test_a_status_arrives_with_the_most_metadata_that_there_is_room_for(letter: str) -> None:
    """Were there a byte too many, a client of ours would see a violation of the protocol instead."""

    async def act() -> None:
        call_context().trailing_metadata.add("a", "b" * sizes.pop())
        raise RpcError(Status.NOT_FOUND, letter * 500)

    sizes, seen = list(range(14_000, 16_500, 50)), set()
    async with serve(act) as stub:
        while sizes:
            with pytest.raises(RpcError) as raised:
                await invoke(stub, "server_stream")
            seen.add(raised.value.status)
    assert seen == {Status.NOT_FOUND}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"keep-alive": "timeout=5"}, "reserved"),
        ({"upgrade": "h2c"}, "reserved"),
        ({"proxy-connection": "close"}, "reserved"),
        ([(f"a{number}", "b") for number in range(40_000)], "too many values"),
    ],
)
async def test_metadata_that_no_server_would_take_is_refused(
    kind: str, metadata: Any, why: str
) -> None:
    async with serve(anyio.lowlevel.checkpoint) as stub:
        with pytest.raises(ValueError, match=why):
            await invoke(stub, kind, metadata=metadata)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("size", [16_384, 70_000])
async def test_metadata_larger_than_the_server_takes_fails_its_call_only(
    kind: str, is_new: bool, size: int
) -> None:
    """70,000 bytes would end the connection, and with it all of its calls; and before the server
    has told what it takes, nobody knows that.
    """
    async with serve(anyio.lowlevel.checkpoint) as stub:
        if not is_new:
            await invoke(stub, kind)
        with pytest.raises(RpcError, match="the server takes no more than 16384") as raised:
            await invoke(stub, kind, metadata={"a": "b" * size})
        assert raised.value.status is Status.RESOURCE_EXHAUSTED
        await invoke(stub, kind, metadata={"a": "b" * 15_000})


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


#: Lacks fields that it requires.
UNFINISHED = UninterpretedOption.NamePart()


class NoText:
    def __str__(self) -> str:
        message = "no text"
        raise TypeError(message)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("status", "message", "seen"),
    [
        (5, "gone", (Status.NOT_FOUND, "gone")),
        (99, "gone", (Status.UNKNOWN, "internal error")),
        ("NOT_FOUND", "gone", (Status.UNKNOWN, "internal error")),
        (None, None, (Status.UNKNOWN, "internal error")),
        (Status.NOT_FOUND, ValueError("gone"), (Status.NOT_FOUND, "gone")),
        (Status.NOT_FOUND, 7, (Status.NOT_FOUND, "7")),
        (Status.NOT_FOUND, NoText(), (Status.UNKNOWN, "internal error")),
        # What a JSON document or a file name may bring along.
        (Status.NOT_FOUND, "\ud800 is gone", (Status.NOT_FOUND, "? is gone")),
    ],
)
async def test_an_error_of_any_content_ends_its_call_only(
    kind: str, status: Any, message: Any, seen: tuple[Status, str]
) -> None:
    async def act() -> None:
        raise RpcError(status, message)

    async with serve(act) as stub:
        with pytest.raises(RpcError) as raised:
            await invoke(stub, kind)
    assert (raised.value.status, raised.value.message) == seen


@pytest.mark.parametrize("details", [5, [object()], [UNFINISHED]])
async def test_an_error_keeps_its_status_when_its_details_are_bad(
    details: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> None:
        raise RpcError(Status.NOT_FOUND, "gone", details)

    async with serve(act) as stub:
        with pytest.raises(RpcError, match="gone") as raised:
            await invoke(stub, "unary")
    assert (raised.value.status, raised.value.details) == (Status.NOT_FOUND, None)
    assert "the status cannot be sent as it is" in caplog.text


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
@pytest.mark.parametrize("timeout", [0, 0.0, -1.0, 1e-9, -1e9, -1e300, -math.inf])
async def test_a_timeout_that_is_over_ends_the_call(kind: str, timeout: float) -> None:
    async with serve(anyio.lowlevel.checkpoint) as stub:
        with pytest.raises(RpcError) as raised:
            await invoke(stub, kind, timeout=timeout)
    assert raised.value.status is Status.DEADLINE_EXCEEDED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_timeout_that_is_no_number_is_refused(kind: str) -> None:
    async with serve(anyio.lowlevel.checkpoint) as stub:
        with pytest.raises(ConfigurationError, match="timeout nan"):
            await invoke(stub, kind, timeout=math.nan)


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


ONLY_THREE = ServiceConfig({"": MethodConfig(retry=RetryPolicy(), max_request_bytes=3)})


@asynccontextmanager
async def failing(why: str) -> AsyncIterator[EchoStub]:
    """A channel whose calls fail before anything is sent."""
    async with AsyncExitStack() as stack:
        if why == "closed":
            async with Channel("127.0.0.1:1") as channel:
                pass
        elif why in {"unreachable", "retried"}:
            config = ServiceConfig({"": MethodConfig()}) if why == "retried" else None
            channel = Channel("127.0.0.1:1", service_config=config)
            await stack.enter_async_context(channel)
            await channel.wait_for_state(ConnectivityState.TRANSIENT_FAILURE)
        elif why == "no endpoint":
            channel = Channel("memory:///nothing", registry=MemoryRegistry())
            await stack.enter_async_context(channel)
            await channel.wait_for_state(ConnectivityState.TRANSIENT_FAILURE)
        else:
            server = await stack.enter_async_context(Server([Scripted(fail)]))
            channel = Channel(
                server.addresses[0],
                breaker=BreakerSettings(failure_threshold=1) if why == "breaker" else None,
                max_send_message=3 if why == "large" else None,
                service_config=ONLY_THREE if why == "large for the method" else None,
                metadata={"x-bad": "\n"} if why == "metadata" else None,
            )
            await stack.enter_async_context(channel)
            await channel.wait_ready()
            if why == "breaker":
                with pytest.raises(RpcError):
                    await EchoStub(channel).unary(EchoRequest())
        yield EchoStub(channel)


async def fail() -> None:
    raise RpcError(Status.UNAVAILABLE)


@pytest.mark.parametrize("kind", [*KINDS, "bidi"])
@pytest.mark.parametrize(
    "why",
    [
        "closed",
        "unreachable",
        "retried",
        "no endpoint",
        "breaker",
        "large",
        "large for the method",
        "metadata",
    ],
)
async def test_a_loop_of_calls_that_fail_at_once_lets_others_run(why: str, kind: str) -> None:
    async with failing(why) as stub:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with anyio.create_task_group() as group:
            group.start_soon(count)
            for _ in range(20):
                with pytest.raises((BasculeError, ValueError)):
                    if kind == "unary":
                        await stub.unary(EchoRequest(text="large"))
                    elif kind == "bidi":
                        async with stub.bidi() as stream:
                            await stream.send_message(EchoRequest(text="large"))
                    else:
                        async with stub.server_stream(EchoRequest(text="large")):
                            pass
            assert turns >= 10
            group.cancel_scope.cancel()


async def test_a_message_may_start_a_call_after_one_that_was_cancelled() -> None:
    backoff = ConnectionBackoff(initial=0.01, most=0.01)
    async with Channel("memory:late", wait_for_ready=True, backoff=backoff) as channel:
        async with EchoStub(channel).client_stream() as stream:
            with anyio.move_on_after(0.02) as scope:
                await stream.send_message(EchoRequest())
            assert scope.cancelled_caught
            async with Server([Echo()], listen="memory:late"):
                with anyio.fail_after(5):
                    await stream.send_message(EchoRequest(text="a"), end=True)
                    reply = await stream.recv_message()
                assert reply is not None
