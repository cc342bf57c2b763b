"""The shop as real processes on real databases: many order at once, or repeat themselves."""

from __future__ import annotations

import io
import json
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import sqlalchemy as sa
from tests.forked import FORKED
from tests.integration.shop_process import serve
from tests.servers import MONGO, database_name, running

from bascule.gateway import DevelopmentKey, LineLog
from bascule.net import HttpRequest
from bascule.sql import Database
from bascule_shop._generated.order import OrderStatus
from bascule_shop._generated.payment import PaymentState
from bascule_shop._services import CALLED, SERVICES
from bascule_shop.gateway import shop_gateway
from bascule_shop.migrations import METADATA
from bascule_shop.process import ProcessSettings
from bascule_shop.product import open_product_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from bascule.gateway import Gateway
    from bascule.testing.servers import MariaDBServer

pytestmark = pytest.mark.anyio

#: Of this one there are 20.
PRODUCT = "prd_005"


@pytest.fixture(params=["mariadb", *MONGO], ids=lambda kind: getattr(kind, "program", kind))
def urls(request: pytest.FixtureRequest, mariadb_server: MariaDBServer) -> Iterator[Any]:
    """A database for each service, the products' of the kind that the test is for."""
    names = {name: f"shop_processes_{name}" for name in SERVICES}
    found = {name: mariadb_server.fresh_database(database) for name, database in names.items()}
    if request.param == "mariadb":
        yield found
    else:
        with running(request.param) as server:
            url, _, options = server.url.partition("?")
            yield found | {"product": f"{url.rstrip('/')}/{database_name(request)}?{options}"}
    for database in names.values():
        mariadb_server.drop_database(database)


@dataclass
class RunningShop:
    """Two gateways in front of the processes, and what is kept behind them."""

    urls: Mapping[str, str]
    gateways: list[Gateway]
    token: str

    async def order(self, number: int, quantity: int, key: str) -> tuple[int, dict[str, Any]]:
        """Order at one of the gateways; ask again while the same order is being made."""
        body = {
            "items": [{"productId": PRODUCT, "quantity": quantity}],
            "paymentToken": "tok_visa",
        }
        headers = [
            ("content-type", "application/json"),
            ("idempotency-key", key),
            ("authorization", f"Bearer {self.token}"),
        ]
        while True:
            request = HttpRequest(
                *("POST", "/api/v1/orders", headers, json.dumps(body).encode()),
                *("192.0.2.1:1", "https", "2"),
            )
            response = await self.gateways[number % 2].handle(request)
            if response.status != 409:
                return response.status, json.loads(response.body)
            await anyio.sleep(0.02)

    async def stock(self) -> int:
        async with open_product_store(self.urls["product"]) as store:
            product = await store.get(PRODUCT)
        assert product is not None
        return product.stock

    async def count(self, service: str, table: str, column: str) -> Counter[int]:
        query = sa.select(METADATA[service].tables[table].c[column])
        async with Database(self.urls[service]) as database:
            return Counter(await database.read(lambda c: list(c.execute(query).scalars())))


@asynccontextmanager
async def served(settings: ProcessSettings, backend: str, log: Path) -> AsyncIterator[str]:
    """Run a service as a process; give its address."""
    hear, tell = FORKED.Pipe(duplex=False)
    process = FORKED.Process(target=serve, args=(settings, backend, None, tell, log))
    process.start()
    tell.close()
    try:
        with anyio.fail_after(30):
            await anyio.wait_readable(hear.fileno())
        yield hear.recv()[1]
        process.terminate()
        await anyio.to_thread.run_sync(process.join, 15)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
        hear.close()


@asynccontextmanager
async def shop(
    urls: Mapping[str, str], redis: str, folder: Path, loop: str, *, shared: bool
) -> AsyncIterator[RunningShop]:
    """Run all services, the order service twice.

    :param shared: whether the gateways tell each other of keys, or leave it to the order service
    """

    def settings(name: str, peers: Mapping[str, str]) -> ProcessSettings:
        return ProcessSettings(
            name=name, database=urls[name], peers=peers, events=redis, propagation=0.0
        )

    log = folder / "processes.log"
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        peers: dict[str, str] = {}
        for name in CALLED:
            peers[name] = f"static:///{await enter(served(settings(name, {}), loop, log))}"
        orders = [await enter(served(settings("order", peers), loop, log)) for _ in range(2)]
        targets = {SERVICES[name]: target for name, target in peers.items()}
        targets[SERVICES["order"]] = f"static:///{','.join(orders)}"
        key = DevelopmentKey(folder)
        gateways = [
            await enter(
                shop_gateway(
                    key.auth,
                    listen="127.0.0.1:0",
                    targets=targets,
                    redis=redis if shared else None,
                    access_log=LineLog(io.BytesIO()),
                )
            )
            for _ in range(2)
        ]
        yield RunningShop(urls, gateways, key.mint_token("usr_ada"))


async def test_of_fifty_orders_at_once_for_the_last_ten_items_ten_succeed(
    urls: Mapping[str, str], redis_url: str, tmp_path: Path, anyio_backend_name: str
) -> None:
    answers: list[tuple[int, dict[str, Any]]] = []
    async with shop(urls, redis_url, tmp_path, anyio_backend_name, shared=True) as running:
        assert (await running.order(0, 10, "order-of-ten"))[0] == 201
        assert await running.stock() == 10

        async def order(number: int) -> None:
            answers.append(await running.order(number, 1, f"order-{number}"))

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(order, number)
        assert await running.stock() == 0
        orders = await running.count("order", "orders", "status")
        payments = await running.count("payment", "payments", "state")
    assert Counter(status for status, _ in answers) == {201: 10, 400: 40}
    refused = [body for status, body in answers if status == 400]
    assert all("out of stock" in body["message"] for body in refused)
    assert orders == {OrderStatus.CONFIRMED: 11, OrderStatus.REJECTED: 40}
    assert payments[PaymentState.CHARGED] == 11
    assert payments.keys() <= {PaymentState.CHARGED, PaymentState.REFUNDED}


@pytest.mark.parametrize("shared", [True, False], ids=["keys shared", "keys not shared"])
async def test_fifty_replays_of_one_order_have_one_effect_and_one_answer(
    urls: Mapping[str, str], redis_url: str, tmp_path: Path, anyio_backend_name: str, shared: bool
) -> None:
    """Though they come to two gateways, and to two processes of the order service behind them."""
    answers: list[tuple[int, dict[str, Any]]] = []
    async with shop(urls, redis_url, tmp_path, anyio_backend_name, shared=shared) as running:

        async def order(number: int) -> None:
            answers.append(await running.order(number, 3, "order-1"))

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(order, number)
        assert await running.stock() == 20 - 3
        orders = await running.count("order", "orders", "status")
        payments = await running.count("payment", "payments", "state")
    assert len(answers) == 50
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == 201
    assert orders == {OrderStatus.CONFIRMED: 1}
    assert payments[PaymentState.CHARGED] == 1
