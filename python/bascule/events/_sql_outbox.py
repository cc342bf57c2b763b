"""The outbox in SQL: events are stored with the change that they tell of."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from zlib import crc32

import sqlalchemy as sa

from bascule.errors import DecodeError
from bascule.events._outbox import LeaseLostError, OutboxClaim
from bascule.sql import database_micros

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bascule.events._event import Event, Topic
    from bascule.sql import Database

__all__ = ["SqlOutbox", "outbox_tables"]

_logger = logging.getLogger("bascule.events")
# So many relays can work at once. Each key belongs to one shard for ever: it stands in stored rows.
_SHARDS = 16
_SHARDS_A_CLAIM = 4


def outbox_tables(metadata: sa.MetaData) -> None:
    """Add the tables of a :class:`SqlOutbox` to those of a service, for its migrations to make."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    sa.Table(
        "outbox",
        metadata,
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("shard", sa.SmallInteger, nullable=False),
        sa.Column("topic", sa.String(100), nullable=False),
        sa.Column("event", sa.LargeBinary, nullable=False),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
        sa.Index("outbox_by_shard", "shard", "number"),
        sqlite_autoincrement=True,
    )
    sa.Table(
        "outbox_leases",
        metadata,
        sa.Column("shard", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("relay", sa.String(64), nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
    )


_METADATA = sa.MetaData()
outbox_tables(_METADATA)
_OUTBOX = _METADATA.tables["outbox"]
_LEASES = _METADATA.tables["outbox_leases"]


class SqlOutbox:
    """A service's unpublished events, in its own database. See :class:`OutboxRelay`.

    ::

        def work(connection):
            connection.execute(insert(users).values(...))
            outbox.add(connection, USER_CREATED.event(user_id, UserCreated(user_id)))

        await database.write(work)
        relay.notify()

    Events of one key keep the order in which their transactions changed what the key names, if each
    changes it before it adds its event: the row's lock makes the later one wait. Rows of topics that
    are not given here wait for a relay that knows them. An event that cannot be read, since another
    version of the service has stored it, holds up the events of its shard until a relay can read it;
    the log tells its number.

    :param database: must have the tables of :func:`outbox_tables`
    :param topics: of the events that the service stores
    :param name: in metrics and logs
    """

    def __init__(self, database: Database, *topics: Topic[Any], name: str = "outbox") -> None:
        self.name = name
        self._database = database
        self._topics: Mapping[str, Topic[Any]] = {topic.name: topic for topic in topics}
        self._ready = False
        known = _OUTBOX.c.topic.in_(list(self._topics))
        self._waiting = sa.exists().where(_OUTBOX.c.shard == _LEASES.c.shard, known)
        self._oldest = sa.select(_OUTBOX).where(known).order_by(_OUTBOX.c.number)

    def add(self, connection: sa.Connection, *events: Event[Any]) -> None:
        """Store events in the transaction that changes what they tell of.

        :raises EncodeError: if an event is too large
        """
        now = database_micros(connection)
        rows = [
            {
                "shard": crc32(event.key.encode()) % _SHARDS,
                "topic": event.topic.name,
                "event": event.topic.encode(event.traced()),
                "stored_at": now,
            }
            for event in events
        ]
        if rows:
            connection.execute(sa.insert(_OUTBOX), rows)

    async def claim(self, relay: str, limit: int, lease: float) -> OutboxClaim | None:
        """Claim shards that have events. See :class:`OutboxStore`."""
        if not self._ready:
            await self._database.write(_make_leases)
            self._ready = True

        def free(connection: sa.Connection) -> list[tuple[int, int]]:
            now = database_micros(connection)
            # Whose turn it has not been for longest comes first.
            query = (
                sa.select(_LEASES.c.shard, _LEASES.c.token)
                .where(_LEASES.c.until <= now, self._waiting)
                .order_by(_LEASES.c.until, _LEASES.c.shard)
                .limit(_SHARDS_A_CLAIM)
            )
            return [(row.shard, row.token) for row in connection.execute(query)]

        def take(connection: sa.Connection) -> OutboxClaim | None:
            now = database_micros(connection)
            until = now + round(lease * 1e6)
            taken: dict[int, int] = {}
            for shard, token in sorted(candidates):
                changed = connection.execute(
                    sa.update(_LEASES)
                    .where(
                        _LEASES.c.shard == shard, _LEASES.c.token == token, _LEASES.c.until <= now
                    )
                    .values(token=token + 1, relay=relay, until=until)
                )
                if changed.rowcount == 1:
                    taken[shard] = token + 1
            return self._next(connection, taken, limit) if taken else None

        candidates = await self._database.read(free)
        return await self._database.write(take) if candidates else None

    async def settle(self, claim: OutboxClaim, *, limit: int, lease: float) -> OutboxClaim | None:
        """Forget what was published. See :class:`OutboxStore`."""

        def work(connection: sa.Connection) -> OutboxClaim | None:
            now = database_micros(connection)
            until = now + round(lease * 1e6)
            for shard, token in claim.shards.items():
                if self._extend(connection, shard, token, now, until) != 1:
                    raise LeaseLostError(f"the lease of shard {shard} of {self.name} ran out")
            numbers = [number for number, _ in claim.events]
            if numbers:
                connection.execute(sa.delete(_OUTBOX).where(_OUTBOX.c.number.in_(numbers)))
            following = self._next(connection, claim.shards, limit) if limit else None
            if following is None or not following.events:
                freed = claim if following is None else following
                for shard, token in freed.shards.items():
                    self._extend(connection, shard, token, now, now)
                return None
            return following

        return await self._database.write(work)

    async def give_up(self, claim: OutboxClaim) -> None:
        """Let others have the shards. See :class:`OutboxStore`."""

        def work(connection: sa.Connection) -> None:
            now = database_micros(connection)
            for shard, token in claim.shards.items():
                self._extend(connection, shard, token, now, now)

        await self._database.write(work)

    async def pending(self, limit: int) -> Sequence[tuple[int, Event[Any]]]:
        """Give the oldest events that wait, with their numbers, and leave them where they are."""
        query = self._oldest.limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [(row.number, self._topics[row.topic].decode(row.event)) for row in rows]

    async def backlog(self) -> tuple[int, float]:
        """Tell what waits. See :class:`OutboxStore`."""

        def work(connection: sa.Connection) -> tuple[int, float]:
            query = sa.select(sa.func.count(), sa.func.min(_OUTBOX.c.stored_at)).select_from(
                _OUTBOX
            )
            count, oldest = connection.execute(query).one()
            age = 0 if oldest is None else max(0, database_micros(connection) - oldest)
            return count, age / 1e6

        return await self._database.read(work)

    def _next(
        self, connection: sa.Connection, shards: Mapping[int, int], limit: int
    ) -> OutboxClaim:
        query = self._oldest.where(_OUTBOX.c.shard.in_(list(shards))).limit(limit)
        events: list[tuple[int, Event[Any]]] = []
        readable: set[int] = set()
        stuck: set[int] = set()
        for row in connection.execute(query):
            if row.shard in stuck:
                continue
            try:
                events.append((row.number, self._topics[row.topic].decode(row.event)))
                readable.add(row.shard)
            except DecodeError as error:
                stuck.add(row.shard)
                if row.shard not in readable:
                    _logger.error(  # noqa: TRY400 - whoever stored it is at fault, not this line
                        "event %d of %s in %s cannot be read: it and what follows it in shard %d wait for"
                        " a relay of a version that can: %s",
                        *(row.number, row.topic, self.name, row.shard, error),
                    )
        # What begins with such an event stays leased, so that the other shards get their turn.
        kept = {s: token for s, token in shards.items() if s in readable or s not in stuck}
        return OutboxClaim(kept, events)

    def _extend(
        self, connection: sa.Connection, shard: int, token: int, now: int, until: int
    ) -> int:
        """Move the end of a lease that is still ours; tell whether it was."""
        mine = (_LEASES.c.shard == shard, _LEASES.c.token == token, _LEASES.c.until >= now)
        return connection.execute(sa.update(_LEASES).where(*mine).values(until=until)).rowcount


def _make_leases(connection: sa.Connection) -> None:
    """Make the row of each shard; a relay that does the same at the same time does no harm."""
    for shard in range(_SHARDS):
        if connection.scalar(sa.select(_LEASES.c.shard).where(_LEASES.c.shard == shard)) is None:
            try:
                with connection.begin_nested():
                    connection.execute(
                        sa.insert(_LEASES).values(shard=shard, token=0, relay="", until=0)
                    )
            except sa.exc.IntegrityError:
                continue
