"""The shop end to end: real servers on loopback, real channels between them, real databases."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from argon2 import PasswordHasher
from tests.servers import database_name, running

from bascule.errors import CommitUnknownError, RejectedError, RpcError, Status, TransportError
from bascule.resilience import BreakerSettings
from bascule.rpc import Channel
from bascule.testing.servers import NxMongoServer
from bascule_shop._generated.order import (
    CancelOrderRequest,
    CreateOrderRequest,
    ListOrdersRequest,
    OrderItem,
    OrderStatus,
)
from bascule_shop._generated.order.services import OrderServiceStub
from bascule_shop._generated.product import GetProductRequest, ListProductsRequest
from bascule_shop._generated.product.services import ProductServiceStub
from bascule_shop._generated.user import CreateUserRequest, GetUserRequest
from bascule_shop._generated.user.services import UserServiceStub
from bascule_shop._seed import SOLD_OUT
from bascule_shop.app import Shop
from bascule_shop.order import ORDER_CREATED, OrderCreated
from bascule_shop.payment import SimulatedProvider
from bascule_shop.user import USER_CREATED, SqlUserStore, UserCreated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from bascule.events import Event
    from bascule.testing.servers import MariaDBServer
    from bascule_shop._generated.shop import Money

pytestmark = pytest.mark.anyio


class Client:
    """A running shop and stubs for its services."""

    def __init__(self, shop: Shop, users: Channel, products: Channel, orders: Channel) -> None:
        self.shop = shop
        self.product_channel = products
        self.users = UserServiceStub(users)
        self.products = ProductServiceStub(products)
        self.orders = OrderServiceStub(orders)

    async def stock(self, product_id: str) -> int:
        return (await self.products.get_product(GetProductRequest(id=product_id))).stock


def open_shop(folder: Path, **settings: Any) -> Shop:
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    return Shop(folder, hasher=hasher, **settings)


@pytest.fixture(scope="module")
def mongo() -> Iterator[NxMongoServer]:
    with running(NxMongoServer) as server:
        yield server


@pytest.fixture(params=["embedded", "servers"])
def databases(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Where the shop keeps its data: in files, or on MariaDB and a server of MongoDB's protocol."""
    if request.param == "embedded":
        yield {}
        return
    mariadb: MariaDBServer = request.getfixturevalue("mariadb_server")
    products, _, options = request.getfixturevalue("mongo").url.partition("?")
    name = "t" + database_name(request)[-50:]
    names = {service: f"{service}_{name}" for service in ("user", "payment", "order")}
    yield {service: mariadb.fresh_database(each) for service, each in names.items()} | {
        "product": f"{products.rstrip('/')}/{name}?{options}"
    }
    for each in names.values():
        mariadb.drop_database(each)


@pytest.fixture
async def client(tmp_path: Path, databases: dict[str, str]) -> AsyncIterator[Client]:
    breaker = BreakerSettings(failure_threshold=3, success_threshold=1, timeout=0.0)
    async with open_shop(tmp_path, databases=databases, breaker=breaker) as shop:
        registry = shop.registry
        async with (
            Channel(shop.target("user"), registry=registry) as users,
            Channel(shop.target("product"), registry=registry) as products,
            Channel(shop.target("order"), registry=registry) as orders,
        ):
            yield Client(shop, users, products, orders)


def order(
    user: str = "usr_ada", *, token: str = "tok_visa", items: dict[str, int] | None = None
) -> CreateOrderRequest:
    items = items or {"prd_001": 2}
    return CreateOrderRequest(
        user_id=user,
        items=[OrderItem(product_id=name, quantity=count) for name, count in items.items()],
        payment_token=token,
    )


async def refused(client: Client, request: CreateOrderRequest) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await client.orders.create_order(request)
    return caught.value


async def test_a_new_user_orders(client: Client) -> None:
    told: list[object] = []
    both = anyio.Event()

    async def hear(event: Event[Any]) -> None:
        told.append(event.payload)
        if len(told) == 2:
            both.set()

    client.shop.bus.subscribe(USER_CREATED, hear, name="test")
    client.shop.bus.subscribe(ORDER_CREATED, hear, name="test")
    user = await client.users.create_user(
        CreateUserRequest(email="new@example.com", display_name="New", password="long enough")
    )
    assert await client.users.get_user(GetUserRequest(id=user.id)) == user
    products = await client.products.list_products(ListProductsRequest(page_size=100))
    assert len(products.products) >= 50
    made = await client.orders.create_order(order(user.id))
    assert made.status is OrderStatus.CONFIRMED
    assert await client.stock("prd_001") == 98
    with anyio.fail_after(5):
        await both.wait()
    assert told == [UserCreated(user.id), OrderCreated(order_id=made.id, user_id=user.id)]


