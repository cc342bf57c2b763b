"""The samples of docs/how-to/events.md work as they stand there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import msgspec
import pytest
import sqlalchemy as sa
from tests.pages import load

import bascule.events
from bascule.events import MemoryEventBus, OutboxRelay, Redelivery, RedisEventBus, SqlOutbox
from bascule.sql import Database

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def page() -> SimpleNamespace:
    known: dict[str, Any] = {"msgspec": msgspec, "sa": sa, "Database": Database}
    known |= {
        name: value for name, value in vars(bascule.events).items() if not name.startswith("_")
    }
    load("docs/how-to/events.md", known)
    return SimpleNamespace(**known)


async def test_within_one_process(
    page: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    await page.within_one_process()
    assert capsys.readouterr().out == "new order: order-1\n"


async def test_outbox_and_inbox(page: SimpleNamespace, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'orders.db'}"
    async with Database(url, page.METADATA) as database, MemoryEventBus() as bus:
        await page.ship_orders(database, bus)
        outbox = SqlOutbox(database, page.ORDER_CREATED)
        async with OutboxRelay(outbox, bus) as relay:
            await page.create_order(database, outbox, relay, "order-9")
    async with Database(url) as database:
        query = sa.select(page.SHIPMENTS.c.order_id)
        assert await database.read(lambda connection: list(connection.scalars(query))) == [
            "order-9"
        ]


async def test_serving_publishes_what_was_stored(page: SimpleNamespace, tmp_path: Path) -> None:
    seen: list[str] = []

    async def handle(event: Any) -> None:
        seen.append(event.key)

    async with MemoryEventBus() as bus:
        bus.subscribe(page.ORDER_CREATED, handle, name="test")
        await page.serve(f"sqlite:///{tmp_path / 'o.db'}", bus)
    assert seen == ["order-2"]


async def test_between_processes(
    page: SimpleNamespace, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(event: Any) -> None:
        raise ValueError("no mail today")

    await page.between_processes(redis_url, fail)
    async with RedisEventBus(redis_url, redelivery=Redelivery(attempts=1)) as bus:
        bus.subscribe(page.ORDER_CREATED, fail, name="mailer")
        with anyio.fail_after(30):
            while not await bus.dead_letters(page.ORDER_CREATED, "mailer"):  # noqa: ASYNC110 (Redis tells nobody)
                await anyio.sleep(0.02)
        await page.mend(bus)
    assert "ValueError: no mail today" in capsys.readouterr().out
