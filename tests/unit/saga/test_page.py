"""The samples of docs/how-to/sagas.md work as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import msgspec
import pytest
import sqlalchemy as sa

import bascule.saga
from bascule.rpc import Channel
from bascule.saga import SagaCall, SagaClientInterceptor, SagaState
from bascule.sql import Database

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[3] / "docs/how-to/sagas.md"


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
        "Channel": Channel,
        "SagaClientInterceptor": SagaClientInterceptor,
    }
    text = PAGE.read_text().replace("mysql://shop:secret@db/orders", f"sqlite:///{tmp_path}/o.db")
    for sample in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        # Those of MongoDB and of a channel need servers: tests/unit/saga/test_barrier.py has them.
        if not sample.startswith(("barrier = ", "Channel(")):
            exec(sample, known)
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
