"""Runs sagas: each step is written down before and after it is done."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from bascule.errors import ConfigurationError
from bascule.observe import span
from bascule.saga._backoff import FIVE_TIMES
from bascule.saga._errors import (
    DuplicateSagaError,
    SagaError,
    SagaFailedError,
    SagaFencedError,
    SagaInterruptedError,
    SagaLogError,
    SagaParkedError,
)
from bascule.saga._execution import Execution
from bascule.saga._lease import leased
from bascule.saga._operator import SagaOperator
from bascule.saga._records import (
    Progress,
    SagaEvent,
    SagaRecord,
    SagaRun,
    SagaState,
    check_id,
)
from bascule.saga._stats import SagaStats
from bascule.saga._trace import begun_in, trace_note

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bascule.saga._backoff import Backoff
    from bascule.saga._definition import Saga
    from bascule.saga._log import SagaLog

__all__ = ["SagaCoordinator"]

ContextT = TypeVar("ContextT")
_logger = logging.getLogger("bascule.saga")


class SagaCoordinator:
    """Runs sagas and writes down what they do.

    :param log: where runs are recorded
    :param backoff: for compensations, and for steps past the pivot that have no policy of their own
    :param undo_timeout: seconds that undoing a run may take once its caller cannot wait any more or a
        step has failed, in which it cannot be cancelled; a worker goes on with it after that
    :param lease: seconds for which a run is this process's own after each write. A task renews it;
        when the process is gone or stopped for longer, another one may take the run over
    :param owner: name of this process in the log; None for host, process id and a random part
    :ivar stats: what it counts
    :raises ConfigurationError: if ``lease`` is not more than 0
    """

    def __init__(
        self,
        log: SagaLog,
        *,
        backoff: Backoff = FIVE_TIMES,
        undo_timeout: float = 30.0,
        lease: float = 30.0,
        owner: str | None = None,
    ) -> None:
        if lease <= 0:
            raise ConfigurationError(f"lease must be more than 0 seconds, not {lease}")
        self.log = log
        self.stats = SagaStats()
        self.lease = lease
        self.owner = owner or f"{socket.gethostname()[:64]}/{os.getpid()}/{secrets.token_hex(4)}"
        self._backoff = backoff
        self._undo_timeout = undo_timeout
        self._ends: dict[str, anyio.Event] = {}

    async def run(
        self,
        saga: Saga[ContextT],
        context: ContextT,
        *,
        saga_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> ContextT:
        """Run a saga from its start; give the context after its last step.

        A key that has been used before starts nothing: the earlier run's result is given, or its end is
        waited for; what ``context`` says then does not matter.

        Cancelling undoes what has been done before the cancellation goes on, within ``undo_timeout``;
        once the pivot is done it goes on to the end instead. A step that failed or was cancelled is
        undone as well: nobody knows how far it came.

        :param saga_id: chosen by the caller, never used before; None for a random one
        :param idempotency_key: if given, unique among the runs of this saga
        :raises SagaFailedError: if a step failed; all is undone
        :raises SagaParkedError: if a step failed and undoing failed too, or a step past the pivot failed
        :raises SagaInterruptedError: if the run was lost to another worker, the log was out of reach for
            the length of a lease, or undoing took too long: a worker goes on with it
        :raises DuplicateSagaError: if the id has been used before; nothing ran
        :raises SagaLogError: if the log cannot be reached; nothing ran here. If its connection broke during
            the first COMMIT, the log may have the run all the same, and a worker goes on with it: repeat
            it with the same id or key, never with a new one
        :raises ValueError: if the id or the key is not 1 to 128 printable ASCII characters
        """
        with span(f"saga {saga.name}", {"saga.name": saga.name}) as around:
            run = self._new(saga, context, saga_id, idempotency_key)
            around.set({"saga.id": run.saga_id})
            execution = self._execution(saga, run)
            try:
                await self._drive(execution, lambda: self._run_or_undo(execution))
            except DuplicateSagaError as error:
                if idempotency_key is None:
                    raise
                known = await self.log.load(error.saga_id)
                wanted = (saga.name, idempotency_key)
                if known is None or (known.name, known.idempotency_key) != wanted:
                    raise
                return await self.result(saga, known.saga_id)
            return execution.context

    async def result(self, saga: Saga[ContextT], saga_id: str) -> ContextT:
        """Wait for the end of a run, wherever it is driven; drive it here if it is due and nobody does.

        Cancelling stops the waiting; a run that is driven here is left to a worker then.

        :raises SagaFailedError: if the run is undone, now or before
        :raises SagaParkedError: if it is parked
        :raises SagaInterruptedError: if it was driven here, and could not be to its end
        :raises SagaError: if there is no such run, or it is another saga's
        """
        pause = 0.02
        while True:
            run = await self._load(saga, saga_id)
            if run.due is None:
                return _outcome(saga, run)
            if run.due <= self.log.now():
                for claimed in await self.log.claim(self.owner, self.lease, saga_id=saga_id):
                    return await self.end(saga, claimed)
            with anyio.move_on_after(pause):
                await self._ends.get(saga_id, anyio.Event()).wait()
            pause = min(pause * 1.5, 0.5)

    async def resume(self, saga: Saga[ContextT], saga_id: str) -> ContextT:
        """Bring a run to its end that was interrupted or parked.

        A run that had not failed goes on with its next step. If a step was under way, it is repeated if
        it is idempotent or past the pivot; otherwise its outcome is unknown, and the run is undone.
        A run that another process is at is waited for.

        :raises SagaFailedError: if the run is undone, now or before
        :raises SagaParkedError: if it had to be parked again
        :raises SagaInterruptedError: if the run could not be driven to its end here
        :raises SagaError: if there is no such run, or it is another saga's
        """
        run = await self._load(saga, saga_id)
        if run.state is SagaState.PARKED:
            await SagaOperator(self.log).retry(saga_id, by=self.owner)
        return await self.result(saga, saga_id)

    async def end(
        self, saga: Saga[ContextT], run: SagaRun, *, patience: float = float("inf")
    ) -> ContextT:
        """Bring a run to its end that this process has claimed. Cancelling leaves it to the next one.

        :param patience: seconds that a wait for the next attempt may take here
        :raises SagaFailedError: if the run is undone
        :raises SagaParkedError: if it had to be parked
        :raises SagaInterruptedError: if it could not be driven to its end here
        """
        execution = self._execution(saga, run, patience)
        about = {"saga.name": saga.name, "saga.id": run.saga_id}
        # A trace of its own, or that of who waits: the one in which the run began may be days old.
        with span(f"resume saga {saga.name}", about, links=begun_in(run)):
            await self._drive(execution, lambda: self._end_or_release(execution))
        return execution.context

    def _new(
        self, saga: Saga[ContextT], context: ContextT, saga_id: str | None, key: str | None
    ) -> SagaRun:
        if not saga.steps:
            raise ConfigurationError(f"saga {saga.name!r} has no steps")
        now = self.log.now()
        first = [(SagaEvent.STARTED, None, trace_note())]
        begun = [(SagaEvent.BEGUN, step.name, None) for step in saga.stages[0]]
        records = tuple(
            SagaRecord(sequence=number, event=event, at=now, by=self.owner, step=step, note=note)
            for number, (event, step, note) in enumerate([*first, *begun])
        )
        return SagaRun(
            saga_id=secrets.token_hex(16) if saga_id is None else check_id("saga_id", saga_id),
            name=saga.name,
            state=SagaState.RUNNING,
            context=saga.encode(context),
            idempotency_key=None if key is None else check_id("idempotency_key", key),
            owner=self.owner,
            due=now + self.lease,
            sequence=len(records),
            created=now,
            updated=now,
            records=records,
        )

    async def _begin(self, run: SagaRun) -> None:
        """Add a run to the log; try again for a while if the log is out of reach."""
        with anyio.CancelScope(shield=True):
            for pause in (0.05, 0.2, 0.5):
                try:
                    return await self.log.begin(run)
                except SagaLogError:
                    await anyio.sleep(pause)
            return await self.log.begin(run)

    def _execution(
        self, saga: Saga[ContextT], run: SagaRun, patience: float = float("inf")
    ) -> Execution[ContextT]:
        return Execution(
            self.log,
            saga,
            run,
            owner=self.owner,
            lease=self.lease,
            backoff=self._backoff,
            stats=self.stats,
            patience=patience,
        )

    async def _load(self, saga: Saga[Any], saga_id: str) -> SagaRun:
        run = await self.log.load(saga_id)
        if run is None or run.name != saga.name:
            raise SagaError(saga_id, f"no run of saga {saga.name!r} has this id")
        return run

    async def _drive(self, execution: Execution[Any], work: Callable[[], Awaitable[None]]) -> None:
        name, saga_id = execution.saga.name, execution.run.saga_id
        ended = self._ends[saga_id] = anyio.Event()
        outcome = "interrupted"
        self.stats.entered(name, 1)
        try:
            await leased(execution, work)
            outcome = "completed"
        except SagaFailedError:
            outcome = "undone"
            raise
        except SagaParkedError:
            outcome = "parked"
            raise
        except SagaFencedError:
            self.stats.lost(name)
            raise
        finally:
            self.stats.entered(name, -1)
            self.stats.ended(name, outcome)
            ended.set()
            if self._ends.get(saga_id) is ended:
                del self._ends[saga_id]

    async def _run_or_undo(self, execution: Execution[Any]) -> None:
        """Start a run and drive it, for its caller."""
        run = execution.run
        await self._begin(run)
        fields = {"saga": run.name, "saga_id": run.saga_id, "event_of": "started", "step": None}
        _logger.info("saga %s %s: started", run.name, run.saga_id, extra=fields)
        try:
            await execution.forward()
        except SagaFailedError:
            await self._settle(execution)
            raise
        except anyio.get_cancelled_exc_class():
            if not execution.lost:
                try:
                    await self._settle(execution)
                except (SagaError, SagaLogError) as error:
                    # The journal has it, and a worker or a person goes on: the caller is gone.
                    _logger.warning("after its caller was cancelled: %s", error)
            raise

    async def _end_or_release(self, execution: Execution[Any]) -> None:
        """Drive a run that nobody here has started."""
        try:
            await execution.check()
            if not execution.undoing:
                try:
                    return await execution.forward()
                except SagaFailedError as error:
                    await execution.undo()
                    raise error from error.cause
            await execution.undo()
        except anyio.get_cancelled_exc_class():
            if not execution.lost:
                with anyio.CancelScope(shield=True):
                    await execution.release()
            raise
        raise execution.failure()

    async def _settle(self, execution: Execution[Any]) -> None:
        """Undo a run, or end it if its pivot is done, whether or not the caller is cancelled.

        :raises SagaParkedError: if that cannot be done
        :raises SagaInterruptedError: if it is not done in time
        """
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(self._undo_timeout) as scope:
                # No outer scope reaches in here, but who keeps the lease must.
                execution.scopes.append(scope)
                if execution.committed:
                    return await execution.forward()
                if not execution.undoing:
                    await execution.fail(None, None, "its caller was cancelled")
                return await execution.undo()
            if execution.lost:
                raise SagaFencedError(execution.run.saga_id)
            await execution.release()
        raise SagaInterruptedError(execution.run.saga_id, "undoing it took too long")


def _outcome(saga: Saga[ContextT], run: SagaRun) -> ContextT:
    """Give the result of a run that is at its end, or parked."""
    progress = Progress.of(run.records)
    match run.state:
        case SagaState.COMPLETED:
            return saga.decode(run.context)
        case SagaState.PARKED:
            raise SagaParkedError(run.saga_id, str(run.step), None, run.error)
        case _:
            raise SagaFailedError(run.saga_id, str(progress.failed), None, progress.reason)
