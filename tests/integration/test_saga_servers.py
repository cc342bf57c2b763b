"""Logs and barriers on real servers: MariaDB, and two that speak MongoDB's protocol."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pymongo
import pytest
import sqlalchemy as sa
from tests.unit.saga.barriers import METADATA, STOCK, BarrierRules, Shop
from tests.unit.saga.logs import Clock, LogRules

from bascule.saga import (
    LateActionError,
    MongoBarrier,
    Passage,
    Saga,
    SagaCall,
    SagaCoordinator,
    SagaState,
    SqlSagaLog,
    StepCall,
    saga_tables,
)
from bascule.sql import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from pymongo.collection import Collection

    from bascule.saga import SagaLog
    from bascule.testing.servers import MariaDBServer

pytestmark = pytest.mark.anyio


class TestMariaDBLog(LogRules):
    @pytest.fixture(autouse=True)
    def _database(self, mariadb_url: str) -> None:
        self.url = mariadb_url

    @asynccontextmanager
    async def log(self, clock: Clock) -> AsyncIterator[SagaLog]:
        metadata = sa.MetaData()
        tables = saga_tables(metadata)
        async with Database(self.url, metadata) as database:
            yield SqlSagaLog(database, tables, clock=clock)

    async def test_a_context_may_be_large(self) -> None:
        async with self.log(Clock()) as log:

            async def act(_context: Large, _call: StepCall) -> Mapping[str, Any]:
                return {"text": "é" * 200_000}

            saga = Saga("large", Large).step("only", act)
            await SagaCoordinator(log).run(saga, Large(), saga_id="s1")
            run = await log.load("s1")
            assert run is not None
            assert len(saga.decode(run.context).text) == 200_000


class Large(msgspec.Struct):
    text: str = ""


class TestMariaDBBarrier(BarrierRules):
    @pytest.fixture(autouse=True)
    def _database(self, mariadb_url: str) -> None:
        self.url = mariadb_url

    @asynccontextmanager
    async def shop(self) -> AsyncIterator[Shop]:
        async with Database(self.url, METADATA) as database:
            stock = sa.insert(STOCK).values(id=1, left=10)
            await database.write(lambda connection: connection.execute(stock))
            yield Shop(database)


async def test_a_saga_outlives_a_restart_of_its_database(own_mariadb: MariaDBServer) -> None:
    """It waits for the log, as long as its lease lasts, and does nothing twice."""
    metadata = sa.MetaData()
    tables = saga_tables(metadata)
    acted: list[str] = []

    async def act(_context: Large, call: StepCall) -> None:
        acted.append(call.step)
        if call.step == "b":
            await anyio.to_thread.run_sync(own_mariadb.kill)
            tasks.start_soon(anyio.to_thread.run_sync, own_mariadb.start)

    saga = Saga("restart", Large)
    for name in "abc":
        saga = saga.step(name, act)
    url = own_mariadb.fresh_database("sagas")
    async with Database(url, metadata, connect_timeout=1.0) as database:
        log = SqlSagaLog(database, tables)
        async with anyio.create_task_group() as tasks:
            await SagaCoordinator(log).run(saga, Large(), saga_id="s1")
        run = await log.load("s1")
    assert acted == ["a", "b", "c"]
    assert run is not None
    assert run.state is SagaState.COMPLETED
    assert [record.sequence for record in run.records] == list(range(run.sequence))


ACTION, UNDO = SagaCall("s.1", "reserve", "action"), SagaCall("s.1", "reserve", "undo")
TAKE, GIVE = {"$inc": {"left": -3}}, {"$inc": {"left": 3}}
ENOUGH = {"left": {"$gte": 3}}


class TestMongoBarrier:
    @pytest.fixture
    def stock(self, mongo_server: Any, mongo_database: str) -> Iterator[Collection[Any]]:
        with pymongo.MongoClient(mongo_server.url) as client:
            stock: Collection[Any] = client[mongo_database]["stock"]
            stock.insert_one({"_id": "p", "left": 10})
            yield stock

    def test_an_action_and_its_compensation_take_effect_once(self, stock: Collection[Any]) -> None:
        barrier = MongoBarrier(stock)
        acted = [barrier.act(ACTION, "p", TAKE, where=ENOUGH) for _ in range(3)]
        assert acted == [Passage.DONE, Passage.REPEATED, Passage.REPEATED]
        assert left(stock) == 7
        undone = [barrier.undo(UNDO, "p", GIVE) for _ in range(3)]
        assert undone == [Passage.DONE, Passage.REPEATED, Passage.REPEATED]
        assert left(stock) == 10
        with pytest.raises(LateActionError):
            barrier.act(ACTION, "p", TAKE)

    def test_a_compensation_without_an_action_keeps_the_action_out(
        self, stock: Collection[Any]
    ) -> None:
        barrier = MongoBarrier(stock)
        assert [barrier.undo(UNDO, "p", GIVE) for _ in range(2)] == [Passage.EMPTY, Passage.EMPTY]
        with pytest.raises(LateActionError):
            barrier.act(ACTION, "p", TAKE)
        assert left(stock) == 10

    def test_an_action_whose_condition_does_not_hold_is_refused(
        self, stock: Collection[Any]
    ) -> None:
        barrier = MongoBarrier(stock)
        assert barrier.act(ACTION, "p", TAKE, where={"left": {"$gte": 11}}) is Passage.REFUSED
        assert barrier.act(ACTION, "unknown", TAKE) is Passage.REFUSED
        assert barrier.undo(UNDO, "unknown", GIVE) is Passage.EMPTY
        assert barrier.act(ACTION, "p", TAKE, where=ENOUGH) is Passage.DONE

    def test_a_document_is_inserted_once_and_not_after_it_was_undone(
        self, stock: Collection[Any]
    ) -> None:
        barrier = MongoBarrier(stock)
        document = {"_id": ACTION.key, "state": "reserved"}
        cancel = {"$set": {"state": "released"}}
        assert barrier.insert(ACTION, document) is Passage.DONE
        assert barrier.insert(ACTION, document) is Passage.REPEATED
        assert barrier.undo(UNDO, ACTION.key, cancel, inserted=True) is Passage.DONE
        with pytest.raises(LateActionError):
            barrier.insert(ACTION, document)

        late = SagaCall("s.2", "reserve", "action")
        undo = SagaCall("s.2", "reserve", "undo")
        assert barrier.undo(undo, late.key, cancel, inserted=True) is Passage.EMPTY
        assert barrier.undo(undo, late.key, cancel, inserted=True) is Passage.EMPTY
        with pytest.raises(LateActionError):
            barrier.insert(late, {"_id": late.key})

    def test_a_race_of_both_leaves_the_stock_as_it_was(self, stock: Collection[Any]) -> None:
        barrier = MongoBarrier(stock)

        def race(call: SagaCall) -> None:
            try:
                if call.op == "action":
                    barrier.act(call, "p", TAKE, where=ENOUGH)
                else:
                    barrier.undo(call, "p", GIVE)
            except LateActionError:
                pass

        calls = [
            SagaCall(f"race-{number}", "reserve", op)  # type: ignore[arg-type]
            for number in range(10)
            for op in ("action", "undo", "action", "undo")
        ]
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(race, calls):
                pass
        assert left(stock) == 10

    def test_old_notes_are_forgotten(self, stock: Collection[Any]) -> None:
        barrier = MongoBarrier(stock)
        barrier.act(ACTION, "p", TAKE)
        assert barrier.forget("p", older_than=60.0) == 0
        assert barrier.forget("p", older_than=-60.0) == 1
        assert barrier.forget("p", older_than=-60.0) == 0


def left(stock: Collection[Any]) -> int:
    found = stock.find_one({"_id": "p"})
    assert found is not None
    return int(found["left"])
