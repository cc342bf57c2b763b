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
    """Drive a run while a task renews its lease; cut it off when the lease is lost.

    The task outlives a cancellation of the caller, as undoing does.

    :raises SagaFencedError: if another worker has the run now, or may have it
    """
    keeping = anyio.CancelScope(shield=True)

    async def keep() -> None:
        with keeping:
            await _keep(execution)
            for scope in execution.scopes:
                scope.cancel()

    scope = anyio.CancelScope()
    execution.scopes.append(scope)
    async with owned_tasks() as tasks:
        tasks.start_soon(keep, name=f"lease of saga {execution.run.saga_id}")
        try:
            with scope:
                await work()
                return
        finally:
            keeping.cancel()
    raise SagaFencedError(execution.run.saga_id)


async def _keep(execution: Execution[Any]) -> None:
    """Renew the lease in good time; return when it is lost."""
    lease = execution.lease
    pause = lease / 3
    while True:
        await anyio.sleep(pause)
        if anyio.current_time() < execution.renewed + lease / 3:
            continue  # Every write renews it too.
        try:
            await execution.renew()
            pause = lease / 3
        except SagaFencedError:
            execution.lost = True
            return
        except SagaLogError as error:
            _logger.warning("saga %s: %s", execution.run.saga_id, error)
            if anyio.current_time() > execution.renewed + lease:
                # Another worker may be at it: only the log could tell.
                execution.lost = True
                return
            pause = lease / 10
