"""Hedging of unary calls by gRFC A6, over real connections."""

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
from bascule.rpc import Channel, HedgingPolicy, MethodConfig, Server, Status
from bascule.rpc._hedge import Hedging
from bascule.rpc._retry import Attempts, Failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def calling(service: Scripted, policy: HedgingPolicy, **settings) -> AsyncIterator[Channel]:
    async with (
        Server([service]) as server,
        Channel(server.addresses[0], **settings) as channel,
    ):
        await channel.wait_ready()  # attempts would wait for it together
        yield configured(channel, MethodConfig(hedging=policy))
        # Every loser is reset before the call returns.
        assert [each.in_flight for each in channel.snapshot().subchannels] == [0]
        for subchannel in channel._pool.subchannels.values():
            assert subchannel.connection is None or subchannel.connection.machine.in_flight == 0
        assert channel.attempts.buffered == 0


async def unary(channel: Channel, **options) -> EchoReply:
    return await EchoStub(channel).unary(EchoRequest(text="x"), **options)


async def test_the_first_answer_wins() -> None:
    service = Scripted(HANG, HANG, ANSWER)
    async with calling(service, HedgingPolicy(4, 0.01)) as channel:
        assert (await unary(channel)).text == "x"
        assert service.previous[:3] == [None, "1", "2"]
        assert channel.attempts.hedges == len(service.previous) - 1
        with anyio.fail_after(5):
            while service.live:
                await unary(channel)  # resets arrive before it
    assert service.cancelled >= 2


async def test_a_fast_answer_needs_no_hedge() -> None:
    service = Scripted(ANSWER)
    async with calling(service, HedgingPolicy(4, 100)) as channel:
        await unary(channel)
        assert service.previous == [None]
        assert channel.attempts.hedges == 0


async def test_without_delay_all_are_sent_at_once() -> None:
    service = Scripted(HANG, HANG, HANG, ANSWER)
    async with calling(service, HedgingPolicy(4, 0)) as channel:
        await unary(channel)
        assert sorted(service.previous, key=str) == ["1", "2", "3", None]


async def test_a_failure_that_is_not_fatal_sends_the_next_at_once() -> None:
    service = Scripted(FAIL, ANSWER)
    async with calling(service, HedgingPolicy(3, 100)) as channel:
        await unary(channel)
        assert service.previous == [None, "1"]


async def test_a_fatal_failure_ends_the_call() -> None:
    service = Scripted(HANG, Step(Status.NOT_FOUND))
    async with calling(service, HedgingPolicy(4, 0.005)) as channel:
        with pytest.raises(RpcError) as caught:
            await unary(channel)
        assert caught.value.status is Status.NOT_FOUND
        assert not caught.value.exhausted


async def test_when_all_fail_the_last_failure_stands() -> None:
    service = Scripted(FAIL)
    async with calling(service, HedgingPolicy(3, 100)) as channel:
        with pytest.raises(RpcError, match="attempt 3") as caught:
            await unary(channel)
        assert caught.value.exhausted
        assert channel.attempts.tokens == 7


async def test_pushback_stops_hedges_but_not_those_sent() -> None:
    service = Scripted(Step(delay=0.2), Step(Status.UNAVAILABLE, pushback="-1", delay=0.01), ANSWER)
    async with calling(service, HedgingPolicy(5, 0.01)) as channel:
        service.script = (Step(delay=0.2), Step(Status.UNAVAILABLE, pushback="-1"))
        assert (await unary(channel)).text == "x"
        assert len(service.previous) == 2
        assert channel.attempts.pushed_back == 1


async def test_pushback_may_say_when() -> None:
    service = Scripted(Step(Status.UNAVAILABLE, pushback="30"), ANSWER)
    async with calling(service, HedgingPolicy(2, 100)) as channel:
        await unary(channel)
        assert service.times[1] - service.times[0] >= 0.03


async def test_throttling_stops_hedges_but_never_the_first() -> None:
    service = Scripted(Step(delay=0.03))
    async with calling(service, HedgingPolicy(4, 0.001)) as channel:
        for _ in range(5):
            channel.attempts.failed()
        await unary(channel)
        assert service.previous == [None]
        assert channel.attempts.throttled == 1


