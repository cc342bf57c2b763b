"""One subscriber on Redis Streams: which partitions are its own, and what it does with them.

A consumer group alone keeps no order: two members that share a stream work at once. So a topic has
several streams, each key belongs to one of them, and at any time one member of a group reads one
stream, by a lease in Redis that every step is checked against.
"""

from __future__ import annotations

import logging
import math
import uuid
from typing import TYPE_CHECKING, Any

import anyio

from bascule.errors import ConfigurationError, DecodeError, StoreUnavailableError
from bascule.events._delivery import Redelivery
from bascule.events._redis_scripts import ADVANCE, BEAT, BURY, LEAVE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import TaskGroup

    from bascule._redis import RedisClient
    from bascule.events._delivery import Subscription
    from bascule.events._event import Event
    from bascule.events._redis_keys import TopicKeys

__all__ = ["GroupMember", "wrong_partitions"]

_logger = logging.getLogger("bascule.events")
_AGAIN = Redelivery(first=0.05, longest=1.0)
_SLOWEST = 5.0
_FAREWELL = 1.0
_BEGINNING, _NEW = "0", ">"


class GroupMember:
    """A process's part in a consumer group.

    :param lease: seconds until others take over what a member has that says nothing
    :param deliveries: how often an event may have been handed out to members that died with it
    :param dead_letters: the most that are kept; then handlers are called until they succeed
    """

    def __init__(
        self,
        client: RedisClient,
        keys: TopicKeys,
        subscription: Subscription,
        *,
        lease: float,
        deliveries: int,
        dead_letters: int,
    ) -> None:
        self._client = client
        self._keys = keys
        self._subscription = subscription
        self._lease = lease
        self._deliveries = deliveries
        self._dead_letters = dead_letters
        self._id = uuid.uuid4().hex
        self._group = subscription.name
        self._partitions: dict[int, _Partition] = {}
        self._leaving = anyio.Event()

    def ring(self, partition: int | None = None) -> None:
        """Look for events again, in one partition or in all."""
        for number, one in list(self._partitions.items()):
            if partition is None or partition == number:
                one.wake.set()

    def leave(self) -> None:
        """Finish what is in hand, give everything up and end :meth:`run`."""
        self._leaving.set()

    async def run(self) -> None:
        """Take part until told to leave."""
        try:
            async with anyio.create_task_group() as tasks:
                await self._beat_until_told(tasks)
                for partition in self._partitions.values():
                    partition.retire()
        finally:
            # Nothing of ours is being handled any more: others need not wait for the leases' end.
            with anyio.move_on_after(_FAREWELL, shield=True):
                await self._say_farewell()

    async def _beat_until_told(self, tasks: TaskGroup) -> None:
        failures = 0
        while not self._leaving.is_set():
            try:
                await self._beat(tasks)
                failures = 0
            except StoreUnavailableError as error:
                failures += 1
                self._report(error, failures)
            with anyio.move_on_after(_AGAIN.wait(failures) if failures else self._lease / 3):
                await self._leaving.wait()

    async def _say_farewell(self) -> None:
        keys = self._keys
        leases = [keys.lease(number, self._group) for number in range(keys.partitions)]
        try:
            await self._client.run(LEAVE, [keys.members(self._group), *leases], [self._id, 1])
        except StoreUnavailableError as error:
            self._report(error, 1)

    async def _beat(self, tasks: TaskGroup) -> None:
        keys = self._keys
        begun = anyio.current_time()
        of_partitions = [
            key
            for number in range(keys.partitions)
            for key in (keys.lease(number, self._group), keys.stream(number))
        ]
        share, *held = await self._client.run(
            BEAT,
            [keys.count, keys.members(self._group), *of_partitions],
            [self._id, round(self._lease * 1000), self._group, keys.partitions],
            timeout=min(_SLOWEST, self._lease / 2),
        )
        if share < 0:
            raise wrong_partitions(self._subscription.topic.name, keys.partitions, -share)
        for number in held:
            known = self._partitions.get(number)
            if known is None:
                known = self._partitions[number] = _Partition(number)
                name = f"{self._subscription.topic.name}/{number} -> {self._group}"
                tasks.start_soon(self._serve, known, name=name)
            known.scope.deadline = begun + self._lease
        surplus = len(held) - share
        for partition in list(self._partitions.values())[: max(0, surplus)]:
            partition.retire()

    async def _serve(self, partition: _Partition) -> None:
        """Handle what a partition has until it is lost, retired, or nobody renews its lease."""
        lost = True
        try:
            with partition.scope:
                lost = await self._work(partition)
            if not lost:
                await self._give_up(partition)
        except StoreUnavailableError as error:
            self._report(error, 1)
        finally:
            del self._partitions[partition.number]

    async def _give_up(self, partition: _Partition) -> None:
        keys = self._keys
        lease = keys.lease(partition.number, self._group)
        await self._client.run(LEAVE, [keys.members(self._group), lease], [self._id, 0])

    async def _work(self, partition: _Partition) -> bool:
        """Return whether the lease was lost: to somebody else, or with the server's memory."""
        keys = self._keys
        at = [keys.lease(partition.number, self._group), keys.stream(partition.number)]
        done: list[str] = []
        # First what somebody was given and did not finish, one by one, so that each is counted alone.
        begin, inherited = _BEGINNING, True
        failures = 0
        while True:
            leaving = partition.retired
            count = 0 if leaving else self._subscription.size if begin == _NEW else 1
            partition.wake = anyio.Event()
            try:
                answer = await self._client.run(
                    ADVANCE,
                    at,
                    [self._id, self._group, count, begin, *done],
                )
            except StoreUnavailableError as error:
                failures += 1
                self._report(error, failures)
                await anyio.sleep(_AGAIN.wait(failures))
                # What it gave without our hearing of it is ours, and comes before anything new.
                begin, inherited = _BEGINNING, False
                continue
            failures = 0
            if answer is None:
                return True
            done = []
            if leaving:
                return False
            deliveries, *read = answer
            if not read:
                if begin == _NEW and not partition.retired:
                    await partition.wake.wait()
                begin, inherited = _NEW, False
                continue
            if not await self._handle(partition, read[0], deliveries if inherited else 1):
                return True
            done = [_text(entry) for entry, _ in read[0]]
            if begin != _NEW:
                begin = done[-1]

    async def _handle(self, partition: _Partition, entries: Sequence[Any], deliveries: int) -> bool:
        """Return whether the lease was still ours whenever it was asked for."""
        subscription = self._subscription
        events: list[Event[Any]] = []
        places: dict[str, str] = {}
        bodies: dict[str, bytes] = {}

        async def put_aside(event: Event[Any], attempts: int, error: Exception) -> bool:
            place = places[event.id]
            return await self._bury(partition, place, bodies[event.id], attempts, error)

        try:
            for entry, fields in entries:
                values = dict(zip(fields[::2], fields[1::2], strict=True)) if fields else {}
                data = values.get(b"e")
                if data is None or values.get(b"for", self._group.encode()) != self._group.encode():
                    continue
                try:
                    event = subscription.topic.decode(data)
                    if deliveries > self._deliveries:
                        raise _DiedWithItError(deliveries)
                except (DecodeError, _DiedWithItError) as error:
                    # What came before has its turn before anything is put aside for good.
                    await subscription.deliver(events, put_aside)
                    events = []
                    await self._bury_unread(partition, _text(entry), data, deliveries, error)
                    subscription.stats.dead_lettered += 1
                    continue
                if event.id in places:
                    await subscription.deliver(events, put_aside)
                    events = []
                places[event.id], bodies[event.id] = _text(entry), data
                events.append(event)
            await subscription.deliver(events, put_aside)
        except _LeaseLostError:
            return False
        return True

    async def _bury_unread(
        self, partition: _Partition, entry: str, data: bytes, deliveries: int, error: Exception
    ) -> None:
        """Put aside what no handler can be given, as soon as there is room."""
        room = await self._bury(partition, entry, data, deliveries, error)
        while not room:
            await anyio.sleep(self._subscription.redelivery.longest)
            room = await self._bury(partition, entry, data, deliveries, error)

    async def _bury(
        self, partition: _Partition, entry: str, data: bytes, attempts: int, error: Exception
    ) -> bool:
        keys = self._keys
        answer = await self._client.run(
            BURY,
            [
                keys.lease(partition.number, self._group),
                keys.stream(partition.number),
                keys.dead(self._group),
            ],
            [
                *(self._id, self._group, entry, self._dead_letters),
                *("e", data, "id", entry, "p", partition.number, "attempts", attempts),
                *("error", f"{type(error).__name__}: {error}"[:500]),
            ],
        )
        if answer is None:
            raise _LeaseLostError
        if not answer:
            _logger.error(
                "%s has %d dead letters of %s: redeliver or discard them, so that there is room",
                *(self._group, self._dead_letters, self._subscription.topic.name),
            )
        return bool(answer)

    def _report(self, error: Exception, failures: int) -> None:
        # The first tells that it is away, and each tenth that it still is.
        if failures % 10 == 1:
            _logger.warning("%s cannot get events: %s", self._group, error)


class _Partition:
    """One stream while it is ours.

    :ivar scope: ends with the lease, which whoever renews it moves on
    :ivar wake: set when there may be something to read
    :ivar retired: whether it is to be given up
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.scope = anyio.CancelScope(deadline=math.inf)
        self.wake = anyio.Event()
        self.retired = False

    def retire(self) -> None:
        self.retired = True
        self.wake.set()


class _LeaseLostError(Exception):
    """Somebody else has the partition."""


class _DiedWithItError(Exception):
    """Every process that was handed this event died before it had handled it."""

    def __str__(self) -> str:
        return f"handed out {self.args[0]} times, to members that died before it was handled"


def wrong_partitions(topic: str, ours: int, theirs: int) -> ConfigurationError:
    """A number of partitions that would give keys other places than they have."""
    return ConfigurationError(
        f"topic {topic!r} has {theirs} partitions on this Redis, not {ours}: give every bus the same"
    )


def _text(value: bytes) -> str:
    return value.decode()
