"""The garbage collector after a start."""

from __future__ import annotations

import gc

from bascule.app import settle_memory


def test_what_exists_at_the_start_is_not_looked_at_again() -> None:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)  # Python's own; other tests' libraries may have raised it
    try:
        settle_memory()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold()[0] > 700
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
