"""When attempts are made, in virtual time: pauses of hours, exact to their jitter."""

from __future__ import annotations

import contextlib
from typing import Any

import anyio
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoRequest
from tests.unit.rpc.scripted import FAIL, HANG, Scripted, Step, configured

from bascule.errors import RpcError
from bascule.rpc import HedgingPolicy, MethodConfig, RetryPolicy, RetryThrottling, Status
from bascule.testing import memory_channel, virtual_backend

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


async def unary(stub: EchoStub, **options) -> None:
    await stub.unary(EchoRequest(text="x"), **options)


async def server_stream(stub: EchoStub, **options) -> None:
    async with stub.server_stream(EchoRequest(replies=2), **options) as stream:
        assert len([reply async for reply in stream]) == 2


async def client_stream(stub: EchoStub, **options) -> None:
    async with stub.client_stream(**options) as stream:
        await stream.send_message(EchoRequest(text="x"))
        await stream.end()
        assert await stream.recv_message() is not None


CALLS = [unary, server_stream, client_stream]


async def times(call: Any, config: MethodConfig, *script: Step, **options: Any) -> list[float]:
    """When each attempt came, and when the call ended, in seconds since it began."""
    service = Scripted(*script)
    async with memory_channel(service) as channel:
        await channel.wait_ready()
        channel.attempts.configure(RetryThrottling(1000))
        began = anyio.current_time()
        with contextlib.suppress(RpcError):
            await call(EchoStub(configured(channel, config)), **options)
        ended = anyio.current_time()
        return [*(round(at - began, 3) for at in service.times), round(ended - began, 3)]


@pytest.mark.parametrize("call", CALLS)
async def test_pauses_grow_with_jitter(call) -> None:
    policy = RetryPolicy(5, 100.0, 300.0, 2.0)
    seen = set()
    for _ in range(5):
        first, *rest, end = await times(call, MethodConfig(retry=policy), FAIL)
        assert len(rest) == 4
        assert end == rest[-1]
        pauses = [after - before for before, after in zip([first, *rest], rest, strict=False)]
        for pause, expected in zip(pauses, (100, 200, 300, 300), strict=True):
            assert 0.8 * expected <= pause <= 1.2 * expected
        seen.add(pauses[0])
    assert len(seen) > 1


@pytest.mark.parametrize("call", CALLS)
async def test_the_server_says_when(call) -> None:
    script = [Step(Status.UNAVAILABLE, pushback=text) for text in ("60000", "0", "3600000")]
    policy = RetryPolicy(4, 1.0, 1.0)
    assert await times(call, MethodConfig(retry=policy), *script) == [0, 60, 60, 3660, 3660]


@pytest.mark.parametrize("call", CALLS)
async def test_hedges_come_at_their_delay(call) -> None:
    config = MethodConfig(hedging=HedgingPolicy(4, 50.0))
    assert await times(call, config, HANG, HANG, Step(delay=10)) == [0, 50, 100, 110]
    # A failure sends the next at once; the one after it keeps its distance.
    assert await times(call, config, HANG, FAIL, HANG, Step()) == [0, 50, 50, 100, 100]
    pushed = Step(Status.UNAVAILABLE, pushback="7000")
    assert await times(call, config, HANG, pushed, Step()) == [0, 50, 57, 57]


@pytest.mark.parametrize("call", CALLS)
async def test_the_deadline_is_for_all_attempts(call) -> None:
    config = MethodConfig(hedging=HedgingPolicy(3, 50.0))
    assert await times(call, config, HANG, timeout=120) == [0, 50, 100, 120]
    retry = MethodConfig(retry=RetryPolicy(5, 1.0, 1.0, per_attempt_timeout=30.0))
    seen = await times(call, retry, HANG, timeout=50)
    assert len(seen) == 3
    assert 30.8 <= seen[1] <= 31.2
    assert seen[2] == 50


@pytest.mark.parametrize("call", CALLS)
async def test_attempts_have_limits_of_their_own(call) -> None:
    config = MethodConfig(hedging=HedgingPolicy(3, 1000.0, per_attempt_timeout=30.0))
    assert await times(call, config, HANG) == [0, 30, 60, 90]


@pytest.mark.parametrize("call", CALLS)
async def test_no_pause_is_begun_that_the_deadline_would_end(call) -> None:
    config = MethodConfig(retry=RetryPolicy(3, 100.0, 100.0))
    assert await times(call, config, FAIL, timeout=70) == [0, 0]
