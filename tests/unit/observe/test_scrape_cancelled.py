"""A scrape that is cancelled leaves nothing behind: on trio, an open generator would complain."""

from __future__ import annotations

import gc

import anyio
import anyio.lowlevel
import pytest

from bascule.observe import Metrics, Sample
from bascule.observe._exposition import Exposition, _Breath

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("turns", range(1, 12))
async def test_a_scrape_may_be_cancelled_at_any_turn(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    metrics = Metrics()
    metrics.add_samples(lambda: [Sample(f"cups_{number}", "Cups", number) for number in range(3)])
    left = turns

    async def take(_: _Breath) -> None:
        nonlocal left
        left -= 1
        if not left:
            scope.cancel()
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(_Breath, "take", take)
    exposition = Exposition(metrics)
    with anyio.CancelScope() as scope:
        await exposition.answer("", [])
    gc.collect()
    await anyio.lowlevel.checkpoint()
    monkeypatch.undo()
    assert (await exposition.answer("", [])).status == 200
    assert scope.cancelled_caught == (left <= 0)
