"""The shop's stores hold the same rules on every database that they are offered."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.mysql import MEDIUMBLOB
from tests.servers import MONGO, database_name, running

from bascule.errors import ConfigurationError
from bascule.events import SqlOutbox
from bascule.sql import Database
from bascule_shop._generated.order import Order, OrderLine, OrderStatus
from bascule_shop._generated.payment import Payment, PaymentState
from bascule_shop._generated.product import Item, ReservationState
from bascule_shop._generated.shop import Money
from bascule_shop._generated.user import User
from bascule_shop._seed import PRODUCTS, USERS
from bascule_shop.migrations import HEADS, METADATA, migrate
from bascule_shop.order import ORDER_CREATED, OrderCreated, SqlOrderStore
from bascule_shop.order._store import KeyTakenError, StoredOrder
from bascule_shop.payment import SqlPaymentStore
from bascule_shop.payment._store import StoredPayment
from bascule_shop.product import OutOfStockError, open_product_store
from bascule_shop.user import USER_CREATED, EmailTakenError, SqlUserStore, UserCreated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from bascule.testing.servers import MongoServer
    from bascule_shop.product import ProductStore

pytestmark = pytest.mark.anyio

#: A busy machine may let a server wait for longer than the 5 s after which a shop would give it up.
PATIENCE = "serverSelectionTimeoutMS=60000&connectTimeoutMS=60000"

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "mariadb"])
def sql_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shop.db'}"
    url: str = request.getfixturevalue("mariadb_url")
    return url


@pytest.fixture(
    scope="module",
    params=["sqlite", "mariadb", *MONGO],
    ids=lambda kind: getattr(kind, "program", kind),
)
def home(request: pytest.FixtureRequest) -> Iterator[str | MongoServer]:
    if isinstance(request.param, str):
        yield request.param
    else:
        with running(request.param) as server:
            yield server


@pytest.fixture
def product_url(home: str | MongoServer, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if home == "sqlite":
        return f"sqlite:///{tmp_path / 'shop.db'}"
    if home == "mariadb":
        url: str = request.getfixturevalue("mariadb_url")
        return url
    assert not isinstance(home, str)
    server, _, options = home.url.partition("?")
    return f"{server.rstrip('/')}/{database_name(request)}?{options}&{PATIENCE}"


@asynccontextmanager
async def seeded(url: str) -> AsyncIterator[ProductStore]:
    await migrate("product", url)
    async with open_product_store(url) as store:
        await store.seed(PRODUCTS)
        yield store


@pytest.fixture
async def store(product_url: str) -> AsyncIterator[ProductStore]:
    async with seeded(product_url) as store:
        yield store


async def stock(store: ProductStore, *names: str) -> list[int]:
    found = await store.get_many(names)
    return [found[name].stock for name in names]


async def test_products_are_read_as_they_were_written(store: ProductStore) -> None:
    assert await store.get("prd_001") == PRODUCTS[0]
    assert await store.get("prd_none") is None
    assert await store.get("PRD_001") is None
    assert set(await store.get_many(["prd_001", "prd_none", "prd_002"])) == {"prd_001", "prd_002"}
    first = await store.list(None, 40)
    rest = await store.list(first[-1].id, 40)
    assert [*first, *rest] == list(PRODUCTS)


async def test_a_reservation_takes_once_and_gives_back_once(store: ProductStore) -> None:
    items = [Item(product_id="prd_002", quantity=5), Item(product_id="prd_001", quantity=30)]
    first = await store.reserve("ord.1/inventory", items, NOW)
    assert (first.state, first.items, first.create_time) == (ReservationState.HELD, items, NOW)
    assert await store.reserve("ord.1/inventory", items, NOW + timedelta(seconds=1)) == first
    assert await stock(store, "prd_001", "prd_002") == [70, 75]
    for _ in range(3):
        released = await store.release("ord.1/inventory", NOW)
        assert (released.state, released.items) == (ReservationState.RELEASED, items)
    assert (await store.reserve("ord.1/inventory", items, NOW)).state is ReservationState.RELEASED
    assert await stock(store, "prd_001", "prd_002") == [100, 80]


async def test_a_shortage_takes_nothing_and_is_not_remembered(store: ProductStore) -> None:
    names = {"prd_001": 30, "prd_002": 81, "nothing": 1, "prd_060": 1}
    items = [Item(product_id=name, quantity=count) for name, count in names.items()]
    with pytest.raises(OutOfStockError) as caught:
        await store.reserve("short", items, NOW)
    assert caught.value.shortages == [("prd_002", 81, 80), ("nothing", 1, None), ("prd_060", 1, 0)]
    assert await stock(store, "prd_001", "prd_002") == [100, 80]
    # Nothing is remembered of it: the same id may come again with what there is.
    again = await store.reserve("short", items[:1], NOW)
    assert again.state is ReservationState.HELD
    assert (await store.release("short", NOW)).state is ReservationState.RELEASED


async def test_a_release_before_its_reservation_is_remembered(store: ProductStore) -> None:
    early = await store.release("late", NOW)
    assert (early.state, early.items) == (ReservationState.RELEASED, [])
    items = [Item(product_id="prd_001", quantity=1)]
    assert (await store.reserve("late", items, NOW)).state is ReservationState.RELEASED
    assert await stock(store, "prd_001") == [100]


async def test_the_last_ten_go_to_ten_of_fifty(store: ProductStore) -> None:
    """Of 50 reservations at once of the last 10 items, exactly 10 are made; repeats of one count once."""
    await store.reserve("others", [Item(product_id="prd_003", quantity=50)], NOW)
    one = [Item(product_id="prd_003", quantity=1)]
    refused: list[int] = []

    async def take(number: int) -> None:
        try:
            await store.reserve(f"r{number}", one, NOW)
        except OutOfStockError:
            refused.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(take, number)
    assert len(refused) == 40
    assert await stock(store, "prd_003") == [0]
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(store.release, "others", NOW)
    assert await stock(store, "prd_003") == [50]
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(store.reserve, "same", one, NOW)
    assert await stock(store, "prd_003") == [49]


async def test_three_may_seed_and_migrate_at_once(product_url: str) -> None:
    async def start() -> None:
        async with seeded(product_url) as store:
            assert len(await store.list(None, 100)) == 60

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(start)


def user(number: int, email: str | None = None) -> User:
    return User(
        id=f"usr_{number}",
        email=email or f"{number}@example.com",
        display_name=f"Zoë {number} 🌉",
        create_time=NOW,
    )


async def test_users_are_kept_with_their_event_or_not_at_all(sql_url: str) -> None:
    await migrate("user", sql_url)
    async with Database(sql_url) as database:
        outbox = SqlOutbox(database, USER_CREATED)
        store = SqlUserStore(database, outbox)
        for number in range(3):
            event = USER_CREATED.event(f"usr_{number}", UserCreated(f"usr_{number}"))
            await store.add(user(number), "hash", event)
        with pytest.raises(EmailTakenError):
            await store.add(
                user(9, "1@example.com"), "hash", USER_CREATED.event("usr_9", UserCreated("usr_9"))
            )
        assert await store.get("usr_1") == user(1)
        assert await store.get("usr_9") is None
        assert await store.list("usr_0", 5) == [user(1), user(2)]
        assert [event.payload.user_id for _, event in await outbox.pending(10)] == [
            "usr_0",
            "usr_1",
            "usr_2",
        ]
        await store.seed(USERS)
        assert len(await store.list(None, 10)) == 3, "there were users"


def order(number: int, user_id: str = "usr_1") -> Order:
    price = Money(currency="EUR", amount_minor=2**40)
    return Order(
        id=f"ord_{number}",
        user_id=user_id,
        status=OrderStatus.PENDING,
        lines=[OrderLine(product_id="p", name="Plank Ü", quantity=2, unit_price=price)],
        total=Money(currency="EUR", amount_minor=2**41),
        create_time=NOW,
    )


async def test_orders_are_kept_once_a_key_and_confirmed_with_their_event(sql_url: str) -> None:
    await migrate("order", sql_url)
    async with Database(sql_url) as database:
        outbox = SqlOutbox(database, ORDER_CREATED)
        store = SqlOrderStore(database, outbox)
        await store.add(StoredOrder(order(1), "key", b"\x00\xff"))
        with pytest.raises(KeyTakenError):
            await store.add(StoredOrder(order(2), "key", b"print"))
        await store.add(StoredOrder(order(2), "KEY", b"print"))
        await store.add(StoredOrder(order(3, "usr_2"), "key", b"print"))
        await store.add(StoredOrder(order(4)))
        await store.add(StoredOrder(order(5)))
        assert await store.find("usr_1", "key") == StoredOrder(order(1), "key", b"\x00\xff")
        created = ORDER_CREATED.event("ord_1", OrderCreated(order_id="ord_1", user_id="usr_1"))
        for _ in range(2):
            await store.confirm("ord_1", created)
        assert len(await outbox.pending(10)) == 1
        await store.reject("ord_2", b"why", keep_key=True)
        rejected = await store.get("ord_2")
        assert rejected is not None
        assert (rejected.order.status, rejected.failure) == (OrderStatus.REJECTED, b"why")
        assert [each.id for each in await store.list("usr_1", "ord_5", 2)] == ["ord_4", "ord_2"]
        assert len(await store.list(None, None, 10)) == 5


async def test_payments_are_kept_once_a_key(sql_url: str) -> None:
    await migrate("payment", sql_url)
    async with Database(sql_url) as database:
        store = SqlPaymentStore(database)

        def stored(number: int) -> StoredPayment:
            payment = Payment(
                id=f"pay_{number}",
                order_id="o",
                amount=Money(currency="EUR", amount_minor=5),
                state=PaymentState.CHARGED,
                create_time=NOW,
            )
            return StoredPayment(payment, f"ref_{number}")

        winners: set[str] = set()

        async def add(number: int) -> None:
            winners.add((await store.add("key", stored(number), NOW)).reference)

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(add, number)
        assert len(winners) == 1
        await store.mark_refunded("key")
        known = await store.get("key")
        assert known is not None
        assert known.payment.state is PaymentState.REFUNDED
        assert await store.get("KEY") is None


def differences(connection: sa.Connection, service: str) -> list[object]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def differs(
        _context: object, _is: object, _be: object, found: object, wanted: object
    ) -> bool | None:
        # MariaDB makes a BLOB of 2**24-1 bytes a MEDIUMBLOB; everything else is alembic's to compare.
        return (
            False if isinstance(found, MEDIUMBLOB) and isinstance(wanted, sa.LargeBinary) else None
        )

    context = MigrationContext.configure(connection, opts={"compare_type": differs})
    return list(compare_metadata(context, METADATA[service]))


@pytest.mark.parametrize("service", METADATA)
async def test_the_revisions_make_the_tables_that_the_code_expects(
    service: str, sql_url: str
) -> None:
    async with Database(sql_url) as database:
        # Not an empty file: that would be made in one step, without the revisions.
        other = sa.Table("other", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
        await database.write(other.create)
        await migrate(service, sql_url)
        await database.write(other.drop)
        assert await database.read(lambda connection: differences(connection, service)) == []
        version = sa.text("SELECT version_num FROM alembic_version")
        assert await database.read(lambda c: c.scalars(version).all()) == [HEADS[service]]
        made = await database.read(lambda c: normal(c, service))
        # After a crash in the middle, MySQL has tables of a revision that is not noted.
        await database.write(lambda c: c.execute(sa.text("DELETE FROM alembic_version")))
        await migrate(service, sql_url)
        assert await database.read(lambda c: normal(c, service)) == made
    if sql_url.startswith("sqlite"):
        fresh = sql_url + "2"
        await migrate(service, fresh)
        async with Database(fresh) as database:
            assert await database.read(lambda c: normal(c, service)) == made
            assert await database.read(lambda connection: differences(connection, service)) == []


def normal(connection: sa.Connection, service: str) -> list[object]:
    """What a database says of its tables itself: checks and collations too, which alembic does not compare."""
    inspector = sa.inspect(connection)
    return [
        (
            table,
            [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)],
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted(map(repr, inspector.get_indexes(table))),
            sorted(map(repr, inspector.get_unique_constraints(table))),
            sorted(map(repr, inspector.get_check_constraints(table))),
        )
        for table in sorted(METADATA[service].tables)
    ]


@pytest.mark.parametrize("service", METADATA)
async def test_revisions_and_tables_make_the_same_on_mariadb(
    service: str, mariadb_url: str
) -> None:
    async with Database(mariadb_url) as database:
        await migrate(service, mariadb_url)
        made = await database.read(lambda c: normal(c, service))
        await database.write(METADATA[service].drop_all)
        await database.write(METADATA[service].create_all)
        assert await database.read(lambda c: normal(c, service)) == made


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "bascule_shop", "migrate", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )


async def test_three_processes_may_migrate_at_once(sql_url: str) -> None:
    """As three replicas do that start together: each ends well, and the revisions ran once."""
    results: list[subprocess.CompletedProcess[str]] = []

    async def replica() -> None:
        results.append(
            await anyio.to_thread.run_sync(lambda: command("order", SHOP_DATABASE_ORDER=sql_url))
        )

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(replica)
    assert [(each.returncode, each.stdout, each.stderr) for each in results] == [
        (0, "order: up to date\n", "")
    ] * 3
    async with Database(sql_url) as database:
        assert await database.read(lambda connection: differences(connection, "order")) == []


async def test_what_a_later_release_made_of_a_database_is_left_alone(
    sql_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a roll-out, and after a roll-back: the code before it runs on."""
    later = "UPDATE alembic_version SET version_num = 'order_9999'"
    async with Database(sql_url) as database:
        await migrate("order", sql_url)
        await database.write(lambda c: c.execute(sa.text(later)))
        made = await database.read(lambda c: normal(c, "order"))
        await migrate("order", sql_url)
        version = sa.text("SELECT version_num FROM alembic_version")
        assert await database.read(lambda c: c.scalars(version).all()) == ["order_9999"]
        assert await database.read(lambda c: normal(c, "order")) == made
    assert "newer than this code" in caplog.text


