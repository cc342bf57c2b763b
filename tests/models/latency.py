"""Finagle's peak EWMA, as the documentation tells it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.models.breaker import Outcome

#: The worst that is remembered, in nanoseconds.
WORST = 60e9


@dataclass
class LatencyModel:
    """The latency of one endpoint; spans and times in nanoseconds."""

    decay: int
    average: float | None = None
    at: int = 0

    def report(self, now: int, took: int, outcome: Outcome) -> None:
        """Learn from a call that has ended."""
        known = self.average
        if outcome == "failure":
            self._set(now, min(2 * max(took, known or 0), WORST))
        elif known is None:
            if outcome == "success":
                self._set(now, took)
        elif took > known:
            self._set(now, took)
        elif outcome == "success":
            old = math.exp(-(now - self.at) / self.decay)
            self._set(now, known * old + took * (1 - old))

    def cost(self, now: int, in_flight: int, weight: float) -> float:
        """What one more call would cost; infinite while the first one is on its way.

        :param weight: as a multiple of the mean
        """
        if self.average is None:
            return math.inf if in_flight else 0.0
        return self.average * math.exp(-(now - self.at) / self.decay) * (in_flight / weight + 1)

    def _set(self, now: int, average: float) -> None:
        self.average, self.at = average, now
