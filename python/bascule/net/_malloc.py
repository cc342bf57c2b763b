"""What glibc's allocator does with the memory of large messages once they are freed."""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

#: Bytes of freed memory at the end of the heap that are kept for what comes next.
_KEPT = 32 * 1024 * 1024

#: Allocations up to this many bytes come from the heap, not from pages of their own.
_FROM_HEAP = 16 * 1024 * 1024

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

#: By these its user has said already what the allocator is to do.
_CHOSEN = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")


@functools.cache
def keep_freed_memory() -> None:
    """Have the process keep up to 32 MiB that were freed, once; for who moves large messages.

    Each passes through some ten buffers of its size. Left to itself, glibc gives them back to the
    kernel each time and takes them from there again page by page, which costs more than half of
    the time of a message of 1 MiB. Other allocators are left alone, and so is one whose settings
    the environment has.

    Source: mallopt(3).
    """
    if any(name in os.environ for name in _CHOSEN):
        return
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _FROM_HEAP)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
