"""How a server's process treats its memory."""

from __future__ import annotations

import gc

__all__ = ["settle_memory"]

# Python's 700 are reached with some 20 requests in flight: each time it looks at all of them and
# frees nothing. That was a fifth of a busy gateway's time.
_YOUNG, _MIDDLE, _OLD = 50_000, 20, 50


def settle_memory() -> None:
    """Make the garbage collector look less often, and never again at what exists now.

    Call it once, when the program has started and before it serves. bascule makes no reference
    cycles on the way of a call, so that a rarer collection costs no memory to speak of. It changes
    the whole process: for main functions, not for libraries.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
