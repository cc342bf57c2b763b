"""Balancers within a channel: real servers, real calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.generated.interop.load_report_pb2 import OrcaLoadReport

from bascule.discovery import Endpoint, MemoryRegistry
from bascule.errors import ConfigurationError, RpcError, Status
from bascule.rpc import (
    Channel,
    FailurePercentageEjection,
    LoadBalancing,
    LoadReports,
    OutlierDetection,
    Server,
    ServiceConfig,
    SlowStart,
    Subset,
    call_context,
)

pytestmark = pytest.mark.anyio


class Host(EchoBase):
    """Answers with its name; fails, or reports a load, as a test says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fails = False
        self.report: bytes | None = None

    async def unary(self, request: EchoRequest) -> EchoReply:
        if self.fails:
            raise RpcError(Status.UNAVAILABLE, "failing")
        if self.report is not None:
            call_context().trailing_metadata.add("endpoint-load-metrics-bin", self.report)
        return EchoReply(text=self.name)

    async def server_stream(self, request: EchoRequest) -> AsyncIterator[EchoReply]:
        yield await self.unary(request)


@asynccontextmanager
async def fleet(
    weights: list[int], balancer: str | LoadBalancing
) -> AsyncIterator[tuple[list[Host], Channel]]:
    """Hosts with weights, and a channel that is connected to all that it wants."""
    registry = MemoryRegistry()
    hosts = [Host(f"host-{number}") for number in range(len(weights))]
    async with AsyncExitStack() as stack:
        for host, weight in zip(hosts, weights, strict=True):
            address = f"memory:{host.name}"
            await stack.enter_async_context(Server([host], listen=address))
            registry.register("echo", Endpoint(address, weight))
        channel = Channel("memory:///echo", registry=registry, balancer=balancer)
        await stack.enter_async_context(channel)
        await channel.wait_ready()
        await anyio.wait_all_tasks_blocked()
        yield hosts, channel


async def call(channel: Channel, **options: Any) -> str:
    reply = await EchoStub(channel).unary(EchoRequest(), **options)
    return reply.text


@pytest.mark.parametrize(
    "balancer", [name for name in LoadBalancing.BALANCERS if name != "pick_first"]
)
async def test_every_balancer_calls_everybody_but_those_without_weight(balancer: str) -> None:
    async with fleet([1, 2, 0], balancer) as (_, channel):
        answers = [await call(channel) for _ in range(60)]
        assert set(answers) == {"host-0", "host-1"}
        counts = [each.picks for each in channel.snapshot().subchannels]
        assert counts == [answers.count("host-0"), answers.count("host-1"), 0]
        assert all(each.in_flight == 0 for each in channel.snapshot().subchannels)


@pytest.mark.parametrize("balancer", ["ring_hash", "maglev"])
async def test_calls_with_the_same_key_stay_together(balancer: str) -> None:
    settings = LoadBalancing(balancer=balancer, hash_header="x-user")
    async with fleet([1, 1, 1], settings) as (_, channel):
        first = [await call(channel, metadata={"x-user": f"u{n}"}) for n in range(30)]
        again = [await call(channel, metadata={"x-user": f"u{n}"}) for n in range(30)]
        assert first == again
        assert set(first) == {"host-0", "host-1", "host-2"}


async def test_an_outlier_is_left_out_and_comes_back() -> None:
    outlier = OutlierDetection(
        interval=0.02,
        base_ejection_time=0.05,
        failure_percentage=FailurePercentageEjection(
            threshold=50, minimum_hosts=3, request_volume=1
        ),
    )
    async with fleet([1, 1, 1], LoadBalancing(outlier=outlier)) as (hosts, channel):
        hosts[1].fails = True

        async def calls_until(ejected: bool) -> None:
            with anyio.fail_after(30):
                while channel.snapshot().subchannels[1].ejected is not ejected:
                    try:
                        await call(channel)
                    except RpcError:
                        assert hosts[1].fails

        await calls_until(ejected=True)
        hosts[1].fails = False
        await calls_until(ejected=False)


@pytest.mark.parametrize("streams", [False, True])
async def test_load_reports_become_weights(streams: bool) -> None:
    reports = LoadReports(blackout_period=0.0, weight_update_period=0.001)
    settings = LoadBalancing(balancer="weighted_round_robin", load_reports=reports)
    async with fleet([1, 1], settings) as (hosts, channel):
        for host, utilization in zip(hosts, (0.9, 0.3), strict=True):
            report = OrcaLoadReport(cpu_utilization=utilization)
            # The copy of the message that interoperability tests use leaves qps out: field 6.
            host.report = report.SerializeToString() + b"\x31\x00\x00\x00\x00\x00\x00\x59\x40"
        tally = {"host-0": 0, "host-1": 0}
        with anyio.fail_after(30):
            while tally["host-1"] < 2 * tally["host-0"] + 20:
                if streams:
                    async with EchoStub(channel).server_stream(EchoRequest()) as stream:
                        async for reply in stream:
                            tally[reply.text] += 1
                else:
                    tally[await call(channel)] += 1


async def test_a_subset_is_all_that_is_connected() -> None:
    settings = LoadBalancing(subset=Subset(client=1, size=2))
    async with fleet([1, 1, 1, 1], settings) as (_, channel):
        answers = {await call(channel) for _ in range(20)}
        assert len(answers) == 2
        assert len(channel.snapshot().subchannels) == 2


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LoadReports(weight_update_period=0.0), "weight_update_period"),
        (lambda: LoadReports(weight_expiration_period=-1.0), "weight_expiration_period"),
        (lambda: LoadReports(error_utilization_penalty=-1.0), "error_utilization_penalty"),
        (lambda: LoadReports(error_utilization_penalty=float("nan")), "error_utilization_penalty"),
        (lambda: LoadBalancing(load_reports=LoadReports()), "load_reports"),
        (
            lambda: LoadBalancing(balancer="maglev", slow_start=SlowStart(window=1.0)),
            "maglev keeps together",
        ),
        (lambda: LoadBalancing(balancer="maglev", table_size=65536), "prime"),
        (lambda: SlowStart(window=1.0, aggression=0.0), "aggression"),
        (lambda: SlowStart(window=1.0, min_weight_percent=101.0), "min_weight_percent"),
        (lambda: OutlierDetection(max_ejection_percent=101), "max_ejection_percent"),
        (lambda: OutlierDetection(interval=0.0001, max_ejection_time=11.0), "interval"),
        (lambda: FailurePercentageEjection(threshold=101), "threshold"),
        (lambda: Subset(client=-1, size=1), "client"),
        (lambda: Subset(client=0, size=0), "size"),
    ],
)
async def test_settings_that_cannot_work_are_refused(make: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        make()


async def test_load_report_settings_are_read_from_a_service_config() -> None:
    settings = {"blackoutPeriod": "0s", "errorUtilizationPenalty": 0.5}
    config = ServiceConfig.from_json({"loadBalancingConfig": [{"weighted_round_robin": settings}]})
    assert config.load_balancing == LoadBalancing(
        balancer="weighted_round_robin",
        load_reports=LoadReports(blackout_period=0.0, error_utilization_penalty=0.5),
    )
