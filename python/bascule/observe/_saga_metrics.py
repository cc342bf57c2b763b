"""Metrics of sagas: runs, steps and what the log holds unfinished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bascule.observe._families import Distribution, Families, Family, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["SAGAS", "SagaStats", "saga_rows"]


class StepTimes(Protocol):
    """Durations of the attempts at one step of a saga."""

    buckets: list[int]
    seconds: float


class SagaStats(Protocol):
    """What ``SagaCoordinator.stats`` is. See :class:`bascule.saga.SagaStats`."""

    outcomes: dict[tuple[str, str], int]
    active: dict[str, int]
    lease_losses: dict[str, int]

    @property
    def bounds(self) -> Sequence[float]:
        """Upper bounds of the buckets in seconds, without infinity."""
        ...

    @property
    def steps(self) -> Mapping[tuple[str, str, str, str], StepTimes]:
        """Attempts by saga, step, ``action`` or ``undo``, and ``ok`` or ``failed``."""
        ...

    @property
    def unfinished(self) -> Mapping[tuple[str, str], int]:
        """Unfinished runs in the log by saga and state."""
        ...


SAGAS: Families = {
    "saga_runs": Family(
        "counter",
        ("saga", "outcome"),
        "Runs that this process ended or left: completed, undone, parked or interrupted",
    ),
    "saga_active": Family("sum", ("saga",), "Runs that this process is at"),
    "saga_unfinished": Family(
        "gauge", ("saga", "state"), "Unfinished runs in the log: running, undoing or parked"
    ),
    "saga_lease_losses": Family("counter", ("saga",), "Runs that another worker took over"),
    "saga_step_duration_seconds": Family(
        "histogram",
        ("saga", "step", "op", "outcome"),
        "Duration of attempts to do (action) or undo (undo) a step",
    ),
}


def saga_rows(stats: SagaStats) -> Iterable[Row]:
    """Give what a coordinator has counted."""
    for ended, count in stats.outcomes.items():
        yield Row("saga_runs", ended, count)
    for saga, count in stats.active.items():
        yield Row("saga_active", (saga,), count)
    for (saga, state), count in stats.unfinished.items():
        yield Row("saga_unfinished", (saga, str(state)), count)
    for saga, count in stats.lease_losses.items():
        yield Row("saga_lease_losses", (saga,), count)
    for labels, times in stats.steps.items():
        spread = Distribution(stats.bounds, times.buckets, times.seconds)
        yield Row("saga_step_duration_seconds", labels, spread)
