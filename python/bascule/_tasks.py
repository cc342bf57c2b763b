"""A task group for objects that own tasks."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.abc import TaskGroup

__all__ = ["finish", "owned_tasks"]


@asynccontextmanager
async def owned_tasks() -> AsyncIterator[TaskGroup]:
    """Anyio's task group, but that what its body raises comes out as it is.

    Whoever uses an object need not know that it owns tasks: ``except SomeError`` around its
    ``async with`` must go on working. What the tasks raise still comes in an exception group.
    """
    raised: BaseException | None = None
    alone: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            try:
                yield tasks
            except BaseException as error:
                raised = error
                raise
    except BaseExceptionGroup as group:
        if group.exceptions != (raised,):
            raise
        alone = raised
    if alone is not None:
        raise alone


async def finish(undo: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Undo something on the way out, whatever cancels meanwhile; so ``undo`` may be called twice.

    A scope of anyio shields from other scopes, not from asyncio's ``Task.cancel()``: that cuts it
    once, and is passed on when it has been done again.

    :param seconds: until it is given up
    """
    with anyio.move_on_after(seconds, shield=True) as scope:
        try:
            await undo()
        except anyio.get_cancelled_exc_class():
            if not scope.cancel_called:
                await undo()
            raise
