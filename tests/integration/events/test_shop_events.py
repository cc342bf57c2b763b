"""The shop with a Redis: its events leave the process, and its gateways know repeated orders."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from argon2 import PasswordHasher

from bascule.events import Event, RedisEventBus
from bascule.gateway import DevelopmentKey, LineLog
from bascule.net import HttpRequest
from bascule.observe import TraceContext
from bascule.rpc import Channel
from bascule_shop._generated.order import CreateOrderRequest, ListOrdersRequest, OrderItem
from bascule_shop._generated.order.services import OrderServiceStub
from bascule_shop._generated.product import GetProductRequest
from bascule_shop._generated.product.services import ProductServiceStub
from bascule_shop._generated.user import CreateUserRequest
from bascule_shop._generated.user.services import UserServiceStub
from bascule_shop.app import Shop
from bascule_shop.gateway import shop_gateway
from bascule_shop.order import ORDER_CREATED
from bascule_shop.user import USER_CREATED

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ORDER = CreateOrderRequest(
    user_id="usr_ada",
    items=[OrderItem(product_id="prd_001", quantity=1)],
    payment_token="tok_visa",
)


async def test_its_events_reach_another_process_in_the_trace_of_the_request(
    tmp_path: Path, redis_url: str
) -> None:
    told: list[Event[Any]] = []
    both = anyio.Event()

    async def hear(event: Event[Any]) -> None:
        told.append(event)
        if len(told) == 2:
            both.set()

    trace = TraceContext.root(sampled=True)
    metadata = {"traceparent": trace.traceparent}
    # Another bus stands for another process: all that they share is the Redis.
    async with (
        RedisEventBus(redis_url) as bus,
        Shop(tmp_path, hasher=HASHER, events=redis_url) as shop,
    ):
        bus.subscribe(USER_CREATED, hear, name="mailer")
        bus.subscribe(ORDER_CREATED, hear, name="mailer")
        async with (
            Channel(shop.target("user"), registry=shop.registry) as users,
            Channel(shop.target("order"), registry=shop.registry) as orders,
        ):
            user = await UserServiceStub(users).create_user(
                CreateUserRequest(email="n@example.com", display_name="N", password="long enough"),
                metadata=metadata,
            )
            order = await OrderServiceStub(orders).create_order(ORDER, metadata=metadata)
        with anyio.fail_after(20):
            await both.wait()
    assert {event.key for event in told} == {user.id, order.id}
    for event in told:
        assert event.traceparent is not None
        assert event.traceparent.split("-")[1] == trace.trace_id


async def test_fifty_replays_of_one_order_at_two_gateways_have_one_effect_and_one_answer(
    tmp_path: Path, redis_url: str
) -> None:
    key = DevelopmentKey(tmp_path)
    body = {"items": [{"productId": "prd_001", "quantity": 1}], "paymentToken": "tok_visa"}
    headers = [
        ("content-type", "application/json"),
        ("idempotency-key", "order-1"),
        ("authorization", f"Bearer {key.mint_token('usr_ada')}"),
    ]
    answers: list[tuple[int, dict[str, Any]]] = []
    async with Shop(tmp_path, hasher=HASHER) as shop:
        gateways = [
            shop_gateway(
                key.auth,
                listen="127.0.0.1:0",
                registry=shop.registry,
                redis=redis_url,
                access_log=LineLog(io.BytesIO()),
            )
            for _ in range(2)
        ]

        async def order(number: int) -> None:
            while True:
                request = HttpRequest(
                    *("POST", "/api/v1/orders", list(headers), json.dumps(body).encode()),
                    *("192.0.2.1:1", "https", "2"),
                )
                response = await gateways[number % 2].handle(request)
                if response.status != 409:
                    answers.append((response.status, json.loads(response.body)))
                    return
                await anyio.sleep(0.01)

        async with gateways[0], gateways[1]:
            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(order, number)
        async with (
            Channel(shop.target("product"), registry=shop.registry) as products,
            Channel(shop.target("order"), registry=shop.registry) as orders,
        ):
            product = await ProductServiceStub(products).get_product(
                GetProductRequest(id="prd_001")
            )
            listed = await OrderServiceStub(orders).list_orders(
                ListOrdersRequest(user_id="usr_ada")
            )
    assert len(answers) == 50
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == 201
    assert product.stock == 99
    assert [one.id for one in listed.orders] == [answers[0][1]["id"]]