async def test_an_unknown_outcome_tells_to_try_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database broke while it kept the account: whether it did, the next attempt shows."""
    add = SqlUserStore.add

    async def lose_the_answer(store: SqlUserStore, *arguments: Any) -> None:
        await add(store, *arguments)
        raise CommitUnknownError("mysql://db/user")

    new = CreateUserRequest(email="new@example.com", display_name="New", password="long enough")
    monkeypatch.setattr(SqlUserStore, "add", lose_the_answer)
    with pytest.raises(RpcError) as caught:
        await client.users.create_user(new)
    assert (caught.value.status, caught.value.details[0].reason) == (
        Status.ABORTED,
        "OUTCOME_UNKNOWN",
    )
    monkeypatch.undo()
    with pytest.raises(RpcError) as caught:
        await client.users.create_user(new)
    assert caught.value.status is Status.ALREADY_EXISTS


async def test_out_of_stock_is_refused_with_details(client: Client) -> None:
    error = await refused(client, order(items={"prd_001": 1, SOLD_OUT: 1}))
    assert error.status is Status.FAILED_PRECONDITION
    assert error.details[0].violations[0].subject == SOLD_OUT
    assert await client.stock("prd_001") == 100


async def test_a_refused_payment_leaves_nothing_behind(client: Client) -> None:
    error = await refused(client, order(token="tok_declined"))
    assert error.status is Status.FAILED_PRECONDITION
    assert error.details[0].reason == "CARD_DECLINED"
    assert await client.stock("prd_001") == 100
    listed = await client.orders.list_orders(ListOrdersRequest(user_id="usr_ada"))
    assert [listed_order.status for listed_order in listed.orders] == [OrderStatus.REJECTED]


async def test_a_missing_user_is_an_invalid_argument(client: Client) -> None:
    error = await refused(client, order("usr_nobody"))
    assert error.status is Status.INVALID_ARGUMENT
    assert error.details[0].reason == "USER_NOT_FOUND"


async def test_the_subject_comes_from_the_metadata(client: Client) -> None:
    metadata = {"x-bascule-subject": "usr_bram", "idempotency-key": "k1"}
    made = await client.orders.create_order(order(""), metadata=metadata)
    assert made.user_id == "usr_bram"
    assert await client.orders.create_order(order(""), metadata=metadata) == made
    with pytest.raises(RpcError) as caught:
        await client.orders.create_order(order("usr_ada"), metadata=metadata)
    assert caught.value.status is Status.PERMISSION_DENIED


async def test_fifty_orders_at_once_for_the_last_ten(client: Client) -> None:
    await client.orders.create_order(order(items={"prd_001": 90}))
    outcomes: list[Status] = []

    async def place() -> None:
        try:
            await client.orders.create_order(order(items={"prd_001": 1}))
            outcomes.append(Status.OK)
        except RpcError as error:
            outcomes.append(error.status)

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(place)
    assert outcomes.count(Status.OK) == 10
    assert outcomes.count(Status.FAILED_PRECONDITION) == 40
    assert await client.stock("prd_001") == 0


async def test_a_cancelled_order_is_given_back(client: Client) -> None:
    made = await client.orders.create_order(order())
    cancelled = await client.orders.cancel_order(CancelOrderRequest(id=made.id))
    assert cancelled.status is OrderStatus.CANCELLED
    assert await client.stock("prd_001") == 100


class HangingProvider(SimulatedProvider):
    """Never answers a charge."""

    def __init__(self) -> None:
        super().__init__()
        self.charging = anyio.Event()

    async def charge(self, key: str, amount: Money, token: str) -> str:
        self.charging.set()
        await anyio.sleep_forever()
        return await super().charge(key, amount, token)


async def test_a_caller_that_gives_up_has_its_order_undone(tmp_path: Path) -> None:
    provider = HangingProvider()
    async with (
        open_shop(tmp_path, provider=provider) as shop,
        Channel(shop.target("order"), registry=shop.registry) as orders,
        Channel(shop.target("product"), registry=shop.registry) as products,
    ):

        async def stock() -> int:
            request = GetProductRequest(id="prd_001")
            return (await ProductServiceStub(products).get_product(request)).stock

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(OrderServiceStub(orders).create_order, order())
            with anyio.fail_after(5):
                await provider.charging.wait()
            assert await stock() == 98
            tasks.cancel_scope.cancel()
        # The server waits for its handler, which undoes the order before it ends.
        await shop.stop("order")
        assert await stock() == 100


async def test_a_provider_outage_opens_the_breaker_and_passes(client: Client) -> None:
    provider = client.shop.provider
    assert isinstance(provider, SimulatedProvider)
    provider.down = True
    server = client.shop.servers["payment"]
    messages = [str(await refused(client, order())) for _ in range(5)]
    assert all("UNAVAILABLE" in message for message in messages)
    provider.down = False
    made = await client.orders.create_order(order())
    assert made.status is OrderStatus.CONFIRMED
    assert await client.stock("prd_001") == 98
    assert server.serving


async def test_a_service_that_was_stopped_comes_back_at_its_address(client: Client) -> None:
    address = client.shop.servers["product"].address
    await client.shop.stop("product")
    assert not await client.shop.ready()
    with pytest.raises((RpcError, RejectedError)):
        await client.products.get_product(GetProductRequest(id="prd_001"), timeout=5.0)
    assert (await refused(client, order())).status is Status.UNAVAILABLE
    await client.shop.start("product")
    assert client.shop.servers["product"].address == address
    with anyio.fail_after(5):
        await client.product_channel.wait_ready()
    assert await client.stock("prd_001") == 100


async def test_the_shop_remembers_over_a_restart(tmp_path: Path) -> None:
    made = None
    for _ in range(2):
        async with (
            open_shop(tmp_path) as shop,
            Channel(shop.target("order"), registry=shop.registry) as channel,
        ):
            orders = OrderServiceStub(channel)
            if made is None:
                made = await orders.create_order(order())
            listed = await orders.list_orders(ListOrdersRequest())
            assert listed.orders == [made]


_KILLED = """
import os, signal, sys
from pathlib import Path

