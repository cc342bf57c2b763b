"""Retries and hedges of calls that stream, by gRFC A6, over real connections."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoRequest
from tests.unit.rpc.scripted import ANSWER, FAIL, HANG, Scripted, Step, configured

from bascule.errors import BreakerOpenError, RpcError
from bascule.resilience import BreakerSettings
from bascule.rpc import (
    Channel,
    ClientInterceptor,
    HedgingPolicy,
    MethodConfig,
    RetryPolicy,
    Server,
    Status,
)
from bascule.rpc._retry import CALL_BUFFER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

RETRY = MethodConfig(retry=RetryPolicy(initial_backoff=0.001, max_backoff=0.001))
PAUSE = MethodConfig(retry=RetryPolicy(initial_backoff=100, max_backoff=100))
HEDGE = MethodConfig(hedging=HedgingPolicy(3, 0.01))
HEDGE_LATE = MethodConfig(hedging=HedgingPolicy(3, 100))


@asynccontextmanager
async def calling(
    service: Scripted, config: MethodConfig = RETRY, **settings
) -> AsyncIterator[tuple[Channel, EchoStub]]:
    async with (
        Server([service]) as server,
        Channel(server.addresses[0], **settings) as channel,
    ):
        await channel.wait_ready()  # attempts would wait for it together
        yield configured(channel, config), EchoStub(channel)
        assert [each.in_flight for each in channel.snapshot().subchannels] == [0]
        assert channel.attempts.buffered == 0
        for subchannel in channel._pool.subchannels.values():
            connection = subchannel.connection
            assert connection is not None
            assert connection.machine.in_flight == 0
            assert not connection.streams


async def replies(stub: EchoStub, count: int = 3, **options) -> list[int]:
    async with stub.server_stream(EchoRequest(replies=count), **options) as stream:
        return [reply.number async for reply in stream]


async def joined(stub: EchoStub, *texts: str) -> str:
    async with stub.client_stream() as stream:
        for text in texts:
            await stream.send_message(EchoRequest(text=text))
        await stream.end()
        reply = await stream.recv_message()
        assert reply is not None
        return reply.text


async def test_a_server_stream_is_repeated() -> None:
    service = Scripted(FAIL, FAIL, ANSWER)
    async with calling(service) as (channel, stub):
        assert await replies(stub) == [0, 1, 2]
        assert service.previous == [None, "1", "2"]
        assert channel.attempts.tokens == pytest.approx(8.1)


async def test_no_attempt_follows_headers() -> None:
    service = Scripted(Step(Status.UNAVAILABLE, replies=1), ANSWER)
    async with calling(service) as (_, stub):
        async with stub.server_stream(EchoRequest(replies=3)) as stream:
            assert await stream.recv_message() is not None
            with pytest.raises(RpcError, match="attempt 1"):
                await stream.recv_message()
        assert len(service.previous) == 1


async def test_attempts_end() -> None:
    service = Scripted(FAIL)
    async with calling(service) as (_, stub):
        with pytest.raises(RpcError, match="attempt 3") as caught:
            await replies(stub)
        assert caught.value.exhausted
        with pytest.raises(RpcError, match="attempt 5") as caught:
            await joined(stub, "a")
        assert caught.value.status is Status.UNAVAILABLE


async def test_pushback_ends_attempts() -> None:
    service = Scripted(Step(Status.UNAVAILABLE, pushback="-1"))
    async with calling(service) as (channel, stub):
        with pytest.raises(RpcError) as caught:
            await replies(stub)
        assert caught.value.exhausted
        assert channel.attempts.pushed_back == 1


async def test_sent_messages_are_replayed() -> None:
    service = Scripted(FAIL, FAIL, ANSWER)
    async with calling(service) as (_, stub):
        assert await joined(stub, "a", "b", "c") == "a b c"
        assert service.previous == [None, "1", "2"]


async def test_messages_sent_between_attempts_reach_the_next_one() -> None:
    service = Scripted(FAIL, ANSWER)
    async with calling(service) as (_, stub):
        async with stub.bidi() as stream:
            await stream.send_message(EchoRequest(text="a"))
            reply = await stream.recv_message()  # the first attempt fails with its first message
            assert reply is not None
            assert reply.text == "a"
            await stream.send_message(EchoRequest(text="b"), end=True)
            assert (await stream.recv_message()).text == "b"
            assert await stream.recv_message() is None
        assert service.received == [["a"], ["a", "b"]]


async def test_a_request_larger_than_its_buffer_is_sent_once() -> None:
    service = Scripted(FAIL)
    async with calling(service) as (channel, stub):
        with pytest.raises(RpcError, match="attempt 1"):
            await joined(stub, *["x" * 60_000] * 10)
        assert len(service.previous) == 1
        assert channel.attempts.unbuffered == 1
        assert service.received[0] == ["x" * 60_000] * 10
        with pytest.raises(RpcError, match="attempt 2"):
            async with stub.server_stream(EchoRequest(payload=bytes(CALL_BUFFER + 1))) as stream:
                await stream.recv_message()
    assert len(service.previous) == 2


async def test_a_buffer_that_is_full_between_attempts_makes_the_next_the_last() -> None:
    service = Scripted(Step(Status.UNAVAILABLE, pushback="300"), FAIL)
    async with calling(service) as (channel, stub):
        async with stub.bidi() as stream:
            await stream.send_message(EchoRequest())
            with anyio.fail_after(5):
                while channel.attempts.tokens == 10:  # noqa: ASYNC110 - no one is told
                    await anyio.sleep(0.001)
            before = len(service.previous)
            for _ in range(10):
                await stream.send_message(EchoRequest(text="y" * 60_000))
            with pytest.raises(RpcError, match=f"attempt {before + 1}"):
                await stream.recv_message()
        assert len(service.previous) == before + 1


async def test_a_request_may_end_without_a_message() -> None:
    async with calling(Scripted(FAIL, ANSWER)) as (_, stub):
        assert await joined(stub) == ""


async def test_the_deadline_is_for_all_attempts() -> None:
    async with calling(Scripted(HANG)) as (_, stub):
        with pytest.raises(RpcError) as caught:
            await replies(stub, timeout=0.05)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        with pytest.raises(TimeoutError), anyio.fail_after(0.05):
            await replies(stub)
    async with calling(Scripted(FAIL), PAUSE) as (_, stub):
        with pytest.raises(RpcError, match="attempt 1"):
            await replies(stub, timeout=50)


async def test_an_attempt_may_have_a_limit_of_its_own() -> None:
    config = MethodConfig(
        retry=RetryPolicy(initial_backoff=0.001, max_backoff=0.001, per_attempt_timeout=0.03)
    )
    service = Scripted(HANG, ANSWER)
    async with calling(service, config) as (_, stub):
        assert await replies(stub) == [0, 1, 2]
        assert service.previous == [None, "1"]


async def test_a_stream_with_headers_outlives_the_limit_of_an_attempt() -> None:
    config = MethodConfig(
        retry=RetryPolicy(initial_backoff=0.001, max_backoff=0.001, per_attempt_timeout=0.1)
    )
    async with calling(Scripted(Step(replies=99)), config) as (_, stub):
        async with stub.bidi() as stream:
            await stream.send_message(EchoRequest(text="a"))
            assert await stream.recv_message() is not None
            await anyio.sleep(0.2)
            await stream.send_message(EchoRequest(text="b"), end=True)
            assert await stream.recv_message() is not None


async def test_leaving_a_pause_leaves_nothing() -> None:
    service = Scripted(FAIL)
    async with calling(service, PAUSE) as (_, stub):
        async with stub.server_stream(EchoRequest()) as stream:
            with anyio.move_on_after(0.05):
                await stream.recv_message()
            await stream.cancel()
            with pytest.raises(RpcError) as caught:
                await stream.recv_message()
            assert caught.value.status is Status.CANCELLED


async def test_a_receive_that_was_cancelled_may_be_repeated() -> None:
    for config in (RETRY, HEDGE):
        async with calling(Scripted(Step(delay=0.1)), config) as (_, stub):
            async with stub.server_stream(EchoRequest(replies=1)) as stream:
                with anyio.move_on_after(0.02):
                    await stream.recv_message()
                assert await stream.recv_message() is not None


async def test_interceptors_see_one_call_and_its_error() -> None:
    seen = []

    class See(ClientInterceptor):
        @asynccontextmanager
        async def _around(self):
            try:
                yield
            except RpcError as error:
                seen.append(error.status)
                raise

        def stream(self, call):
            seen.append(call.method)
            return self._around()

    async with calling(Scripted(FAIL), interceptors=[See()]) as (_, stub):
        with pytest.raises(RpcError):
            await replies(stub)
    assert seen == ["/echo.Echo/ServerStream", Status.UNAVAILABLE]


async def test_a_refusal_is_raised_where_the_call_starts() -> None:
    breaker = BreakerSettings(failure_threshold=1)
    async with calling(Scripted(FAIL), breaker=breaker) as (_, stub):
        with pytest.raises(RpcError, match="attempt 1"):
            await replies(stub)
        with pytest.raises(BreakerOpenError):
            async with stub.client_stream() as stream:
                await stream.send_message(EchoRequest())
        with pytest.raises(BreakerOpenError):
            async with stub.server_stream(EchoRequest()):
                pass


async def test_an_unreachable_endpoint_is_tried_again() -> None:
    async with Channel("127.0.0.1:1") as channel:
        configured(channel, RETRY)
        with pytest.raises(RpcError) as caught:
            async with EchoStub(channel).server_stream(EchoRequest()):
                pass
        assert caught.value.status is Status.UNAVAILABLE
        assert channel.attempts.attempts == 3


async def test_bad_metadata_is_raised_as_it_is() -> None:
    async with calling(Scripted(ANSWER)) as (_, stub):
        with pytest.raises(ValueError, match="x-bad"):
            await replies(stub, metadata={"x-bad": "\n"})


async def test_a_reply_larger_than_the_methods_limit_ends_the_call() -> None:
    config = MethodConfig(max_response_bytes=3, max_request_bytes=10)
    async with calling(Scripted(ANSWER), config) as (_, stub):
        async with stub.bidi() as stream:
            with pytest.raises(RpcError, match="message of 22 bytes"):
                await stream.send_message(EchoRequest(text="x" * 20))
            await stream.send_message(EchoRequest(text="abc"))
            with pytest.raises(RpcError, match="larger than the method's 3") as caught:
                await stream.recv_message()
            assert caught.value.status is Status.RESOURCE_EXHAUSTED


async def test_the_first_headers_win() -> None:
    service = Scripted(HANG, HANG, ANSWER)
    async with calling(service, HEDGE) as (channel, stub):
        assert await replies(stub) == [0, 1, 2]
        assert service.previous == [None, "1", "2"]
        assert channel.attempts.hedges == 2


async def test_hedges_get_all_messages() -> None:
    service = Scripted(HANG, HANG, ANSWER)
    async with calling(service, HEDGE) as (_, stub):
        assert await joined(stub, "a", "b") == "a b"
        assert service.previous == [None, "1", "2"]


async def test_a_hedge_is_sent_while_nobody_receives() -> None:
    service = Scripted(HANG, ANSWER)
    async with calling(service, HEDGE) as (_, stub):
        async with stub.bidi() as stream:
            await stream.send_message(EchoRequest(text="a"))
            with anyio.fail_after(5):
                while len(service.previous) < 2:
                    await anyio.wait_all_tasks_blocked()
                    await anyio.sleep(0.001)
            await stream.send_message(EchoRequest(text="b"), end=True)
            assert [reply.text async for reply in stream] == ["a", "b"]


async def test_a_failed_attempt_sends_the_next_hedge_at_once() -> None:
    service = Scripted(FAIL, ANSWER)
    async with calling(service, HEDGE_LATE) as (_, stub):
        assert await replies(stub) == [0, 1, 2]
        assert service.previous == [None, "1"]


async def test_a_fatal_failure_ends_all_hedges() -> None:
    service = Scripted(HANG, Step(Status.NOT_FOUND))
    async with calling(service, HEDGE) as (_, stub):
        with pytest.raises(RpcError) as caught:
            await replies(stub)
        assert caught.value.status is Status.NOT_FOUND


async def test_a_full_buffer_leaves_one_hedge() -> None:
    # Which one is left is open: trio turns the order of its tasks at random.
    service = Scripted(ANSWER)
    config = MethodConfig(hedging=HedgingPolicy(3, 0))
    async with calling(service, config) as (channel, stub):
        text = "z" * 60_000
        assert await joined(stub, *[text] * 10) == " ".join([text] * 10)
        assert channel.attempts.unbuffered == 1
        assert sum(len(texts) == 10 for texts in service.received) == 1


async def test_a_hedge_that_comes_late_does_not_take_over() -> None:
    service = Scripted(ANSWER)
    config = MethodConfig(hedging=HedgingPolicy(3, 0))
    async with calling(service, config) as (channel, stub):
        admit, full, waiting = channel.admit, anyio.Event(), []

        async def late(*args, **options):
            if waiting:
                waiting.append(True)
                await full.wait()
            waiting.append(True)
            return await admit(*args, **options)

        channel.admit = late
        text = "z" * 60_000
        async with stub.client_stream() as stream:
            await stream.send_message(EchoRequest(text=text))
            with anyio.fail_after(5):
                while len(waiting) < 3:  # noqa: ASYNC110 - no one is told
                    await anyio.sleep(0.001)
            full.set()
            for _ in range(9):
                await stream.send_message(EchoRequest(text=text))
            await stream.end()
            reply = await stream.recv_message()
            assert reply is not None
            assert reply.text == " ".join([text] * 10)


async def test_cancelling_a_call_does_not_cancel_its_caller() -> None:
    for config in (PAUSE, HEDGE_LATE):
        async with calling(Scripted(FAIL, HANG), config) as (_, stub):
            reached = False
            async with stub.server_stream(EchoRequest()) as stream:
                with anyio.move_on_after(0.02):
                    await stream.recv_message()
                await stream.cancel()
                await anyio.lowlevel.checkpoint()
                reached = True
            assert reached


async def test_a_reply_that_is_too_large_is_told_to_who_receives() -> None:
    config = MethodConfig(retry=RETRY.retry, max_response_bytes=3)
    async with calling(Scripted(ANSWER), config) as (_, stub):
        with pytest.raises(RpcError, match="larger than the method's 3"):
            await joined(stub, "abcdef")


async def test_headers_and_another_failure_in_one_turn_leave_the_headers() -> None:
    config = MethodConfig(hedging=HedgingPolicy(2, 0))
    async with calling(Scripted(Step(delay=100)), config) as (channel, stub):
        async with stub.server_stream(EchoRequest(replies=1)) as stream:
            with anyio.fail_after(5):
                while len(stream._running) < 2:  # noqa: ASYNC110 - no one is told
                    await anyio.sleep(0.001)
            one, other = stream._running
            one.slot.connection.handle_events(
                [(4, one.call, Status.NOT_FOUND.value, "no", None, False), (2, other.call, None)]
            )
            await stream.recv_initial_metadata()
            with anyio.move_on_after(0.02):
                await stream.recv_message()
            assert stream._outcome is None
            one.slot.connection.machine.cancel(one.call, channel.driver.now_ns())