async def test_a_throttled_call_ends_with_its_failure() -> None:
    async with calling(Scripted(FAIL), HedgingPolicy(4, 100)) as channel:
        for _ in range(4):
            channel.attempts.failed()
        with pytest.raises(RpcError, match="attempt 1") as caught:
            await unary(channel)
        assert caught.value.exhausted


async def test_the_deadline_is_for_all_attempts() -> None:
    service = Scripted(HANG)
    async with calling(service, HedgingPolicy(3, 0.01)) as channel:
        with pytest.raises(RpcError) as caught:
            await unary(channel, timeout=0.1)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        with pytest.raises(TimeoutError), anyio.fail_after(0.05):
            await unary(channel)


async def test_an_attempt_may_have_a_limit_of_its_own() -> None:
    service = Scripted(HANG, ANSWER)
    async with calling(service, HedgingPolicy(2, 100, per_attempt_timeout=0.02)) as channel:
        await unary(channel)
        assert service.previous == [None, "1"]


async def test_each_attempt_takes_its_permit() -> None:
    service = Scripted(HANG, HANG, ANSWER)
    breaker = BreakerSettings(failure_threshold=1, success_threshold=2, timeout=0.001)
    async with calling(service, HedgingPolicy(2, 0.01), breaker=breaker) as channel:
        for _ in range(50):
            with anyio.move_on_after(0.03):
                await unary(channel)
        assert (await unary(channel)).text == "x"


async def test_a_refusal_before_anything_is_sent_is_raised_as_it_is() -> None:
    breaker = BreakerSettings(failure_threshold=1)
    async with calling(Scripted(FAIL), HedgingPolicy(2, 100), breaker=breaker) as channel:
        with pytest.raises(RpcError, match="attempt 1"):
            await unary(channel)  # the second attempt is refused, which says less
        with pytest.raises(BreakerOpenError):
            await unary(channel)


async def test_bad_metadata_is_raised_as_it_is() -> None:
    async with calling(Scripted(ANSWER), HedgingPolicy(2, 0)) as channel:
        with pytest.raises(ValueError, match="x-bad"):
            await unary(channel, metadata={"x-bad": "\n"})


def test_after_pushback_hedges_resume_at_their_delay() -> None:
    plan = Hedging(HedgingPolicy(5, 1.0), Attempts(), now=10.0)
    assert plan.due == 10.0
    assert plan.begin(10.0) == 0
    assert plan.due == 11.0
    failure = Failure(Status.UNAVAILABLE.value, None)
    assert not plan.fail(failure, 10.25)
    assert plan.due == 10.25
    assert plan.begin(10.25) == 1
    assert plan.due == 11.25
    failure.pushback = "500"
    assert not plan.fail(failure, 10.5)
    assert plan.due == 11.0
    assert plan.begin(11.0) == 2
    assert plan.due == 12.0
    failure.pushback = "-1"
    assert plan.fail(failure, 11.5)
    assert plan.gave_up


@pytest.mark.parametrize("balancer", ["round_robin", "random", "least_request"])
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_hedges_go_to_endpoints_of_their_own(balancer: str, stream: bool) -> None:
    """Three servers, all but one silent: three attempts always find the one that answers."""
    services = [Scripted(HANG), Scripted(HANG), Scripted(ANSWER)]
    async with (
        Server([services[0]]) as one,
        Server([services[1]]) as two,
        Server([services[2]]) as three,
        Channel(
            "static:///" + ",".join(each.addresses[0] for each in (one, two, three)),
            balancer=balancer,
        ) as channel,
    ):
        while any(each.state != "ready" for each in channel.snapshot().subchannels):
            await anyio.lowlevel.checkpoint()
        configured(channel, MethodConfig(hedging=HedgingPolicy(3, 0)))
        with anyio.fail_after(20):
            for _ in range(10):
                if stream:
                    request = EchoRequest(text="x", replies=1)
                    async with EchoStub(channel).server_stream(request) as call:
                        assert [each.text async for each in call] == ["x"]
                else:
                    await unary(channel)
        assert all(each.in_flight == 0 for each in channel.snapshot().subchannels)


async def test_hedges_share_an_endpoint_that_has_no_other() -> None:
    service = Scripted(HANG, ANSWER)
    async with calling(service, HedgingPolicy(2, 0)) as channel:
        assert (await unary(channel)).text == "x"