import anyio
from tests.integration.test_shop import OrderServiceStub, Channel, open_shop, order

from bascule_shop.payment import SimulatedProvider


class Fatal(SimulatedProvider):
    async def charge(self, key, amount, token):
        if sys.argv[2] == "charging":
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().charge(key, amount, token)


async def main():
    async with open_shop(Path(sys.argv[1]), provider=Fatal()) as shop:
        async with Channel(shop.target("order"), registry=shop.registry) as channel:
            if sys.argv[2] == "confirming":
                shop._orders._store.confirm = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            await OrderServiceStub(channel).create_order(order())


anyio.run(main)
"""


@pytest.mark.parametrize("moment", ["charging", "confirming"])
async def test_an_order_whose_process_was_killed_is_ended_by_the_next_one(
    tmp_path: Path, moment: str
) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path), moment]
    killed = await anyio.run_process(command, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with contextlib.closing(sqlite3.connect(tmp_path / "order.db")) as database, database:
        # The lease of a process that is gone is over some time.
        database.execute("UPDATE saga_runs SET due = 0")
    async with (
        open_shop(tmp_path) as shop,
        Channel(shop.target("order"), registry=shop.registry) as orders,
        Channel(shop.target("product"), registry=shop.registry) as products,
    ):
        with anyio.fail_after(20):
            while True:
                listed = await OrderServiceStub(orders).list_orders(ListOrdersRequest())
                (made,) = listed.orders
                if made.status is not OrderStatus.PENDING:
                    break
                await anyio.sleep(0.02)
        assert made.status is OrderStatus.CONFIRMED
        product = await ProductServiceStub(products).get_product(GetProductRequest(id="prd_001"))
        assert product.stock == 98


async def test_an_address_in_use_stops_the_start_cleanly(tmp_path: Path) -> None:
    async with open_shop(tmp_path / "one") as shop:
        taken = {"payment": shop.servers["payment"].address}
        with pytest.raises(TransportError, match=taken["payment"]):
            await open_shop(tmp_path / "two", listen=taken).__aenter__()
