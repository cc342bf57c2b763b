"""One database for both loops: what is bounded, what is run again, and what is never shown."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import anyio
import pytest
import sqlalchemy as sa

from bascule.errors import ConfigurationError, DatabaseUnavailableError
from bascule.observe import Metrics
from bascule.sql import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

METADATA = sa.MetaData()
COUNTERS = sa.Table(
    "counters",
    METADATA,
    sa.Column("name", sa.String(20), primary_key=True),
    sa.Column("value", sa.Integer, nullable=False),
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'counters.db'}"


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(
        url, METADATA, pool_size=2, pool_timeout=0.05, lock_timeout=0.05
    ) as database:
        await database.write(lambda c: c.execute(sa.insert(COUNTERS).values(name="a", value=0)))
        yield database


def value(connection: sa.Connection) -> int:
    found: int = connection.scalars(sa.select(COUNTERS.c.value)).one()
    return found


def count(connection: sa.Connection) -> None:
    connection.execute(sa.update(COUNTERS).values(value=COUNTERS.c.value + 1))


class Held:
    """A transaction that lasts until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()

    def __call__(self, connection: sa.Connection) -> int:
        self.begun.set()
        assert self.release.wait(10)
        return value(connection)


async def begun(held: Held) -> None:
    assert await anyio.to_thread.run_sync(held.begun.wait, 10)


async def test_writers_of_one_file_wait_for_each_other_and_lose_nothing(url: str) -> None:
    async with Database(url, METADATA) as database:
        await database.write(lambda c: c.execute(sa.insert(COUNTERS).values(name="a", value=0)))
        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(database.write, count)
        assert await database.read(value) == 40
        assert (database.stats.in_use, database.stats.waiting) == (0, 0)


async def test_who_waits_too_long_for_a_connection_is_told_so(database: Database) -> None:
    held = Held()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.write, held)
        await begun(held)
        try:
            with pytest.raises(
                DatabaseUnavailableError, match=r"within 0\.05 s; 1 are in use"
            ) as caught:
                await database.write(count)
        finally:
            held.release.set()
    assert caught.value.reason == "exhausted"
    assert (database.stats.timeouts, database.stats.waiting) == (1, 0)
    await database.write(count)
    assert await database.read(value) == 1


async def test_a_cancelled_wait_for_a_connection_takes_none(database: Database) -> None:
    held = Held()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.write, held)
        await begun(held)
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(database.write, count)
            await anyio.wait_all_tasks_blocked()
            assert database.stats.waiting == 1
            waiting.cancel_scope.cancel()
        held.release.set()
    assert (database.stats.in_use, database.stats.waiting) == (0, 0)
    assert await database.read(value) == 0


async def test_cancelling_waits_for_the_transaction_under_way(database: Database) -> None:
    held = Held()
    done: list[str] = []

    def write(connection: sa.Connection) -> None:
        held(connection)
        count(connection)

    async def call() -> None:
        await database.write(write)
        done.append("the outcome is known")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await begun(held)
        tasks.cancel_scope.cancel()
        held.release.set()
    assert done == ["the outcome is known"]
    assert await database.read(value) == 1


async def test_an_error_of_the_function_rolls_back_and_is_passed_on(database: Database) -> None:
    def fail(connection: sa.Connection) -> None:
        count(connection)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await database.write(fail)
    assert await database.read(value) == 0
    assert database.stats.reruns == 0


async def test_a_lock_of_another_process_is_waited_for_again(database: Database, url: str) -> None:
    other = sa.create_engine(url)
    with other.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(database.write, count)
            while database.stats.reruns == 0:  # noqa: ASYNC110 - a counter sets no event
                await anyio.sleep(0.01)
            connection.rollback()
    other.dispose()
    assert await database.read(value) == 1


async def test_a_lock_that_never_ends_is_given_up(database: Database, url: str) -> None:
    other = sa.create_engine(url)
    with other.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailableError, match="given up after 4 attempts") as caught:
            await database.write(count)
    other.dispose()
    assert caught.value.reason == "contended"
    assert database.stats.reruns == 3


async def test_a_statement_that_takes_too_long_is_stopped(url: str) -> None:
    endless = sa.text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT sum(i) FROM n"
    )
    async with Database(url, statement_timeout=0.1, lock_timeout=0.1) as database:
        with pytest.raises(DatabaseUnavailableError, match="interrupted") as caught:
            await database.read(lambda connection: connection.scalar(endless))
        assert caught.value.reason == "slow"
        await database.ping()


async def test_a_database_that_cannot_be_reached_is_unavailable_and_opens_later(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "later"
    async with Database(f"sqlite:///{folder / 'x.db'}") as database:
        with pytest.raises(DatabaseUnavailableError, match=r"x\.db is unavailable") as caught:
            await database.ping()
        assert caught.value.reason == "unreachable"
        folder.mkdir()
        await database.ping()


@pytest.mark.parametrize("pool_size", [1, 3])
async def test_readers_run_beside_the_writer(url: str, pool_size: int) -> None:
    held = Held()
    async with Database(url, METADATA, pool_size=pool_size) as database:
        await database.write(lambda c: c.execute(sa.insert(COUNTERS).values(name="a", value=7)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(database.write, held)
            await begun(held)
            assert await database.read(value) == 7
            held.release.set()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "looks like sqlite:///file"),
        ("mysql://u:se:cret@host:por", "looks like"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("oracle9://u:secret@host/x", "no database is called 'oracle9'"),
        ("postgresql+pg8000://u:secret@host/x", "needs the library pg8000: pip install pg8000"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_being_repeated(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        Database(url)
    shown: BaseException | None = caught.value
    while shown is not None:
        assert "cret" not in str(shown)
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


async def test_no_password_is_shown() -> None:
    url = "mysql://shop:hidden@127.0.0.1:1/users?ssl_key=hidden"
    async with Database(url, connect_timeout=0.5) as database:
        assert repr(database) == "<Database mysql://127.0.0.1:1/users>"
        with pytest.raises(DatabaseUnavailableError) as caught:
            await database.ping()
    assert "hidden" not in f"{caught.value!r} {caught.value} {caught.value.__cause__}"
    assert "mysql://127.0.0.1:1/users" in str(caught.value)


async def test_an_error_does_not_show_what_was_to_be_stored(database: Database) -> None:
    insert = sa.insert(COUNTERS).values(name="a", value=123_456_789)
    with pytest.raises(sa.exc.IntegrityError) as caught:
        await database.write(lambda connection: connection.execute(insert))
    assert "123456789" not in str(caught.value)


async def test_metrics_tell_of_each_database(database: Database) -> None:
    metrics = Metrics()
    metrics.add_database(database.stats)
    held = Held()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.read, held)
        await begun(held)
        text = metrics.render()[0].decode()
        held.release.set()
    name = database.name
    assert f'database_connections{{database="{name}",state="size"}} 2.0' in text
    assert f'database_connections{{database="{name}",state="in_use"}} 1.0' in text
    assert f'database_transaction_troubles_total{{database="{name}",kind="timeout"}} 0.0' in text
    assert f'database_transaction_troubles_total{{database="{name}",kind="unknown"}} 0.0' in text
