"""What a person can do about runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from bascule.saga._errors import SagaError
from bascule.saga._records import Progress, SagaEvent, SagaRecord, SagaRun, SagaState, check_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bascule.saga._log import SagaLog

__all__ = ["SagaOperator"]


class SagaOperator:
    """Looks at runs, and sends parked ones on.

    :param log: where the runs are
    """

    def __init__(self, log: SagaLog) -> None:
        self._log = log

    async def list(
        self,
        *,
        state: SagaState | None = None,
        name: str | None = None,
        idle: float | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Sequence[SagaRun]:
        """Give runs without their journals, the oldest first.

        :param state: only runs in this state
        :param name: only runs of this saga
        :param idle: only runs that were not written for this many seconds
        :param after: the ``cursor`` of the last run of the page before
        """
        before = None if idle is None else self._log.now() - idle
        return await self._log.list(
            state=state, name=name, updated_before=before, after=after, limit=limit
        )

    async def show(self, saga_id: str) -> SagaRun:
        """Give a run with its journal.

        :raises SagaError: if there is no such run
        """
        run = await self._log.load(saga_id)
        if run is None:
            raise SagaError(saga_id, "no run has this id")
        return run

    async def retry(self, saga_id: str, *, by: str, why: str | None = None) -> SagaRun:
        """Have a parked run tried again, with as many attempts as the first time. A worker does it.

        :param by: who wants it
        :param why: for the journal
        :raises SagaError: if there is no such run, or it is not parked
        :raises SagaFencedError: if somebody else has sent it on in the meantime
        """
        run = await self._parked(saga_id)
        return await self._send_on(run, SagaEvent.RETRIED, None, by, why)

    async def resolve(
        self, saga_id: str, outcome: Literal["done", "undone"], *, by: str, why: str
    ) -> SagaRun:
        """Tell that the step at which a run is parked has been done, or undone, by hand. A worker does
        the rest.

        :param outcome: ``undone`` for a run that is being undone, ``done`` for one past its pivot
        :param by: who did it
        :param why: what was done, for the journal
        :raises SagaError: if there is no such run, it is not parked, or it goes the other way
        :raises SagaFencedError: if somebody else has sent it on in the meantime
        """
        run = await self._parked(saga_id)
        wanted = "undone" if Progress.of(run.records).failed is not None else "done"
        if outcome != wanted:
            raise SagaError(
                saga_id,
                f"step {run.step!r} can be resolved as {wanted!r} only: the run is on its way"
                f" {'back' if wanted == 'undone' else 'forward'}",
            )
        event = SagaEvent.COMPENSATED if outcome == "undone" else SagaEvent.DONE
        return await self._send_on(run, event, run.step, by, why)

    async def _parked(self, saga_id: str) -> SagaRun:
        run = await self.show(saga_id)
        if run.state is not SagaState.PARKED:
            raise SagaError(saga_id, f"the run is {run.state}: only a parked one can be sent on")
        return run

    async def _send_on(
        self, run: SagaRun, event: SagaEvent, step: str | None, by: str, why: str | None
    ) -> SagaRun:
        now = self._log.now()
        by = check_id("by", by)
        record = SagaRecord(sequence=run.sequence, event=event, at=now, by=by, step=step, note=why)
        failed = Progress.of(run.records).failed is not None
        after = msgspec.structs.replace(
            run,
            state=SagaState.UNDOING if failed else SagaState.RUNNING,
            due=now,
            sequence=run.sequence + 1,
            updated=now,
            records=(*run.records, record),
        )
        await self._log.write(after, [record])
        return after
