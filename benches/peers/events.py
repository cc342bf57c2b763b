"""``python -m benches.peers.events LOOP REDIS FOLDER EVENTS``: events through outbox, Redis and inbox.

One process has it all: the service that stores them, one relay, one consumer, and a SQLite database for
each side. Prints one JSON object of figures.
"""

import json
import sys
import time
from collections.abc import Sequence

import anyio
import msgspec
import sqlalchemy as sa

from bascule.app import settle_memory
from bascule.events import (
    Event,
    OutboxRelay,
    RedisEventBus,
    SqlInbox,
    SqlOutbox,
    Topic,
    inbox_tables,
    outbox_tables,
)
from bascule.sql import Database
from benches.peers.percentile import percentile

_KEYS = 100
_AT_ONCE = 500  #: events that one transaction stores, to fill the outbox
_SEQUENTIAL = 100
_CONSUMER = "bench"


class Happened(msgspec.Struct, frozen=True):
    """Something did."""

    number: int


_TOPIC = Topic("bench.happened", Happened)


class Effects:
    """Counts what came out at the far end."""

    def __init__(self) -> None:
        self.count = 0
        self._wanted = 0
        self._reached = anyio.Event()

    def want(self, more: int) -> None:
        """Wait for so many more."""
        self._wanted, self._reached = self.count + more, anyio.Event()

    async def reached(self) -> None:
        """Return when they are there.

        :raises TimeoutError: if they do not come
        """
        with anyio.fail_after(60):
            await self._reached.wait()

    def add(self, count: int) -> None:
        """Count."""
        self.count += count
        if self.count >= self._wanted:
            self._reached.set()


def _event(number: int) -> Event[Happened]:
    return _TOPIC.event(f"key-{number % _KEYS}", Happened(number))


async def measure(redis: str, folder: str, events: int) -> dict[str, float]:
    """Drain an outbox that is full, then follow events one after the other."""
    stored, handled = sa.MetaData(), sa.MetaData()
    outbox_tables(stored)
    inbox_tables(handled)
    effects = Effects()
    async with (
        Database(f"sqlite:///{folder}/service.db", stored) as service,
        Database(f"sqlite:///{folder}/consumer.db", handled) as consumer,
        RedisEventBus(redis) as bus,
    ):
        outbox, inbox = SqlOutbox(service, _TOPIC), SqlInbox(consumer, _CONSUMER)

        async def handle(batch: Sequence[Event[Happened]]) -> None:
            effects.add(await inbox.once(batch, lambda _connection, _events: None))

        async def store(numbers: range) -> None:
            await service.write(lambda connection: outbox.add(connection, *map(_event, numbers)))

        bus.subscribe_batches(_TOPIC, handle, name=_CONSUMER)
        async with OutboxRelay(outbox, bus) as relay:
            # The consumer has its partitions once the first event has come.
            effects.want(1)
            await store(range(1))
            relay.notify()
            await effects.reached()
        settle_memory()
        for first in range(0, events, _AT_ONCE):
            await store(range(first, min(first + _AT_ONCE, events)))
        effects.want(events)
        started, used = time.perf_counter(), time.process_time()
        async with OutboxRelay(outbox, bus) as relay:
            await effects.reached()
            took, cpu = time.perf_counter() - started, time.process_time() - used
            delays = []
            for number in range(_SEQUENTIAL):
                effects.want(1)
                begun = time.perf_counter()
                await store(range(number, number + 1))
                relay.notify()
                await effects.reached()
                delays.append(time.perf_counter() - begun)
    return {
        "events_per_second": events / took,
        "cpu_per_event": cpu / events,
        "p50": percentile(delays, 50),
        "p99": percentile(delays, 99),
    }


if __name__ == "__main__":
    loop, url, place, count = sys.argv[1:]
    print(json.dumps(anyio.run(measure, url, place, int(count), backend=loop)))
