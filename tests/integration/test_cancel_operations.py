"""More operations cancelled at each of their waits: attempts, handlers, and what is no call.

The harness and its rules are those of ``test_cancel_everywhere``.
"""

from __future__ import annotations

import contextlib
from typing import Any

import anyio
import msgspec
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoRequest
from tests.integration.test_cancel_everywhere import MODES, interrupted, resources, settled
from tests.unit.rpc.scripted import ANSWER, FAIL, HANG, Scripted, Step, configured
from tests.unit.rpc.services import Echo

from bascule.discovery import Endpoint, MemoryRegistry
from bascule.errors import RpcError, Status
from bascule.resilience import (
    AdaptiveLimiter,
    BreakerSettings,
    Bulkhead,
    CircuitBreaker,
    FixedLimit,
    GcraLimiter,
)
from bascule.rpc import (
    Channel,
    HealthService,
    HedgingPolicy,
    MethodConfig,
    RetryPolicy,
    RetryThrottling,
    Server,
    ServerInterceptor,
    ServerLimits,
)
from bascule.rpc._health import HEALTH_WATCH, HealthCheckRequest
from bascule.saga import MemorySagaLog, Saga, SagaCoordinator, SagaFailedError

pytestmark = pytest.mark.anyio

RETRY = MethodConfig(retry=RetryPolicy(initial_backoff=0.001, max_backoff=0.001))
LIMITED = MethodConfig(
    retry=RetryPolicy(initial_backoff=0.001, max_backoff=0.001, per_attempt_timeout=0.01)
)
HEDGE = MethodConfig(hedging=HedgingPolicy(3, 0))
HEDGE_LATER = MethodConfig(hedging=HedgingPolicy(2, 0.001))


async def unary(stub: EchoStub) -> None:
    assert (await stub.unary(EchoRequest(text="x"), timeout=100)).text == "x"


async def server_stream(stub: EchoStub) -> None:
    async with stub.server_stream(EchoRequest(replies=3)) as stream:
        assert len([reply async for reply in stream]) == 3


async def client_stream(stub: EchoStub) -> None:
    async with stub.client_stream(timeout=100) as stream:
        for text in "abc":
            await stream.send_message(EchoRequest(text=text))
        await stream.end()
        assert (await stream.recv_message()).text == "a b c"


async def large_client_stream(stub: EchoStub) -> None:
    async with stub.client_stream() as stream:
        for _ in range(6):
            await stream.send_message(EchoRequest(text="x" * 60_000))
        await stream.end()
        assert await stream.recv_message() is not None


async def bidi(stub: EchoStub) -> None:
    async with stub.bidi() as stream:
        for text in "ab":
            await stream.send_message(EchoRequest(text=text))
            assert (await stream.recv_message()).text == text
        await stream.end()
        assert await stream.recv_message() is None


