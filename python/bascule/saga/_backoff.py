"""How often to try, and how long to wait in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bascule._backoff import pause_after

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FIVE_TIMES", "ONCE", "Backoff"]


def _every(_error: Exception) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often to try an action or a compensation, and how long to wait in between.

    :param attempts: attempts in all
    :param initial: seconds before the second attempt; each further wait is twice as long
    :param maximum: seconds that no wait exceeds
    :param jitter: the fraction of a wait that is left to chance, so that what failed together does not
        come again together
    :param retryable: tells whether another attempt could help after this error
    :raises ValueError: if ``attempts < 1``, a time is negative, or ``jitter`` is not in 0 to 1
    """

    attempts: int = 5
    initial: float = 0.1
    maximum: float = 5.0
    jitter: float = 0.5
    retryable: Callable[[Exception], bool] = _every

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        if self.initial < 0 or self.maximum < 0:
            raise ValueError("initial and maximum must not be negative")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be a fraction from 0 to 1, not {self.jitter}")

    def delay(self, attempt: int) -> float:
        """Seconds to wait after a failed attempt; the first has number 1."""
        return pause_after(attempt, self.initial, self.maximum, jitter=self.jitter)

    def goes_on(self, attempt: int, error: Exception) -> bool:
        """Tell whether another attempt follows the one of this number, which failed."""
        return attempt < self.attempts and self.retryable(error)


ONCE = Backoff(attempts=1)
"""No second attempt."""

FIVE_TIMES = Backoff()
"""The default where giving up needs a person."""