def test_the_command_waits_for_a_database_that_is_away(tmp_path: Path) -> None:
    late = tmp_path / "late"
    arguments = ["user", f"--database=sqlite:///{late}/user.db", "--patience=90"]
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "bascule_shop", "migrate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().endswith(": trying again\n")
        late.mkdir()
        said, _ = process.communicate(timeout=90)
    assert (process.returncode, said) == (0, "user: up to date\n")


def test_the_command_migrates_every_service_into_a_folder(tmp_path: Path) -> None:
    done = command("--data", str(tmp_path / "new"))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "new").glob("*.db")} == {
        f"{service}.db" for service in METADATA
    }


def test_the_command_says_what_is_wrong_and_keeps_the_password_to_itself() -> None:
    for arguments, said in (
        (["nobody"], "no service is called 'nobody'"),
        (["user", "order", "--database", "mysql://u:secret@h/x"], "needs SERVICE=URL"),
        (["user", "--database", "mongodb://u:secret@h/x"], "only products"),
        (
            ["user", "--database", "mysql://u:secret@127.0.0.1:1/x"],
            "mysql://127.0.0.1:1/x is unavailable",
        ),
    ):
        failed = command(*arguments)
        assert failed.returncode == 1
        assert said in failed.stderr
        assert "secret" not in failed.stdout + failed.stderr


@pytest.mark.parametrize("url", ["mongodb://u:secret@h", "mongodb://u:sec:ret@h:x/y", "mongodb://"])
async def test_a_mongodb_url_that_cannot_work_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="looks like mongodb://") as caught:
        async with open_product_store(url):
            pass
    assert caught.value.__suppress_context__
    assert "ret" not in str(caught.value)
