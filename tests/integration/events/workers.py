"""What the processes do that :mod:`test_kills` kills."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import msgspec
import sqlalchemy as sa

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

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EFFECTS", "LEASE", "METADATA", "MOVED", "Moved", "consume", "relay"]


class Moved(msgspec.Struct, frozen=True):
    step: int


MOVED = Topic("piece.moved", Moved)
METADATA = sa.MetaData()
outbox_tables(METADATA)
inbox_tables(METADATA)
#: Nothing here forbids to have an effect twice, or in another order.
EFFECTS = sa.Table(
    "effects",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("piece", sa.String(20), nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
)

LEASE = 2.0


def relay(backend: str, redis: str, database: str) -> None:
    """Move events from the outbox to Redis until killed."""

    async def run() -> None:
        async with (
            Database(database, pool_size=2) as db,
            RedisEventBus(redis, lease=LEASE) as bus,
            OutboxRelay(SqlOutbox(db, MOVED), bus, lease=LEASE, poll=0.1, retry=0.05),
        ):
            await anyio.sleep_forever()

    anyio.run(run, backend=backend)


def consume(backend: str, redis: str, database: str) -> None:
    """Handle events through the inbox until killed."""

    def effect(connection: sa.Connection, events: Sequence[Event[Moved]]) -> None:
        rows = [{"piece": event.key, "step": event.payload.step} for event in events]
        connection.execute(sa.insert(EFFECTS), rows)

    async def run() -> None:
        async with (
            Database(database, pool_size=4) as db,
            RedisEventBus(redis, lease=LEASE) as bus,
        ):
            handler = SqlInbox(db, "board").batch_handler(effect)
            bus.subscribe_batches(MOVED, handler, name="board", size=200)
            await anyio.sleep_forever()

    anyio.run(run, backend=backend)
