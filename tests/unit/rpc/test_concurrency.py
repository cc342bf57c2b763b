"""Limits of concurrency where they hold: the endpoints of a channel, and a server."""

from __future__ import annotations

import contextlib
import json
import math
import time
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.unit.rpc.services import Echo

from bascule.errors import ConcurrencyLimitedError, RpcError, Status
from bascule.observe import Exposition, Metrics
from bascule.resilience import Aimd, BreakerSettings, FixedLimit, Gradient2
from bascule.rpc import (
    Channel,
    HealthService,
    HedgingPolicy,
    MethodConfig,
    Server,
    ServerLimits,
    ServiceConfig,
    WebSettings,
)
from bascule.rpc._health import HEALTH_CHECK, HealthCheckRequest
from bascule.testing import VirtualClock, virtual_backend

if TYPE_CHECKING:
    from bascule.resilience import ConcurrencyLimit, ConcurrencySnapshot

pytestmark = pytest.mark.anyio

BOTH_VIRTUAL = pytest.mark.parametrize(
    "anyio_backend", [virtual_backend("asyncio"), virtual_backend("trio")], ids=["asyncio", "trio"]
)


def limits_of(channel: Channel) -> list[ConcurrencySnapshot]:
    found = [each.concurrency for each in channel.snapshot().subchannels]
    return [each for each in found if each is not None]


async def hang(tasks: anyio.abc.TaskGroup, channel: Channel, echo: Echo, calls: int) -> None:
    """Begin so many calls that hang, and wait until their handlers run."""
    begun = echo.begun
    for _ in range(calls):
        tasks.start_soon(EchoStub(channel).unary, EchoRequest(hang=True))
    await echo.until(begun=begun + calls)


async def settled(read: Any, wanted: Any) -> None:
    with anyio.fail_after(30):
        while read() != wanted:
            await anyio.lowlevel.checkpoint()


async def test_an_endpoint_gets_no_more_calls_than_its_limit() -> None:
    echo = Echo()
    settings = BreakerSettings(failure_threshold=1)
    async with (
        Server([echo], grace=0) as server,
        Channel(server.addresses[0], concurrency=FixedLimit(2), breaker=settings) as channel,
    ):
        stub = EchoStub(channel)
        async with anyio.create_task_group() as tasks:
            await hang(tasks, channel, echo, 2)
            with pytest.raises(ConcurrencyLimitedError, match="as many calls in progress"):
                await stub.unary(EchoRequest())
            assert echo.begun == 2, "nothing was sent"
            # A stream may last for ever: it neither counts nor is held.
            async with stub.server_stream(EchoRequest(replies=1)) as stream:
                assert len([reply async for reply in stream]) == 1
            [limit] = limits_of(channel)
            assert (limit.limit, limit.in_progress, limit.calls["rejected"]) == (2, 2, 1)
            tasks.cancel_scope.cancel()
        # Neither a refusal nor a cancellation is a failure of the endpoint.
        assert (await stub.unary(EchoRequest(text="x"))).text == "x"
        [limit] = limits_of(channel)
        assert limit.in_progress == 0
        assert limit.calls == {"success": 1, "failure": 0, "abandoned": 2, "rejected": 1}
        assert channel.snapshot().refused["concurrency_limited"] == 1


@pytest.mark.parametrize("balancer", ["round_robin", "least_request", "random", "peak_ewma"])
async def test_a_full_endpoint_is_passed_over(balancer: str) -> None:
    one, other = Echo(), Echo()
    async with (
        Server([one], grace=0) as first,
        Server([other], grace=0) as second,
        Channel(
            f"static:///{first.addresses[0]},{second.addresses[0]}",
            concurrency=FixedLimit(3),
            balancer=balancer,
        ) as channel,
        anyio.create_task_group() as tasks,
    ):
        await settled(
            lambda: [each.state.value for each in channel.snapshot().subchannels], ["ready"] * 2
        )
        for _ in range(6):
            tasks.start_soon(EchoStub(channel).unary, EchoRequest(hang=True))
        await settled(lambda: (one.begun, other.begun), (3, 3))
        with pytest.raises(ConcurrencyLimitedError):
            await EchoStub(channel).unary(EchoRequest())
        tasks.cancel_scope.cancel()


