"""Keeps the lease of a run while this process is at it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio

from bascule._tasks import owned_tasks
from bascule.saga._errors import SagaFencedError, SagaLogError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bascule.saga._execution import Execution

__all__ = ["leased"]

_logger = logging.getLogger("bascule.saga")


async def leased(execution: Execution[Any], work: Callable[[], Awaitable[None]]) -> None:
    """Drive a run in a task of its own while another one renews its lease.

    A shield stops cancel scopes but not asyncio's own ``Task.cancel()``: that reaches the caller only,
    not what the task writes. If the lease is lost, the task is cancelled.

    :raises SagaFencedError: if another worker has the run now, or may have it
    """
    # It goes on while a cancelled caller's run is undone.
    keeping = anyio.CancelScope(shield=True)
    driving = anyio.CancelScope()
    execution.scopes.append(driving)
    failure: BaseException | None = None

    async def keep() -> None:
        with keeping:
            await _keep(execution)

    async def drive() -> None:
        nonlocal failure
        try:
            with driving:
                await work()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's task
            failure = error
        finally:
            keeping.cancel()

    async with owned_tasks() as tasks:
        tasks.start_soon(keep, name=f"lease of saga {execution.run.saga_id}")
        tasks.start_soon(drive, name=f"saga {execution.run.saga_id}")
    if failure is not None:
        raise failure
    if driving.cancelled_caught:
        raise SagaFencedError(execution.run.saga_id)


async def _keep(execution: Execution[Any]) -> None:
    """Renew the lease in good time; return when it is lost."""
    lease = execution.lease
    pause = lease / 3
    while not execution.lost:
        await anyio.sleep(pause)
        if anyio.current_time() < execution.renewed + lease / 3:
            continue  # Every write renews it too.
        try:
            await _renew_in_time(execution)
            pause = lease / 3
        except SagaFencedError:
            execution.lose()
        except SagaLogError as error:
            _logger.warning("saga %s: %s", execution.run.saga_id, error)
            if anyio.current_time() > execution.renewed + lease:
                # Another worker may be at it: only the log could tell.
                execution.lose()
            pause = lease / 10


async def _renew_in_time(execution: Execution[Any]) -> None:
    """Renew the lease; lose it if there is no answer by its end: a database can take longer to fail.

    A process that was stopped past the end is given a moment to ask whether it still has the run.
    """
    failure: Exception | None = None
    answered = anyio.Event()

    async def ask() -> None:
        nonlocal failure
        try:
            await execution.renew()
        except (SagaFencedError, SagaLogError) as error:
            failure = error
        answered.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, name=f"renewal for saga {execution.run.saga_id}")
        left = execution.renewed + execution.lease - anyio.current_time()
        with anyio.move_on_after(max(left, execution.lease / 10)):
            await answered.wait()
        if not answered.is_set():
            _logger.warning(
                "saga %s: its lease is over before the log has answered", execution.run.saga_id
            )
            execution.lose()
    if failure is not None:
        raise failure
