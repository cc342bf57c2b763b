"""The samples of docs/how-to/sagas.md work as they stand there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import msgspec
import pymongo
import pytest
import sqlalchemy as sa
from tests.pages import Session, load
from tests.servers import running

import bascule.saga
from bascule.saga import SagaCall, SagaState
from bascule.sql import Database
from bascule.testing.servers import NxMongoServer

pytestmark = pytest.mark.anyio


class Request(msgspec.Struct, frozen=True):
    key: str = ""
    amount: int = 0


class Payments:
    """Charges once a key."""

    def __init__(self) -> None:
        self.charges: dict[str, int] = {}

    async def charge(self, request: Request) -> SimpleNamespace:
        self.charges[request.key] = request.amount
        return SimpleNamespace(id=f"paid-{request.amount}")

    async def refund(self, request: Request) -> None:
        del self.charges[request.key]


class Shop:
    """What the sample of a check has in its own project."""

    def __init__(self, database: Database) -> None:
        self.create_order: Any = None

    async def totals(self) -> tuple[int, int, int]:
        return 1, 1, 1


@pytest.fixture
def page(tmp_path: Path) -> SimpleNamespace:
    calls: list[str] = []

    async def step(order: Any, call: Any) -> None:
        await anyio.lowlevel.checkpoint()
        calls.append(f"{call.op} {call.step}")

    taken = sa.Table("taken", sa.MetaData(), sa.Column("request", sa.String(10)))
    known: dict[str, Any] = dict.fromkeys(
        ("add_order", "reject_order", "reserve", "release", "use_coupon", "return_coupon"), step
    )
    known |= {
        "calls": calls,
        "confirm_order": step,
        "payments": Payments(),
        "ChargeRequest": Request,
        "RefundRequest": Request,
        "StockBase": object,
        "Reserved": SimpleNamespace,
        "taken": taken,
        "take": lambda request: sa.insert(taken).values(request=request),
        "Shop": Shop,
    }
    where = {"mysql://shop:secret@db/orders": f"sqlite:///{tmp_path}/o.db"}
    load("docs/how-to/sagas.md", known, where)
    return SimpleNamespace(**known)


async def test_the_saga_runs_and_is_kept(page: SimpleNamespace, tmp_path: Path) -> None:
    await page.main()
    assert page.calls[0] == "action order"
    assert sorted(page.calls[1:3]) == ["action coupon", "action stock"]
    assert page.calls[3:] == ["action confirm"]
    assert list(page.payments.charges.values()) == [700]
    await page.main()
    assert len(page.calls) == 4, "a repeated idempotency key starts nothing"
    async with Database(f"sqlite:///{tmp_path}/o.db") as database:
        (run,) = await bascule.saga.SqlSagaLog(database, page.SAGAS).list()
        assert (run.state, run.idempotency_key) == (SagaState.COMPLETED, "req-42")


async def test_the_barrier_lets_a_call_have_its_effect_once(
    page: SimpleNamespace, tmp_path: Path
) -> None:
    async with Database(f"sqlite:///{tmp_path}/s.db", page.METADATA) as database:
        await database.write(page.taken.metadata.create_all)
        page.Stock.reserve.__globals__["saga_call"] = lambda: SagaCall("o-1", "stock", "action")
        stock = page.Stock()
        stock.database = database
        await stock.reserve("one")
        await stock.reserve("one")
        rows = await database.read(
            lambda connection: connection.execute(sa.select(page.taken)).all()
        )
        assert len(rows) == 1


async def test_the_check_has_an_invariant_that_can_fail(
    page: SimpleNamespace, tmp_path: Path
) -> None:
    async with page.create_order_check(tmp_path) as check:
        await check.invariant(SimpleNamespace(state=SagaState.COMPLETED))
        with pytest.raises(AssertionError):
            await check.invariant(SimpleNamespace(state=SagaState.UNDONE))


def test_mongos_barrier_lets_a_call_have_its_effect_once(page: SimpleNamespace) -> None:
    call, undo = SagaCall("o-1", "stock", "action"), SagaCall("o-1", "stock", "compensation")
    with running(NxMongoServer) as server, pymongo.MongoClient(server.url) as client:
        products = client.page.products
        products.insert_one({"_id": "prd_1", "stock": 3})
        page.take_two(products, call)
        page.take_two(products, call)
        assert products.find_one()["stock"] == 1
        page.give_two_back(products, undo)
        assert products.find_one()["stock"] == 3


async def test_the_channel_tells_of_the_saga(page: SimpleNamespace) -> None:
    async with page.stock_channel() as channel:
        assert "stock" in repr(channel.snapshot())


async def park(url: str) -> None:
    """Make a database in which the runs o-1 and o-2 wait for a person."""

    class Context(msgspec.Struct, frozen=True):
        total: int = 700

    async def do(context: Any, call: Any) -> None:
        if call.step == "payment":
            raise ValueError("refused")

    async def undo(context: Any, call: Any) -> None:
        raise ValueError("the payment service is away")

    saga = bascule.saga.Saga("create-order", Context).step("order", do, undo).step("payment", do)
    metadata = sa.MetaData()
    tables = bascule.saga.saga_tables(metadata)
    async with Database(url, metadata) as database:
        await database.write(metadata.create_all)
        log = bascule.saga.SqlSagaLog(database, tables)
        coordinator = bascule.saga.SagaCoordinator(log, backoff=bascule.saga.Backoff(attempts=1))
        for saga_id in ("o-1", "o-2"):
            with pytest.raises(bascule.saga.SagaParkedError):
                await coordinator.run(saga, Context(), saga_id=saga_id)


def test_the_commands(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/orders.db"
    anyio.run(park, url)
    with Session(tmp_path) as session:
        session.replace("mysql://shop:secret@db/orders", url)
        said = session.walk("docs/how-to/sagas.md")
    assert "o-2" in said
