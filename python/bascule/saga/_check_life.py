"""One process of a run that is being checked: it fails and dies where it is told to."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import msgspec
import sqlalchemy as sa

from bascule.saga._backoff import Backoff
from bascule.saga._coordinator import SagaCoordinator
from bascule.saga._definition import Action, Compensation, Saga, Step, StepCall
from bascule.saga._errors import SagaError
from bascule.saga._sql import SqlSagaLog
from bascule.saga._tables import saga_tables
from bascule.sql import Database

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

    from bascule.saga._check import CheckOpener
    from bascule.saga._records import SagaRecord, SagaRun
    from bascule.saga._tables import SagaTables

__all__ = ["Answer", "Life", "log_tables"]

_PATIENT = Backoff(attempts=5, initial=0.001, maximum=0.01)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a process found that lived to the end of the run.

    :ivar points: at how many points it could have been killed
    """

    saga: str
    steps: tuple[str, ...]
    failures: tuple[str, ...]
    points: int
    outcome: str
    problem: str | None = None
    journal: tuple[str, ...] = ()


class _MadeToFailError(Exception):
    """The check wants this step to fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What a process is to do.

    :ivar folder: what outlives it
    :ivar database: URL of the log; None for SQLite in the folder
    :ivar failing: ``nothing``, ``STEP-before`` or ``STEP-after``
    :ivar number: 0 for the first process of the run
    :ivar kill: the point at which it dies; None to live
    """

    folder: Path
    database: str | None
    saga_id: str
    failing: str
    number: int
    kill: int | None

    def live(self, opener: CheckOpener, pipe: Connection, backend: str) -> NoReturn:
        """Do it, and end the process without a way back into the caller's code."""
        # Failures are meant, and the log of sagas tells of each.
        logging.getLogger("bascule.saga").setLevel(logging.CRITICAL)
        try:
            answer = anyio.run(self._main, opener, pipe, backend=backend)
            pipe.send_bytes(msgspec.json.encode(["end", answer]))
        except BaseException:  # noqa: BLE001 - the process ends here
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)

    async def _main(self, opener: CheckOpener, pipe: Connection) -> Answer:
        metadata, tables = log_tables()
        url = self.database or f"sqlite:///{self.folder / 'saga-check.db'}"
        points = _Points(self.kill, pipe)
        async with opener(self.folder) as check, Database(url, metadata) as database:
            # Each process wakes up when the lease of the last one is long over.
            log = _FatalLog(
                database, tables, points, clock=lambda: time.time() + 3_600 * self.number
            )
            coordinator = SagaCoordinator(log, backoff=_PATIENT)
            saga = self._made_to_fail(check.saga, points)
            problem: str | None = None
            try:
                if await log.load(self.saga_id) is None:
                    await coordinator.run(saga, check.context, saga_id=self.saga_id)
                else:
                    await coordinator.resume(saga, self.saga_id)
            except SagaError:
                pass  # How it ended, the log says.
            run = await log.load(self.saga_id)
            if run is None or run.due is not None:
                problem = "the run has not ended"
            else:
                try:
                    await check.invariant(run)
                except Exception as error:  # noqa: BLE001 - whatever the invariant raises
                    problem = _told(error)
        return Answer(
            saga=saga.name,
            steps=tuple(step.name for step in saga.steps),
            failures=tuple(
                f"{step.name}-{when}" for step in saga.steps for when in ("before", "after")
            ),
            points=points.passed,
            outcome="unknown" if run is None else run.state.value,
            problem=problem,
            journal=() if run is None else tuple(_line(record) for record in run.records),
        )

    def _made_to_fail(self, saga: Saga[Any], points: _Points) -> Saga[Any]:
        """Give the saga with steps that tell when they return, and fail as they are told."""
        stages = [[self._step(saga, step, points) for step in stage] for stage in saga.stages]
        return Saga(saga.name, saga.context_type, stages)

    def _step(self, saga: Saga[Any], step: Step[Any], points: _Points) -> Step[Any]:
        when = self.failing.removeprefix(f"{step.name}-")
        # Past the pivot a step has to succeed in the end.
        times = 1 if saga.past_pivot(step.name) else 1_000_000
        action = _action(step, points, when if when in {"before", "after"} else None, times)
        undo = _compensation(step, points, lost=self.failing.endswith("-after"))
        retry = None if step.retry is None else _PATIENT
        return Step(
            step.name,
            action,
            None if step.compensation is None else undo,
            retry=retry,
            timeout=step.timeout,
            idempotent=step.idempotent,
            pivot=step.pivot,
        )


@cache
def log_tables() -> tuple[sa.MetaData, SagaTables]:
    """Define the tables of the log, once for all processes that are forked after it."""
    metadata = sa.MetaData()
    return metadata, saga_tables(metadata)


class _Points:
    """Counts the points at which a kill could hurt, and dies at one of them."""

    def __init__(self, fatal: int | None, pipe: Connection) -> None:
        self._fatal = fatal
        self._pipe = pipe
        self.passed = 0

    def passing(self, label: str) -> None:
        if self.passed == self._fatal:
            self._pipe.send_bytes(msgspec.json.encode(["kill", label]))
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # The signal may take a moment.
        self.passed += 1


class _FatalLog(SqlSagaLog):
    def __init__(self, database: Database, tables: Any, points: _Points, **options: Any) -> None:
        super().__init__(database, tables, **options)
        self._points = points

    async def begin(self, run: SagaRun) -> None:
        self._points.passing("before the log has: started")
        await super().begin(run)
        self._points.passing("after the log has: started")

    async def write(self, run: SagaRun, added: Sequence[SagaRecord]) -> None:
        what = ", ".join(_line(record, notes=False) for record in added) or "released"
        self._points.passing(f"before the log has: {what}")
        await super().write(run, added)
        self._points.passing(f"after the log has: {what}")

    async def claim(
        self,
        owner: str,
        lease: float,
        *,
        names: Collection[str] | None = None,
        saga_id: str | None = None,
        limit: int = 1,
    ) -> Sequence[SagaRun]:
        runs = await super().claim(owner, lease, names=names, saga_id=saga_id, limit=limit)
        self._points.passing("after the log has: claimed")
        return runs


def _action(step: Step[Any], points: _Points, when: str | None, times: int) -> Action[Any]:
    async def act(context: Any, call: StepCall) -> Mapping[str, Any] | None:
        if when == "before" and call.attempt <= times:
            raise _MadeToFailError(step.name)
        changes = await step.action(context, call)
        points.passing(f"when {step.name} has replied")
        if when == "after" and call.attempt <= times:
            raise _MadeToFailError(step.name)
        return changes

    return act


def _compensation(step: Step[Any], points: _Points, *, lost: bool) -> Compensation[Any]:
    async def undo(context: Any, call: StepCall) -> None:
        if step.compensation is not None:
            await step.compensation(context, call)
        points.passing(f"when undoing {step.name} has replied")
        if lost and call.attempt == 1:
            raise _MadeToFailError(f"the answer to undoing {step.name} is lost")

    return undo


def _line(record: SagaRecord, *, notes: bool = True) -> str:
    step = f" {record.step}" if record.step else ""
    note = f" ({record.note})" if record.note and notes else ""
    return f"{record.event.value}{step}{note}"


def _told(error: Exception) -> str:
    if isinstance(error, AssertionError):
        return str(error) or "the invariant does not hold"
    return f"the invariant raised {error!r}"
