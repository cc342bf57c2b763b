"""How long to wait after failures in a row."""

from __future__ import annotations

import pytest

from bascule._backoff import grown, pause_after


def test_waits_grow_to_the_longest_and_stay_there() -> None:
    waits = [grown(failures, 0.5, 15.0, 1.6) for failures in range(1, 12)]
    assert waits[:3] == pytest.approx([0.5, 0.8, 1.28])
    assert waits[-1] == 15.0


@pytest.mark.parametrize("growth", [1.6, 2.0])
def test_no_number_of_failures_is_too_large(growth: float) -> None:
    """Such as of a database that was away over a weekend."""
    assert grown(1_000_000, 0.5, 15.0, growth) == 15.0


def test_chance_only_shortens_a_wait() -> None:
    waits = {pause_after(3, 1.0, 30.0, jitter=0.25) for _ in range(200)}
    assert len(waits) > 1
    assert all(3.0 <= wait <= 4.0 for wait in waits)
