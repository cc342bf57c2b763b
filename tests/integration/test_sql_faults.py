"""Databases on a real MariaDB that is stopped, killed, silenced and fought over."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
import sqlalchemy as sa

from bascule.errors import CommitUnknownError, DatabaseUnavailableError
from bascule.sql import Database, _dialects

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bascule.testing.servers import MariaDBServer

pytestmark = pytest.mark.anyio

METADATA = sa.MetaData()
ROWS = sa.Table(
    "entries",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("value", sa.Integer, nullable=False),
    sa.Column("text", sa.String(5)),
)


LONG = "SELECT COUNT(*) FROM seq_1_to_1000000 a, seq_1_to_1000000 b WHERE a.seq * b.seq = 7"


def bump(number: int) -> sa.Update:
    return sa.update(ROWS).where(ROWS.c.id == number).values(value=ROWS.c.value + 1)


def run(statement: sa.Executable, connection: sa.Connection) -> None:
    connection.execute(statement)


def values(connection: sa.Connection) -> list[int]:
    return list(connection.scalars(sa.select(ROWS.c.value).order_by(ROWS.c.id)))


async def fill(database: Database) -> None:
    rows = [{"id": number, "value": 0} for number in range(2)]
    await database.write(lambda connection: connection.execute(sa.insert(ROWS), rows))


@pytest.fixture
async def database(mariadb_url: str) -> AsyncIterator[Database]:
    async with Database(mariadb_url, METADATA, lock_timeout=1.0) as database:
        await fill(database)
        yield database


async def test_the_session_is_strict_and_bounded(database: Database) -> None:
    query = "SELECT @@tx_isolation, @@innodb_lock_wait_timeout, @@max_statement_time, @@sql_mode, @@autocommit"
    row = await database.read(lambda connection: connection.execute(sa.text(query)).one())
    assert tuple(row)[:3] == ("READ-COMMITTED", 1, 30.0)
    assert "STRICT_ALL_TABLES" in row[3]
    assert row[4] == 0
    with pytest.raises(sa.exc.DataError):
        await database.write(lambda c: c.execute(sa.update(ROWS).values(text="too long")))


async def test_a_deadlock_is_run_again_until_both_have_their_way(database: Database) -> None:
    """Two transactions take the same rows in opposite order, and meet in the middle the first time."""
    meeting = threading.Barrier(2)

    def cross(first: int, second: int) -> Callable[[sa.Connection], None]:
        met = False

        def work(connection: sa.Connection) -> None:
            nonlocal met
            connection.execute(bump(first))
            if not met:
                met = True
                meeting.wait(10)
            connection.execute(bump(second))

        return work

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.write, cross(0, 1))
        tasks.start_soon(database.write, cross(1, 0))
    assert await database.read(values) == [2, 2]
    assert database.stats.reruns == 1


async def test_a_lock_that_never_ends_is_given_up(mariadb_url: str) -> None:
    async with Database(mariadb_url, METADATA, lock_timeout=1.0, attempts=2) as database:
        await fill(database)
        other = sa.create_engine(mariadb_url)
        with other.begin() as connection:
            connection.execute(bump(0))
            with pytest.raises(DatabaseUnavailableError, match="given up after 2") as caught:
                await database.write(lambda c: c.execute(bump(0)))
        other.dispose()
        assert caught.value.reason == "contended"
        assert await database.read(values) == [1, 0]


async def test_a_statement_that_takes_too_long_is_stopped(mariadb_url: str) -> None:
    async with Database(mariadb_url, statement_timeout=0.3) as database:
        begun = time.perf_counter()
        with pytest.raises(DatabaseUnavailableError) as caught:
            await database.read(lambda c: c.scalar(sa.text(LONG)))
        assert time.perf_counter() - begun < 5.0
        assert caught.value.reason == "slow"
        await database.ping()


async def kill_others(database: Database) -> None:
    """End every other connection of this database's user, as an administrator may."""

    def work(connection: sa.Connection) -> None:
        query = sa.text(
            "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND db = database()"
        )
        for number in connection.scalars(query).all():
            connection.exec_driver_sql(f"KILL {number}")

    await database.write(work)


