"""Blocking queries by Consul's rules, and what they do while Consul fails.

Source: Consul's documentation, "Blocking queries": the index is opaque, above 0, and starts again
from 0 when it goes backwards or after an error; a query that returns at once again and again is
slowed down; an answer need not mean a change.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

import anyio

from bascule._backoff import grown
from bascule.discovery.consul._errors import ConsulAnswerError, ConsulError
from bascule.discovery.consul._http import TIMEOUT, Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

__all__ = ["Ask", "BlockingQuery", "Outage", "jitter"]

T = TypeVar("T")

#: Seconds that a query blocks.
WAIT = 300.0

#: Queries at once after a quiet time, and then a second: changes that come faster are seen together.
BURST, RATE = 5.0, 1.0

#: Bounds of the pause after a failure, in seconds; it grows twofold.
LEAST_PAUSE, MOST_PAUSE = 1.0, 30.0

#: Bounds of the pause of the one query that finds out when Consul is back.
LEAST_PROBE, MOST_PROBE = 0.55, 0.75

#: Seconds for which that one waits for an answer before it asks once more.
QUICK = 0.7

#: Seconds after which what a server without a leader knows is no improvement on what is known here.
MOST_STALE = 10.0

#: Seconds between questions where no connection is free for a query that blocks.
POLL = 10.0


class Ask(Protocol[T]):
    """Asks Consul once.

    :param index: 0: do not block
    :param wait: seconds to block
    :param timeout: seconds for everything else
    :raises ConsulError: if there is no answer that can be used
    """

    def __call__(self, index: int, wait: float, timeout: float) -> Awaitable[Answer[T]]: ...


class Outage:
    """Whether Consul is away, as all queries of a client know together.

    One of those that fail, the prober, asks about every 0.7 s. The others pause for 1 to 30 s, and
    are woken when any query works again: so a thousand watches find Consul back within a second
    and hardly knock while it is away.
    """

    def __init__(self) -> None:
        self.recoveries = 0
        self._down = False
        self._prober: object | None = None
        self._changed = anyio.Event()

    def claim(self, query: object) -> bool:
        """Become the prober if there is none: whether it is this one."""
        if self._prober is None:
            self._prober = query
        return self._prober is query

    def release(self, query: object) -> None:
        """The query is not the prober any more; another one may be."""
        if self._prober is query:
            self._prober = None
            self._wake()

    def failed(self) -> None:
        """A query failed."""
        self._down = True

    def worked(self, query: object) -> None:
        """A query got an answer."""
        if self._down:
            self._down = False
            self.recoveries += 1
            self._wake()
        self.release(query)

    async def wait_change(self) -> None:
        """Until Consul is back, or there is no prober."""
        await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class BlockingQuery(Generic[T]):
    """One thing that is watched. Get it by :meth:`ConsulClient.blocking`; not for two tasks at once.

    :ivar index: from which the next query blocks; 0: it does not
    :ivar failures: how many queries have failed since one worked
    """

    def __init__(
        self,
        ask: Ask[T],
        outage: Outage,
        *,
        wait: float,
        instead: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._ask = ask
        self._outage = outage
        self._wait = wait
        self._instead = instead
        self.index = 0
        self.failures = 0
        self._tokens = BURST
        self._counted_at = self._begun = -math.inf
        self._answered_at = -math.inf
        self._waiting: anyio.CancelScope | None = None
        self._worked_once = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.rest()

    def rest(self) -> None:
        """It is not asked any more, for now: another query is to find out when Consul is back."""
        self._outage.release(self)

    @property
    def is_shared(self) -> bool:
        """Whether it has no connection of its own to block on."""
        return self._instead is not None

    async def next(self) -> Answer[T]:
        """Wait for the next answer, which need not differ from the last one.

        Pauses by itself, as the last queries went. Cancelling it loses nothing: the next call goes
        on from the same index.

        :raises ConsulError: if the query failed; call again to try again
        """
        while True:
            await (self._pause() if self.failures else self._take_turn())
            self._begun = anyio.current_time()
            try:
                answer = await self._once()
                if answer is None:
                    continue
                self._judge(answer)
            except ConsulError:
                self.index = 0
                self.failures += 1
                self._outage.failed()
                raise
            self._answered_at = anyio.current_time()
            self.failures = 0
            self._worked_once = True
            self._outage.worked(self)
            return answer

    def restart(self) -> None:
        """Do not block next time: the answer may have changed, or have to be seen again."""
        self.index = 0

    def poke(self, after: float) -> None:
        """Ask now instead of waiting for a change, if the last answer is older than so many seconds."""
        if self._waiting is not None and anyio.current_time() - self._answered_at >= after:
            self._waiting.cancel()

    def _judge(self, answer: Answer[T]) -> None:
        """Take the index by the rules.

        :raises ConsulAnswerError: if the answer comes from something that is not Consul, or knows less
            than is known here
        """
        if answer.index is None:
            raise ConsulAnswerError("a blocking query", "it has no X-Consul-Index")
        if answer.last_contact > MOST_STALE and self._worked_once:
            reason = f"the server has not heard of its leader for {answer.last_contact:.3g} s"
            raise ConsulAnswerError("a blocking query", reason)
        went_back = answer.index < self.index
        # 0 would be no blocking query, so none that waits: by the rules, an index is at least 1.
        self.index = 0 if went_back else max(answer.index, 1)

    async def _once(self) -> Answer[T] | None:
        """One query; None if it was interrupted."""
        if self.index == 0:
            if self._outage.claim(self):
                return await self._ask_twice()
            return await self._ask(0, 0.0, TIMEOUT)
        with anyio.CancelScope() as scope:
            self._waiting = scope
            try:
                if self._instead is None:
                    return await self._ask(self.index, self._wait, TIMEOUT)
                await self._instead()
            finally:
                self._waiting = None
            return await self._ask(0, 0.0, TIMEOUT)
        self.index = 0
        return None

    async def _ask_twice(self) -> Answer[T]:
        """Ask once with patience, and beside it again and again without.

        A connection may be dead though nobody says so; a slow answer is one, too.
        """
        answers: list[Answer[T]] = []
        failures: list[ConsulError] = []

        async def ask(timeout: float) -> None:
            try:
                answers.append(await self._ask(0, 0.0, timeout))
            except ConsulError as error:
                failures.append(error)

        async with anyio.create_task_group() as tasks:

            async def patiently() -> None:
                await ask(TIMEOUT)
                tasks.cancel_scope.cancel()

            tasks.start_soon(patiently)
            due = anyio.current_time()
            while not answers:
                due = max(due + QUICK, anyio.current_time())
                await anyio.sleep_until(due)
                await ask(QUICK)
            tasks.cancel_scope.cancel()
        if answers:
            return answers[0]
        raise failures[-1]

    async def _take_turn(self) -> None:
        """Wait until the next query may go out: a token bucket."""
        now = anyio.current_time()
        self._tokens = min(BURST, self._tokens + (now - self._counted_at) * RATE)
        self._counted_at = now
        if self._tokens < 1:
            await anyio.sleep((1 - self._tokens) / RATE)
            self._tokens, self._counted_at = 1.0, anyio.current_time()
        self._tokens -= 1

    async def _pause(self) -> None:
        """Wait after a failure."""
        # By when Consul is asked again, if nobody finds it back before.
        most = grown(self.failures + 1, LEAST_PAUSE, MOST_PAUSE)
        until = anyio.current_time() + jitter(LEAST_PAUSE, most)
        while not self._outage.claim(self):
            seen = self._outage.recoveries
            with anyio.move_on_after(until - anyio.current_time()) as scope:
                await self._outage.wait_change()
            if scope.cancelled_caught or seen != self._outage.recoveries:
                break
        await anyio.sleep_until(self._begun + jitter(LEAST_PROBE, MOST_PROBE))


def jitter(least: float, most: float) -> float:
    """Seconds between the two, so that many do not come at once."""
    return random.uniform(least, most)  # noqa: S311
