"""100,000 events, while those who move and handle them are killed at random."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any, Self

import anyio
import pytest
import sqlalchemy as sa
from tests.forked import FORKED
from tests.integration.events.workers import EFFECTS, LEASE, METADATA, MOVED, Moved, consume, relay

from bascule._redis import RedisClient
from bascule.events import RedisEventBus, SqlOutbox
from bascule.sql import Database

if TYPE_CHECKING:
    from collections.abc import Callable

    from bascule.testing.servers import MariaDBServer, RedisServer

_logger = logging.getLogger(__name__)

EVENTS = 100_000
KEYS = 1_000
BATCH = 500
SECONDS = 110.0
#: How far they are, cheap to ask: numbers are given in order.
RELAYED = sa.text("SELECT MIN(number) FROM outbox")
HANDLED = sa.text("SELECT MAX(number) FROM effects")


class Crew:
    """Relays and consumers, each a process that is replaced when it is killed."""

    def __init__(self, redis: str, database: str, seed: int) -> None:
        self._random = random.Random(seed)
        self._arguments = (redis, database)
        self._jobs: list[tuple[Callable[..., None], str]] = [
            (relay, "asyncio"),
            (relay, "trio"),
            (consume, "asyncio"),
            (consume, "trio"),
            (consume, "asyncio"),
        ]
        self._processes: list[Any] = []
        self.kills = {relay: 0, consume: 0}
        self.pauses = 0

    def __enter__(self) -> Self:
        self._processes = [self._start(place) for place in range(len(self._jobs))]
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def _start(self, place: int) -> Any:
        job, backend = self._jobs[place]
        process = FORKED.Process(target=job, args=(backend, *self._arguments))
        process.start()
        return process

    async def disturb(self, url: str, job: Callable[..., None], progress: sa.TextClause) -> None:
        """Kill or stop one of those with a job each time that some more has got done, however long it took."""
        places = [place for place, (one, _) in enumerate(self._jobs) if one is job]
        async with Database(url, pool_size=1) as database:
            following = 0
            while True:
                done = await database.read(lambda connection: connection.scalar(progress) or 0)
                if done < following:
                    await anyio.sleep(0.02)
                    continue
                following = done + self._random.randrange(1_000, 5_000)
                place = self._random.choice(places)
                process = self._processes[place]
                if self._random.random() < 0.15:
                    # Past its lease: then it goes on as if nothing had happened, and must be fenced.
                    os.kill(process.pid, signal.SIGSTOP)
                    await anyio.sleep(LEASE * 1.5)
                    os.kill(process.pid, signal.SIGCONT)
                    self.pauses += 1
                    continue
                process.kill()
                process.join()
                self.kills[job] += 1
                self._processes[place] = self._start(place)


async def store_all(url: str) -> None:
    """Add the events of all keys in turns, as a service does: some in each transaction."""
    async with Database(url, METADATA) as database:
        outbox = SqlOutbox(database, MOVED)
        numbers = range(EVENTS)
        for first in range(0, EVENTS, BATCH):
            events = [
                MOVED.event(str(number % KEYS), Moved(number // KEYS))
                for number in numbers[first : first + BATCH]
            ]
            await database.write(lambda connection, events=events: outbox.add(connection, *events))


async def count_effects(url: str, deadline: float) -> int:
    """Wait until all events have had their effect, or for what there is at the deadline."""
    async with Database(url) as database:
        query = sa.select(sa.func.count()).select_from(EFFECTS)
        while True:
            count: int = await database.read(lambda connection: connection.scalar(query) or 0)
            if count >= EVENTS or time.monotonic() > deadline:
                return count
            await anyio.sleep(0.5)


@pytest.mark.timeout(180)
def test_each_event_has_its_effect_once_and_in_order(
    own_redis: RedisServer, mariadb_server: MariaDBServer, mariadb_url: str
) -> None:
    begun = time.monotonic()
    seed = random.SystemRandom().randrange(2**32)

    async def main() -> None:
        async with Database(mariadb_url, METADATA):
            pass
        with Crew(own_redis.url, mariadb_url, seed) as crew:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(crew.disturb, mariadb_url, relay, RELAYED)
                tasks.start_soon(crew.disturb, mariadb_url, consume, HANDLED)
                await store_all(mariadb_url)
                stored = time.monotonic() - begun
                count = await count_effects(mariadb_url, begun + SECONDS)
                tasks.cancel_scope.cancel()
            handled = time.monotonic() - begun
        _logger.info(
            "seed %d: stored in %.1f s, handled in %.1f s, %.0f/s; killed %d relays and %d consumers,"
            " stopped %d for a while",
            *(seed, stored, handled, EVENTS / handled),
            *(crew.kills[relay], crew.kills[consume], crew.pauses),
        )
        assert count == EVENTS, f"lost or late, or doubled; seed {seed}"
        async with Database(mariadb_url) as database:
            query = sa.select(EFFECTS.c.piece, EFFECTS.c.step).order_by(EFFECTS.c.number)
            rows = await database.read(lambda connection: connection.execute(query).all())
        steps: dict[str, list[int]] = {}
        for piece, step in rows:
            steps.setdefault(piece, []).append(step)
        expected = list(range(EVENTS // KEYS))
        wrong = {piece: found for piece, found in steps.items() if found != expected}
        assert not wrong, f"seed {seed}"
        assert len(steps) == KEYS
        assert min(crew.kills.values()) > 3, "there was something to survive"
        async with RedisEventBus(own_redis.url) as bus, RedisClient(own_redis.url) as redis:
            assert await bus.dead_letters(MOVED, "board") == []
            assert await redis.call("XLEN", "bascule:events:{piece.moved}:0") > 0

    anyio.run(main)
