"""Sagas to be checked: two that keep their promises, of which one is the shop's, and some that do not."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from bascule.events import SqlOutbox
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
from bascule_shop._generated.order import OrderStatus
from bascule_shop._generated.payment import PaymentState
from bascule_shop._generated.product import ReservationState
from bascule_shop.order import ORDER_CREATED, SqlOrderStore
from bascule_shop.order import _store as order_tables
from bascule_shop.order._saga import Line, OrderSteps, PlacedOrder
from bascule_shop.payment import PaymentService, SimulatedProvider, SqlPaymentStore
from bascule_shop.payment import _store as payment_tables
from bascule_shop.product import ProductService, SqlProductStore
from bascule_shop.product import _store as product_tables

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


class Direct:
    """A client that calls the service itself."""

    def __init__(self, service: Any) -> None:
        self._service = service

    def __getattr__(self, name: str) -> Any:
        async def call(request: object, *, timeout: float) -> Any:
            return await getattr(self._service, name)(request)

        return call


class ShopWorld:
    """What the shop's services keep of one order: its stores are the real ones."""

    STOCK = 5
    METADATA = (order_tables.METADATA, product_tables.METADATA, payment_tables.METADATA)

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        outbox = SqlOutbox(database, ORDER_CREATED, name="order")
        self.steps = OrderSteps(
            SqlOrderStore(database, outbox),
            Direct(ProductService(SqlProductStore(database))),
            Direct(PaymentService(SqlPaymentStore(database), SimulatedProvider())),
            notify=lambda: None,
        )
        self.placed = PlacedOrder(
            order_id=name,
            user_id="usr_ada",
            lines=(Line(name, "Plank", 2, 645),),
            currency="EUR",
            payment_token="tok_visa",
            create_time=datetime(2026, 1, 2, tzinfo=UTC),
            idempotency_key=name,
        )

    async def open(self) -> None:
        """Make the tables, and the product that the order is of."""
        product = {
            "id": self.placed.order_id,
            "name": "Plank",
            "description": "",
            "currency": "EUR",
        }
        insert = sa.insert(product_tables.METADATA.tables["products"])
        for metadata in self.METADATA:
            await self._database.write(metadata.create_all)
        with suppress(sa.exc.IntegrityError):
            await self._database.write(
                lambda connection: connection.execute(
                    insert, product | {"price_minor": 645, "stock": self.STOCK}
                )
            )

    async def invariant(self, run: SagaRun) -> None:
        name = self.placed.order_id
        orders, products, payments = (metadata.tables for metadata in self.METADATA)
        reservations = products["reservations"]
        kept = {
            table.name: await self._rows(table, condition)
            for table, condition in (
                (orders["orders"], orders["orders"].c.id == name),
                (orders["outbox"], sa.func.instr(orders["outbox"].c.event, name) > 0),
                (products["products"], products["products"].c.id == name),
                (reservations, reservations.c.id == f"{name}/inventory"),
                (payments["payments"], payments["payments"].c.idempotency_key == f"{name}/payment"),
            )
        }
        states = {
            "orders": [OrderStatus(row.status).name for row in kept["orders"]],
            "reservations": [ReservationState(row.state).name for row in kept["reservations"]],
            "payments": [PaymentState(row.state).name for row in kept["payments"]],
        }
        stock, events = kept["products"][0].stock, len(kept["outbox"])
        if run.state is SagaState.COMPLETED:
            expected = {"orders": ["CONFIRMED"], "reservations": ["HELD"], "payments": ["CHARGED"]}
            assert states == expected, f"not confirmed, reserved and charged: {states}"
            assert (stock, events) == (self.STOCK - 2, 1), f"{stock} left, {events} events"
            return
        assert run.state is SagaState.UNDONE, f"the order is {run.state}"
        assert states["orders"] in ([], ["REJECTED"]), f"not rejected: {states}"
        assert states["reservations"] in ([], ["RELEASED"]), f"not released: {states}"
        assert states["payments"] in ([], ["REFUNDED"]), f"not refunded: {states}"
        assert (stock, events) == (self.STOCK, 0), f"{stock} left, {events} events"

    async def _rows(self, table: sa.Table, condition: sa.ColumnElement[bool]) -> list[Any]:
        query = sa.select(table).where(condition)
        return await self._database.read(lambda connection: list(connection.execute(query)))


@asynccontextmanager
async def shop(folder: Path) -> AsyncIterator[SagaCheck[PlacedOrder]]:
    """The shop's own."""
    url = os.environ.get("SAGA_CHECK_WORLD") or f"sqlite:///{folder / 'world.db'}"
    async with Database(url) as database:
        world = ShopWorld(database, f"{folder.parent.name}-{folder.name}")
        await world.open()
        yield SagaCheck(world.steps.saga(), world.placed, world.invariant)
