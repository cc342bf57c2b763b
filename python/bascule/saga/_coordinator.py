"""Runs sagas: each step is written down before and after it is done."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

from bascule.saga._definition import Saga, Step, StepCall
from bascule.saga._errors import SagaError, SagaFailedError, SagaParkedError
from bascule.saga._log import SagaRecord, SagaState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bascule.saga._log import SagaLog

__all__ = ["Backoff", "SagaCoordinator"]

ContextT = TypeVar("ContextT")
_logger = logging.getLogger("bascule.saga")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often to try a compensation, and how long to wait in between.

    :param attempts: attempts in all
    :param initial: seconds before the second attempt; each further wait is twice as long
    :param maximum: seconds that no wait exceeds
    :raises ValueError: if ``attempts < 1``, or a time is negative
    """

    attempts: int = 5
    initial: float = 0.1
    maximum: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        if self.initial < 0 or self.maximum < 0:
            raise ValueError("initial and maximum must not be negative")

    def delay(self, attempt: int) -> float:
        """Seconds to wait after a failed attempt; the first has number 1."""
        return min(self.maximum, self.initial * 2.0 ** (attempt - 1))


@dataclass(slots=True)
class _Run(Generic[ContextT]):
    """A run as far as its log says. ``begun`` holds the steps to undo should it fail now."""

    saga: Saga[ContextT]
    saga_id: str
    context: ContextT
    idempotency_key: str | None = None
    sequence: int = 0
    begun: list[Step[ContextT]] = field(default_factory=list)
    failed: str | None = None
    cause: Exception | None = None
    finished: bool = False


