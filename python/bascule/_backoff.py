"""How long to wait after failures in a row."""

from __future__ import annotations

import random

__all__ = ["grown", "pause_after"]

# No pause of use is longer than growth to this power; larger exponents overflow a float in the end.
_MOST_DOUBLINGS = 60


def grown(failures: int, first: float, longest: float, growth: float = 2.0) -> float:
    """Seconds to wait after so many failures, nothing left to chance; however many there were.

    :param failures: in a row, at least 1
    :param first: seconds after the first one
    :param longest: seconds that no wait exceeds
    """
    return min(longest, first * growth ** min(failures - 1, _MOST_DOUBLINGS))


def pause_after(
    failures: int, first: float, longest: float, *, growth: float = 2.0, jitter: float = 0.5
) -> float:
    """Seconds to wait after so many failures, so that what failed together does not come back together.

    :param jitter: the fraction of the wait that is left to chance
    """
    full = grown(failures, first, longest, growth)
    return full * (1 - jitter * random.random())  # noqa: S311 - spreads load, guards nothing
