"""One run as one process drives it: forward, or back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeAlias, TypeVar

import anyio
import msgspec

from bascule.observe import escape, span
from bascule.saga._backoff import ONCE
from bascule.saga._call import calling
from bascule.saga._definition import Saga, Step, StepCall
from bascule.saga._errors import (
    SagaFailedError,
    SagaFencedError,
    SagaInterruptedError,
    SagaLogError,
    SagaParkedError,
)
from bascule.saga._records import Progress, SagaEvent, SagaRecord, SagaRun, SagaState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bascule.observe import AttributeValue
    from bascule.saga._backoff import Backoff
    from bascule.saga._log import SagaLog
    from bascule.saga._stats import SagaStats

__all__ = ["MAX_CRASHES", "Execution"]

ContextT = TypeVar("ContextT")
_Note: TypeAlias = tuple[SagaEvent, float, str | None, str | None]
_logger = logging.getLogger("bascule.saga")

MAX_CRASHES = 10
"""Owners that may be lost one after the other before a run counts as what kills them, and is parked."""


class Execution(Generic[ContextT]):
    """A run that this process has claimed.

    :param run: as the log has it, with its records
    :param patience: seconds that waiting for the next attempt may take here; a longer wait is left to
        whoever claims the run then
    :ivar run: as the log has it
    :ivar scopes: what to cancel when the lease is lost
    :ivar renewed: since when the lease lasts, in the clock of anyio
    """

    def __init__(
        self,
        log: SagaLog,
        saga: Saga[ContextT],
        run: SagaRun,
        *,
        owner: str,
        lease: float,
        backoff: Backoff,
        stats: SagaStats,
        patience: float = float("inf"),
    ) -> None:
        self.saga = saga
        self.run = run
        self.lease = lease
        self.scopes: list[anyio.CancelScope] = []
        # What the claim took is gone from the lease.
        left = (run.due or 0.0) - log.now()
        self.renewed = anyio.current_time() - min(lease, max(0.0, lease - left))
        self.lost = False
        self._log = log
        self._owner = owner
        self._backoff = backoff
        self._stats = stats
        self._patience = patience
        self._steps = {step.name: step for step in saga.steps}
        self._progress = Progress.of(run.records)
        self._unreadable: str | None = None
        try:
            self._context = saga.decode(run.context)
        except msgspec.MsgspecError as error:
            self._unreadable = f"its context does not fit the saga any more: {error}"
        self._cause: Exception | None = None
        self._pending: list[_Note] = []
        self._lock = anyio.Lock()
        self._unwritten = False

    @property
    def context(self) -> ContextT:
        """The context after the last step that is done."""
        return self._context

    @property
    def undoing(self) -> bool:
        """Whether the run has failed."""
        return self._progress.failed is not None

    @property
    def committed(self) -> bool:
        """Whether its pivot is done: it cannot be undone any more."""
        return any(self._steps[name].pivot for name in self._progress.done)

    async def check(self) -> None:
        """Look at a run that another process has left.

        :raises SagaParkedError: if it seems to kill its owners, or to be of another version of the saga
        """
        progress = self._progress
        at = progress.begun[-1] if progress.begun else self.saga.steps[0].name
        if self._unreadable is not None:
            await self._park(at, None, self._unreadable)
        if unknown := [name for name in progress.begun if name not in self._steps]:
            await self._park(unknown[0], None, f"the saga has no step {unknown[0]!r} any more")
        if progress.crashes > MAX_CRASHES:
            await self._park(at, None, f"{progress.crashes} workers were lost at it")
        under_way = [name for name in progress.begun if name not in progress.done]
        doubtful = [name for name in under_way if not self._may_repeat(name)]
        if not self.undoing and doubtful:
            await self.fail(doubtful[0], None, "it was interrupted: its outcome is not known")

    async def forward(self) -> None:
        """Do what is left to do.

        :raises SagaFailedError: if a step failed: undo the run
        :raises SagaParkedError: if a step past the pivot cannot be done
        """
        for stage in self.saga.stages:
            todo = [step for step in stage if step.name not in self._progress.done]
            if todo:
                await self._do(todo)
        await self._write(SagaEvent.COMPLETED, state=SagaState.COMPLETED)

    async def fail(self, step: str | None, cause: Exception | None, reason: str) -> None:
        """Write down that the run is to be undone."""
        at = step or (self._progress.begun[-1] if self._progress.begun else self.saga.steps[0].name)
        self._progress.failed, self._progress.reason = at, reason
        self._progress.attempts.clear()
        self._cause = cause
        await self._write(
            SagaEvent.FAILED, self._steps[at], reason, state=SagaState.UNDOING, at=at, error=reason
        )

    async def undo(self) -> None:
        """Undo every step begun, the last first.

        :raises SagaParkedError: if a compensation cannot be done
        """
        begun = self._progress.begun
        while begun:
            step = self._steps[begun[-1]]
            if step.compensation is not None:
                await self._compensate(step)
                self._note(SagaEvent.COMPENSATED, step)
            begun.pop()
            if self._pending and any(self._steps[name].compensation for name in begun):
                await self._flush()
        await self._write(SagaEvent.UNDONE, state=SagaState.UNDONE)

    async def release(self) -> None:
        """Leave the run to whoever claims it next, at once."""
        await self._flush(owner=None, due=self._log.now())

    def failure(self) -> SagaFailedError:
        """Give the error of a run that has failed."""
        progress = self._progress
        return SagaFailedError(self.run.saga_id, str(progress.failed), self._cause, progress.reason)

    # Forward

    async def _do(self, todo: Sequence[Step[ContextT]]) -> None:
        # A cancellation that came during the last step stops the run here, before the next one.
        await anyio.lowlevel.checkpoint_if_cancelled()
        fresh = [step for step in todo if step.name not in self._progress.begun]
        for step in fresh:
            self._progress.begun.append(step.name)
            self._note(SagaEvent.BEGUN, step)
        if self._pending:
            await self._flush()
        if len(todo) == 1:
            failed = await self._act(todo[0], self._context)
        else:
            failed = await self._act_together(todo)
        if failed is None:
            return
        step, error = failed
        if self.committed:
            await self._park(step.name, error, repr(error))
        await self.fail(step.name, error, repr(error))
        raise self.failure() from error

    async def _act_together(
        self, todo: Sequence[Step[ContextT]]
    ) -> tuple[Step[ContextT], Exception] | None:
        context = self._context
        changed: dict[str, str] = {}
        left = len(todo)
        failures: list[tuple[Step[ContextT], Exception]] = []
        interrupted: list[SagaInterruptedError] = []

        async def act(step: Step[ContextT]) -> None:
            nonlocal left
            try:
                failed = await self._act(step, context, changed)
                left -= 1
                if failed is None and left:
                    # The last one's record goes with the next transition.
                    await self._flush()
            except SagaInterruptedError as error:
                interrupted.append(error)
                tasks.cancel_scope.cancel()
                return
            if failed is not None:
                failures.append(failed)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for step in todo:
                tasks.start_soon(act, step, name=f"saga {self.run.saga_id} step {step.name}")
        if interrupted:
            raise interrupted[0]
        return failures[0] if failures else None

    async def _act(
        self, step: Step[ContextT], context: ContextT, changed: dict[str, str] | None = None
    ) -> tuple[Step[ContextT], Exception] | None:
        """Try a step until it is done; give it with its last error if it fails."""
        past_pivot = self.saga.past_pivot(step.name)
        policy = step.retry or (self._backoff if past_pivot else ONCE)
        while True:
            attempt = self._progress.attempts.get(step.name, 0) + 1
            call = StepCall(saga_id=self.run.saga_id, step=step.name, attempt=attempt)
            await self._require_lease()
            try:
                changes = await self._attempt(step, call, context)
                if changes and changed is not None:
                    _require_apart(step.name, changes, changed)
                self._context = self.saga.merge(self._context, changes)
            except Exception as error:  # noqa: BLE001 - whatever it is, the step has failed
                if not policy.goes_on(attempt, error):
                    return step, error
                await self._again(step, attempt, policy.delay(attempt), error)
            else:
                self._progress.done.add(step.name)
                self._note(SagaEvent.DONE, step)
                return None

    # Back

    async def _compensate(self, step: Step[ContextT]) -> None:
        while True:
            attempt = self._progress.attempts.get(step.name, 0) + 1
            call = StepCall(
                saga_id=self.run.saga_id,
                step=step.name,
                attempt=attempt,
                cause=self._cause,
                op="undo",
            )
            await self._require_lease()
            try:
                await self._attempt(step, call, self._context)
            except Exception as error:  # noqa: BLE001 - whatever it is, the attempt has failed
                if not self._backoff.goes_on(attempt, error):
                    await self._park(step.name, error, repr(error))
                await self._again(step, attempt, self._backoff.delay(attempt), error)
            else:
                return

    # Both

    async def _attempt(
        self, step: Step[ContextT], call: StepCall, context: ContextT
    ) -> Mapping[str, Any] | None:
        started = anyio.current_time()
        ok = False
        changes = None
        doing = f"{'step' if call.op == 'action' else 'undo'} {step.name}"
        about: dict[str, AttributeValue] = {
            "saga.name": self.saga.name,
            "saga.id": call.saga_id,
            "saga.step": step.name,
            "saga.op": call.op,
            "saga.attempt": call.attempt,
        }
        try:
            with calling(call), span(doing, about), anyio.fail_after(step.timeout):
                if call.op == "action":
                    changes = await step.action(context, call)
                elif step.compensation is not None:
                    await step.compensation(context, call)
            ok = True
        finally:
            self._stats.attempted(
                self.saga.name, step.name, call.op, anyio.current_time() - started, ok=ok
            )
        return changes

    async def _again(
        self, step: Step[ContextT], attempt: int, delay: float, error: Exception
    ) -> None:
        """Wait before the next attempt; or leave that to whoever claims the run then."""
        self._progress.attempts[step.name] = attempt
        self._note(SagaEvent.RETRYING, step, repr(error))
        if delay > self._patience:
            await self._flush(owner=None, due=self._log.now() + delay)
            raise SagaInterruptedError(
                self.run.saga_id, f"step {step.name!r} is tried again in {delay:.1f} s"
            )
        await self._flush()
        await anyio.sleep(delay)

    async def _require_lease(self) -> None:
        """See that nothing is done without a lease, though the process may have been stopped for long.

        :raises SagaFencedError: if it is another worker's
        """
        if self._log.now() <= (self.run.due or 0.0):
            return
        try:
            await self.renew()
        except SagaFencedError:
            self.lost = True
            raise
        except SagaLogError as error:
            raise SagaInterruptedError(self.run.saga_id, str(error)) from error

    def lose(self) -> None:
        """Stop what is under way: another worker has the run, or may have it."""
        self.lost = True
        for scope in self.scopes:
            scope.cancel()

    async def renew(self) -> None:
        """Put off the end of the lease.

        :raises SagaFencedError: if it is another worker's
        """
        async with self._lock:
            if self.run.owner is None:
                return  # It ended, or was left to others, while the lock was waited for.
            begun, due = anyio.current_time(), self._log.now() + self.lease
            await self._log.renew(self.run, due)
            self.run = msgspec.structs.replace(self.run, due=due)
            self.renewed = begun

    async def _park(self, step: str, cause: Exception | None, reason: str) -> NoReturn:
        error = SagaParkedError(self.run.saga_id, step, cause, reason)
        self._note(SagaEvent.PARKED, None, reason, step=step)
        await self._flush(state=SagaState.PARKED, owner=None, due=None, step=step, error=reason)
        raise error from cause

    def _may_repeat(self, name: str) -> bool:
        return self._steps[name].idempotent or self.saga.past_pivot(name)

    async def _write(
        self,
        event: SagaEvent,
        step: Step[ContextT] | None = None,
        note: str | None = None,
        *,
        state: SagaState,
        at: str | None = None,
        error: str | None = None,
    ) -> None:
        self._note(event, step, note)
        changes: dict[str, Any] = {"state": state}
        if state.final:
            changes |= {"owner": None, "due": None}
        if at is not None:
            changes |= {"step": at, "error": error}
        await self._flush(**changes)

    def _note(
        self,
        event: SagaEvent,
        of: Step[ContextT] | None = None,
        note: str | None = None,
        *,
        step: str | None = None,
    ) -> None:
        """Keep a record for the next write."""
        name = step if of is None else of.name
        self._pending.append((event, self._log.now(), name, note))
        level = _LEVELS.get(event, logging.DEBUG)
        if _logger.isEnabledFor(level):
            fields = {"saga": self.saga.name, "saga_id": self.run.saga_id, "event_of": event.value}
            _logger.log(
                level, "saga %s %s: %s%s%s", self.saga.name, self.run.saga_id, event.value,
                f" {name}" if name else "", f": {escape(note)}" if note else "",
                extra=fields | {"step": name},
            )  # fmt: skip

    async def _flush(self, **changes: Any) -> None:
        """Write how the run stands with the records that were kept, in one transaction.

        A cancellation does not keep what has happened out of the log.
        """
        with anyio.CancelScope(shield=True):
            async with self._lock:
                notes, self._pending = self._pending, []
                added = [
                    SagaRecord(
                        sequence=number, event=event, at=at, by=self._owner, step=step, note=note
                    )
                    for number, (event, at, step, note) in enumerate(notes, self.run.sequence)
                ]
                begun, now = anyio.current_time(), self._log.now()
                values: dict[str, Any] = {
                    "sequence": self.run.sequence + len(added),
                    "due": now + self.lease,
                    "updated": now,
                }
                if self._unreadable is None:
                    values["context"] = self.saga.encode(self._context)
                after = msgspec.structs.replace(self.run, **values | changes)
                if self._unwritten:
                    raise SagaInterruptedError(self.run.saga_id, "an earlier write has failed")
                # What is not written must not be followed by what presupposes it.
                self._unwritten = True
                await self._store(after, added)
                self._unwritten = False
                self.run = after
                self.renewed = begun

    async def _store(self, run: SagaRun, added: Sequence[SagaRecord]) -> None:
        """Write; try again while the lease lasts if the log is out of reach."""
        if self.lost:
            raise SagaFencedError(run.saga_id)
        delay = 0.05
        while True:
            try:
                await self._log.write(run, added)
            except SagaFencedError:
                self.lost = True
                raise
            except SagaLogError as error:
                if anyio.current_time() + delay >= self.renewed + self.lease:
                    raise SagaInterruptedError(run.saga_id, str(error)) from error
                _logger.warning("saga %s: %s; trying again", run.saga_id, error)
                await anyio.sleep(delay)
                delay = min(delay * 2, 1.0)
            else:
                return


def _require_apart(step: str, changes: Mapping[str, Any], changed: dict[str, str]) -> None:
    """See that steps of one group set different fields."""
    for name in changes:
        other = changed.setdefault(name, step)
        if other != step:
            raise TypeError(
                f"steps {other!r} and {step!r} run at the same time and both set {name!r}"
            )


_LEVELS = {
    SagaEvent.STARTED: logging.INFO,
    SagaEvent.RETRYING: logging.WARNING,
    # A step that says no, such as a card that is declined, is an answer: its caller is told.
    SagaEvent.FAILED: logging.INFO,
    SagaEvent.PARKED: logging.ERROR,
    SagaEvent.COMPLETED: logging.INFO,
    SagaEvent.UNDONE: logging.INFO,
}