class SagaCoordinator:
    """Runs sagas and writes down what they do.

    :param log: where runs are recorded
    :param backoff: for compensations
    :param undo_timeout: seconds that undoing a run may take, in which it cannot be cancelled; the run
        is parked after that
    """

    def __init__(
        self,
        log: SagaLog,
        *,
        backoff: Backoff = Backoff(),
        undo_timeout: float = 30.0,
    ) -> None:
        self.log = log
        self._backoff = backoff
        self._undo_timeout = undo_timeout

    async def run(
        self,
        saga: Saga[ContextT],
        context: ContextT,
        *,
        saga_id: str,
        idempotency_key: str | None = None,
    ) -> ContextT:
        """Run a saga from its start; give the context after its last step.

        Cancelling undoes what has been done before the cancellation goes on, within ``undo_timeout``.
        A step that failed or was cancelled is undone as well: nobody knows how far it came.

        :param saga_id: chosen by the caller, never used before
        :param idempotency_key: if given, unique among the runs of this saga
        :raises SagaFailedError: if a step failed; all is undone
        :raises SagaParkedError: if a step failed and undoing failed too
        :raises DuplicateSagaError: if the id or the key has been used before; nothing ran
        """
        run = _Run(saga, saga_id, context, idempotency_key)
        await self._append(run, SagaState.STARTED)
        await self._forward(run)
        return run.context

    async def resume(self, saga: Saga[ContextT], saga_id: str) -> ContextT:
        """Bring a run to its end that was interrupted or parked.

        A run that had not failed goes on with its next step. A step that was under way is of unknown
        outcome: the run is undone then.

        :raises SagaFailedError: if the run is undone, now or before
        :raises SagaParkedError: if undoing failed again
        :raises SagaError: if there is no such run, or it is another saga's
        """
        run = _replay(saga, saga_id, await self.log.load(saga_id))
        if not run.finished:
            await (self._forward if run.failed is None else self._undo)(run)
        if run.failed is not None:
            raise SagaFailedError(saga_id, run.failed, None)
        return run.context

    async def _forward(self, run: _Run[ContextT]) -> None:
        for step in run.saga.steps[len(run.begun) :]:
            await self._do(run, step)
        with anyio.CancelScope(shield=True):
            await self._append(run, SagaState.COMPLETED)

    async def _do(self, run: _Run[ContextT], step: Step[ContextT]) -> None:
        call = StepCall(saga_id=run.saga_id, step=step.name)
        run.begun.append(step)
        try:
            await self._append(run, SagaState.RUNNING, step)
            changes = await step.action(run.context, call)
            run.context = run.saga.merge(run.context, changes)
            # The step has happened: a cancellation must not keep that out of the log.
            with anyio.CancelScope(shield=True):
                await self._append(run, SagaState.DONE, step)
        except Exception as error:
            run.failed, run.cause = step.name, error
            await self._undo(run)
            raise SagaFailedError(run.saga_id, step.name, error) from error
        except anyio.get_cancelled_exc_class():
            run.failed = step.name
            await self._undo(run)
            raise

    async def _undo(self, run: _Run[ContextT]) -> None:
        """Undo every step begun, the last first, whether or not the caller is cancelled.

        :raises SagaParkedError: if a compensation keeps failing or time is over
        """
        failure: Exception | None = None

        async def undo() -> None:
            nonlocal failure
            try:
                await self._undo_in_time(run)
            except Exception as error:  # noqa: BLE001 - raised below
                failure = error

        # A shield stops cancel scopes but not asyncio's own Task.cancel(); that cannot reach what
        # runs in another task.
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(undo, name=f"undo saga {run.saga_id}")
        if failure is not None:
            raise failure

    async def _undo_in_time(self, run: _Run[ContextT]) -> None:
        failed = next((step for step in run.saga.steps if step.name == run.failed), None)
        with anyio.move_on_after(self._undo_timeout, shield=True):
            await self._append(run, SagaState.FAILED, failed)
            while run.begun:
                await self._compensate(run, run.begun[-1])
                run.begun.pop()
            await self._append(run, SagaState.UNDONE)
            return
        raise await self._park(run, run.begun[-1] if run.begun else run.saga.steps[0], None)

    async def _compensate(self, run: _Run[ContextT], step: Step[ContextT]) -> None:
        if step.compensation is None:
            return
        for attempt in range(1, self._backoff.attempts + 1):
            call = StepCall(saga_id=run.saga_id, step=step.name, attempt=attempt, cause=run.cause)
            try:
                await step.compensation(run.context, call)
            except Exception as error:
                _logger.warning(
                    "saga %s: attempt %d to undo step %s failed: %r",
                    run.saga_id, attempt, step.name, error,
                )  # fmt: skip
                if attempt == self._backoff.attempts:
                    raise await self._park(run, step, error) from error
                await anyio.sleep(self._backoff.delay(attempt))
            else:
                await self._append(run, SagaState.COMPENSATED, step)
                return

    async def _park(
        self, run: _Run[ContextT], step: Step[ContextT], cause: Exception | None
    ) -> SagaParkedError:
        error = SagaParkedError(run.saga_id, step.name, cause)
        _logger.error("%s", error)
        with anyio.CancelScope(shield=True):
            await self._append(run, SagaState.PARKED, step, cause)
        return error

    async def _append(
        self,
        run: _Run[ContextT],
        state: SagaState,
        step: Step[ContextT] | None = None,
        error: Exception | None = None,
    ) -> None:
        raised = error or (run.cause if state is SagaState.FAILED else None)
        await self.log.append(
            SagaRecord(
                saga_id=run.saga_id,
                sequence=run.sequence,
                name=run.saga.name,
                state=state,
                context=run.saga.encode(run.context),
                step=None if step is None else step.name,
                idempotency_key=run.idempotency_key if run.sequence == 0 else None,
                error=None if raised is None else repr(raised),
            )
        )
        run.sequence += 1


def _replay(saga: Saga[ContextT], saga_id: str, records: Sequence[SagaRecord]) -> _Run[ContextT]:
    """Tell from its records how far a run has come."""
    if not records or records[0].name != saga.name:
        raise SagaError(saga_id, f"no run of saga {saga.name!r} has this id")
    run = _Run(saga, saga_id, saga.decode(records[-1].context), sequence=len(records))
    steps = {step.name: step for step in saga.steps}
    running: str | None = None
    for record in records:
        match record.state:
            case SagaState.RUNNING:
                running = record.step
                run.begun.append(steps[str(record.step)])
            case SagaState.DONE:
                running = None
            case SagaState.FAILED:
                run.failed = record.step
            case SagaState.COMPENSATED:
                while run.begun.pop().name != record.step:
                    """Steps without a compensation leave no record."""
            case SagaState.COMPLETED | SagaState.UNDONE:
                run.finished = True
            case _:
                pass
    if run.failed is None:
        run.failed = running
    return run