async def test_hedges_do_not_go_where_there_is_no_room() -> None:
    """An endpoint to avoid is better than none, one that is full is not."""
    echo = Echo()
    hedging = MethodConfig(hedging=HedgingPolicy(3, 0.001))
    async with (
        Server([echo], grace=0) as server,
        Channel(
            server.addresses[0],
            concurrency=FixedLimit(2),
            service_config=ServiceConfig(methods={"/echo.Echo/": hedging}),
        ) as channel,
    ):
        with pytest.raises(RpcError) as late:
            await EchoStub(channel).unary(EchoRequest(hang=True), timeout=0.5)
        assert late.value.status is Status.DEADLINE_EXCEEDED
        assert echo.begun == 2, "the third was not sent, and the two were waited for"
        [limit] = limits_of(channel)
        assert (limit.in_progress, limit.calls["rejected"]) == (0, 1)


@pytest.mark.parametrize(
    ("status", "shrinks"),
    [
        (Status.UNAVAILABLE, True),
        (Status.RESOURCE_EXHAUSTED, True),
        (Status.DEADLINE_EXCEEDED, True),
        (Status.INTERNAL, False),
        (Status.UNKNOWN, False),
        (Status.NOT_FOUND, False),
    ],
)
async def test_a_limit_learns_from_statuses_that_show_overload(
    status: Status, shrinks: bool
) -> None:
    limit = Aimd(initial_limit=10, backoff_ratio=0.5)
    async with (
        Server([Echo()]) as server,
        Channel(server.addresses[0], concurrency=limit) as channel,
    ):
        request = EchoRequest()
        request.failure.code = status.value
        with pytest.raises(RpcError):
            await EchoStub(channel).unary(request)
        assert limits_of(channel)[0].limit == (5 if shrinks else 10)


async def test_a_server_takes_no_more_calls_than_its_limit_over_all_connections() -> None:
    echo, limits = Echo(), ServerLimits(concurrency=FixedLimit(2))
    async with (
        Server([echo, HealthService()], limits=limits, grace=0) as server,
        Channel(server.addresses[0]) as one,
        Channel(server.addresses[0]) as other,
    ):
        async with anyio.create_task_group() as tasks:
            await hang(tasks, one, echo, 1)
            await hang(tasks, other, echo, 1)
            for channel in (one, other):
                with pytest.raises(RpcError, match="as many calls in progress as it does") as error:
                    await EchoStub(channel).unary(EchoRequest())
                assert error.value.status is Status.RESOURCE_EXHAUSTED
                async with EchoStub(channel).server_stream(EchoRequest(replies=1)) as stream:
                    assert len([reply async for reply in stream]) == 1
                # Who is told nothing of its health takes it for dead.
                await channel.unary(HEALTH_CHECK, HealthCheckRequest())
            assert echo.begun == 4, "two that hang and two streams"
            counts = server.counts()
            assert counts.refused["concurrency"] == 2
            assert (counts.concurrency.limit, counts.concurrency.in_progress) == (2, 2)
            tasks.cancel_scope.cancel()
        await settled(lambda: server.counts().concurrency.in_progress, 0)
        assert (await EchoStub(one).unary(EchoRequest(text="x"))).text == "x"


async def test_a_refusal_says_when_to_come_back_and_a_retry_does() -> None:
    echo, limits = Echo(), ServerLimits(concurrency=FixedLimit(1))
    config = ServiceConfig.of(
        {
            "methodConfig": [
                {
                    "name": [{"service": "echo.Echo"}],
                    "retryPolicy": {
                        "maxAttempts": 2,
                        "initialBackoff": "0.001s",
                        "maxBackoff": "0.001s",
                        "backoffMultiplier": 1,
                        "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
                    },
                }
            ]
        }
    )
    async with (
        Server([echo], limits=limits, grace=0) as server,
        Channel(server.addresses[0]) as first,
        Channel(server.addresses[0], service_config=config) as channel,
        anyio.create_task_group() as tasks,
    ):
        await hang(tasks, first, echo, 1)
        began = time.monotonic()

        async def make_room() -> None:
            await settled(lambda: server.counts().refused["concurrency"], 1)
            tasks.cancel_scope.cancel()

        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as shielded:
                shielded.start_soon(make_room)
                assert (await EchoStub(channel).unary(EchoRequest(text="x"))).text == "x"
        assert time.monotonic() - began >= 0.5, "not before it was asked to"
        assert channel.attempts.retries == 1


