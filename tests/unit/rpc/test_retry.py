"""Retries of unary calls by gRFC A6, over real connections."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.unit.rpc.scripted import ANSWER, FAIL, HANG, Scripted, Step, configured

from bascule.errors import BreakerOpenError, RpcError
from bascule.resilience import BreakerSettings
from bascule.rpc import (
    Channel,
    ClientInterceptor,
    MethodConfig,
    RetryPolicy,
    RetryThrottling,
    Server,
    ServerInterceptor,
    Status,
    call_context,
)
from bascule.rpc._retry import Attempts, Failure, Retrying, pushback_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

POLICY = RetryPolicy(
    max_attempts=3,
    initial_backoff=0.001,
    max_backoff=0.002,
    retryable_statuses=frozenset({Status.UNAVAILABLE, Status.ABORTED}),
)


@asynccontextmanager
async def calling(
    service: Scripted, policy: RetryPolicy = POLICY, **settings
) -> AsyncIterator[Channel]:
    async with (
        Server([service]) as server,
        Channel(server.addresses[0], **settings) as channel,
    ):
        yield configured(channel, MethodConfig(retry=policy))
        assert [each.in_flight for each in channel.snapshot().subchannels] == [0]
        assert channel.attempts.buffered == 0


async def unary(channel: Channel, **options) -> EchoReply:
    return await EchoStub(channel).unary(EchoRequest(text="x"), **options)


async def test_a_failed_call_is_repeated_and_says_so() -> None:
    service = Scripted(FAIL, Step(Status.ABORTED), ANSWER)
    async with calling(service) as channel:
        assert (await unary(channel)).text == "x"
        assert service.previous == [None, "1", "2"]
        assert (channel.attempts.attempts, channel.attempts.retries) == (3, 2)
        assert channel.attempts.tokens == pytest.approx(8.1)


async def test_metadata_goes_with_every_attempt() -> None:
    seen = []

    class See(ServerInterceptor):
        async def unary(self, call, request, proceed):
            seen.append(call.metadata.get("x-key"))
            return await proceed(request)

    async with (
        Server([Scripted(FAIL, ANSWER)], interceptors=[See()]) as server,
        Channel(server.addresses[0]) as channel,
    ):
        configured(channel, MethodConfig(retry=POLICY))
        await unary(channel, metadata={"x-key": "v"})
    assert seen == ["v", "v"]


async def test_attempts_end() -> None:
    service = Scripted(FAIL)
    async with calling(service) as channel:
        with pytest.raises(RpcError, match="attempt 3") as caught:
            await unary(channel)
        assert caught.value.status is Status.UNAVAILABLE
        assert caught.value.exhausted
        assert len(service.previous) == 3


async def test_other_statuses_stand() -> None:
    service = Scripted(Step(Status.NOT_FOUND))
    async with calling(service) as channel:
        with pytest.raises(RpcError) as caught:
            await unary(channel)
        assert caught.value.status is Status.NOT_FOUND
        assert not caught.value.exhausted
        assert len(service.previous) == 1
        assert channel.attempts.tokens == 10


@pytest.mark.parametrize("text", ["-1", "soon", "1.5", "01", "+1", "99999999999", ""])
async def test_a_server_may_forbid_another_attempt(text) -> None:
    service = Scripted(Step(Status.UNAVAILABLE, pushback=text))
    async with calling(service) as channel:
        with pytest.raises(RpcError) as caught:
            await unary(channel)
        assert caught.value.exhausted
        assert len(service.previous) == 1
        assert channel.attempts.pushed_back == 1
        assert channel.attempts.tokens == 9


async def test_a_server_may_say_when() -> None:
    policy = RetryPolicy(initial_backoff=100, max_backoff=100)
    service = Scripted(Step(Status.UNAVAILABLE, pushback="20"), ANSWER)
    async with calling(service, policy) as channel:
        await unary(channel)
        assert service.times[1] - service.times[0] >= 0.02


async def test_pushback_does_not_make_a_status_retryable() -> None:
    service = Scripted(Step(Status.NOT_FOUND, pushback="0"))
    async with calling(service) as channel:
        with pytest.raises(RpcError):
            await unary(channel)
        assert len(service.previous) == 1


async def test_failures_throttle_retries() -> None:
    service = Scripted(FAIL)
    async with calling(service) as channel:
        for _ in range(10):
            with pytest.raises(RpcError):
                await unary(channel)
        # The fifth failure leaves half of the tokens: three repetitions were made by then.
        assert len(service.previous) == 10 + 3
        assert channel.attempts.throttled == 9
        assert channel.attempts.tokens == 0


async def test_success_allows_retries_again() -> None:
    service = Scripted(FAIL, FAIL, ANSWER, ANSWER, FAIL, ANSWER)
    async with calling(service) as channel:
        channel.attempts.configure(RetryThrottling(max_tokens=4, token_ratio=1))
        with pytest.raises(RpcError):
            await unary(channel)
        assert not channel.attempts.allowed
        assert len(service.previous) == 2  # the second failure left half of the tokens
        for _ in range(3):
            await unary(channel)
        assert len(service.previous) == 6


async def test_the_deadline_is_for_all_attempts() -> None:
    service = Scripted(HANG)
    async with calling(service) as channel:
        began = anyio.current_time()
        with pytest.raises(RpcError) as caught:
            await unary(channel, timeout=0.1)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert anyio.current_time() - began >= 0.1
        assert len(service.previous) == 1


async def test_no_pause_is_begun_that_the_deadline_would_end() -> None:
    policy = RetryPolicy(initial_backoff=100, max_backoff=100)
    async with calling(Scripted(FAIL), policy) as channel:
        with pytest.raises(RpcError, match="attempt 1") as caught:
            await unary(channel, timeout=50)
        assert caught.value.status is Status.UNAVAILABLE
        with anyio.fail_after(50), pytest.raises(RpcError, match="attempt 2"):
            await unary(channel)


async def test_an_attempt_may_have_a_limit_of_its_own() -> None:
    policy = RetryPolicy(initial_backoff=0.001, max_backoff=0.001, per_attempt_timeout=0.5)
    service = Scripted(HANG, ANSWER)
    async with calling(service, policy) as channel:
        assert (await unary(channel, timeout=100)).text == "x"
        assert service.previous == [None, "1"]
        assert service.cancelled == 1


async def test_the_configuration_may_limit_the_time() -> None:
    service = Scripted(HANG)
    async with Server([service]) as server, Channel(server.addresses[0]) as channel:
        configured(channel, MethodConfig(timeout=0.05))
        with pytest.raises(RpcError) as caught:
            await unary(channel, timeout=100)
        assert caught.value.status is Status.DEADLINE_EXCEEDED


async def test_the_configuration_may_limit_sizes() -> None:
    async with Server([Scripted(ANSWER)]) as server, Channel(server.addresses[0]) as channel:
        prepare = channel.prepare
        configured(channel, MethodConfig(max_request_bytes=2))
        with pytest.raises(RpcError, match="request of 3 bytes") as caught:
            await unary(channel)
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        channel.prepare = prepare
        configured(channel, MethodConfig(max_response_bytes=2))
        with pytest.raises(RpcError, match="reply of 5 bytes") as caught:
            await unary(channel)
        assert caught.value.status is Status.RESOURCE_EXHAUSTED


async def test_what_is_too_large_to_keep_is_sent_once() -> None:
    service = Scripted(FAIL)
    async with calling(service) as channel:
        with pytest.raises(RpcError):
            await EchoStub(channel).unary(EchoRequest(payload=bytes(300_000)))
        assert len(service.previous) == 1
        assert channel.attempts.unbuffered == 1


async def test_interceptors_see_one_call() -> None:
    seen = []

    class Count(ClientInterceptor):
        async def unary(self, call, request, proceed):
            seen.append(call.method)
            return await proceed(request)

    async with calling(Scripted(FAIL, ANSWER), interceptors=[Count()]) as channel:
        await unary(channel)
    assert seen == ["/echo.Echo/Unary"]


async def test_each_attempt_asks_the_breaker() -> None:
    service = Scripted(FAIL)
    breaker = BreakerSettings(failure_threshold=2)
    async with calling(service, breaker=breaker) as channel:
        with pytest.raises(RpcError, match="attempt 2"):
            await unary(channel)
        assert len(service.previous) == 2
        with pytest.raises(BreakerOpenError):
            await unary(channel)


async def test_an_unreachable_endpoint_is_tried_again() -> None:
    async with Channel("127.0.0.1:1") as channel:
        configured(channel, MethodConfig(retry=POLICY))
        with pytest.raises(RpcError) as caught:
            await unary(channel)
        assert caught.value.status is Status.UNAVAILABLE
        assert channel.attempts.attempts == 3


async def test_a_server_passes_on_that_its_call_was_given_up() -> None:
    """Only the tier next to the failure repeats: a handler whose own call was given up tells its
    client not to try again.
    """
    leaf = Scripted(FAIL)

    async with (
        Server([leaf]) as leaf_server,
        Channel(leaf_server.addresses[0]) as to_leaf,
    ):
        configured(to_leaf, MethodConfig(retry=POLICY))

        class Middle(Scripted):
            async def unary(self, request: EchoRequest) -> EchoReply:
                self.previous.append(call_context().metadata.get("grpc-previous-rpc-attempts"))
                try:
                    return await EchoStub(to_leaf).unary(request)
                except RpcError:
                    raise RpcError(Status.UNAVAILABLE, "the leaf is down")  # noqa: B904

        middle = Middle()
        async with calling(middle) as channel:
            with pytest.raises(RpcError, match="the leaf is down") as caught:
                await unary(channel)
            assert caught.value.exhausted
            assert len(middle.previous) == 1
            assert len(leaf.previous) == 3


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0.0), ("1500", 1.5), ("2147483647", 2147483.647), ("-0", None)]
)
def test_pushback_is_an_integer(text, seconds) -> None:
    assert pushback_seconds(text) == seconds


def test_pauses_grow_to_their_limit_and_start_again_after_pushback() -> None:
    policy = RetryPolicy(5, 1.0, 3.0, 2.0)
    attempts = Attempts(RetryThrottling(max_tokens=100))
    plan = Retrying(policy, attempts, lambda low, high: high)
    failure = Failure(Status.UNAVAILABLE.value, None)
    pauses = []
    for pushback in (None, None, "7000", None, None):
        plan.begin()
        failure.pushback = pushback
        pauses.append(plan.after(failure))
    assert pauses == [pytest.approx(1.2), pytest.approx(2.4), 7.0, pytest.approx(1.2), None]


def test_new_throttling_keeps_the_bucket_as_full() -> None:
    attempts = Attempts(RetryThrottling(max_tokens=10))
    for _ in range(5):
        attempts.failed()
    attempts.configure(RetryThrottling(max_tokens=100))
    assert attempts.tokens == 50
    assert not attempts.allowed