CALLS = [unary, server_stream, client_stream, large_client_stream, bidi]
SCRIPTS = [
    pytest.param(RETRY, (FAIL, FAIL, ANSWER), id="retry"),
    pytest.param(LIMITED, (HANG, ANSWER), id="retry-after-timeout"),
    pytest.param(HEDGE, (HANG, HANG, ANSWER), id="hedge-at-once"),
    pytest.param(HEDGE_LATER, (Step(Status.UNAVAILABLE, pushback="1"), ANSWER), id="hedge-later"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("config", "script"), SCRIPTS)
@pytest.mark.parametrize(("anyio_backend", "mode"), MODES)
async def test_a_call_of_several_attempts(call, config, script, mode) -> None:
    if call is large_client_stream:
        script = (ANSWER,)  # what cannot be kept is sent once
    service = Scripted(ANSWER)
    async with Server([service]) as server, Channel(server.addresses[0]) as channel:
        stub = EchoStub(channel)
        at, waits = 0, 1
        while waits >= at:
            at += 1
            channel.attempts.configure(RetryThrottling(1000, 1000))
            channel.attempts.succeeded()
            service.script = script
            service.previous.clear()
            configured(channel, config)
            waits, _ = await interrupted(call(stub), at, mode)
            service.script = (ANSWER,)
            del channel.prepare
            await settled(server, channel)
            assert channel.attempts.buffered == 0
        assert at > 2


class Interrupt(ServerInterceptor):
    """Cancels the handler at its n-th wait; the call then ends with ABORTED."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.at = 0
        self.waits = 0

    async def _run(self, running: Any) -> Any:
        result = None

        async def keep() -> None:
            nonlocal result
            result = await running

        if self.at == 0:
            return await running
        self.waits, cancelled = await interrupted(keep(), self.at, self.mode)
        if cancelled:
            raise RpcError(Status.ABORTED, "the handler was cancelled")
        return result

    async def unary(self, call, request, proceed):
        return await self._run(proceed(request))

    async def stream(self, call, stream, proceed):
        await self._run(proceed(stream))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("anyio_backend", "mode"), MODES)
async def test_a_handler(call, mode) -> None:
    around = Interrupt(mode)
    async with (
        Server([Scripted(Step(delay=0.001))], interceptors=[around]) as server,
        Channel(server.addresses[0]) as channel,
    ):
        stub = EchoStub(channel)
        at = 0
        while around.waits >= at:
            at += 1
            around.at = at
            with contextlib.suppress(RpcError, AssertionError):
                await call(stub)
            around.at = 0
            await settled(server, channel)
        assert at > 1


async def limited() -> None:
    limiter = GcraLimiter(rate=1, per=0.002)
    for _ in range(3):
        await limiter.acquire("key")


async def one_of_many_waits() -> None:
    limiter = GcraLimiter(rate=1, per=0.005)
    await limiter.acquire("key")
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(limiter.acquire, "key")


async def resolved() -> None:
    registry = MemoryRegistry()
    registry.register("echo", Endpoint("127.0.0.1:1"))
    try:
        async with registry.resolver("echo").watch() as states, anyio.create_task_group() as group:
            seen = []

            async def change() -> None:
                registry.register("echo", Endpoint("127.0.0.1:2"))
                await anyio.lowlevel.checkpoint()

            group.start_soon(change)
            async with contextlib.aclosing(states) as closing:
                async for endpoints in closing:
                    seen.append(endpoints)
                    await anyio.lowlevel.checkpoint()
                    if len(endpoints) == 2:
                        break
    finally:
        assert not registry._watchers


async def broken() -> None:
    breaker = CircuitBreaker("x", BreakerSettings(failure_threshold=1, timeout=0.001))
    try:
        with contextlib.suppress(ValueError):
            async with breaker:
                await anyio.lowlevel.checkpoint()
                raise ValueError
        await anyio.sleep(0.002)
        async with breaker:  # the probe
            await anyio.lowlevel.checkpoint()
    finally:
        assert breaker.snapshot().probes == 0


async def within_a_limit() -> None:
    limiter = AdaptiveLimiter("x", FixedLimit(2))
    try:
        async with limiter:
            await anyio.lowlevel.checkpoint()
            async with limiter:
                await anyio.lowlevel.checkpoint()
    finally:
        assert limiter.in_progress == 0


async def in_a_bulkhead() -> None:
    bulkhead = Bulkhead("x", max_concurrent=1, max_waiting=2, max_wait=10)

    async def call() -> None:
        async with bulkhead:
            await anyio.lowlevel.checkpoint()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            group.start_soon(call)
            await anyio.lowlevel.checkpoint()
            await call()
    finally:
        assert (bulkhead.in_progress, bulkhead.waiting) == (0, 0)


class Cart(msgspec.Struct, frozen=True):
    total: int


async def saga() -> None:
    done: list[str] = []

    async def act(context, call):
        done.append(call.step)
        await anyio.lowlevel.checkpoint()
        if call.step == "third":
            raise ValueError(call.step)
        return {}

    async def undo(context, call):
        await anyio.lowlevel.checkpoint()
        if call.step in done:
            done.remove(call.step)

    order = Saga("order", Cart)
    for name in ("first", "second", "third"):
        order = order.step(name, act, undo)
    try:
        with contextlib.suppress(SagaFailedError):
            await SagaCoordinator(MemorySagaLog()).run(order, Cart(total=1), saga_id="s")
    finally:
        assert done == []


async def waiting_for_an_endpoint() -> None:
    with anyio.move_on_after(0.02):
        async with Channel("127.0.0.1:1", wait_for_ready=True) as channel:
            await EchoStub(channel).unary(EchoRequest())


async def waiting_to_be_ready() -> None:
    with anyio.move_on_after(0.02):
        async with Channel("127.0.0.1:1") as channel:
            await channel.wait_ready()


OPERATIONS = [
    limited,
    one_of_many_waits,
    resolved,
    broken,
    within_a_limit,
    in_a_bulkhead,
    saga,
    waiting_for_an_endpoint,
    waiting_to_be_ready,
]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("anyio_backend", "mode"), MODES)
async def test_an_operation(operation, mode) -> None:
    await operation()
    before = resources()
    at, waits = 0, 1
    while waits >= at:
        at += 1
        with anyio.fail_after(5):
            waits, _ = await interrupted(operation(), at, mode)
            while resources() != before:
                await anyio.wait_all_tasks_blocked()
    assert at > 1


@pytest.mark.parametrize("call", [unary, server_stream])
@pytest.mark.parametrize(("anyio_backend", "mode"), MODES)
async def test_a_call_within_limits_of_concurrency(call, mode) -> None:
    limits = ServerLimits(concurrency=FixedLimit(2), shed_late=True)
    async with (
        Server([Echo()], limits=limits) as server,
        Channel(server.addresses[0], concurrency=FixedLimit(2)) as channel,
    ):
        at, waits = 0, 1
        while waits >= at:
            at += 1
            waits, _ = await interrupted(call(EchoStub(channel)), at, mode)
            await settled(server, channel)
            [subchannel] = channel.snapshot().subchannels
            assert subchannel.concurrency is not None
            assert subchannel.concurrency.in_progress == 0
            assert server.counts().concurrency.in_progress == 0
        assert at > 1


@pytest.mark.parametrize(("anyio_backend", "mode"), MODES)
async def test_a_health_watch(mode) -> None:
    health = HealthService()
    async with Server([Echo(), health]) as server, Channel(server.addresses[0]) as channel:

        async def watch() -> None:
            async with channel.server_stream(HEALTH_WATCH, HealthCheckRequest()) as stream:
                assert await stream.recv_message() is not None
                health.set("", False)
                assert await stream.recv_message() is not None

        at, waits = 0, 1
        while waits >= at:
            at += 1
            health.set("", True)
            waits, _ = await interrupted(watch(), at, mode)
            await settled(server, channel)
        assert at > 2