async def test_calls_of_browsers_are_within_the_limit() -> None:
    echo, limits = Echo(), ServerLimits(concurrency=FixedLimit(1))
    async with (
        Server([echo], limits=limits, web=WebSettings(), grace=0) as server,
        Channel(server.addresses[0]) as channel,
        httpx.AsyncClient(base_url=f"http://{server.addresses[0]}", timeout=30) as client,
    ):
        headers = {"content-type": "application/json"}
        async with anyio.create_task_group() as tasks:
            await hang(tasks, channel, echo, 1)
            refused = await client.post("/echo.Echo/Unary", headers=headers, json={"text": "x"})
            assert refused.status_code == 429
            assert json.loads(refused.content)["code"] == "resource_exhausted"
            tasks.cancel_scope.cancel()
        await settled(lambda: server.counts().concurrency.in_progress, 0)
        answered = await client.post("/echo.Echo/Unary", headers=headers, json={"text": "x"})
        assert (answered.status_code, answered.json()["text"]) == (200, "x")


@pytest.mark.parametrize(
    ("request_", "timeout", "outcome"),
    [
        (EchoRequest(), None, "success"),
        (EchoRequest(hang=True), 1.0, "failure"),
        (EchoRequest(hang=True), None, "abandoned"),
        (EchoRequest(failure={"code": Status.NOT_FOUND.value}), None, "success"),
        (EchoRequest(failure={"code": Status.DEADLINE_EXCEEDED.value}), None, "failure"),
        (EchoRequest(failure={"code": Status.UNAVAILABLE.value}), None, "abandoned"),
        (EchoRequest(failure={"code": Status.INTERNAL.value}), None, "abandoned"),
    ],
    ids=["answered", "too late", "cancelled", "an answer", "too late inside", "refused", "a fault"],
)
@BOTH_VIRTUAL
async def test_what_a_call_teaches_a_server(
    request_: EchoRequest, timeout: float | None, outcome: str
) -> None:
    limits = ServerLimits(concurrency=FixedLimit(2))
    async with (
        Server([Echo()], listen="memory:teaches", limits=limits) as server,
        Channel("memory:teaches") as channel,
    ):
        async with anyio.create_task_group() as tasks:

            async def give_up() -> None:
                await anyio.sleep(10.0)
                tasks.cancel_scope.cancel()

            tasks.start_soon(give_up)
            with contextlib.suppress(RpcError):
                await EchoStub(channel).unary(request_, timeout=timeout)
            tasks.cancel_scope.cancel()
        await settled(lambda: server.counts().concurrency.in_progress, 0)
        calls = server.counts().concurrency.calls
        assert {name for name, count in calls.items() if count} == {outcome}


class Slow(EchoBase):
    """Takes as long as its calls say, of which so many run at once; the others wait here."""

    def __init__(self, took: float, workers: float = math.inf) -> None:
        self.took = took
        self.workers = anyio.CapacityLimiter(workers)
        self.begun = self.present = self.most = 0

    async def unary(self, request: EchoRequest) -> EchoReply:
        self.begun += 1
        self.present += 1
        self.most = max(self.most, self.present)
        try:
            async with self.workers:
                await anyio.sleep(self.took)
        finally:
            self.present -= 1
        return EchoReply(text=request.text)


@BOTH_VIRTUAL
async def test_a_call_that_must_come_too_late_is_refused_at_once() -> None:
    service = Slow(1.0)
    limits = ServerLimits(shed_late=True)
    async with (
        VirtualClock() as clock,
        Server([service], listen="memory:late", limits=limits) as server,
        Channel("memory:late") as channel,
        anyio.create_task_group() as tasks,
    ):
        stub, errors = EchoStub(channel), []

        async def call(timeout: float) -> None:
            try:
                await stub.unary(EchoRequest(), timeout=timeout)
            except RpcError as error:
                errors.append((round(anyio.current_time(), 6), error))

        for _ in range(9):
            tasks.start_soon(call, 2.0)
        await clock.advance(1.5)
        tasks.start_soon(call, 0.5)
        await clock.settle()
        assert service.begun == 10, "nine calls are too few to know"
        await clock.advance(1.0)
        tasks.start_soon(call, 2.0)
        await clock.advance(1.0)
        assert (service.begun, len(errors)) == (11, 1)

        began = clock.now()
        tasks.start_soon(call, 0.5)
        await clock.settle()
        assert service.begun == 11
        at, error = errors[1]
        assert (at, error.status) == (round(began, 6), Status.DEADLINE_EXCEEDED)
        assert error.message == "0.500 s are left, but no such call took less than 1.000 s lately"
        assert server.counts().refused["late"] == 1
        assert server.counts().concurrency is None

        service.took = 0.1
        tasks.start_soon(call, 1.5)
        await clock.advance(0.5)
        tasks.start_soon(call, 0.5)
        await clock.advance(0.5)
        assert (service.begun, len(errors)) == (13, 2), "one that was quicker is enough"

        # What nobody confirms is forgotten, else nobody could ever show that it is wrong.
        service.took = 1.0
        await clock.advance(30.0)
        tasks.start_soon(call, 0.01)
        await clock.advance(1.0)
        assert service.begun == 14


