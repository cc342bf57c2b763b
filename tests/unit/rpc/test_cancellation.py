"""A deadline is a cancel scope, and a cancelled call is a reset stream."""

from __future__ import annotations

import math

import anyio
import pytest
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.unit.rpc.services import Echo

from bascule.errors import RpcError, Status
from bascule.rpc import (
    Channel,
    MethodConfig,
    RetryPolicy,
    Server,
    ServerInterceptor,
    ServiceConfig,
    call_context,
)
from bascule.testing import memory_channel

pytestmark = pytest.mark.anyio


async def test_cancelling_a_call_cancels_its_handler() -> None:
    echo = Echo()
    async with memory_channel(echo) as channel, anyio.create_task_group() as group:
        group.start_soon(EchoStub(channel).unary, EchoRequest(hang=True))
        await echo.until(begun=1)
        group.cancel_scope.cancel()
    assert echo.begun == 1


async def test_the_handler_sees_its_cancellation() -> None:
    echo = Echo()
    async with memory_channel(echo) as channel:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def cancel() -> None:
                    await echo.until(begun=1)
                    scope.cancel()

                group.start_soon(cancel)
                await EchoStub(channel).unary(EchoRequest(hang=True))
        await echo.until(cancelled=1)
        assert (await EchoStub(channel).unary(EchoRequest(text="alive"))).text == "alive"


async def test_leaving_a_stream_early_cancels_its_handler() -> None:
    echo = Echo()
    async with memory_channel(echo) as channel:
        async with EchoStub(channel).bidi() as call:
            await call.send_message(EchoRequest(hang=True))
            await echo.until(begun=1)
        await echo.until(cancelled=1)


async def test_a_timeout_ends_the_call_and_its_handler() -> None:
    echo = Echo()
    async with memory_channel(echo) as channel:
        with pytest.raises(RpcError) as raised:
            await EchoStub(channel).unary(EchoRequest(hang=True), timeout=0.05)
        assert raised.value.status is Status.DEADLINE_EXCEEDED
        await echo.until(cancelled=1)


async def test_the_deadline_of_a_scope_is_the_scopes_own() -> None:
    echo = Echo()
    async with memory_channel(echo) as channel:
        with anyio.move_on_after(0.05) as scope:
            await EchoStub(channel).unary(EchoRequest(hang=True), timeout=10)
        assert scope.cancelled_caught
        await echo.until(cancelled=1)


async def test_an_expired_call_never_reaches_its_handler() -> None:
    echo = Echo()
    async with memory_channel(echo) as channel:
        with pytest.raises(RpcError) as raised:
            await EchoStub(channel).unary(EchoRequest(), timeout=0)
        assert raised.value.status is Status.DEADLINE_EXCEEDED
        await EchoStub(channel).unary(EchoRequest())
    assert echo.begun == 1


class Relay(EchoBase):
    """Calls the next one, and notes what it knows of its deadline."""

    def __init__(self, following: EchoStub | None) -> None:
        self._following = following
        self.deadline = math.nan

    async def unary(self, request: EchoRequest) -> EchoReply:
        self.deadline = call_context().deadline
        assert anyio.current_effective_deadline() == self.deadline
        if self._following is None:
            return EchoReply()
        return await self._following.unary(request)


async def test_deadlines_shrink_along_a_chain() -> None:
    last = Relay(None)
    async with memory_channel(last) as to_last:
        middle = Relay(EchoStub(to_last))
        async with memory_channel(middle) as to_middle:
            started = anyio.current_time()
            await EchoStub(to_middle).unary(EchoRequest(), timeout=30)
            # What a hop loses is what grpc-timeout's rounding and the clock's step take.
            assert started < last.deadline <= middle.deadline + 0.05
            assert middle.deadline <= anyio.current_time() + 30
            await EchoStub(to_middle).unary(EchoRequest())
            assert last.deadline == math.inf


async def test_cancelling_the_first_of_a_chain_cancels_the_last() -> None:
    last = Echo()
    async with memory_channel(last) as to_last:
        async with memory_channel(Relay(EchoStub(to_last))) as to_middle:
            async with anyio.create_task_group() as group:
                group.start_soon(EchoStub(to_middle).unary, EchoRequest(hang=True))
                await last.until(begun=1)
                group.cancel_scope.cancel()
            await last.until(cancelled=1)


