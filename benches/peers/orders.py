"""The shop under test, and its customers.

``python -m benches.peers.orders serve LOOP FOLDER [SERVICE=URL ...]`` serves the whole shop in one
process: four services behind servers of their own that call each other over TCP, durable sagas, outbox
and relay. Logs are written as a service writes them.

``python -m benches.peers.orders load ADDRESS AT_ONCE SECONDS`` keeps so many orders in flight, and prints
one JSON object: orders, orders a second, and the latencies.
"""

import itertools
import json
import sys
import time
from collections.abc import Sequence

import anyio

from bascule.observe import configure_logging
from bascule.rpc import Channel
from bascule_shop._generated.order import CreateOrderRequest, OrderItem, OrderStatus
from bascule_shop._generated.order.services import OrderServiceStub
from bascule_shop._generated.product import Product
from bascule_shop._generated.shop import Money
from bascule_shop.app import SERVICES, Shop
from bascule_shop.migrations import migrate
from bascule_shop.product import open_product_store
from benches.peers.percentile import percentile
from benches.peers.serve import ready, run

PRODUCTS = 100
_STOCK = 1_000_000_000
_DEADLINE = 10.0  #: seconds, on every order
_WARM_UP = 0.3  #: seconds


async def serve(folder: str, databases: dict[str, str]) -> None:
    """Serve until cancelled."""
    configure_logging()
    urls = {name: f"sqlite:///{folder}/{name}.db" for name in SERVICES} | databases
    await migrate("product", urls["product"])
    async with open_product_store(urls["product"]) as store:
        # More than can be ordered: the shop's own products would soon be sold out.
        await store.seed([_product(number) for number in range(PRODUCTS)])
    async with Shop(folder, databases=urls) as shop:
        ready(shop.servers["order"].address)
        await anyio.sleep_forever()


def _product(number: int) -> Product:
    price = Money(currency="EUR", amount_minor=100 + number)
    return Product(id=f"prd_{number:03}", name=f"Plank {number}", price=price, stock=_STOCK)


async def load(address: str, at_once: int, seconds: float) -> dict[str, float]:
    """Order two products at a time, over and over.

    :raises ValueError: if an order is not confirmed
    """
    numbers = itertools.count()
    latencies: list[float] = []

    async def customer(end: float) -> None:
        after = 0.0
        while after < end:
            before, number = time.perf_counter(), next(numbers)
            items = [
                OrderItem(product_id=f"prd_{each % PRODUCTS:03}", quantity=1)
                for each in (number * 7, number * 7 + 1)
            ]
            request = CreateOrderRequest(
                user_id="usr_ada",
                items=items,
                payment_token="tok_visa",
                idempotency_key=f"{before}-{number}",
            )
            order = await orders.create_order(request, timeout=_DEADLINE)
            after = time.perf_counter()
            latencies.append(after - before)
            if order.status is not OrderStatus.CONFIRMED:
                message = f"order {order.id} is {order.status.name}"
                raise ValueError(message)

    async def drive(lasting: float) -> float:
        begun = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for _ in range(at_once):
                tasks.start_soon(customer, begun + lasting)
        return time.perf_counter() - begun

    async with Channel(address) as channel:
        orders = OrderServiceStub(channel)
        await drive(min(_WARM_UP, seconds))
        latencies.clear()
        took = await drive(seconds)
    return {
        "orders": next(numbers),
        "orders_per_second": len(latencies) / took,
        "p50": percentile(latencies, 50),
        "p99": percentile(latencies, 99),
    }


def main(arguments: Sequence[str]) -> None:
    """Serve, or load."""
    if arguments[0] == "serve":
        backend, folder, *databases = arguments[1:]
        urls = dict(database.split("=", 1) for database in databases)
        run(lambda: serve(folder, urls), backend)
        return
    address, at_once, seconds = arguments[1:]
    print(json.dumps(anyio.run(load, address, int(at_once), float(seconds))))


if __name__ == "__main__":
    main(sys.argv[1:])
