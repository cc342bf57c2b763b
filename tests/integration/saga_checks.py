"""Sagas to be checked: one that keeps its promises, and some that do not."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from bascule.saga import (
    Saga,
    SagaCheck,
    SagaRun,
    SagaState,
    SqlBarrier,
    Step,
    StepCall,
    barrier_table,
)
from bascule.sql import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

METADATA = sa.MetaData()
BARRIER = SqlBarrier(barrier_table(METADATA))
# What each step of each order has done: inserted twice if it was done twice.
EFFECTS = sa.Table(
    "effects",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("order_id", sa.String(64), nullable=False),
    sa.Column("effect", sa.String(64), nullable=False),
)


class Order(msgspec.Struct, frozen=True):
    total: int = 7
    payment: str | None = None


class World:
    """Services in one database, behind a barrier unless they go without."""

    def __init__(self, database: Database, *, careless: bool = False) -> None:
        self._database = database
        self._careless = careless

    async def act(self, _order: Order, call: StepCall) -> Mapping[str, Any]:
        await self._change(call, call.step)
        return {"payment": "paid"} if call.step == "payment" else {}

    async def undo(self, _order: Order, call: StepCall) -> None:
        await self._change(call, f"undo {call.step}")

    async def forget(self, _order: Order, _call: StepCall) -> None:
        """Undo nothing, though there is something to undo."""

    async def _change(self, call: StepCall, effect: str) -> None:
        insert = sa.insert(EFFECTS).values(order_id=call.saga_id, effect=effect)

        def work(connection: sa.Connection) -> None:
            if BARRIER.admits(connection, call) or self._careless:
                connection.execute(insert)

        await self._database.write(work)

    async def effects(self, order_id: str) -> list[str]:
        query = (
            sa.select(EFFECTS.c.effect)
            .where(EFFECTS.c.order_id == order_id)
            .order_by(EFFECTS.c.number)
        )
        return await self._database.read(
            lambda connection: list(connection.execute(query).scalars())
        )

    async def invariant(self, run: SagaRun) -> None:
        effects = await self.effects(run.saga_id)
        steps = ["order", "stock", "coupon", "payment", "confirm"]
        if run.state is SagaState.COMPLETED:
            assert sorted(effects) == sorted(steps), f"not each step once: {effects}"
            assert msgspec.json.decode(run.context) == {"total": 7, "payment": "paid"}
            return
        assert run.state is SagaState.UNDONE, f"the order is {run.state}"
        done = [effect for effect in effects if not effect.startswith("undo ")]
        undone = [effect.removeprefix("undo ") for effect in effects if effect not in done]
        assert sorted(done) == sorted(undone), f"done and undone are not the same: {effects}"
        assert effects == done + [f"undo {step}" for step in undone], f"not in order: {effects}"
        # The two of the group are undone in the order of the definition.
        assert undone == [step for step in reversed(steps) if step in undone], f"order: {effects}"

    def saga(self, *, idempotent: bool, forgetful: bool = False) -> Saga[Order]:
        keep = {"idempotent": idempotent}
        undo_stock = self.forget if forgetful else self.undo
        return (
            Saga("order", Order)
            .step("order", self.act, self.undo, idempotent=idempotent)
            .parallel(
                Step("stock", self.act, undo_stock, **keep),
                Step("coupon", self.act, self.undo, **keep),
            )
            .step("payment", self.act, self.undo, pivot=True, idempotent=idempotent)
            .step("confirm", self.act)
        )


@asynccontextmanager
async def _opened(
    folder: Path, *, careless: bool = False, **options: bool
) -> AsyncIterator[SagaCheck[Order]]:
    url = os.environ.get("SAGA_CHECK_WORLD") or f"sqlite:///{folder / 'world.db'}"
    async with Database(url, METADATA) as database:
        world = World(database, careless=careless)
        yield SagaCheck(world.saga(**options), Order(), world.invariant)


def undoing(folder: Path) -> Any:
    """Goes back when it is interrupted."""
    return _opened(folder, idempotent=False)


def repeating(folder: Path) -> Any:
    """Goes on when it is interrupted."""
    return _opened(folder, idempotent=True)


def careless(folder: Path) -> Any:
    """Does everything as often as it is asked to."""
    return _opened(folder, idempotent=True, careless=True)


def forgetful(folder: Path) -> Any:
    """Leaves the stock reserved when an order fails."""
    return _opened(folder, idempotent=False, forgetful=True)
