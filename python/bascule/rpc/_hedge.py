"""Sending a call several times and taking the first answer, by gRFC A6."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from bascule.errors import RejectedError, Status
from bascule.rpc._retry import Answer, pushback_seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bascule.rpc._method_config import HedgingPolicy
    from bascule.rpc._retry import Attempts, Failure


class Hedging:
    """When the next attempt of one call is sent, and when a failure ends it. It does no I/O.

    Times are seconds of one clock that the caller keeps to.

    :ivar made: attempts that were sent
    :ivar running: those of them that have not ended
    :ivar due: when the next one is to be sent; None if none is
    :ivar gave_up: whether attempts that were left could not be made
    """

    __slots__ = ("_attempts", "_policy", "due", "gave_up", "made", "running")

    def __init__(self, policy: HedgingPolicy, attempts: Attempts, now: float) -> None:
        self._policy = policy
        self._attempts = attempts
        self.made = self.running = 0
        self.due: float | None = now
        self.gave_up = False

    def begin(self, now: float) -> int | None:
        """The attempt that is due, if it may be sent: how many were sent before it."""
        previous = self.made
        if previous and not self._attempts.allowed:
            self._attempts.throttled += 1
            self._stop()
            return None
        self.made += 1
        self.running += 1
        self._attempts.attempts += 1
        if previous:
            self._attempts.hedges += 1
        more = self.made < self._policy.max_attempts
        self.due = now + self._policy.hedging_delay if more else None
        return previous

    def fail(self, failure: Failure, now: float) -> bool:
        """Take note of an attempt that failed; whether this failure ends the call.

        Source: gRFC A6, summary of retry and hedging logic.
        """
        self.running -= 1
        attempts = self._attempts
        wait: float | None = 0.0
        if failure.pushback is not None:
            wait = pushback_seconds(failure.pushback)
        non_fatal = failure.timed_out or Status(failure.status) in self._policy.non_fatal_statuses
        if non_fatal or wait is None:
            attempts.failed()
        if not non_fatal:
            self.gave_up = wait is None
            return True
        if wait is None:
            attempts.pushed_back += 1
            self._stop()
        elif self.due is not None:
            self.due = now + wait
        self.gave_up = self.gave_up or self.due is None
        return self.running == 0 and self.due is None

    def refuse(self) -> None:
        """Take note that an attempt could not be sent: no other one can."""
        self.running -= 1
        self.due = None

    def _stop(self) -> None:
        self.due = None
        self.gave_up = True


async def race(plan: Hedging, attempt: Callable[[int], Awaitable[Answer]]) -> Answer:
    """Make attempts as the plan says until one has the answer; the others are cancelled.

    :raises RejectedError: if no attempt could be sent
    :raises Exception: what an attempt raised for any other reason
    """
    ended: list[Answer | Exception] = []
    changed = anyio.Event()

    async def run(previous: int) -> None:
        try:
            ended.append(await attempt(previous))
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the group
            ended.append(error)
        changed.set()

    last: Answer | Exception = RuntimeError("no attempt was made")
    async with anyio.create_task_group() as group:
        while plan.due is not None or plan.running:
            now = anyio.current_time()
            if ended:
                came = ended.pop(0)
                if isinstance(came, RejectedError):
                    plan.refuse()
                    # Why an attempt failed says more.
                    last = last if isinstance(last, Answer) else came
                    continue
                last = came
                if isinstance(came, Exception):
                    break
                if came.failure is None or plan.fail(came.failure, now):
                    break
            elif plan.due is not None and plan.due <= now:
                previous = plan.begin(now)
                if previous is not None:
                    group.start_soon(run, previous)
            else:
                changed = anyio.Event()
                with anyio.move_on_after(None if plan.due is None else plan.due - now):
                    await changed.wait()
        group.cancel_scope.cancel()
    if isinstance(last, Exception):
        raise last
    return last
