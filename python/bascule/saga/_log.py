"""Where runs are kept: what a log must do, and one in memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

import msgspec

from bascule.saga._errors import DuplicateSagaError, SagaFencedError
from bascule.saga._records import SagaEvent, SagaRecord, SagaRun, SagaState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

__all__ = ["MemorySagaLog", "SagaLog", "claimed"]


class SagaLog(Protocol):
    """Where runs are kept. A call returns when what it wrote would survive what the log promises to.

    Every call raises :class:`SagaLogError` if the log is out of reach; repeating it is safe then.
    """

    def now(self) -> float:
        """Seconds of the Unix epoch, by the clock that leases are counted with."""
        ...

    async def begin(self, run: SagaRun) -> None:
        """Add a run with its first records.

        :raises DuplicateSagaError: if the run exists, or another run of the same saga has its
            idempotency key
        """

    async def write(self, run: SagaRun, added: Sequence[SagaRecord]) -> None:
        """Store how a run stands now, with the records that led there, both or neither.

        Writing the same again changes nothing.

        :param added: the records to add; ``run.sequence`` counts them already
        :raises SagaFencedError: if another worker has claimed the run or written to it
        """

    async def renew(self, run: SagaRun, due: float) -> None:
        """Put off the end of a lease.

        :raises SagaFencedError: if another worker has claimed the run
        """

    async def claim(
        self,
        owner: str,
        lease: float,
        *,
        names: Collection[str] | None = None,
        saga_id: str | None = None,
        limit: int = 1,
    ) -> Sequence[SagaRun]:
        """Give runs that are due to a worker, with their records, the longest due first.

        :param lease: seconds until they may be claimed again
        :param names: of sagas; None for all
        :param saga_id: only this run; None for any
        """
        ...

    async def load(self, saga_id: str) -> SagaRun | None:
        """Give a run with its records; None if there is no such run."""

    async def list(
        self,
        *,
        state: SagaState | None = None,
        name: str | None = None,
        updated_before: float | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Sequence[SagaRun]:
        """Give runs without their records, the oldest first.

        :param after: the cursor of the last run of the page before
        """
        ...

    async def count(self) -> Mapping[tuple[str, SagaState], int]:
        """Count the unfinished runs by saga and state."""
        ...

    async def forget(self, finished_before: float, *, limit: int = 1_000) -> int:
        """Delete runs that finished before a time; give how many."""
        ...


def claimed(run: SagaRun, owner: str, now: float, lease: float) -> tuple[SagaRun, SagaRecord]:
    """Give a run as it stands when a worker has claimed it, and the record of that."""
    record = SagaRecord(
        sequence=run.sequence,
        event=SagaEvent.CLAIMED,
        at=now,
        by=owner,
        note=None if run.owner is None else f"its owner {run.owner} was lost",
    )
    after = msgspec.structs.replace(
        run,
        owner=owner,
        epoch=run.epoch + 1,
        due=now + lease,
        sequence=run.sequence + 1,
        updated=now,
        records=(*run.records, record),
    )
    return after, record


class MemorySagaLog:
    """A log that lives as long as the process.

    :param keep_finished: finished runs to remember; the oldest is forgotten first
    :param clock: gives seconds of the Unix epoch
    :raises ValueError: if ``keep_finished < 0``
    """

    def __init__(
        self, *, keep_finished: int = 1_000, clock: Callable[[], float] = time.time
    ) -> None:
        if keep_finished < 0:
            raise ValueError(f"keep_finished must be 0 or more, not {keep_finished}")
        self._keep_finished = keep_finished
        self._clock = clock
        self._runs: dict[str, SagaRun] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()

    def now(self) -> float:
        """Seconds of the Unix epoch."""
        return self._clock()

    async def begin(self, run: SagaRun) -> None:
        """Add a run with its first records. See :class:`SagaLog`."""
        if run.saga_id in self._runs:
            raise DuplicateSagaError(run.saga_id)
        if run.idempotency_key is not None:
            owner = self._keys.setdefault((run.name, run.idempotency_key), run.saga_id)
            if owner != run.saga_id:
                raise DuplicateSagaError(owner)
        self._runs[run.saga_id] = run

    async def write(self, run: SagaRun, added: Sequence[SagaRecord]) -> None:
        """Store how a run stands now. See :class:`SagaLog`."""
        known = self._runs.get(run.saga_id)
        if known is not None and msgspec.structs.replace(run, records=known.records) == known:
            return
        if known is None or known.epoch != run.epoch or known.sequence != run.sequence - len(added):
            raise SagaFencedError(run.saga_id)
        self._runs[run.saga_id] = msgspec.structs.replace(run, records=(*known.records, *added))
        if run.state.final:
            self._finish(run.saga_id)

    async def renew(self, run: SagaRun, due: float) -> None:
        """Put off the end of a lease. See :class:`SagaLog`."""
        known = self._runs.get(run.saga_id)
        if known is None or known.epoch != run.epoch or known.due is None:
            raise SagaFencedError(run.saga_id)
        self._runs[run.saga_id] = msgspec.structs.replace(known, due=due)

    async def claim(
        self,
        owner: str,
        lease: float,
        *,
        names: Collection[str] | None = None,
        saga_id: str | None = None,
        limit: int = 1,
    ) -> Sequence[SagaRun]:
        """Give runs that are due to a worker. See :class:`SagaLog`."""
        now = self._clock()
        due = sorted(
            (run.due, run.saga_id)
            for run in self._runs.values()
            if run.due is not None
            and run.due <= now
            and (names is None or run.name in names)
            and saga_id in {None, run.saga_id}
        )
        taken = []
        for _, name in due[:limit]:
            run, _record = claimed(self._runs[name], owner, now, lease)
            self._runs[name] = run
            taken.append(run)
        return taken

    async def load(self, saga_id: str) -> SagaRun | None:
        """Give a run with its records; None if there is no such run."""
        return self._runs.get(saga_id)

    async def list(
        self,
        *,
        state: SagaState | None = None,
        name: str | None = None,
        updated_before: float | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Sequence[SagaRun]:
        """Give runs without their records, the oldest first. See :class:`SagaLog`."""
        start = (0, "") if after is None else _position(after)
        found = [
            run
            for run in self._runs.values()
            if state in {None, run.state}
            and name in {None, run.name}
            and (updated_before is None or run.updated < updated_before)
            and _position(run.cursor) > start
        ]
        found.sort(key=lambda run: _position(run.cursor))
        return [msgspec.structs.replace(run, records=()) for run in found[:limit]]

    async def count(self) -> Mapping[tuple[str, SagaState], int]:
        """Count the unfinished runs by saga and state."""
        counts: dict[tuple[str, SagaState], int] = {}
        for run in self._runs.values():
            if not run.state.final:
                key = (run.name, run.state)
                counts[key] = counts.get(key, 0) + 1
        return counts

    async def forget(self, finished_before: float, *, limit: int = 1_000) -> int:
        """Delete runs that finished before a time; give how many."""
        old = [key for key in self._finished if self._runs[key].updated < finished_before][:limit]
        for saga_id in old:
            self._remove(saga_id)
        return len(old)

    def _finish(self, saga_id: str) -> None:
        self._finished[saga_id] = None
        while len(self._finished) > self._keep_finished:
            self._remove(next(iter(self._finished)))

    def _remove(self, saga_id: str) -> None:
        del self._finished[saga_id]
        run = self._runs.pop(saga_id)
        if run.idempotency_key is not None:
            del self._keys[run.name, run.idempotency_key]


def _position(cursor: str) -> tuple[int, str]:
    created, _, saga_id = cursor.partition("/")
    return int(created), saga_id