async def test_dead_connections_of_the_pool_fail_nobody(
    database: Database, mariadb_url: str
) -> None:
    await database.ping()
    async with Database(mariadb_url) as other:
        await kill_others(other)
    await database.write(lambda connection: connection.execute(bump(0)))
    assert await database.read(values) == [1, 0]


async def test_a_connection_lost_before_commit_is_run_again_and_counts_once(
    database: Database, mariadb_url: str
) -> None:
    killed, go_on = threading.Event(), threading.Event()
    runs = 0

    def work(connection: sa.Connection) -> None:
        nonlocal runs
        runs += 1
        connection.execute(bump(0))
        killed.set()
        assert go_on.wait(10)
        connection.execute(bump(1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.write, work)
        assert await anyio.to_thread.run_sync(killed.wait, 10)
        async with Database(mariadb_url) as other:
            await kill_others(other)
        go_on.set()
    assert runs == 2
    assert await database.read(values) == [1, 1]
    assert (database.stats.lost, database.stats.reruns) == (1, 1)


async def test_a_connection_lost_during_commit_is_told_apart(
    database: Database, mariadb_url: str
) -> None:
    worked, go_on = threading.Event(), threading.Event()

    def work(connection: sa.Connection) -> None:
        connection.execute(bump(0))
        worked.set()
        assert go_on.wait(10)

    async with anyio.create_task_group() as tasks:

        async def write() -> None:
            with pytest.raises(CommitUnknownError, match="it is unknown whether"):
                await database.write(work)

        tasks.start_soon(write)
        assert await anyio.to_thread.run_sync(worked.wait, 10)
        async with Database(mariadb_url) as other:
            await kill_others(other)
        go_on.set()
    assert (database.stats.unknown, database.stats.reruns) == (1, 0)
    await database.ping()


async def test_restarts_under_load_lose_no_acknowledged_write(own_mariadb: MariaDBServer) -> None:
    """Three kill -9 and restarts while writers write: what was acknowledged is there, what was refused is not."""
    kept: set[int] = set()
    refused: set[int] = set()
    unknown: set[int] = set()
    numbers = iter(range(1_000_000))
    stop = False
    url = own_mariadb.fresh_database("load")

    async with Database(url, METADATA, connect_timeout=2.0) as database:

        async def write() -> None:
            while not stop:
                number = next(numbers)
                insert = sa.insert(ROWS).values(id=number, value=1)
                try:
                    await database.write(partial(run, insert))
                except DatabaseUnavailableError:
                    refused.add(number)
                    await anyio.sleep(0.01)
                except CommitUnknownError:
                    unknown.add(number)
                else:
                    kept.add(number)

        async def until_written(more: int) -> None:
            target = len(kept) + more
            with anyio.fail_after(30):
                while len(kept) < target:  # noqa: ASYNC110 - a set sets no event
                    await anyio.sleep(0.01)

        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(write)
            for _ in range(3):
                await until_written(100)
                await anyio.to_thread.run_sync(own_mariadb.kill)
                await anyio.to_thread.run_sync(own_mariadb.start)
            await until_written(100)
            stop = True
        found = set(
            await database.read(lambda connection: list(connection.scalars(sa.select(ROWS.c.id))))
        )
    assert kept - found == set()
    assert refused & found == set()
    assert found - kept - unknown == set()
    assert refused, "the server was away for a while"


async def test_a_server_that_falls_silent_counts_as_lost(
    own_mariadb: MariaDBServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dialects, "_SILENCE", 0.2)
    url = own_mariadb.fresh_database("silent")
    async with Database(url, connect_timeout=0.3, statement_timeout=0.3, attempts=1) as database:
        await database.ping()
        own_mariadb.pause()
        begun = time.perf_counter()
        try:
            with pytest.raises(DatabaseUnavailableError) as lost:
                await database.ping()
            with pytest.raises(DatabaseUnavailableError) as unreachable:
                await database.ping()
        finally:
            own_mariadb.resume()
        assert time.perf_counter() - begun < 5.0
        assert (lost.value.reason, unreachable.value.reason) == ("lost", "unreachable")
        await database.ping()
