"""The shop as real processes on real databases: many order at once, or repeat themselves."""

from __future__ import annotations

import io
import itertools
import json
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import sqlalchemy as sa
from tests.forked import FORKED
from tests.integration.shop_forks import serve
from tests.servers import MONGO, running

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
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bascule.testing.servers import MariaDBServer, RedisServer

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Processes:
    """Where the services are, and what they keep."""

    targets: Mapping[str, str]
    urls: Mapping[str, str]
    redis: str

    async def stock(self, product_id: str) -> int:
        async with open_product_store(self.urls["product"]) as store:
            product = await store.get(product_id)
        assert product is not None
        return product.stock

    async def orders(self, user_id: str) -> Mapping[str, OrderStatus]:
        table = METADATA["order"].tables["orders"]
        query = sa.select(table.c.id, table.c.status).where(table.c.user_id == user_id)
        async with Database(self.urls["order"]) as database:
            rows = await database.read(lambda connection: list(connection.execute(query)))
        return {row.id: OrderStatus(row.status) for row in rows}

    async def paid(self) -> Counter[str]:
        """Count the charges for each order that were not given back."""
        table = METADATA["payment"].tables["payments"]
        query = sa.select(table.c.order_id).where(table.c.state == int(PaymentState.CHARGED))
        async with Database(self.urls["payment"]) as database:
            return Counter(await database.read(lambda c: list(c.execute(query).scalars())))


@pytest.fixture(
    scope="module",
    params=["mariadb", *MONGO],
    ids=lambda kind: getattr(kind, "program", kind),
)
def processes(
    request: pytest.FixtureRequest,
    mariadb_server: MariaDBServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Processes]:
    """All services, the order service twice, on both loops; products in the database that is asked for."""
    names = {name: f"shop_processes_{name}" for name in SERVICES}
    urls = {name: mariadb_server.fresh_database(database) for name, database in names.items()}
    redis_server.flush()
    log = tmp_path_factory.mktemp("processes") / "log"
    loops = itertools.cycle(["asyncio", "trio"])
    peers: dict[str, str] = {}

    def start(stack: ExitStack, name: str) -> str:
        settings = ProcessSettings(
            name=name,
            database=urls[name],
            peers=peers,
            events=redis_server.url,
            propagation=0.0,
        )
        return stack.enter_context(served(settings, next(loops), log))

    with ExitStack() as stack:
        if request.param != "mariadb":
            server = stack.enter_context(running(request.param))
            url, _, options = server.url.partition("?")
            urls["product"] = f"{url.rstrip('/')}/products?{options}"
        for name in CALLED:
            peers[name] = f"static:///{start(stack, name)}"
        addresses = [start(stack, "order"), start(stack, "order")]
        targets = {SERVICES[name]: target for name, target in peers.items()}
        targets[SERVICES["order"]] = f"static:///{','.join(addresses)}"
        yield Processes(targets, urls, redis_server.url)
    for database in names.values():
        mariadb_server.drop_database(database)


@contextmanager
def served(settings: ProcessSettings, loop: str, log: Path) -> Iterator[str]:
    """Run a service as a process; give its address."""
    hear, tell = FORKED.Pipe(duplex=False)
    process = FORKED.Process(target=serve, args=(settings, loop, None, tell, log))
    process.start()
    tell.close()
    try:
        assert hear.poll(60), f"{settings.name} is not ready"
        yield hear.recv()[1]
        process.terminate()
        process.join(20)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
        hear.close()


class Customer:
    """Orders at two gateways in turns.

    :param shared: whether the gateways tell each other of keys, or leave it to the order service
    """

    def __init__(self, processes: Processes, user_id: str, folder: Path, *, shared: bool) -> None:
        key = DevelopmentKey(folder)
        self.gateways = [
            shop_gateway(
                key.auth,
                listen="127.0.0.1:0",
                targets=processes.targets,
                redis=processes.redis if shared else None,
                access_log=LineLog(io.BytesIO()),
            )
            for _ in range(2)
        ]
        self._token = key.mint_token(user_id)
        self._turns = itertools.cycle(self.gateways)

    async def order(self, product_id: str, quantity: int, key: str) -> tuple[int, Any]:
        """Order; ask again while the same order is being made."""
        items = [{"productId": product_id, "quantity": quantity}]
        body = json.dumps({"items": items, "paymentToken": "tok_visa"}).encode()
        headers = [
            ("content-type", "application/json"),
            ("idempotency-key", key),
            ("authorization", f"Bearer {self._token}"),
        ]
        gateway = next(self._turns)
        while True:
            request = HttpRequest(
                *("POST", "/api/v1/orders", headers, body), *("192.0.2.1:1", "https", "2")
            )
            response = await gateway.handle(request)
            if response.status != 409:
                return response.status, json.loads(response.body)
            await anyio.sleep(0.02)

    async def order_at_once(self, product_id: str, quantity: int, keys: list[str]) -> list[Any]:
        answers: list[Any] = []

        async def order(key: str) -> None:
            answers.append(await self.order(product_id, quantity, key))

        async with anyio.create_task_group() as tasks:
            for key in keys:
                tasks.start_soon(order, key)
        return answers


async def test_of_fifty_orders_at_once_for_the_last_ten_items_ten_succeed(
    processes: Processes, tmp_path: Path, anyio_backend_name: str
) -> None:
    # There are 20 of each.
    user, product = {
        "asyncio": ("usr_ada", "prd_005"),
        "trio": ("usr_bram", "prd_010"),
    }[anyio_backend_name]
    customer = Customer(processes, user, tmp_path, shared=True)
    async with customer.gateways[0], customer.gateways[1]:
        status, _ = await customer.order(product, 10, "order-of-ten")
        assert (status, await processes.stock(product)) == (201, 10)
        keys = [f"order-{number}" for number in range(50)]
        answers = await customer.order_at_once(product, 1, keys)
    assert Counter(status for status, _ in answers) == {201: 10, 400: 40}
    assert all("out of stock" in body["message"] for status, body in answers if status == 400)
    assert await processes.stock(product) == 0
    orders = await processes.orders(user)
    assert Counter(orders.values()) == {OrderStatus.CONFIRMED: 11, OrderStatus.REJECTED: 40}
    paid = await processes.paid()
    for order_id, order in orders.items():
        assert paid[order_id] == (order is OrderStatus.CONFIRMED)


@pytest.mark.parametrize("shared", [True, False], ids=["keys-shared", "keys-not-shared"])
async def test_fifty_replays_of_one_order_have_one_effect_and_one_answer(
    processes: Processes, tmp_path: Path, anyio_backend_name: str, shared: bool
) -> None:
    """Though they come to two gateways, and to two processes of the order service behind them."""
    user, product = {
        ("asyncio", True): ("usr_chiara", "prd_015"),
        ("trio", True): ("usr_dev", "prd_020"),
        ("asyncio", False): ("usr_elif", "prd_025"),
        ("trio", False): ("usr_bram", "prd_030"),
    }[anyio_backend_name, shared]
    before = await processes.orders(user)
    customer = Customer(processes, user, tmp_path, shared=shared)
    async with customer.gateways[0], customer.gateways[1]:
        answers = await customer.order_at_once(product, 3, ["the-same"] * 50)
    assert len(answers) == 50
    assert all(answer == answers[0] for answer in answers)
    status, body = answers[0]
    assert status == 201
    assert await processes.stock(product) == 20 - 3
    made = dict((await processes.orders(user)).items() - before.items())
    assert made == {body["id"]: OrderStatus.CONFIRMED}
    assert (await processes.paid())[body["id"]] == 1
