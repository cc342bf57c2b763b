"""The durable log: runs and journals in SQL, one transaction for each transition."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import sqlalchemy as sa

from bascule.errors import CommitUnknownError, DatabaseUnavailableError
from bascule.saga._errors import DuplicateSagaError, SagaFencedError, SagaLogError
from bascule.saga._log import claimed
from bascule.saga._records import NOTE_LENGTH, SagaEvent, SagaRecord, SagaRun, SagaState
from bascule.saga._tables import saga_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from bascule.saga._tables import SagaTables
    from bascule.sql import Database

__all__ = ["SqlSagaLog"]

ResultT = TypeVar("ResultT")

# What a write may change of a run.
_CHANGED = (
    "state", "context", "owner", "epoch", "due", "sequence", "step", "error", "updated",
)  # fmt: skip


class SqlSagaLog:
    """A log in SQLite, MySQL 8, MariaDB 10.6, PostgreSQL or later ones.

    Every write is one transaction: a saga of n steps takes n + 1. What was written survives the end of
    the process; whether it survives a power cut is the database's setting.

    Leases are counted by the clock of the machine: keep the clocks of workers within a small part
    of a lease. If they differ more, runs are taken over early, which fencing makes safe.

    :param database: whose tables hold the runs
    :param tables: made by :func:`saga_tables`; None for those of its default names
    :param clock: gives seconds of the Unix epoch
    """

    def __init__(
        self,
        database: Database,
        tables: SagaTables | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._clock = clock
        self._tables = tables or saga_tables(sa.MetaData())
        runs, records = self._tables.runs, self._tables.records
        self._insert_run = sa.insert(runs)
        self._insert_record = sa.insert(records)
        ours = (runs.c.saga_id == sa.bindparam("of")) & (
            runs.c.epoch == sa.bindparam("expected_epoch")
        )
        unchanged = ours & (runs.c.sequence == sa.bindparam("expected_sequence"))
        # What is set is what the parameters name.
        self._update = sa.update(runs).where(unchanged)
        # A run that is over or parked has no lease: with one it would be claimed again.
        self._renew = sa.update(runs).where(ours & runs.c.due.is_not(None))
        self._select_run = sa.select(runs).where(runs.c.saga_id == sa.bindparam("of"))
        self._select_records = (
            sa.select(records)
            .where(records.c.saga_id == sa.bindparam("of"))
            .order_by(records.c.sequence)
        )

    def now(self) -> float:
        """Seconds of the Unix epoch."""
        return self._clock()

    async def begin(self, run: SagaRun) -> None:
        """Add a run with its first records. See :class:`SagaLog`."""
        row = _run_row(run)
        lines = [_record_row(run.saga_id, record) for record in run.records]

        def work(connection: sa.Connection) -> None:
            connection.execute(self._insert_run, row)
            connection.execute(self._insert_record, lines)

        try:
            await self._write(work)
        except sa.exc.IntegrityError:
            known = await self._read(lambda connection: self._known(connection, run))
            if known is None:
                # Whoever had the key was forgotten between the two transactions.
                raise SagaLogError(f"saga {run.saga_id!r} could not be added: try again") from None
            # The commit of the same begin may have come through though its answer did not.
            if known.saga_id != run.saga_id or _mark(known) != _mark(run):
                raise DuplicateSagaError(known.saga_id) from None

    async def write(self, run: SagaRun, added: Sequence[SagaRecord]) -> None:
        """Store how a run stands now. See :class:`SagaLog`."""
        values = _changes(run, run.epoch, run.sequence - len(added))
        lines = [_record_row(run.saga_id, record) for record in added]

        def work(connection: sa.Connection) -> bool:
            if connection.execute(self._update, values).rowcount != 1:
                row = connection.execute(self._select_run, {"of": run.saga_id}).first()
                # The commit of the same transition may have come through though its answer did not.
                return row is not None and _mark(_to_run(row, ())) == _mark(run)
            if lines:
                connection.execute(self._insert_record, lines)
            return True

        if not await self._write(work):
            raise SagaFencedError(run.saga_id)

    async def renew(self, run: SagaRun, due: float) -> None:
        """Put off the end of a lease. See :class:`SagaLog`."""
        values = {"of": run.saga_id, "expected_epoch": run.epoch, "due": _micros(due)}

        def work(connection: sa.Connection) -> bool:
            return bool(connection.execute(self._renew, values).rowcount == 1)

        if not await self._write(work):
            raise SagaFencedError(run.saga_id)

    async def claim(
        self,
        owner: str,
        lease: float,
        *,
        names: Collection[str] | None = None,
        saga_id: str | None = None,
        limit: int = 1,
    ) -> Sequence[SagaRun]:
        """Give runs that are due to a worker. See :class:`SagaLog`.

        Workers that claim at the same time skip the rows of each other where the database can; every
        claim is a conditional update, so each run goes to one of them in any case.
        """
        now = self._clock()
        columns = self._tables.runs.c
        query = (
            sa.select(self._tables.runs)
            .where(columns.due <= _micros(now))
            .order_by(columns.due)
            .limit(limit)
        )
        if names is not None:
            query = query.where(columns.name.in_(sorted(names)))
        if saga_id is not None:
            query = query.where(columns.saga_id == saga_id)
        # Nothing is due most of the time: find that out without the lock of a writer.
        if not await self._read(lambda connection: connection.execute(query).first()):
            return []
        locked = query.with_for_update(skip_locked=True)

        def work(connection: sa.Connection) -> list[SagaRun]:
            taken = (
                self._claim(connection, row, owner, now, lease)
                for row in connection.execute(locked).all()
            )
            return [run for run in taken if run is not None]

        return await self._write(work)

    def _claim(
        self, connection: sa.Connection, row: sa.Row[Any], owner: str, now: float, lease: float
    ) -> SagaRun | None:
        run = _to_run(row, self._journal(connection, row.saga_id))
        after, record = claimed(run, owner, now, lease)
        values = _changes(after, run.epoch, run.sequence)
        if connection.execute(self._update, values).rowcount != 1:
            return None
        connection.execute(self._insert_record, [_record_row(run.saga_id, record)])
        return after

    async def load(self, saga_id: str) -> SagaRun | None:
        """Give a run with its records; None if there is no such run."""

        def work(connection: sa.Connection) -> SagaRun | None:
            row = connection.execute(self._select_run, {"of": saga_id}).first()
            return None if row is None else _to_run(row, self._journal(connection, saga_id))

        return await self._read(work)

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
        columns = self._tables.runs.c
        query = sa.select(self._tables.runs).order_by(columns.created, columns.saga_id).limit(limit)
        if state is not None:
            query = query.where(columns.state == state.value)
        if name is not None:
            query = query.where(columns.name == name)
        if updated_before is not None:
            query = query.where(columns.updated < _micros(updated_before))
        if after is not None:
            created, _, saga_id = after.partition("/")
            same = (columns.created == int(created)) & (columns.saga_id > saga_id)
            query = query.where((columns.created > int(created)) | same)
        rows = await self._read(lambda connection: connection.execute(query).all())
        return [_to_run(row, ()) for row in rows]

    async def count(self) -> Mapping[tuple[str, SagaState], int]:
        """Count the unfinished runs by saga and state."""
        columns = self._tables.runs.c
        unfinished = [state.value for state in SagaState if not state.final]
        query = (
            sa.select(columns.name, columns.state, sa.func.count())
            .where(columns.state.in_(unfinished))
            .group_by(columns.name, columns.state)
        )
        rows = await self._read(lambda connection: connection.execute(query).all())
        return {(name, SagaState(state)): count for name, state, count in rows}

    async def forget(self, finished_before: float, *, limit: int = 1_000) -> int:
        """Delete runs that finished before a time; give how many."""
        runs, records = self._tables.runs, self._tables.records
        final = [state.value for state in SagaState if state.final]
        old = (
            sa.select(runs.c.saga_id)
            .where(runs.c.state.in_(final), runs.c.updated < _micros(finished_before))
            .limit(limit)
        )

        def work(connection: sa.Connection) -> int:
            ids = list(connection.execute(old).scalars())
            if ids:
                connection.execute(sa.delete(records).where(records.c.saga_id.in_(ids)))
                connection.execute(sa.delete(runs).where(runs.c.saga_id.in_(ids)))
            return len(ids)

        return await self._write(work)

    def _known(self, connection: sa.Connection, run: SagaRun) -> SagaRun | None:
        """Give the run that stands in the way of a new one."""
        columns = self._tables.runs.c
        condition = columns.saga_id == run.saga_id
        if run.idempotency_key is not None:
            condition |= (columns.name == run.name) & (
                columns.idempotency_key == run.idempotency_key
            )
        query = sa.select(self._tables.runs).where(condition)
        # If the id and the key are of different runs, the key's tells more.
        rows = sorted(connection.execute(query).all(), key=lambda row: row.saga_id == run.saga_id)
        return _to_run(rows[0], ()) if rows else None

    def _journal(self, connection: sa.Connection, saga_id: str) -> tuple[SagaRecord, ...]:
        rows = connection.execute(self._select_records, {"of": saga_id}).all()
        return tuple(_to_record(row) for row in rows)

    async def _read(self, work: Callable[[sa.Connection], ResultT]) -> ResultT:
        try:
            return await self._database.read(work)
        except DatabaseUnavailableError as error:
            raise SagaLogError(f"the saga log cannot be read: {error}") from error

    async def _write(self, work: Callable[[sa.Connection], ResultT]) -> ResultT:
        try:
            return await self._database.write(work)
        except (DatabaseUnavailableError, CommitUnknownError) as error:
            # Whether it was kept does not matter: the same write again tells.
            raise SagaLogError(f"the saga log cannot be written: {error}") from error


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)


def _run_row(run: SagaRun) -> dict[str, Any]:
    row = msgspec.structs.asdict(run)
    del row["records"]
    row["state"] = run.state.value
    row["due"] = None if run.due is None else _micros(run.due)
    row["created"] = _micros(run.created)
    row["updated"] = _micros(run.updated)
    row["error"] = None if run.error is None else run.error[:NOTE_LENGTH]
    return row


def _mark(run: SagaRun) -> tuple[object, ...]:
    """Give what tells one write of a run from all others."""
    return (run.epoch, run.sequence, run.state, run.owner, _micros(run.updated))


def _changes(run: SagaRun, epoch: int, sequence: int) -> dict[str, Any]:
    row = _run_row(run)
    changes = {name: row[name] for name in _CHANGED}
    changes |= {"of": run.saga_id, "expected_epoch": epoch, "expected_sequence": sequence}
    return changes


def _to_run(row: sa.Row[Any], records: tuple[SagaRecord, ...]) -> SagaRun:
    values = dict(row._mapping)
    values["state"] = SagaState(row.state)
    values["due"] = None if row.due is None else row.due / 1e6
    values["created"] = row.created / 1e6
    values["updated"] = row.updated / 1e6
    return SagaRun(**values, records=records)


def _record_row(saga_id: str, record: SagaRecord) -> dict[str, Any]:
    return {
        "saga_id": saga_id,
        "sequence": record.sequence,
        "event": record.event.value,
        "at": _micros(record.at),
        "done_by": record.by,
        "step": record.step,
        "note": None if record.note is None else record.note[:NOTE_LENGTH],
    }


def _to_record(row: sa.Row[Any]) -> SagaRecord:
    return SagaRecord(
        sequence=row.sequence,
        event=SagaEvent(row.event),
        at=row.at / 1e6,
        by=row.done_by,
        step=row.step,
        note=row.note,
    )