@pytest.mark.parametrize("limit", [None, Gradient2(), Aimd(slow_call=0.2)], ids=repr)
@BOTH_VIRTUAL
async def test_goodput_of_a_server_under_overload(limit: ConcurrencyLimit | None) -> None:
    """A call every 25 ms is what it does; one comes every 5 ms and waits for 400 ms."""
    service, good, asked = Slow(0.1, workers=4), 0, 0
    limits = ServerLimits(concurrency=limit, max_streams=10_000)

    async def call(stub: EchoStub) -> None:
        nonlocal good
        try:
            await stub.unary(EchoRequest(), timeout=0.4)
            good += 1
        except RpcError:
            pass

    async with (
        Server([service], listen="memory:overload", limits=limits),
        Channel("memory:overload") as channel,
        anyio.create_task_group() as tasks,
    ):
        for asked in range(3000):
            if asked == 1000:
                good = 0
            tasks.start_soon(call, EchoStub(channel))
            await anyio.sleep(0.005)
        part = good / (2000 * 0.005 / 0.025)
    if limit is None:
        assert part < 0.7
    else:
        assert part >= 0.8


def percentile(sorted_: list[float], part: float) -> float:
    return sorted_[int(len(sorted_) * part)]


async def test_overload_keeps_admitted_calls_quick_over_real_sockets() -> None:
    """100 callers that never tire, of a server that does 4 calls at once in 10 ms each."""

    async def latencies(limit: ConcurrencyLimit | None) -> tuple[list[float], int]:
        seen: list[float] = []
        service = Slow(0.01, workers=4)
        limits = ServerLimits(concurrency=limit, max_streams=200)
        async with (
            Server([service], limits=limits, grace=0) as server,
            Channel(server.addresses[0]) as channel,
            anyio.create_task_group() as tasks,
        ):
            stub = EchoStub(channel)

            async def caller() -> None:
                while True:
                    began = anyio.current_time()
                    try:
                        await stub.unary(EchoRequest())
                    except RpcError:
                        await anyio.sleep(0.01)
                    else:
                        seen.append(anyio.current_time() - began)

            for _ in range(100):
                tasks.start_soon(caller)
            with anyio.fail_after(120):
                while len(seen) < 600:  # noqa: ASYNC110 - nobody tells
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        # What it takes to learn is not looked at.
        return sorted(seen[300:]), service.most

    unlimited, all_present = await latencies(None)
    # The bound is what a busy machine cannot shift; what is learned within it, others look at.
    limited, most_present = await latencies(Gradient2(window=0.05, max_limit=30))
    # All wait for all others without it; with it, for a few.
    assert (all_present, most_present <= 30) == (100, True)
    assert percentile(limited, 0.5) < percentile(unlimited, 0.5)
    assert percentile(limited, 0.9) < percentile(unlimited, 0.9)


async def test_limits_are_measured() -> None:
    metrics = Metrics()
    limits = ServerLimits(concurrency=FixedLimit(7), shed_late=True)
    async with (
        Server([Echo()], limits=limits) as server,
        Channel(server.addresses[0], concurrency=FixedLimit(5)) as channel,
    ):
        metrics.add_server(server)
        metrics.add_channel(channel, "echo")
        await EchoStub(channel).unary(EchoRequest())
        _, _, body = await Exposition(metrics).answer("", [])
        lines = set(body.decode().splitlines())
        endpoint = f"echo@{server.addresses[0]}"
        assert {
            f'concurrency_limit{{name="{endpoint}"}} 5.0',
            'concurrency_limit{name="grpc"} 7.0',
            f'concurrency_calls_total{{name="{endpoint}",outcome="success"}} 1.0',
            'concurrency_calls_total{name="grpc",outcome="success"} 1.0',
            'server_requests_refused_total{reason="late",server="grpc"} 0.0',
        } <= lines
