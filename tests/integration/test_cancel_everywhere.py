"""Every public operation, cancelled at each of its waits, leaves nothing behind.

The waits of an operation are counted as it runs: it is repeated, each time cancelled one wait
later, until it ends before its turn comes. Afterwards no task, socket, stream or permit of it
is left, and the next call works.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.unit.rpc.services import Echo

from bascule.errors import ClosedError, RpcError
from bascule.rpc import Cardinality, Channel, ClientInterceptor, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator

pytestmark = pytest.mark.anyio

#: How to cancel, by event loop: the scope around the operation or its task; as it begins to wait,
#: or in the turn in which what it waits for has come.
MODES = [
    pytest.param("asyncio", "scope", id="asyncio-scope"),
    pytest.param("asyncio", "scope granted", id="asyncio-scope-granted"),
    pytest.param("asyncio", "native", id="asyncio-native"),
    pytest.param("asyncio", "native granted", id="asyncio-native-granted"),
    pytest.param("trio", "scope", id="trio-scope"),
]


FAILURES = (RpcError, ClosedError)


class Interrupted:
    """Awaits something and calls a function as it waits for the n-th time."""

    def __init__(
        self, awaitable: Awaitable[Any], at: int, granted: bool, interrupt: Callable[[], object]
    ) -> None:
        self._awaitable = awaitable
        self._at = at
        self._granted = granted
        self._interrupt = interrupt
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._awaitable.__await__()
        send: Callable[[], Any] = lambda: next(steps)  # noqa: E731
        while True:
            try:
                waiting_for = send()
            except StopIteration as done:
                return done.value
            self.waits += 1
            if self.waits == self._at:
                if self._granted and isinstance(waiting_for, asyncio.Future):
                    waiting_for.add_done_callback(lambda _: self._interrupt())
                else:
                    self._interrupt()
            try:
                result = yield waiting_for
            except BaseException as error:  # noqa: BLE001
                send = lambda error=error: steps.throw(error)  # type: ignore[misc]  # noqa: E731
            else:
                send = lambda result=result: steps.send(result)  # type: ignore[misc]  # noqa: E731


async def statuses_ignored(running: Awaitable[Any]) -> None:
    """What is cancelled may be a server or a channel: its calls then fail."""
    try:
        await running
    except FAILURES:
        pass
    except BaseExceptionGroup as group:
        rest = group.split(FAILURES)[1]
        if rest is not None:
            raise rest from None


async def interrupted(operation: Awaitable[Any], at: int, mode: str) -> tuple[int, bool]:
    """How often the operation has waited, and whether its cancellation was seen outside of it."""
    granted = mode.endswith("granted")
    if mode.startswith("scope"):
        scope = anyio.CancelScope()
        running = Interrupted(operation, at, granted, scope.cancel)
        with scope:
            await statuses_ignored(running)
        return running.waits, scope.cancelled_caught

    async def run() -> None:
        await statuses_ignored(running)

    running = Interrupted(operation, at, granted, lambda: task.cancel())
    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return running.waits, task.cancelled()


class Nothing(ClientInterceptor):
    """Waits before and after each call."""

    async def unary(self, call, request, proceed):
        await anyio.lowlevel.checkpoint()
        try:
            return await proceed(request)
        finally:
            await anyio.lowlevel.checkpoint()

    @asynccontextmanager
    async def _around(self) -> AsyncIterator[None]:
        await anyio.lowlevel.checkpoint()
        yield
        await anyio.lowlevel.checkpoint()

    def stream(self, call):
        return self._around()


async def unary(channel: Channel) -> None:
    await EchoStub(channel).unary(EchoRequest(text="x"))


async def unary_with_timeout(channel: Channel) -> None:
    await EchoStub(channel).unary(EchoRequest(text="x"), timeout=100)


async def unary_within_deadline(channel: Channel) -> None:
    with anyio.fail_after(100):
        await EchoStub(channel).unary(EchoRequest(text="x"))


async def server_stream(channel: Channel) -> None:
    async with EchoStub(channel).server_stream(EchoRequest(replies=5)) as stream:
        assert len([reply async for reply in stream]) == 5


async def large_server_stream(channel: Channel) -> None:
    request = EchoRequest(replies=20, payload=bytes(60_000))
    async with EchoStub(channel).server_stream(request) as stream:
        assert len([reply async for reply in stream]) == 20


async def client_stream(channel: Channel) -> None:
    async with EchoStub(channel).client_stream() as stream:
        for _ in range(3):
            await stream.send_message(EchoRequest(text="x"))
        await stream.end()
        assert (await stream.recv_message()).text == "x x x"


async def large_client_stream(channel: Channel) -> None:
    async with EchoStub(channel).client_stream() as stream:
        for _ in range(10):
            await stream.send_message(EchoRequest(payload=bytes(100_000)))
        await stream.end()
        assert await stream.recv_message() is not None


async def bidi(channel: Channel) -> None:
    async with EchoStub(channel).bidi(timeout=100) as stream:
        await stream.send_request()
        for _ in range(3):
            await stream.send_message(EchoRequest(text="x", replies=2))
            await stream.recv_initial_metadata()
            assert await stream.recv_message() is not None
            assert await stream.recv_message() is not None
        await stream.end()
        await stream.recv_trailing_metadata()


async def abandoned(channel: Channel) -> None:
    async with EchoStub(channel).bidi() as stream:
        await stream.send_message(EchoRequest(hang=True))
        await stream.cancel()


async def foreign_stub(channel: Channel) -> None:
    async with channel.request(
        "/echo.Echo/Unary", Cardinality.UNARY_UNARY, EchoRequest, EchoReply
    ) as stream:
        await stream.send_message(EchoRequest(text="x"), end=True)
        assert await stream.recv_message() is not None


async def wait_ready(channel: Channel) -> None:
    await channel.wait_ready()


CALLS = [
    unary,
    unary_with_timeout,
    unary_within_deadline,
    server_stream,
    large_server_stream,
    client_stream,
    large_client_stream,
    bidi,
    abandoned,
    foreign_stub,
    wait_ready,
]


async def settled(server: Server, channel: Channel) -> None:
    """Wait until neither side has a call. Calls drive it: what was reset arrives before them."""
    sessions = server.serving._sessions
    with anyio.fail_after(2):
        while True:
            assert (await EchoStub(channel).unary(EchoRequest(text="alive"))).text == "alive"
            # A reply can be here before its handler's task has ended there.
            await anyio.wait_all_tasks_blocked()
            if not any(session.machine.in_flight or session.calls for session in sessions):
                break
    assert [each.in_flight for each in channel.snapshot().subchannels] == [0]
    for subchannel in channel._pool.subchannels.values():
        connection = subchannel.connection
        assert connection is not None
        assert connection.machine.in_flight == 0
        assert not connection.replies
        assert not connection.streams


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("anyio_backend", "mode"), MODES)
@pytest.mark.parametrize("interceptors", [(), (Nothing(),)], ids=["bare", "intercepted"])
async def test_a_call(call, mode, interceptors) -> None:
    async with (
        Server([Echo()]) as server,
        Channel(server.addresses[0], interceptors=interceptors) as channel,
    ):
        await settled(server, channel)
        at = 0
        while True:
            at += 1
            waits, cancelled = await interrupted(call(channel), at, mode)
            await settled(server, channel)
            if waits < at:
                break
            assert cancelled or "granted" in mode
        assert at > 1 or call is wait_ready


def resources() -> tuple[int, int]:
    """Tasks and descriptors of the process."""
    try:
        tasks = len(asyncio.all_tasks())
    except RuntimeError:
        tasks = trio.lowlevel.current_statistics().tasks_living
    return tasks, len(list(Path("/proc/self/fd").iterdir()))


async def a_whole_life(address: str) -> None:
    async with Server([Echo()], listen=address) as server, Channel(server.addresses[0]) as channel:
        await unary(channel)


async def first_call(address: str) -> None:
    async with Channel(address) as channel:
        await bidi(channel)


async def an_end_with_a_call_in_progress(address: str) -> None:
    echo = Echo()
    async with anyio.create_task_group() as group:
        async with (
            Server([echo], listen=address, grace=0.0) as server,
            Channel(server.addresses[0]) as channel,
        ):
            group.start_soon(_ignore_status, channel)
            await echo.until(begun=1)


async def an_end_of_the_server_first(address: str) -> None:
    echo = Echo()
    async with anyio.create_task_group() as group:
        server = Server([echo], listen=address, grace=0.0)
        async with server, anyio.create_task_group() as inner:
            channel = Channel(server.addresses[0])

            async def use() -> None:
                async with channel:
                    await _ignore_status(channel)

            inner.start_soon(use)
            await echo.until(begun=1)
            group.start_soon(server.drain)
            await server.drain()
            inner.cancel_scope.cancel()


async def a_drain_with_a_call_that_ends(address: str) -> None:
    async with (
        Server([Echo()], listen=address, grace=100.0) as server,
        Channel(server.addresses[0]) as channel,
        EchoStub(channel).bidi() as stream,
        anyio.create_task_group() as group,
    ):
        await stream.send_message(EchoRequest(text="x", replies=1))
        group.start_soon(server.drain)
        assert await stream.recv_message() is not None
        await stream.end()
        assert await stream.recv_message() is None


async def _ignore_status(channel: Channel) -> None:
    with contextlib.suppress(*FAILURES):
        await EchoStub(channel).unary(EchoRequest(hang=True))


LIVES = [
    a_whole_life,
    an_end_with_a_call_in_progress,
    an_end_of_the_server_first,
    a_drain_with_a_call_that_ends,
]


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("transport", ["tcp", "unix", "memory"])
@pytest.mark.parametrize(("anyio_backend", "mode"), MODES)
async def test_a_life(life, transport, mode, tmp_path) -> None:
    address = {
        "tcp": "127.0.0.1:0",
        "unix": f"unix:{tmp_path / 's'}",
        "memory": f"memory:{tmp_path.name}",
    }[transport]
    await a_whole_life(address)  # opens what the loop keeps
    await anyio.wait_all_tasks_blocked()
    before = resources()
    at = 0
    while True:
        at += 1
        with anyio.fail_after(2):
            waits, _ = await interrupted(life(address), at, mode)
            while resources() != before:
                await anyio.wait_all_tasks_blocked()
        assert list(tmp_path.iterdir()) == []
        if waits < at:
            break
    assert at > 3


@pytest.mark.parametrize(("anyio_backend", "mode"), MODES)
async def test_a_channel_that_connects(mode) -> None:
    async with Server([Echo()]) as server:
        await first_call(server.addresses[0])
        with anyio.fail_after(2):
            while server.serving.connections:
                await anyio.wait_all_tasks_blocked()
        await anyio.wait_all_tasks_blocked()
        before = resources()
        at = 0
        while True:
            at += 1
            waits, _ = await interrupted(first_call(server.addresses[0]), at, mode)
            with anyio.fail_after(2):
                # What was cancelled early may still be accepted, and then end.
                while resources() != before or server.serving.connections:
                    await anyio.wait_all_tasks_blocked()
            if waits < at:
                break
    assert at > 3
