"""The rules of the barrier in SQL. Whoever has a database to try derives from this class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

import anyio
import pytest
import sqlalchemy as sa

from bascule.errors import Status
from bascule.saga import LateActionError, SagaCall, SqlBarrier, StepCall, barrier_table
from bascule.sql import Database

METADATA = sa.MetaData()
BARRIER = SqlBarrier(barrier_table(METADATA))
STOCK = sa.Table(
    "stock",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("left", sa.Integer, nullable=False),
)

ACTION = SagaCall("saga-1", "reserve", "action")
UNDO = SagaCall("saga-1", "reserve", "undo")


class Shop:
    """A stock of 10 behind the barrier."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def call(self, call: SagaCall | StepCall, *, fail: bool = False) -> bool:
        def work(connection: sa.Connection) -> bool:
            admitted = BARRIER.admits(connection, call)
            if admitted:
                change = -1 if call.op == "action" else 1
                connection.execute(sa.update(STOCK).values(left=STOCK.c.left + change))
            if fail:
                raise RuntimeError("the transaction is rolled back")
            return admitted

        return await self.database.write(work)

    async def left(self) -> int:
        query = sa.select(STOCK.c.left)
        return await self.database.read(lambda connection: connection.execute(query).scalar_one())


class BarrierRules(ABC):
    """What is true in every database."""

    @abstractmethod
    def shop(self) -> AbstractAsyncContextManager[Shop]:
        """Open a shop with 10 in stock."""

    async def test_an_action_and_its_compensation_take_effect_once(self) -> None:
        async with self.shop() as shop:
            assert [await shop.call(ACTION) for _ in range(3)] == [True, False, False]
            assert await shop.left() == 9
            assert [await shop.call(UNDO) for _ in range(3)] == [True, False, False]
            assert await shop.left() == 10

    async def test_a_compensation_without_an_action_has_nothing_to_undo(self) -> None:
        async with self.shop() as shop:
            assert [await shop.call(UNDO) for _ in range(2)] == [False, False]
            assert await shop.left() == 10

    @pytest.mark.parametrize("done", [True, False])
    async def test_an_action_after_its_compensation_is_refused(self, done: bool) -> None:
        async with self.shop() as shop:
            if done:
                await shop.call(ACTION)
            await shop.call(UNDO)
            with pytest.raises(LateActionError, match="saga-1/reserve") as caught:
                await shop.call(ACTION)
            assert caught.value.status is Status.ABORTED
            assert await shop.left() == 10

    async def test_what_was_rolled_back_has_not_been(self) -> None:
        async with self.shop() as shop:
            with pytest.raises(RuntimeError):
                await shop.call(ACTION, fail=True)
            assert await shop.call(ACTION)
            with pytest.raises(RuntimeError):
                await shop.call(UNDO, fail=True)
            assert await shop.call(UNDO)
            assert await shop.left() == 10

    async def test_steps_and_sagas_do_not_stand_in_each_others_way(self) -> None:
        async with self.shop() as shop:
            for saga_id, step in (("a", "x"), ("a", "y"), ("b", "x"), ("A", "x"), ("a", "X")):
                assert await shop.call(StepCall(saga_id=saga_id, step=step))
            assert await shop.left() == 5

    async def test_a_race_of_both_leaves_the_stock_as_it_was(self) -> None:
        async with self.shop() as shop:
            late = 0

            async def race(call: SagaCall) -> None:
                nonlocal late
                try:
                    await shop.call(call)
                except LateActionError:
                    late += 1

            for number in range(5):
                async with anyio.create_task_group() as tasks:
                    for op in ("action", "undo", "action", "undo"):
                        tasks.start_soon(race, SagaCall(f"race-{number}", "reserve", op))
            assert await shop.left() == 10

    async def test_old_notes_are_forgotten(self) -> None:
        async with self.shop() as shop:
            await shop.call(ACTION)
            write = shop.database.write
            assert await write(lambda c: BARRIER.forget(c, older_than=60.0)) == 0
            assert await write(lambda c: BARRIER.forget(c, older_than=-60.0)) == 1
