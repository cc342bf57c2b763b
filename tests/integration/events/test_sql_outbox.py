"""Outbox and inbox on real databases: what is stored, claimed, fenced and marked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

import anyio
import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bascule.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    EncodeError,
    StoreUnavailableError,
)
from bascule.events import (
    Event,
    LeaseLostError,
    MemoryEventBus,
    OutboxClaim,
    OutboxRelay,
    RedisEventBus,
    SqlInbox,
    SqlOutbox,
    Topic,
    inbox_tables,
    outbox_tables,
)
from bascule.observe import Metrics
from bascule.sql import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from bascule.testing.servers import RedisServer

pytestmark = pytest.mark.anyio


class Moved(msgspec.Struct, frozen=True):
    step: int


MOVED = Topic("piece.moved", Moved)
TAKEN = Topic("piece.taken", Moved)
METADATA = sa.MetaData()
outbox_tables(METADATA)
inbox_tables(METADATA)
EFFECTS = sa.Table(
    "effects",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("event", sa.String(64), nullable=False),
)


def moved(key: str, step: int = 0) -> Event[Moved]:
    return MOVED.event(key, Moved(step))


@pytest.fixture(params=["sqlite", "mariadb"])
async def database(
    request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str
) -> AsyncIterator[Database]:
    url = (
        f"sqlite:///{tmp_path / 'events.db'}"
        if request.param == "sqlite"
        else request.getfixturevalue("mariadb_url")
    )
    async with Database(url, METADATA) as database:
        yield database


async def store(database: Database, outbox: SqlOutbox, *events: Event[Any]) -> None:
    await database.write(lambda connection: outbox.add(connection, *events))


def steps(claim: OutboxClaim | None) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for _, event in claim.events if claim is not None else ():
        found.setdefault(event.key, []).append(event.payload.step)
    return found


class Log:
    """A bus that remembers what it was given, and fails on demand."""

    def __init__(self) -> None:
        self.events: list[Event[Any]] = []
        self.failures = 0
        self.more = anyio.Event()

    async def publish(self, *events: Event[Any]) -> None:
        await anyio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError("the bus is away")
        self.events.extend(events)
        self.more.set()
        self.more = anyio.Event()

    def subscribe(self, *arguments: Any, **named: Any) -> None: ...

    subscribe_batches = subscribe

    async def until(self, count: int) -> None:
        with anyio.fail_after(20):
            while len(self.events) < count:
                await self.more.wait()

    @property
    def steps(self) -> dict[str, list[int]]:
        return steps(OutboxClaim({}, list(enumerate(self.events))))


async def test_an_event_is_stored_with_its_change_or_not_at_all(database: Database) -> None:
    outbox = SqlOutbox(database, MOVED)

    def fail(connection: sa.Connection) -> None:
        outbox.add(connection, moved("a"))
        raise ValueError("rolled back")

    with pytest.raises(ValueError, match="rolled back"):
        await database.write(fail)
    with pytest.raises(EncodeError):
        await store(database, outbox, moved("k" * 300))
    assert await outbox.backlog() == (0, 0.0)
    await store(database, outbox)
    event = moved("a")
    await store(database, outbox, event)
    ((_, pending),) = await outbox.pending(10)
    assert pending == event
    count, age = await outbox.backlog()
    assert count == 1
    assert 0 <= age < 20


async def test_two_relays_never_hold_the_same_shard(database: Database) -> None:
    outbox = SqlOutbox(database, MOVED)
    await store(database, outbox, *(moved(str(key)) for key in range(64)))
    held: set[int] = set()
    keys: set[str] = set()
    while claim := await outbox.claim("relay", 100, 60.0):
        assert not held & set(claim.shards)
        held |= set(claim.shards)
        keys |= set(steps(claim))
    assert held == set(range(16))
    assert keys == {str(key) for key in range(64)}


async def test_what_is_claimed_at_the_same_time_goes_to_one(database: Database) -> None:
    outbox = SqlOutbox(database, MOVED)
    await store(database, outbox, moved("a"))
    claims: list[OutboxClaim] = []

    async def claim(relay: str) -> None:
        found = await outbox.claim(relay, 100, 60.0)
        if found is not None:
            claims.append(found)

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(claim, str(number))
    assert len(claims) == 1


async def test_settling_forgets_gives_the_next_and_then_frees_the_shards(
    database: Database,
) -> None:
    outbox = SqlOutbox(database, MOVED)
    await store(database, outbox, *(moved("a", step) for step in range(5)))
    claim = await outbox.claim("one", 2, 60.0)
    assert steps(claim) == {"a": [0, 1]}
    assert claim is not None
    claim = await outbox.settle(claim, limit=2, lease=60.0)
    assert steps(claim) == {"a": [2, 3]}
    assert await outbox.claim("two", 2, 60.0) is None, "the lease goes on"
    assert claim is not None
    assert await outbox.settle(claim, limit=0, lease=60.0) is None
    claim = await outbox.claim("two", 2, 60.0)
    assert steps(claim) == {"a": [4]}
    assert claim is not None
    assert await outbox.settle(claim, limit=2, lease=60.0) is None
    assert await outbox.backlog() == (0, 0.0)


async def test_a_relay_stopped_past_its_lease_is_fenced(database: Database) -> None:
    outbox = SqlOutbox(database, MOVED)
    await store(database, outbox, moved("a", 1), moved("a", 2))
    stopped = await outbox.claim("stopped", 1, 0.0)
    assert stopped is not None
    heir = await outbox.claim("heir", 1, 60.0)
    assert steps(stopped) == steps(heir) == {"a": [1]}
    with pytest.raises(LeaseLostError, match="shard"):
        await outbox.settle(stopped, limit=1, lease=60.0)
    await outbox.give_up(stopped)
    assert (await outbox.backlog())[0] == 2, "what it had is the heir's to forget"
    assert await outbox.claim("third", 1, 60.0) is None, "and it freed nothing of the heir's"
    assert heir is not None
    assert steps(await outbox.settle(heir, limit=1, lease=60.0)) == {"a": [2]}


async def test_what_one_relay_does_not_know_waits_for_another(database: Database) -> None:
    both, one = SqlOutbox(database, MOVED, TAKEN), SqlOutbox(database, MOVED)
    await store(database, both, TAKEN.event("a", Moved(1)), moved("a", 2))
    claim = await one.claim("relay", 10, 60.0)
    assert steps(claim) == {"a": [2]}
    assert claim is not None
    assert await one.settle(claim, limit=10, lease=60.0) is None
    assert await one.claim("relay", 10, 60.0) is None
    assert steps(await both.claim("relay", 10, 60.0)) == {"a": [1]}


async def test_the_relay_publishes_what_was_left_behind_and_what_comes(database: Database) -> None:
    outbox, log = SqlOutbox(database, MOVED), Log()
    await store(database, outbox, *(moved(key, step) for step in range(75) for key in "ab"))
    async with OutboxRelay(outbox, log, batch=10) as relay:
        await log.until(150)
        await store(database, outbox, moved("c"))
        relay.notify()
        await log.until(151)
        await store(database, outbox, moved("d"))
    assert log.steps == {"a": list(range(75)), "b": list(range(75)), "c": [0], "d": [0]}
    assert relay.stats.relayed == 152
    assert (relay.stats.pending, relay.stats.oldest) != (-1, -1)
    assert await outbox.backlog() == (0, 0.0)


async def test_the_relay_finds_what_another_process_has_stored(database: Database) -> None:
    outbox, log = SqlOutbox(database, MOVED), Log()
    async with OutboxRelay(outbox, log, poll=0.05):
        await store(database, SqlOutbox(database, MOVED), moved("a"))
        await log.until(1)


async def test_the_relay_goes_on_after_a_failure_and_keeps_the_order(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    outbox, log = SqlOutbox(database, MOVED), Log()
    log.failures = 3
    await store(database, outbox, *(moved("a", step) for step in range(30)))
    async with OutboxRelay(outbox, log, retry=0.01, batch=7):
        await log.until(30)
    assert log.steps == {"a": list(range(30))}
    assert caplog.text.count("outbox could not be published") == 3
    assert "Traceback" not in caplog.text, "a bus that is away is no fault of ours"


async def test_an_event_that_cannot_be_read_holds_up_its_own_shard_only(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as one that another version of the service has stored."""

    class Other(msgspec.Struct, frozen=True):
        steps: list[str]

    other = SqlOutbox(database, Topic(MOVED.name, Other))
    outbox, log = SqlOutbox(database, MOVED), Log()
    keys = [f"k{number}" for number in range(200)]
    stuck = crc32(b"k0") % 16
    fine = [key for key in keys if crc32(key.encode()) % 16 != stuck]
    await store(database, outbox, moved("k0", 0))
    await store(database, other, Topic(MOVED.name, Other).event("k0", Other(["1"])))
    await store(database, outbox, *(moved(key, 2) for key in keys))
    async with OutboxRelay(outbox, log, retry=0.01, poll=0.05, batch=10):
        await log.until(len(fine) + 1)
    assert log.steps == {"k0": [0]} | {key: [2] for key in fine}
    assert (await outbox.backlog())[0] == 1 + len(keys) - len(fine)
    assert 1 <= caplog.text.count("cannot be read") <= 3, "it is told, but not all the time"
    claims = [await other.claim("newer", 10, 60.0)]
    assert claims == [None], "the shard is leased for a while, so that others get their turn"


