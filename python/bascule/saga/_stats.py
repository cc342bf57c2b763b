"""What a coordinator counts, for :class:`bascule.observe.Metrics`."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bascule.saga._records import SagaState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["SagaStats", "StepTimes"]

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(slots=True)
class StepTimes:
    """Durations of one step's attempts.

    :ivar buckets: attempts by duration, not cumulative, the last without an upper bound
    :ivar seconds: sum of all durations
    """

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count an attempt."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


class SagaStats:
    """Counters of one coordinator. Labels are names in definitions, so their number is bounded.

    :ivar bounds: upper bounds of the buckets in seconds, without infinity
    :ivar outcomes: runs that ended here by saga and outcome: ``completed``, ``undone``, ``parked``
        or ``interrupted``
    :ivar active: runs that this process is at, by saga
    :ivar steps: attempts by saga, step, ``action`` or ``undo``, and ``ok`` or ``failed``
    :ivar lease_losses: runs by saga that another worker took over from this process
    :ivar unfinished: runs in the log by saga and state, as a worker counted them last
    """

    bounds = BOUNDS

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], int] = {}
        self.active: dict[str, int] = {}
        self.steps: dict[tuple[str, str, str, str], StepTimes] = {}
        self.lease_losses: dict[str, int] = {}
        self.unfinished: dict[tuple[str, str], int] = {}

    def ended(self, saga: str, outcome: str) -> None:
        """Count a run that this process is no longer at."""
        key = (saga, outcome)
        self.outcomes[key] = self.outcomes.get(key, 0) + 1

    def entered(self, saga: str, change: int) -> None:
        """Count a run in or out."""
        self.active[saga] = self.active.get(saga, 0) + change

    def attempted(self, saga: str, step: str, op: str, seconds: float, *, ok: bool) -> None:
        """Count an attempt to do or undo a step."""
        key = (saga, step, op, "ok" if ok else "failed")
        times = self.steps.get(key)
        if times is None:
            times = self.steps[key] = StepTimes()
        times.add(seconds)

    def counted(self, sagas: Iterable[str], found: Mapping[tuple[str, SagaState], int]) -> None:
        """Note how many runs of some sagas are unfinished. What is 0 is told, too."""
        for saga in sagas:
            for state in (SagaState.RUNNING, SagaState.UNDOING, SagaState.PARKED):
                self.unfinished[saga, state.value] = found.get((saga, state), 0)

    def lost(self, saga: str) -> None:
        """Count a lease that was lost."""
        self.lease_losses[saga] = self.lease_losses.get(saga, 0) + 1
