"""The shop's services joined without a network: real stores, direct calls that can be made to fail."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from argon2 import PasswordHasher

from bascule.events import SqlOutbox
from bascule.saga import Backoff, MemorySagaLog, SagaCoordinator
from bascule.sql import Database
from bascule_shop._caller import Caller
from bascule_shop._generated.product import GetProductRequest
from bascule_shop._seed import PRODUCTS, USERS
from bascule_shop.order import ORDER_CREATED, OrderService, SqlOrderStore
from bascule_shop.order import _store as order_tables
from bascule_shop.payment import PaymentService, SimulatedProvider, SqlPaymentStore
from bascule_shop.payment import _store as payment_tables
from bascule_shop.product import ProductService, SqlProductStore
from bascule_shop.product import _store as product_tables
from bascule_shop.user import USER_CREATED, SqlUserStore, UserService
from bascule_shop.user import _store as user_tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FAST_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Direct:
    """A client that calls the service itself.

    :ivar before: raised instead of calling, by method
    :ivar after: raised after calling, by method: the answer is lost
    :ivar hang: set after calling, by method, whose answer never comes
    """

    def __init__(self, service: Any) -> None:
        self._service = service
        self.before: dict[str, Exception] = {}
        self.after: dict[str, Exception] = {}
        self.hang: dict[str, anyio.Event] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        async def call(request: object, *, timeout: float | None = None) -> object:
            assert timeout is not None
            self.calls.append(name)
            if name in self.before:
                raise self.before[name]
            reply: object = await getattr(self._service, name)(request)
            if name in self.after:
                raise self.after[name]
            if name in self.hang:
                self.hang[name].set()
                await anyio.sleep_forever()
            return reply

        return call


class JoinedShop:
    """All services and what a test needs of their insides."""

    users: UserService
    products: ProductService
    payments: PaymentService
    orders: OrderService
    user_client: Direct
    product_client: Direct
    payment_client: Direct
    user_outbox: SqlOutbox
    order_outbox: SqlOutbox
    caller = Caller()

    def __init__(self) -> None:
        self.provider = SimulatedProvider()
        self.log = MemorySagaLog()
        self.notified = 0

    def notify(self) -> None:
        self.notified += 1

    async def stock(self, product_id: str) -> int:
        return (await self.products.get_product(GetProductRequest(id=product_id))).stock


@asynccontextmanager
async def joined_shop(folder: Path) -> AsyncIterator[JoinedShop]:
    """Give a seeded shop whose databases are in a folder."""
    async with AsyncExitStack() as stack:

        async def database(name: str, metadata: Any) -> Database:
            return await stack.enter_async_context(
                Database(f"sqlite:///{folder / name}.db", metadata)
            )

        shop = JoinedShop()
        users = await database("user", user_tables.METADATA)
        shop.user_outbox = SqlOutbox(users, USER_CREATED)
        user_store = SqlUserStore(users, shop.user_outbox)
        await user_store.seed(USERS)
        shop.users = UserService(user_store, notify=shop.notify, hasher=FAST_HASHER)
        product_store = SqlProductStore(await database("product", product_tables.METADATA))
        await product_store.seed(PRODUCTS)
        shop.products = ProductService(product_store)
        payments = await database("payment", payment_tables.METADATA)
        shop.payments = PaymentService(SqlPaymentStore(payments), shop.provider)
        orders = await database("order", order_tables.METADATA)
        shop.order_outbox = SqlOutbox(orders, ORDER_CREATED)
        shop.user_client = Direct(shop.users)
        shop.product_client = Direct(shop.products)
        shop.payment_client = Direct(shop.payments)
        shop.orders = OrderService(
            SqlOrderStore(orders, shop.order_outbox),
            shop.user_client,
            shop.product_client,
            shop.payment_client,
            coordinator=SagaCoordinator(shop.log, backoff=Backoff(attempts=3, initial=0.0)),
            notify=shop.notify,
            caller=lambda: shop.caller,
        )
        yield shop


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[JoinedShop]:
    """A seeded shop."""
    async with joined_shop(tmp_path) as shop:
        yield shop
