"""Circuit breakers with a window, one for each endpoint of a channel, over real connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest

from bascule.errors import BreakerOpenError, RpcError
from bascule.observe import BreakerWindow, Metrics
from bascule.resilience import BreakerSettings, BreakerState, CountWindow, TimeWindow
from bascule.rpc import Channel, MethodConfig, RetryPolicy, Server, ServiceConfig, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

#: Any call over a real connection takes longer.
AT_ONCE = 1e-6

#: By which streams are made of attempts, though none is made twice here.
RETRIED = ServiceConfig(
    methods={
        "/echo.Echo/": MethodConfig(
            retry=RetryPolicy(2, retryable_statuses=frozenset({Status.ABORTED}))
        )
    }
)


class Echo(EchoBase):
    """Answers, unless it is down."""

    def __init__(self) -> None:
        self.down = False

    async def unary(self, request: EchoRequest) -> EchoReply:
        if self.down:
            raise RpcError(Status.UNAVAILABLE, "not now")
        return EchoReply(text=request.text)

    async def server_stream(self, request: EchoRequest) -> AsyncIterator[EchoReply]:
        if self.down:
            raise RpcError(Status.UNAVAILABLE, "not now")
        yield EchoReply(text=request.text)


async def call(channel: Channel) -> bool:
    """Make a call; whether it was answered."""
    try:
        await EchoStub(channel).unary(EchoRequest())
    except RpcError:
        return False
    return True


async def replies(channel: Channel) -> list[str]:
    async with EchoStub(channel).server_stream(EchoRequest(text="x")) as stream:
        return [each.text async for each in stream]


def windows(channel: Channel) -> list[BreakerWindow | None]:
    """What each endpoint's breaker is judged by."""
    counts = [each.breaker_counts for each in channel.snapshot().subchannels]
    return [None if each is None else each.window for each in counts]


def states(channel: Channel) -> list[BreakerState | None]:
    return [each.breaker for each in channel.snapshot().subchannels]


def successes(channel: Channel) -> list[int]:
    return [each.successes for each in channel.snapshot().subchannels]


@pytest.mark.parametrize("window", [CountWindow, TimeWindow])
async def test_an_endpoint_that_fails_too_often_gets_no_calls(
    window: type[CountWindow | TimeWindow],
) -> None:
    well, ill = Echo(), Echo()
    breaker = BreakerSettings(window=window(minimum_calls=4), timeout=3600.0)
    async with Server([well]) as one, Server([ill]) as two:
        target = f"static:///{one.addresses[0]},{two.addresses[0]}"
        async with Channel(target, breaker=breaker, wait_for_ready=True) as channel:
            with anyio.fail_after(30):
                while min(successes(channel), default=0) < 3:
                    await call(channel)
                ill.down = True
                while states(channel)[1] is BreakerState.CLOSED:
                    await call(channel)
            assert states(channel) == [BreakerState.CLOSED, BreakerState.OPEN]
            counts = channel.snapshot().subchannels[1].breaker_counts
            assert counts is not None
            assert counts.calls["failure"] == counts.calls["success"], "half of the calls"
            assert [await call(channel) for _ in range(10)] == [True] * 10


async def test_slow_calls_open_it_and_probes_are_judged_together() -> None:
    slow = CountWindow(minimum_calls=3, slow_call=AT_ONCE, slow_call_rate=1.0)
    breaker = BreakerSettings(window=slow, timeout=0.0, half_open_permits=2)
    async with (
        Server([Echo()]) as server,
        Channel(server.addresses[0], breaker=breaker) as channel,
    ):
        for calls in (1, 2):
            assert await call(channel)
            assert windows(channel) == [BreakerWindow(calls, 0, calls)]
        assert await call(channel)
        assert states(channel) == [BreakerState.OPEN]
        assert await call(channel)
        assert states(channel) == [BreakerState.HALF_OPEN]
        assert windows(channel) == [BreakerWindow(1, 0, 1)]
        assert await call(channel)
        assert states(channel) == [BreakerState.OPEN]


@pytest.mark.parametrize("configured", [False, True])
async def test_a_stream_is_never_slow_but_may_fail(configured: bool) -> None:
    window = CountWindow(minimum_calls=2, slow_call=AT_ONCE, slow_call_rate=0.5)
    breaker = BreakerSettings(window=window)
    echo = Echo()
    async with (
        Server([echo]) as server,
        Channel(
            server.addresses[0], breaker=breaker, service_config=RETRIED if configured else None
        ) as channel,
    ):
        for _ in range(3):
            assert await replies(channel) == ["x"]
        assert windows(channel) == [BreakerWindow(3, 0, 0)]
        echo.down = True
        with pytest.raises(RpcError):
            await replies(channel)
        assert windows(channel) == [BreakerWindow(4, 1, 0)]


async def test_a_cancelled_call_is_in_no_window() -> None:
    class Hanging(Echo):
        async def unary(self, request: EchoRequest) -> EchoReply:
            entered.set()
            await anyio.sleep_forever()
            return EchoReply()

    entered = anyio.Event()
    breaker = BreakerSettings(window=CountWindow(slow_call=AT_ONCE))
    async with (
        Server([Hanging()]) as server,
        Channel(server.addresses[0], breaker=breaker) as channel,
    ):
        async with anyio.create_task_group() as group:
            group.start_soon(call, channel)
            await entered.wait()
            group.cancel_scope.cancel()
        assert windows(channel) == [BreakerWindow(0, 0, 0)]


async def test_rates_are_shown_as_metrics() -> None:
    window = CountWindow(minimum_calls=10, slow_call=AT_ONCE)
    echo = Echo()
    async with (
        Server([echo]) as server,
        Channel(server.addresses[0], breaker=BreakerSettings(window=window)) as channel,
    ):
        metrics = Metrics()
        metrics.add_channel(channel, "echo")
        for down in (False, False, False, True):
            echo.down = down
            await call(channel)
        name = f"echo@{server.addresses[0]}"
        text = metrics.render()[0].decode()
        shown = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels == {"name": name}
        }
        assert shown == {
            "circuit_breaker_state": 0,
            "circuit_breaker_failure_rate": 0.25,
            "circuit_breaker_slow_call_rate": 1.0,
            "circuit_breaker_slow_calls_total": 4,
        }


async def test_a_breaker_without_a_window_shows_no_rates() -> None:
    async with (
        Server([Echo()]) as server,
        Channel(server.addresses[0], breaker=BreakerSettings()) as channel,
    ):
        metrics = Metrics()
        metrics.add_channel(channel, "echo")
        assert await call(channel)
        assert windows(channel) == [None]
        text = metrics.render()[0]
        assert b"circuit_breaker_calls_total" in text
        assert b"circuit_breaker_failure_rate" not in text


async def test_refuses_while_open() -> None:
    window = TimeWindow(minimum_calls=1, failure_rate=1.0)
    echo = Echo()
    echo.down = True
    async with (
        Server([echo]) as server,
        Channel(server.addresses[0], breaker=BreakerSettings(window=window)) as channel,
    ):
        assert not await call(channel)
        with pytest.raises(BreakerOpenError) as caught:
            await call(channel)
        assert caught.value.retry_after is not None
