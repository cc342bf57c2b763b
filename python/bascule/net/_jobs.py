"""What the tasks do that a driver keeps for jobs, whatever the event loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio import CancelScope

    from bascule.net._link import Job

#: Tasks kept for the next job: waking one costs a third to a half of a new one and its scope.
MOST_PARKED = 128


async def do_jobs(
    job: Job | None,
    open_scope: Callable[[], CancelScope],
    run: Callable[[Job, CancelScope], Awaitable[None]],
    park: Callable[[], Awaitable[Job | None]],
) -> None:
    """Do one job after another: in the same task, and in one scope until it is spent.

    :param run: start a job in the scope, in a context of its own
    :param park: wait for the next job; None ends the task
    """
    while job is not None:
        failure: Exception | None = None
        returned = False
        try:
            with open_scope() as scope:
                while job is not None:
                    if job.deadline != math.inf:
                        scope.deadline = job.deadline
                    returned = False
                    await run(job, scope)
                    returned = True
                    if scope.cancel_called:
                        break
                    if job.deadline != math.inf:
                        scope.deadline = math.inf
                    job.end(None, True)
                    # Parked, this task holds nothing of what it did.
                    job = None
                    job = await park()
        except Exception as error:  # noqa: BLE001 - for the job to judge
            # Outside of the scope, which takes cancellations out of groups of exceptions.
            failure = error
        finally:
            if job is not None:
                job.end(failure, returned)
            # Its traceback leads back to this frame.
            failure = None
        if job is not None:
            job = None
            job = await park()
