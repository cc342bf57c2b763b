"""The same sagas as Temporal workflows, for whoever has a Temporal cluster. On asyncio only.

Temporal keeps the journal, the retries and the time-outs; the steps run as activities of a worker. See
docs/concepts/scaling.md for when that is worth it.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - Temporal's SDK and its workflows run on asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import sniffio

from bascule.errors import ConfigurationError
from bascule.saga._backoff import FIVE_TIMES, ONCE, Backoff
from bascule.saga._call import calling
from bascule.saga._definition import Saga, Step, StepCall
from bascule.saga._errors import SagaError, SagaFailedError
from bascule.saga._records import check_id

try:
    from temporalio import activity, workflow
    from temporalio.client import WorkflowFailureError
    from temporalio.common import (
        RetryPolicy,
        WorkflowIDConflictPolicy,
        WorkflowIDReusePolicy,
    )
    from temporalio.exceptions import (
        ActivityError,
        ApplicationError,
        WorkflowAlreadyStartedError,
        is_cancelled_exception,
    )
    from temporalio.worker import Worker
except ImportError as error:
    raise ConfigurationError(
        "bascule.saga.temporal needs temporalio: pip install 'bascule[temporal]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporalio.client import Client

__all__ = ["TemporalSagas"]

ContextT = TypeVar("ContextT")

_ACTION_SECONDS = 60.0
"""Seconds for an attempt of a step that sets no limit: Temporal wants one."""


class TemporalSagas:
    """Runs sagas through Temporal.

    What differs from :class:`SagaCoordinator`: a compensation, and a step past the pivot, is tried
    without end, and shows as a pending activity instead of being parked. An action whose worker was lost
    counts as failed when its time is over: it is tried again as its policy says, or undone. An action
    that is cancelled may still be at it when it is undone, so services need the barrier.

    :param client: connected to Temporal
    :param sagas: which may be run
    :param task_queue: that :meth:`worker` listens to
    :param backoff: the waits between attempts of compensations and of steps past the pivot
    :raises ConfigurationError: if the event loop is not asyncio's, or two sagas share a name
    """

    def __init__(
        self,
        client: Client,
        *sagas: Saga[Any],
        task_queue: str = "bascule-sagas",
        backoff: Backoff = FIVE_TIMES,
    ) -> None:
        if sniffio.current_async_library() != "asyncio":
            raise ConfigurationError("Temporal's SDK runs on asyncio only")
        self._client = client
        self._sagas = {saga.name: saga for saga in sagas}
        if len(self._sagas) != len(sagas):
            raise ConfigurationError("each saga needs a name of its own")
        self._task_queue = task_queue
        self._backoff = backoff

    def worker(self, **options: Any) -> Worker:
        """Give a Temporal worker that runs the sagas and their steps. Use it with ``async with``.

        :param options: of :class:`temporalio.worker.Worker`
        """
        activities = [made for saga in self._sagas.values() for made in _activities(saga)]
        return Worker(
            self._client,
            task_queue=self._task_queue,
            workflows=[SagaWorkflow],
            activities=activities,
            **options,
        )

    async def run(self, saga: Saga[ContextT], context: ContextT, *, saga_id: str) -> ContextT:
        """Run a saga as a workflow; give the context after its last step.

        An id that has been used before starts nothing: the earlier run's result is given or waited for.
        Cancelling stops the waiting only; to undo the run, cancel the workflow.

        :param saga_id: the workflow's id
        :raises SagaFailedError: if a step failed; all is undone
        :raises SagaError: if the workflow ended in another way, such as by being terminated
        """
        arguments = [
            check_id("saga_id", saga_id),
            _plan(saga, self._backoff),
            saga.encode(context).decode(),
        ]
        try:
            handle = await self._client.start_workflow(
                SagaWorkflow.run,
                args=arguments,
                id=saga_id,
                task_queue=self._task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            )
        except WorkflowAlreadyStartedError:
            handle = self._client.get_workflow_handle(saga_id, result_type=str)
        try:
            return saga.decode((await handle.result()).encode())
        except WorkflowFailureError as error:
            cause = error.cause
            if isinstance(cause, ApplicationError) and cause.type == _FAILED:
                step, reason = cause.details
                raise SagaFailedError(saga_id, step, None, reason) from error
            raise SagaError(saga_id, f"the workflow did not end: {cause!r}") from error


_FAILED = "bascule.SagaFailed"


class _Attempts(msgspec.Struct):
    attempts: int
    initial: float
    maximum: float

    @classmethod
    def of(cls, backoff: Backoff, *, endless: bool) -> _Attempts:
        return cls(0 if endless else backoff.attempts, backoff.initial, backoff.maximum)

    def policy(self) -> RetryPolicy:
        return RetryPolicy(
            initial_interval=timedelta(seconds=max(self.initial, 0.001)),
            maximum_interval=timedelta(seconds=max(self.maximum, self.initial, 0.001)),
            maximum_attempts=self.attempts,
        )


class _PlannedStep(msgspec.Struct):
    name: str
    attempts: _Attempts
    timeout: float
    undoable: bool
    pivot: bool


class _Plan(msgspec.Struct):
    """What a workflow has to know of a saga. It is an input, so that a new version does not touch old runs."""

    saga: str
    undo: _Attempts
    stages: list[list[_PlannedStep]]


def _plan(saga: Saga[Any], backoff: Backoff) -> str:
    stages = [
        [
            _PlannedStep(
                name=step.name,
                attempts=_Attempts.of(
                    step.retry or (backoff if saga.past_pivot(step.name) else ONCE),
                    endless=saga.past_pivot(step.name),
                ),
                timeout=step.timeout or _ACTION_SECONDS,
                undoable=step.compensation is not None,
                pivot=step.pivot,
            )
            for step in stage
        ]
        for stage in saga.stages
    ]
    plan = _Plan(saga=saga.name, undo=_Attempts.of(backoff, endless=True), stages=stages)
    return msgspec.json.encode(plan).decode()


# The workflow only orders activities about: it needs none of the sandbox's protection, and the sandbox
# would import all of bascule again for each run.
@workflow.defn(name="bascule-saga", sandboxed=False)
class SagaWorkflow:
    """A saga by its plan."""

    @workflow.run
    async def run(self, saga_id: str, plan: str, context: str) -> str:
        """Do the steps, or undo what was begun in reverse. Contexts are JSON."""
        planned = msgspec.json.decode(plan, type=_Plan)
        values: dict[str, Any] = msgspec.json.decode(context)
        begun: list[_PlannedStep] = []
        committed = False
        for stage in planned.stages:
            begun += stage
            try:
                for changes in await self._stage(planned, stage, values):
                    values |= changes
            except BaseException as error:
                if committed or not (
                    isinstance(error, ActivityError) or is_cancelled_exception(error)
                ):
                    raise
                undoing = asyncio.ensure_future(self._undo(planned, begun, values))
                await _shielded(undoing)
                if is_cancelled_exception(error):
                    raise
                failed, reason = _told(error, stage)
                raise ApplicationError(
                    f"step {failed} failed: {reason}",
                    failed,
                    reason,
                    type=_FAILED,
                    non_retryable=True,
                ) from error
            committed = committed or stage[0].pivot
        return msgspec.json.encode(values).decode()

    async def _stage(
        self, plan: _Plan, stage: list[_PlannedStep], values: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Do a group; the first failure cancels the others."""
        given = msgspec.json.encode(values).decode()
        tasks = [
            asyncio.ensure_future(self._call(plan.saga, step, "action", given)) for step in stage
        ]
        try:
            await workflow.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            failed = next((task for task in tasks if task.done() and task.exception()), None)
        finally:
            for task in tasks:
                task.cancel()
        if failed is not None:
            await asyncio.gather(*tasks, return_exceptions=True)
            await failed
        return [msgspec.json.decode(task.result()) for task in tasks]

    async def _undo(self, plan: _Plan, begun: list[_PlannedStep], values: dict[str, Any]) -> None:
        given = msgspec.json.encode(values).decode()
        for step in reversed(begun):
            if step.undoable:
                await self._call(plan.saga, step, "undo", given, plan.undo)

    async def _call(
        self,
        saga: str,
        step: _PlannedStep,
        op: str,
        given: str,
        attempts: _Attempts | None = None,
    ) -> str:
        result: str = await workflow.execute_activity(
            f"{saga}/{step.name}/{op}",
            given,
            result_type=str,
            start_to_close_timeout=timedelta(seconds=step.timeout),
            retry_policy=(attempts or step.attempts).policy(),
        )
        return result


