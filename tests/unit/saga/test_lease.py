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


class Slow(MemorySagaLog):
    """A write takes 3 s, a renewal 50 s: as long as a database that is gone without a word."""

    def __init__(self) -> None:
        super().__init__(clock=anyio.current_time)

    async def write(self, run: SagaRun, added: Sequence[SagaRecord]) -> None:
        await super().write(run, added)
        await anyio.sleep(3.0)

    async def renew(self, run: SagaRun, due: float) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(50.0)
        await super().renew(run, due)


async def test_nothing_is_done_past_the_lease_though_its_renewal_hangs() -> None:
    """It is over when the log says so: counted from before the write that gave it, not from its answer."""
    log = Slow()
    stopped: list[tuple[float, float]] = []

    async def first(_context: Context, _call: StepCall) -> None:
        await anyio.lowlevel.checkpoint()

    async def last(_context: Context, call: StepCall) -> None:
        try:
            await anyio.sleep(40.0)
        finally:
            run = await log.load(call.saga_id)
            assert run is not None
            stopped.append((anyio.current_time(), run.due or 0.0))

    async def undo(_context: Context, _call: StepCall) -> None:
        raise AssertionError("whoever has the run now undoes it")

    saga = Saga("slow", Context).step("first", first).step("last", last, undo)
    with pytest.raises(SagaFencedError):
        await SagaCoordinator(log, lease=10.0).run(saga, Context(total=1), saga_id="s1")
    ((moment, due),) = stopped
    assert due - 0.1 <= moment <= due + 0.1
