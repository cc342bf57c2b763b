"""Virtual time on both loops: sleeps, deadlines of calls, and what is said without it."""

from __future__ import annotations

import time

import anyio
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoRequest
from tests.unit.rpc.services import Echo

from bascule.errors import ConfigurationError, RpcError, Status
from bascule.testing import VirtualClock, memory_channel, virtual_backend, virtual_run

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return virtual_backend(request.param)


async def test_time_stands_still_until_it_is_moved() -> None:
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append(seconds)

    async with VirtualClock() as clock, anyio.create_task_group() as tasks:
        begun = clock.now()
        for seconds in (3.0, 1.0, 2.0, 7.0):
            tasks.start_soon(sleeper, seconds)
        await clock.settle()
        assert (woken, clock.now()) == ([], pytest.approx(begun))
        await clock.advance(0.999)
        assert woken == []
        await clock.advance(2.1)
        assert woken == [1.0, 2.0, 3.0]
        assert clock.now() == anyio.current_time() == pytest.approx(begun + 3.099)
        await clock.advance(100)
    assert woken[-1] == 7.0


async def test_each_deadline_on_the_way_is_met_in_its_time() -> None:
    beats: list[float] = []

    async def heart() -> None:
        while True:
            await anyio.sleep(1)
            beats.append(anyio.current_time())

    async with VirtualClock() as clock, anyio.create_task_group() as tasks:
        begun = clock.now()
        tasks.start_soon(heart)
        await clock.advance(5.5)
        assert beats == pytest.approx([begun + each for each in (1, 2, 3, 4, 5)])
        tasks.cancel_scope.cancel()


async def test_time_goes_on_by_itself_when_all_wait() -> None:
    real, virtual = time.perf_counter(), anyio.current_time()
    await anyio.sleep(3600)
    with anyio.move_on_after(100_000) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert anyio.current_time() - virtual == pytest.approx(103_600)
    assert time.perf_counter() - real < 60
    async with VirtualClock():
        pass
    await anyio.sleep(3600)


async def test_the_deadline_of_a_call_is_virtual() -> None:
    echo = Echo()
    async with memory_channel(echo) as channel, VirtualClock() as clock:
        await EchoStub(channel).unary(EchoRequest())
        failures: list[RpcError] = []

        async def ask() -> None:
            with pytest.raises(RpcError) as caught:
                await EchoStub(channel).unary(EchoRequest(hang=True), timeout=5)
            failures.append(caught.value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await echo.until(begun=2)
            await clock.advance(4.9)
            assert (failures, echo.cancelled) == ([], 0)
            await clock.advance(0.2)
            assert [each.status for each in failures] == [Status.DEADLINE_EXCEEDED]
            assert echo.cancelled == 1


async def test_a_call_that_hangs_ends_at_its_deadline_at_once() -> None:
    real = time.perf_counter()
    async with memory_channel(Echo(), timeout=600) as channel:
        with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            await EchoStub(channel).unary(EchoRequest(hang=True))
    assert time.perf_counter() - real < 60


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
async def test_time_goes_forward_only(seconds: float) -> None:
    async with VirtualClock() as clock:
        with pytest.raises(ValueError, match="expected a finite number"):
            await clock.advance(seconds)


async def test_a_cancelled_advance_leaves_the_clock_usable() -> None:
    async with VirtualClock() as clock:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await clock.advance(10)
        assert scope.cancelled_caught
        await clock.advance(1)


def test_real_time_is_refused(request: pytest.FixtureRequest) -> None:
    async def enter() -> None:
        async with VirtualClock():
            pass

    for backend in ("asyncio", "trio"):
        with pytest.raises(ConfigurationError, match="runs in real time"):
            anyio.run(enter, backend=backend)
        anyio.run(enter, **virtual_run(backend))
