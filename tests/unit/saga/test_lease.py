"""How long a run is a process's own. In virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest

from bascule.saga import (
    MemorySagaLog,
    Saga,
    SagaCoordinator,
    SagaFencedError,
    SagaRecord,
    SagaRun,
    StepCall,
)
from bascule.testing import virtual_backend

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


class Context(msgspec.Struct, frozen=True):
    total: int


async def _quick(_context: Context, _call: StepCall) -> None:
    await anyio.lowlevel.checkpoint()


async def test_a_lease_begins_before_the_write_that_gives_it() -> None:
    """However long a database takes: it is renewed before it ends there, not here."""
    slow, lease = 0.15, 0.24
    renewals: list[tuple[float, float]] = []

    class Slow(MemorySagaLog):
        async def write(self, run: SagaRun, added: Sequence[SagaRecord]) -> None:
            await super().write(run, added)
            await anyio.sleep(slow)

        async def renew(self, run: SagaRun, due: float) -> None:
            renewals.append((self.now(), self._runs[run.saga_id].due or 0.0))
            await super().renew(run, due)

    async def last(_context: Context, _call: StepCall) -> None:
        await anyio.sleep(3 * lease)

    saga = Saga("slow", Context).step("first", _quick).step("last", last)
    await SagaCoordinator(Slow(clock=anyio.current_time), lease=lease).run(
        saga, Context(total=1), saga_id="s1"
    )
    assert renewals
    assert all(now < due for now, due in renewals), renewals


async def test_nothing_is_done_past_the_lease_though_its_renewal_hangs() -> None:
    """A database that says nothing for half a minute cannot be cancelled; the action can."""
    lease = 0.2

    class Hanging(MemorySagaLog):
        async def renew(self, run: SagaRun, due: float) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5 * lease)

    stopped: list[float] = []

    async def last(_context: Context, _call: StepCall) -> None:
        begun = anyio.current_time()
        try:
            await anyio.sleep(4 * lease)
        finally:
            stopped.append(anyio.current_time() - begun)

    async def undo(_context: Context, _call: StepCall) -> None:
        raise AssertionError("whoever has the run now undoes it")

    saga = Saga("slow", Context).step("only", last, undo)
    with pytest.raises(SagaFencedError):
        await SagaCoordinator(Hanging(clock=anyio.current_time), lease=lease).run(
            saga, Context(total=1), saga_id="s1"
        )
    assert stopped[0] < 2 * lease
