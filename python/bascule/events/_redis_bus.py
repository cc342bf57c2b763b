"""The bus over Redis Streams."""

from __future__ import annotations

import logging
import math
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio

from bascule._backoff import pause_after
from bascule._redis import RedisClient
from bascule._tasks import owned_tasks
from bascule.errors import ClosedError, ConfigurationError, DecodeError, StoreUnavailableError
from bascule.events._delivery import Redelivery, Subscription
from bascule.events._redis_consumer import GroupMember, wrong_partitions
from bascule.events._redis_keys import TopicKeys
from bascule.events._redis_scripts import DISCARD, PUBLISH, REVIVE, SURVEY
from bascule.events._stats import BusStats

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from anyio.abc import TaskGroup

    from bascule.events._bus import BatchHandler, Handler
    from bascule.events._event import Event, Topic
    from bascule.observe import Tracer

__all__ = ["DeadLetter", "RedisEventBus"]

PayloadT = TypeVar("PayloadT")

_logger = logging.getLogger("bascule.events")
# So many events are read at once for a handler that takes them one by one: those that are not
# acknowledged when the process dies come again.
_SINGLES = 20
_BELLS = 64
_BLOCK = 5.0
# Seconds, or less by chance, until the bell is listened to again.
_AGAIN = 0.4


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a subscriber could not handle.

    :ivar id: of the letter: what :meth:`RedisEventBus.redeliver` takes
    :ivar event: None if it cannot be read
    :ivar data: the event as it was published
    :ivar attempts: how often its handler was called, or the event handed out
    :ivar error: what the handler raised at last
    """

    id: str
    event: Event[Any] | None
    data: bytes
    attempts: int
    error: str


class RedisEventBus:
    """Events through Redis Streams, from many processes to many. Use it with ``async with``.

    A topic has ``partitions`` streams; every key belongs to one of them. Subscribers of one name form
    a consumer group: each event goes to one of them. A group's members share the partitions evenly, by
    leases in Redis: events of one key are handled one after the other, whoever dies or joins. A member
    that says nothing for ``lease`` seconds loses its partitions; what it had been given and had not
    acknowledged is handled first by whoever takes over. One that was only stopped is fenced: it reads,
    acknowledges and puts aside nothing any more, and the handler under way is cancelled.

    Each event is delivered at least once. Give handlers a :class:`SqlInbox`, so that it has its effect
    once. ``publish`` returns when Redis has stored the events: with ``appendonly yes`` and
    ``appendfsync always`` they survive its restart. Nothing that a group has not handled is trimmed:
    set ``maxmemory-policy noeviction``, so that a full Redis refuses events, which wait in the outbox.

    :param url: ``redis://user:password@host:6379/0``, ``rediss://...?ssl_ca_certs=FILE`` or ``unix://...``
    :param partitions: of each topic, the same for every process for ever; so many members of a group
        can work at once
    :param lease: seconds without a sign of life after which a member's partitions go to others
    :param retention: seconds that handled events stay, for subscribers with a new name
    :param redelivery: how often handlers are called that raise, before the event is a dead letter
    :param deliveries: how often an event is handed out to processes that die with it, before it is one
    :param dead_letters: the most that are kept a topic and group; when there are as many, the handler
        is called until it succeeds
    :param timeout: seconds that Redis has to answer
    :param grace: seconds that handlers under way have to finish when the bus closes
    :param tracer: where the spans of handlers go; None for the tracer of whoever subscribes
    :ivar stats: what it has done, and the lag of its groups
    :raises ConfigurationError: if a value cannot work, or coredis is not installed
    """

    def __init__(
        self,
        url: str,
        *,
        partitions: int = 8,
        lease: float = 10.0,
        retention: float = 3600.0,
        redelivery: Redelivery | None = None,
        deliveries: int = 10,
        dead_letters: int = 10_000,
        timeout: float = 5.0,
        grace: float = 5.0,
        tracer: Tracer | None = None,
    ) -> None:
        for name, number in (
            ("partitions", partitions),
            ("lease", lease),
            ("deliveries", deliveries),
            ("dead_letters", dead_letters),
            ("timeout", timeout),
        ):
            if not 0 < number < math.inf:
                raise ConfigurationError(
                    f"RedisEventBus's {name} is {number}: use a positive number"
                )
        if partitions > 1024:
            raise ConfigurationError(
                f"RedisEventBus's partitions is {partitions}: use 1024 or fewer"
            )
        if not (0 <= retention < math.inf and 0 <= grace < math.inf):
            raise ConfigurationError("RedisEventBus's retention and grace must be 0 s or more")
        self.stats = BusStats()
        self._client = RedisClient(url, timeout=timeout)
        self._partitions = partitions
        self._lease = lease
        self._retention = retention
        self._redelivery = redelivery or Redelivery()
        self._deliveries = deliveries
        self._dead_letters = dead_letters
        self._grace = grace
        self._tracer = tracer
        self._topics: dict[str, TopicKeys] = {}
        self._members: dict[str, dict[str, GroupMember]] = {}
        self._tasks: TaskGroup | None = None
        self._background: TaskGroup | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Needs no Redis yet: what cannot reach it is tried again."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._client)
            background = await stack.enter_async_context(owned_tasks())
            stack.callback(background.cancel_scope.cancel)
            background.start_soon(self._survey, name="survey of streams")
            self._tasks = await stack.enter_async_context(owned_tasks())
            self._background = background
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let handlers under way finish, acknowledge, and give the partitions to others."""
        tasks, self._tasks = self._open(), None
        for members in self._members.values():
            for member in members.values():
                member.leave()
        tasks.cancel_scope.deadline = anyio.current_time() + self._grace
        await self._stack.__aexit__(exc_type, exc, traceback)

    async def publish(self, *events: Event[Any]) -> None:
        """Store events in their streams: all of a topic's in one step. See :class:`EventBus`.

        :raises ConfigurationError: if a topic has another number of partitions on this Redis
        """
        self._open()
        topics: dict[str, list[Event[Any]]] = {}
        for event in events:
            topics.setdefault(event.topic.name, []).append(event)
        for name, together in topics.items():
            keys = self._keys(name)
            streams: dict[int, int] = {}
            arguments: list[str | bytes | int] = []
            for event in together:
                partition = keys.partition_of(event.key)
                place = streams.setdefault(partition, len(streams) + 3)
                arguments += (place, event.topic.encode(event.traced()))
            other = await self._client.run(
                PUBLISH,
                [keys.count, keys.bell, *map(keys.stream, streams)],
                [keys.partitions, ",".join(map(str, streams)), *arguments],
            )
            if other:
                raise wrong_partitions(name, keys.partitions, other)
            self.stats.count(name, len(together))

    def subscribe(self, topic: Topic[PayloadT], handler: Handler[PayloadT], *, name: str) -> None:
        """Have a handler called for the events of a topic. See :class:`EventBus`.

        A name that is new to the topic begins with what Redis still has of it.
        """
        self._subscribe(topic, name, handler, None, _SINGLES)

    def subscribe_batches(
        self, topic: Topic[PayloadT], handler: BatchHandler[PayloadT], *, name: str, size: int = 100
    ) -> None:
        """Have a handler called for as many events of a partition as there are. See :class:`EventBus`."""
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        self._subscribe(topic, name, None, handler, size)

    async def dead_letters(
        self, topic: Topic[Any], name: str, *, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Give the oldest events that a subscriber could not handle.

        :raises StoreUnavailableError: if Redis cannot be reached
        """
        dead = self._keys(topic.name).dead(name)
        found = await self._client.call("XRANGE", dead, "-", "+", "COUNT", limit)
        return [_letter(topic, entry.decode(), fields) for entry, fields in found]

    async def redeliver(self, topic: Topic[Any], name: str, *letters: str) -> int:
        """Give dead letters to their subscriber again, after what is there now; other groups see nothing.

        :param letters: their ids
        :return: how many there were
        :raises StoreUnavailableError: if Redis cannot be reached
        """
        keys = self._keys(topic.name)
        at = [keys.dead(name), keys.bell, *keys.streams]
        return int(await self._client.run(REVIVE, at, [name, *letters]))

    async def discard(self, topic: Topic[Any], name: str, *letters: str) -> int:
        """Delete dead letters for good.

        :param letters: their ids
        :return: how many there were
        :raises StoreUnavailableError: if Redis cannot be reached
        """
        if not letters:
            return 0
        dead = self._keys(topic.name).dead(name)
        return int(await self._client.call("XDEL", dead, *letters))

    async def forget(self, topic: Topic[Any], name: str) -> None:
        """Delete a group that has no members any more, with its place in the streams and its dead letters.

        Until then what it has not handled stays in Redis.

        :raises StoreUnavailableError: if Redis cannot be reached
        """
        keys = self._keys(topic.name)
        of_partitions = [
            key
            for number in range(keys.partitions)
            for key in (keys.lease(number, name), keys.stream(number))
        ]
        await self._client.run(
            DISCARD, [keys.members(name), keys.dead(name), *of_partitions], [name]
        )

    async def look(self) -> None:
        """Trim what is no longer wanted and read the groups' lag, as the bus does every few seconds.

        :raises StoreUnavailableError: if Redis cannot be reached
        """
        for keys in list(self._topics.values()):
            answer = await self._client.run(SURVEY, keys.streams, [round(self._retention * 1000)])
            for place in range(0, len(answer), 3):
                group, lag, age = answer[place : place + 3]
                stats = self.stats.subscribers.get((keys.topic, group.decode()))
                if stats is not None:
                    stats.lag, stats.oldest = lag, age / 1000

    def _subscribe(
        self,
        topic: Topic[Any],
        name: str,
        handler: Handler[Any] | None,
        batch_handler: BatchHandler[Any] | None,
        size: int,
    ) -> None:
        tasks = self._open()
        keys = self._keys(topic.name)
        first = topic.name not in self._members
        members = self._members.setdefault(topic.name, {})
        if name in members:
            raise ValueError(f"topic {topic.name!r} has a subscriber named {name!r}")
        stats = self.stats.subscriber(topic.name, name)
        subscription = Subscription(
            topic, name, handler, batch_handler, size, self._redelivery, stats, self._tracer
        )
        member = members[name] = GroupMember(
            self._client,
            keys,
            subscription,
            lease=self._lease,
            deliveries=self._deliveries,
            dead_letters=self._dead_letters,
        )
        tasks.start_soon(member.run, name=f"{topic.name} -> {name}")
        if first and self._background is not None:
            self._background.start_soon(self._listen, keys, name=f"bell of {topic.name}")

    def _keys(self, topic: str) -> TopicKeys:
        keys = self._topics.get(topic)
        if keys is None:
            keys = self._topics[topic] = TopicKeys(topic, self._partitions)
        return keys

    def _open(self) -> TaskGroup:
        if self._tasks is None:
            raise ClosedError("the event bus is not open: use it within its 'async with'")
        return self._tasks

    async def _listen(self, keys: TopicKeys) -> None:
        """Wake members when somebody has published."""
        while True:
            with suppress(StoreUnavailableError):
                async with self._client.apart() as ask:
                    await self._listen_to(keys, ask)
            # Not all at once: whatever cut this one off has cut off the others as well.
            await anyio.sleep(pause_after(1, _AGAIN, _AGAIN))

    async def _listen_to(self, keys: TopicKeys, ask: Callable[..., Awaitable[Any]]) -> None:
        newest = await ask("XREVRANGE", keys.bell, "+", "-", "COUNT", 1)
        last = newest[0][0] if newest else b"0-0"
        rung: Sequence[Any] = ()
        while True:
            # At first, without a word, and when some may have been missed, everybody looks.
            numbers: set[int | None] = {None}
            if 0 < len(rung) < _BELLS:
                numbers = {int(number) for _, fields in rung for number in fields[1].split(b",")}
            for member in self._members[keys.topic].values():
                for number in numbers:
                    member.ring(number)
            with anyio.fail_after(_BLOCK + self._client.timeout):
                block = round(_BLOCK * 1000)
                answer = await ask(
                    *("XREAD", "COUNT", _BELLS, "BLOCK", block, "STREAMS", keys.bell, last)
                )
            rung = next(iter(answer.values())) if answer else ()
            if rung:
                last = rung[-1][0]

    async def _survey(self) -> None:
        while True:
            await anyio.sleep(_BLOCK)
            try:
                await self.look()
            except StoreUnavailableError as error:
                _logger.info("the streams could not be looked at: %s", error)


def _letter(topic: Topic[Any], letter: str, fields: Sequence[bytes]) -> DeadLetter:
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        event = topic.decode(values[b"e"])
    except DecodeError:
        event = None
    return DeadLetter(
        letter,
        event,
        values[b"e"],
        int(values[b"attempts"]),
        values[b"error"].decode(errors="replace"),
    )
