"""Reservations while the server of the products is ended and started again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from bascule.errors import DatabaseUnavailableError
from bascule_shop._generated.product import Item, Product, ReservationState
from bascule_shop._generated.shop import Money
from bascule_shop._mongo import MongoDatabase
from bascule_shop.migrations import migrate
from bascule_shop.product._mongo import MongoProductStore

if TYPE_CHECKING:
    from bascule.testing.servers import MongoServer

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STOCK = 100_000
ONE = [Item(product_id="p", quantity=1)]


@pytest.mark.timeout(240)
async def test_restarts_under_load_lose_no_acknowledged_reservation(own_mongo: MongoServer) -> None:
    server, _, options = own_mongo.url.partition("?")
    url = f"{server.rstrip('/')}/shop?{options}"
    await migrate("product", url)
    kept: set[str] = set()
    given_up: set[str] = set()
    # mongo-java-server's file is not made for kill -9: it loses sight of documents that it then refuses.
    end = own_mongo.kill if own_mongo.transactions else own_mongo.stop
    numbers = iter(range(1_000_000))
    stop = False

    async with MongoDatabase(url, connect_timeout=1.0) as database:
        store = MongoProductStore(database)
        price = Money(currency="EUR", amount_minor=1)
        await store.seed([Product(id="p", name="P", price=price, stock=STOCK)])

        async def reserve() -> None:
            while not stop:
                name = f"r{next(numbers)}"
                try:
                    await store.reserve(name, ONE, NOW)
                except DatabaseUnavailableError:
                    given_up.add(name)
                    await anyio.sleep(0.01)
                else:
                    kept.add(name)

        async def until_kept(more: int) -> None:
            target = len(kept) + more
            with anyio.fail_after(60):
                while len(kept) < target:  # noqa: ASYNC110 - a set sets no event
                    await anyio.sleep(0.01)

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(reserve)
            for _ in range(2):
                await until_kept(40)
                await anyio.to_thread.run_sync(end)
                await anyio.to_thread.run_sync(own_mongo.start)
            await until_kept(40)
            stop = True

        for name in given_up:
            await store.release(name, NOW)
        await store.tidy()
        for name in kept:
            again = await store.reserve(name, ONE, NOW)
            assert again.state is ReservationState.HELD
        product = await store.get("p")
        assert product is not None
        assert product.stock == STOCK - len(kept)
        assert database.stats.lost > 0
