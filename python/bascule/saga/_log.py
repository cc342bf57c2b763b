"""The log of what a saga has done: a run is what its records say."""

from __future__ import annotations

from collections import OrderedDict
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

from bascule.saga._errors import DuplicateSagaError, SagaError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MemorySagaLog", "SagaLog", "SagaRecord", "SagaState"]


class SagaState(StrEnum):
    """What a record says has happened, to its step if it names one, else to the saga."""

    STARTED = "started"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    COMPENSATED = "compensated"
    PARKED = "parked"
    COMPLETED = "completed"
    UNDONE = "undone"

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        return self in {SagaState.COMPLETED, SagaState.UNDONE}


class SagaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log.

    :ivar saga_id: the run
    :ivar sequence: 0, 1, 2, ... within the run: two writers of one number cannot both succeed
    :ivar name: the saga's name
    :ivar state: what happened
    :ivar step: the step it happened to; None if to the saga
    :ivar context: the context after it, as JSON
    :ivar idempotency_key: the run's key, on its first record only
    :ivar error: what was raised, for people to read
    """

    saga_id: str
    sequence: int
    name: str
    state: SagaState
    context: bytes
    step: str | None = None
    idempotency_key: str | None = None
    error: str | None = None


class SagaLog(Protocol):
    """Where records are kept. A call returns when its record would survive what the log promises to."""

    async def append(self, record: SagaRecord) -> None:
        """Add a record to the end of its run.

        :raises DuplicateSagaError: if it is the first of its run, and the run exists, or another run of
            the same saga has its idempotency key
        :raises SagaError: if another writer has added a record of this number to the run
        """

    async def load(self, saga_id: str) -> Sequence[SagaRecord]:
        """Give the records of a run, oldest first; empty if there is no such run."""

    async def list_parked(self, *, limit: int = 100) -> Sequence[SagaRecord]:
        """Give the last record of each run that waits for a person, oldest run first."""


class MemorySagaLog:
    """A log that lives as long as the process.

    :param keep_finished: finished runs to remember; the oldest is forgotten first
    :raises ValueError: if ``keep_finished < 0``
    """

    def __init__(self, *, keep_finished: int = 1_000) -> None:
        if keep_finished < 0:
            raise ValueError(f"keep_finished must be 0 or more, not {keep_finished}")
        self._keep_finished = keep_finished
        self._runs: dict[str, list[SagaRecord]] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()

    async def append(self, record: SagaRecord) -> None:
        """Add a record to the end of its run. See :class:`SagaLog`."""
        run = self._runs.get(record.saga_id, [])
        if record.sequence == 0:
            self._claim(record, known=bool(run))
        elif record.sequence != len(run):
            raise SagaError(record.saga_id, f"record {record.sequence} written by another worker")
        self._runs.setdefault(record.saga_id, run).append(record)
        if record.step is None and record.state.final:
            self._finish(record.saga_id)

    async def load(self, saga_id: str) -> Sequence[SagaRecord]:
        """Give the records of a run, oldest first."""
        return tuple(self._runs.get(saga_id, ()))

    async def list_parked(self, *, limit: int = 100) -> Sequence[SagaRecord]:
        """Give the last record of each run that waits for a person."""
        parked = (run[-1] for run in self._runs.values() if run[-1].state is SagaState.PARKED)
        return tuple(record for record, _ in zip(parked, range(limit), strict=False))

    def _claim(self, record: SagaRecord, *, known: bool) -> None:
        if known:
            raise DuplicateSagaError(record.saga_id)
        if record.idempotency_key is not None:
            owner = self._keys.setdefault((record.name, record.idempotency_key), record.saga_id)
            if owner != record.saga_id:
                raise DuplicateSagaError(owner)

    def _finish(self, saga_id: str) -> None:
        self._finished[saga_id] = None
        while len(self._finished) > self._keep_finished:
            oldest, _ = self._finished.popitem(last=False)
            first = self._runs.pop(oldest)[0]
            if first.idempotency_key is not None:
                del self._keys[first.name, first.idempotency_key]