async def _shielded(task: asyncio.Future[None]) -> None:
    """Wait for a task to its end, however often this one is cancelled."""
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
    task.result()


def _told(error: BaseException, stage: list[_PlannedStep]) -> tuple[str, str]:
    """Give the step that failed, and why."""
    if not isinstance(error, ActivityError):
        return stage[-1].name, repr(error)
    cause = error.cause
    reason = (
        f"{cause.type}: {cause.message}" if isinstance(cause, ApplicationError) else repr(cause)
    )
    return error.activity_type.split("/")[1], reason


def _activities(saga: Saga[Any]) -> list[Callable[..., Any]]:
    made = []
    for step in saga.steps:
        made.append(_activity(saga, step, "action"))
        if step.compensation is not None:
            made.append(_activity(saga, step, "undo"))
    return made


def _activity(saga: Saga[Any], step: Step[Any], op: str) -> Callable[..., Any]:
    @activity.defn(name=f"{saga.name}/{step.name}/{op}")
    async def call(given: str) -> str:
        info = activity.info()
        context = saga.decode(given.encode())
        made = StepCall(
            saga_id=str(info.workflow_id),
            step=step.name,
            attempt=info.attempt,
            op="undo" if op == "undo" else "action",
        )
        try:
            with calling(made):
                if op == "action":
                    changes = await step.action(context, made)
                    saga.merge(context, changes)
                    return msgspec.json.encode(msgspec.to_builtins(dict(changes or {}))).decode()
                if step.compensation is not None:
                    await step.compensation(context, made)
        except Exception as error:
            policy = step.retry
            if op == "action" and policy is not None and not policy.retryable(error):
                raise ApplicationError(
                    str(error), type=type(error).__name__, non_retryable=True
                ) from error
            raise
        return "{}"

    return call