async def test_a_relay_whose_bus_and_database_fail_tells_of_the_bus(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(SqlOutbox):
        async def give_up(self, claim: OutboxClaim) -> None:
            raise DatabaseUnavailableError("events", "lost", "the connection broke")

    outbox, log = Failing(database, MOVED), Log()
    log.failures = 1
    await store(database, outbox, moved("a"))
    async with OutboxRelay(outbox, log, retry=0.01, lease=0.1):
        await log.until(1)
    assert "the bus is away" in caplog.text
    assert "Traceback" not in caplog.text


async def test_several_relays_share_the_work_and_keep_the_order(database: Database) -> None:
    outbox, log = SqlOutbox(database, MOVED), Log()
    keys = [str(key) for key in range(20)]
    relays = [OutboxRelay(outbox, log, batch=5, poll=0.05) for _ in range(3)]
    async with relays[0], relays[1], relays[2]:
        for step in range(0, 10, 2):
            events = (moved(key, step + more) for more in range(2) for key in keys)
            await store(database, outbox, *events)
            for relay in relays:
                relay.notify()
        await log.until(200)
    assert log.steps == {key: list(range(10)) for key in keys}
    assert sum(relay.stats.relayed for relay in relays) == 200
    assert sum(relay.stats.relayed > 0 for relay in relays) > 1


@settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    actions=st.lists(
        st.one_of(
            st.tuples(st.just("store"), st.sampled_from("abc")),
            st.tuples(st.just("claim"), st.booleans()),
            st.tuples(st.just("publish"), st.integers(0, 4)),
            st.tuples(st.just("settle"), st.integers(0, 4)),
        ),
        max_size=40,
    )
)
async def test_whatever_relays_do_first_publications_keep_the_order_and_none_is_lost(
    actions: list[tuple[str, Any]], tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> None:
    """Relays claim, stop, lose their leases, publish late and settle late, in any order."""
    path = tmp_path_factory.mktemp("outbox") / "o.db"
    stored: dict[str, int] = {"a": 0, "b": 0, "c": 0}
    log = Log()
    async with Database(f"sqlite:///{path}", METADATA) as database:
        outbox = SqlOutbox(database, MOVED)
        # A relay publishes its batch in order; it may stop after any event of it.
        claims: list[tuple[OutboxClaim, list[Event[Any]]]] = []
        for action, detail in actions:
            if action == "store":
                stored[detail] += 1
                await store(database, outbox, moved(detail, stored[detail]))
            elif action == "claim":
                claim = await outbox.claim("r", 3, 0.0 if detail else 60.0)
                if claim is not None:
                    claims.append((claim, [event for _, event in claim.events]))
            elif claims and action == "publish":
                left = claims[detail % len(claims)][1]
                if left:
                    await log.publish(left.pop(0))
            elif claims:
                claim, left = claims.pop(detail % len(claims))
                if not left:
                    try:
                        await outbox.settle(claim, limit=0, lease=60.0)
                    except LeaseLostError:
                        continue
        await database.write(lambda connection: _expire(connection))
        async with OutboxRelay(outbox, log):
            pass
    for key, count in stored.items():
        assert list(dict.fromkeys(log.steps.get(key, []))) == list(range(1, count + 1))


def _expire(connection: sa.Connection) -> None:
    connection.execute(sa.text("UPDATE outbox_leases SET until = 0"))


async def test_the_backlog_is_a_metric_while_the_bus_is_away(database: Database) -> None:
    outbox, log = SqlOutbox(database, MOVED, name="pieces"), Log()
    log.failures = 1_000
    await store(database, outbox, moved("a"), moved("b"))
    metrics = Metrics()
    async with OutboxRelay(outbox, log, retry=0.01, grace=0.0) as relay:
        metrics.add_events(relay.stats)
        with anyio.fail_after(10):
            while log.failures == 1_000:  # noqa: ASYNC110 (the bus is a fake that tells nobody)
                await anyio.sleep(0.01)
    text = metrics.render()[0].decode()
    assert 'outbox_relayed_total{outbox="pieces"} 0.0' in text
    assert 'outbox_pending{outbox="pieces"} 2.0' in text
    assert 0 <= relay.stats.oldest < 20


@pytest.mark.parametrize("wrong", [{"poll": 0.0}, {"lease": -1.0}, {"batch": 0}, {"retry": -1.0}])
def test_a_relay_that_cannot_work_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    outbox = SqlOutbox(Database(f"sqlite:///{tmp_path / 'x.db'}"), MOVED)
    with pytest.raises(ConfigurationError):
        OutboxRelay(outbox, MemoryEventBus(), **wrong)


def have_effect(connection: sa.Connection, events: Sequence[Event[Moved]]) -> None:
    connection.execute(sa.insert(EFFECTS), [{"event": event.id} for event in events])


async def effects(database: Database) -> list[str]:
    query = sa.select(EFFECTS.c.event).order_by(EFFECTS.c.number)
    return await database.read(lambda connection: list(connection.scalars(query)))


async def test_an_event_has_its_effect_once_whatever_comes_together(database: Database) -> None:
    inbox = SqlInbox(database, "pieces")
    events = [moved("a", step) for step in range(4)]
    assert await inbox.once(events[:2], have_effect) == 2
    assert await inbox.once([events[1], events[2], events[2]], have_effect) == 1
    await inbox.batch_handler(have_effect)(events)
    assert await effects(database) == [event.id for event in events]
    other = SqlInbox(database, "other consumer")
    seen: list[str] = []
    handle = other.handler(lambda connection, event: seen.append(event.id))
    await handle(events)
    await handle(events)
    assert seen == [event.id for event in events], "each consumer has marks of its own"


async def test_an_effect_that_fails_leaves_no_mark_and_no_effect(database: Database) -> None:
    inbox = SqlInbox(database, "pieces")
    events = [moved("a", step) for step in range(3)]

    def fail_at_the_last(connection: sa.Connection, events: Sequence[Event[Moved]]) -> None:
        have_effect(connection, events)
        if events[-1].payload.step == 2:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await inbox.once(events, fail_at_the_last)
    assert await effects(database) == []
    assert await inbox.once(events, have_effect) == 3


async def test_an_event_marked_by_two_at_once_has_its_effect_once(database: Database) -> None:
    inbox = SqlInbox(database, "pieces")
    events = [moved("a", step) for step in range(20)]

    async def handle(some: Sequence[Event[Moved]]) -> None:
        await inbox.once(some, have_effect)

    async with anyio.create_task_group() as tasks:
        for start in range(6):
            tasks.start_soon(handle, events[start:] + events[:start])
    assert sorted(await effects(database)) == sorted(event.id for event in events)


async def test_a_mark_can_be_made_in_a_transaction_of_the_handlers_own(database: Database) -> None:
    inbox, event = SqlInbox(database, "pieces"), moved("a")
    assert await database.write(lambda connection: inbox.first(connection, event))
    assert not await database.write(lambda connection: inbox.first(connection, event))


async def test_consumers_and_events_that_differ_by_case_are_different(database: Database) -> None:
    """MySQL would take them for the same, and one of them would have no effect."""
    upper, lower = SqlInbox(database, "Stock"), SqlInbox(database, "stock")
    first, second = replace(moved("a"), id="ab"), replace(moved("a"), id="AB")
    for inbox, event in ((upper, first), (lower, first), (lower, second)):
        assert await inbox.once([event], lambda *_: None) == 1


async def test_old_marks_are_forgotten_and_young_ones_are_not(database: Database) -> None:
    inbox = SqlInbox(database, "pieces")
    old, young = [moved("a", step) for step in range(1_500)], moved("b")
    await inbox.once(old, lambda connection, events: None)

    def age(connection: sa.Connection) -> None:
        connection.execute(sa.text("UPDATE inbox SET handled_at = handled_at - 3600000000"))

    await database.write(age)
    await inbox.once([young], have_effect)
    assert await inbox.purge(1800.0) == 1_500
    assert await inbox.purge(1800.0) == 0
    assert await inbox.once([young], have_effect) == 0
    assert await inbox.once(old[:1], have_effect) == 1


async def test_events_survive_the_restarts_of_redis_on_their_whole_way(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    """From the outbox through a Redis that is killed again and again to the inbox."""
    total, keys = 4_000, 50
    async with (
        Database(f"sqlite:///{tmp_path / 'e.db'}", METADATA) as database,
        RedisEventBus(own_redis.url, lease=1.0, timeout=1.0) as bus,
    ):
        outbox, inbox = SqlOutbox(database, MOVED), SqlInbox(database, "pieces")
        bus.subscribe_batches(MOVED, inbox.batch_handler(have_effect), name="pieces")
        async with OutboxRelay(outbox, bus, retry=0.02, batch=100) as relay:
            stored: list[str] = []
            for step in range(total // keys):
                events = [moved(str(key), step) for key in range(keys)]
                stored += [event.id for event in events]
                await store(database, outbox, *events)
                relay.notify()
                if step % 20 == 10:
                    own_redis.kill()
                    own_redis.start()
            with anyio.fail_after(60):
                while len(await effects(database)) < total:  # noqa: ASYNC110 (a database tells nobody)
                    await anyio.sleep(0.05)
        found = await effects(database)
        assert sorted(found) == sorted(stored)
        place = {event: number for number, event in enumerate(found)}
        for key in range(keys):
            places = [place[event] for event in stored[key::keys]]
            assert places == sorted(places), "in order of the key"
        assert await outbox.backlog() == (0, 0.0)
