"""What the limits of concurrency do for a server with a knee, in virtual time.

The server is that of ``tests/models/overload.py``: it does ``workers`` calls at once, and what comes
beyond that waits in it without bound.
"""

from __future__ import annotations

import pytest
from tests.models.overload import KneeServer

from bascule.resilience import Aimd, FixedLimit, Gradient2

SERVICE = 0.1
PATIENCE = 4 * SERVICE

#: What a caller would wait for at most, told to AIMD; Gradient2 is told nothing.
ADAPTIVE = {"aimd": Aimd(slow_call=2 * SERVICE), "gradient2": Gradient2()}


def server(limit: str | None, workers: int, seed: int = 1) -> KneeServer:
    rule = None if limit is None else ADAPTIVE[limit]
    return KneeServer(rule, workers=workers, service=SERVICE, patience=PATIENCE, seed=seed)


def test_without_a_limit_overload_leaves_nothing_of_the_goodput() -> None:
    knee = server(None, 20)
    knee.run(10, load=5)
    seen = knee.run(20, load=5)
    assert seen.good == 0
    assert seen.late > 0.9 * 20 * knee.capacity, "it works as hard as ever"


@pytest.mark.parametrize("limit", ADAPTIVE)
@pytest.mark.parametrize("workers", [4, 32])
@pytest.mark.parametrize("before", [0.5, 5], ids=["after calm", "from the first second"])
def test_overload_leaves_four_fifths_of_the_capacity(
    limit: str, workers: int, before: float
) -> None:
    """Of a load five times as high as the capacity, ten seconds after the start."""
    knee = server(limit, workers)
    knee.run(10, load=before)
    seen = knee.run(20, load=5)
    assert seen.good >= 0.8 * 20 * knee.capacity
    later = knee.run(20, load=5)
    assert later.good >= 0.9 * 20 * knee.capacity
    assert sorted(later.latencies)[int(len(later.latencies) * 0.99)] <= 1.1 * PATIENCE


@pytest.mark.parametrize("limit", ADAPTIVE)
@pytest.mark.parametrize("workers", [8, 32])
def test_the_limit_comes_to_rest_near_the_knee_and_follows_it(limit: str, workers: int) -> None:
    knee = server(limit, workers)
    for now in (workers, workers // 4, workers):
        knee.workers = now
        knee.run(45, load=3)  # to get there
        seen = knee.run(15, load=3)
        # Room for what is served at once, and a queue of no more than that again, or of the few
        # that let a small limit move at all.
        assert now <= seen.mean_limit <= 2 * now + 4
        assert seen.good >= 0.8 * 15 * knee.capacity


def test_probes_keep_gradient2_from_thinking_the_queue_normal() -> None:
    """An average alone drifts upward in an overload that lasts."""
    limits = {}
    for probe in (10.0, None):
        rule = Gradient2(probe_interval=probe, long_window=20.0, max_limit=200)
        knee = KneeServer(rule, workers=8, service=SERVICE, patience=10.0)
        knee.run(580, load=2)
        limits[probe] = knee.run(20, load=2).mean_limit
    assert limits[10.0] <= 20
    assert limits[None] >= 50


@pytest.mark.parametrize("limit", ADAPTIVE)
def test_calm_refuses_next_to_nothing(limit: str) -> None:
    knee = server(limit, 20)
    knee.run(20, load=0.7)
    seen = knee.run(60, load=0.7)
    assert seen.rejected <= 0.005 * (seen.rejected + seen.good)
    assert seen.late == 0


def test_a_fixed_limit_is_as_good_as_what_is_known() -> None:
    right, wrong = (
        KneeServer(FixedLimit(limit), workers=20, service=SERVICE, patience=PATIENCE)
        for limit in (30, 300)
    )
    assert right.run(20, load=5).good >= 0.95 * 20 * right.capacity
    wrong.run(20, load=5)
    assert wrong.run(20, load=5).good == 0
