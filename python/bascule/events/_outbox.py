"""The relay: what transactions have stored is published afterwards."""

from __future__ import annotations

import logging
import math
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import anyio

from bascule._tasks import owned_tasks
from bascule.errors import (
    BasculeError,
    CommitUnknownError,
    ConfigurationError,
    RejectedError,
    TransportError,
)
from bascule.events._delivery import Redelivery
from bascule.events._stats import OutboxStats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from bascule.events._bus import EventBus
    from bascule.events._event import Event

__all__ = ["LeaseLostError", "OutboxClaim", "OutboxRelay", "OutboxStore"]

_logger = logging.getLogger("bascule.events")
_LONGEST_RETRY = 15.0
# Whoever works on some shards gives way after so many batches, so that the other shards get a turn.
_BATCHES = 8
_LOOK = 5.0


class LeaseLostError(BasculeError):
    """The lease ran out before the work was done: another relay has taken over."""


@dataclass(frozen=True, slots=True)
class OutboxClaim:
    """The right to publish the oldest events of some shards, until the lease runs out.

    :ivar shards: token of each lease by shard
    :ivar events: with their numbers, in the order they were stored; empty when there are none left
    """

    shards: Mapping[int, int]
    events: Sequence[tuple[int, Event[Any]]]


class OutboxStore(Protocol):
    """Where a service's unpublished events wait, in the same database as its data."""

    @property
    def name(self) -> str:
        """What metrics call it."""

    async def claim(self, relay: str, limit: int, lease: float) -> OutboxClaim | None:
        """Claim shards that have events and that nobody holds; None if there are none.

        :param relay: who claims, for operators to see
        :param limit: the most events to give
        :param lease: seconds until others may claim the same
        """

    async def settle(self, claim: OutboxClaim, *, limit: int, lease: float) -> OutboxClaim | None:
        """Forget the events of a claim, which the bus has taken, and give the next ones of its shards.

        :param limit: the most events to give; 0 to give the shards up
        :param lease: seconds, from now
        :return: None if there are no more; the shards are given up then
        :raises LeaseLostError: if the lease ran out; nothing was changed
        """

    async def give_up(self, claim: OutboxClaim) -> None:
        """Let others have the shards of a claim whose events could not be published."""

    async def backlog(self) -> tuple[int, float]:
        """Tell how many events wait, and for how many seconds the oldest of them has."""


# The bus or the database is away, or another relay was quicker: no fault to show a traceback of.
_EXPECTED = (TransportError, RejectedError, CommitUnknownError, LeaseLostError, TimeoutError)


class OutboxRelay:
    """Moves events from an outbox to the bus, those of one key in order, each at least once.

    Use it with ``async with``: what a former process left behind goes first; what is there when it ends
    is published before it returns, if the bus takes it within ``grace``.

    Any number of relays share an outbox: each claims a few shards at a time by lease, and every key
    belongs to one shard. One that was stopped past its lease finds the shards taken when it is back,
    publishes nothing more of them and forgets nothing. What it sent before may come twice, and still
    no event comes for the first time before an earlier one of its key: a relay begins with the oldest
    that has not been forgotten, and only what was published is.

    :param retry: seconds to wait after the store or the bus failed, doubled each time up to 15 s
    :param poll: seconds between two looks for what other processes have stored or left behind
    :param lease: seconds that a batch may take to publish
    :param batch: the most events published at once
    :param grace: seconds to publish what is left at the end
    :ivar stats: what it has done and what it last saw
    :raises ConfigurationError: if a value cannot work
    """

    def __init__(
        self,
        store: OutboxStore,
        bus: EventBus,
        *,
        retry: float = 0.5,
        poll: float = 1.0,
        lease: float = 10.0,
        batch: int = 500,
        grace: float = 5.0,
    ) -> None:
        for name, seconds in (("poll", poll), ("lease", lease)):
            if not 0 < seconds < math.inf:
                raise ConfigurationError(
                    f"OutboxRelay's {name} is {seconds}: use a positive number"
                )
        if batch < 1:
            raise ConfigurationError(f"OutboxRelay's batch is {batch}: use 1 or more")
        self.stats = OutboxStats(store.name)
        self._retry = Redelivery(first=retry, longest=max(retry, _LONGEST_RETRY))
        self._id = uuid.uuid4().hex
        self._store = store
        self._bus = bus
        self._poll = poll
        self._lease = lease
        self._batch = batch
        self._grace = grace
        self._wanted = anyio.Event()
        self._closing = False
        self._looked = -math.inf
        self._stack = AsyncExitStack()

    def notify(self) -> None:
        """Tell the relay that a transaction has stored events. Safe to call at any time."""
        self._wanted.set()

    async def __aenter__(self) -> Self:
        self._tasks = await self._stack.enter_async_context(owned_tasks())
        self._tasks.start_soon(self._run, name=f"relay of {self._store.name}")
        self.notify()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing = True
        self.notify()
        self._tasks.cancel_scope.deadline = anyio.current_time() + self._grace
        await self._stack.__aexit__(exc_type, exc, traceback)

    async def _run(self) -> None:
        failures = 0
        while True:
            if failures:
                await anyio.sleep(self._retry.wait(failures))
            else:
                with anyio.move_on_after(self._poll):
                    await self._wanted.wait()
            self._wanted = anyio.Event()
            closing = self._closing
            try:
                await self._look()
                await self._drain()
            except Exception as error:  # noqa: BLE001 - each is tried again
                failures += 1
                self._report(error, failures)
            else:
                failures = 0
                if closing:
                    return

    async def _drain(self) -> None:
        """Publish until no shard has events that nobody else is at."""
        while True:
            begun = anyio.current_time()
            claim = await self._store.claim(self._id, self._batch, self._lease)
            if claim is None:
                return
            for turn in range(_BATCHES):
                await self._publish(claim, begun + self._lease)
                begun = anyio.current_time()
                limit = self._batch if turn < _BATCHES - 1 else 0
                events = len(claim.events)
                claim = await self._store.settle(claim, limit=limit, lease=self._lease)
                self.stats.relayed += events
                await self._look()
                if claim is None:
                    break

    async def _publish(self, claim: OutboxClaim, deadline: float) -> None:
        try:
            with anyio.fail_after(deadline - anyio.current_time()):
                await self._bus.publish(*(event for _, event in claim.events))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._give_up(claim)
            raise

    async def _give_up(self, claim: OutboxClaim) -> None:
        """Free the shards, if that can be done; what kept the events from the bus is what is told."""
        try:
            await self._store.give_up(claim)
        except _EXPECTED as error:
            _logger.warning(
                "%s: the shards stay leased for up to %g s: %s",
                *(self._store.name, self._lease, error or type(error).__name__),
            )

    async def _look(self) -> None:
        now = anyio.current_time()
        if now - self._looked >= _LOOK:
            self._looked = now
            self.stats.pending, self.stats.oldest = await self._store.backlog()

    def _report(self, error: Exception, failures: int) -> None:
        expected = isinstance(error, _EXPECTED)
        _logger.log(
            logging.WARNING if expected else logging.ERROR,
            "%s could not be published, attempt %d: %s",
            self._store.name,
            failures,
            error or type(error).__name__,
            exc_info=None if expected else error,
        )