async def test_a_lost_connection_cancels_its_handlers() -> None:
    echo = Echo()
    async with Server([echo]) as server, anyio.create_task_group() as group:
        async with Channel(server.addresses[0]) as channel:
            group.start_soon(_fails_unavailable, EchoStub(channel))
            await echo.until(begun=1)
            for subchannel in channel._pool.subchannels.values():
                assert subchannel.connection is not None
                subchannel.connection.link.close()
            await echo.until(cancelled=1)


async def _fails_unavailable(stub: EchoStub) -> None:
    with pytest.raises(RpcError) as raised:
        await stub.unary(EchoRequest(hang=True))
    assert raised.value.status is Status.UNAVAILABLE


async def test_a_slow_reader_stops_the_sender() -> None:
    echo = Echo()
    payload = bytes(10_000)
    async with Server([echo]) as server, Channel(server.addresses[0]) as channel:
        request = EchoRequest(payload=payload, replies=10_000)
        async with EchoStub(channel).server_stream(request) as replies:
            assert await replies.recv_message() is not None
            before = -1
            while echo.sent != before:  # until the sender stands still
                before = echo.sent
                await EchoStub(channel).unary(EchoRequest())
                await EchoStub(channel).unary(EchoRequest())
            # One window in flight, and what the sender may queue beyond it.
            assert echo.sent * len(payload) < 1_000_000
            assert await replies.recv_message() is not None


class Late(ServerInterceptor):
    """Shields its handler's result from a cancellation that comes meanwhile."""

    async def unary(self, call, request, proceed):
        with anyio.CancelScope(shield=True):
            return await proceed(request)


async def test_a_handler_that_shields_itself_counts_until_it_ends() -> None:
    release = anyio.Event()

    class Slow(EchoBase):
        async def unary(self, request: EchoRequest) -> EchoReply:
            if request.hang:
                await release.wait()
            return EchoReply(text=request.text)

    async with memory_channel(Slow(), server_interceptors=[Late()]) as channel:
        with anyio.move_on_after(0.02):
            await EchoStub(channel).unary(EchoRequest(hang=True))
        assert (await EchoStub(channel).unary(EchoRequest(text="next"))).text == "next"
        release.set()


TWO_SHORT_ATTEMPTS = RetryPolicy(
    max_attempts=2, initial_backoff=0.001, max_backoff=0.001, per_attempt_timeout=0.01
)


@pytest.mark.parametrize("kind", ["unary", "server_stream"])
@pytest.mark.parametrize(
    "config",
    [None, MethodConfig(), MethodConfig(retry=TWO_SHORT_ATTEMPTS)],
    ids=["", "set", "retried"],
)
async def test_a_deadline_that_is_not_the_scopes_ends_the_call_at_once(
    kind: str, config: MethodConfig | None
) -> None:
    """The server's own towards another one, or that of the last attempt."""

    class Late(Echo):
        async def _hang_if_asked(self, request: EchoRequest) -> None:
            await super()._hang_if_asked(request)
            raise RpcError(Status.DEADLINE_EXCEEDED, "another server was late")

    request = EchoRequest(hang=config is not None and config.retry is not None)
    service_config = None if config is None else ServiceConfig({"": config})
    async with (
        Server([Late()]) as server,
        Channel(server.addresses[0], service_config=service_config) as channel,
    ):
        stub = EchoStub(channel)
        with anyio.fail_after(30), pytest.raises(RpcError) as raised:
            if kind == "unary":
                await stub.unary(request)
            else:
                async with stub.server_stream(request) as stream:
                    await stream.recv_message()
        assert raised.value.status is Status.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    "anyio_backend",
    ["asyncio", ("asyncio", {"use_uvloop": True}), "trio"],
    ids=["asyncio", "uvloop", "trio"],
)
async def test_whoever_sees_a_scopes_deadline_first_the_scope_ends_the_call() -> None:
    """uvloop's clock stands still for a turn and its timers go by milliseconds: the server is
    often first.
    """
    async with Server([Echo()]) as server, Channel(server.addresses[0]) as channel:
        stub = EchoStub(channel)
        await stub.unary(EchoRequest())
        for number in range(1_000):
            with anyio.move_on_after(0.0002 * (number % 8)):
                for _ in range(8):
                    await stub.unary(EchoRequest())
            with anyio.move_on_after(0.0002 * (number % 8)):
                async with stub.server_stream(EchoRequest(replies=3)) as stream:
                    async for _ in stream:
                        pass
