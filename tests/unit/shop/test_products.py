"""The product service: stock is taken by condition, and given back once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from bascule.errors import RpcError, Status
from bascule_shop._generated.product import (
    CheckInventoryRequest,
    GetProductRequest,
    Item,
    ListProductsRequest,
    ReleaseInventoryRequest,
    ReservationState,
    ReserveInventoryRequest,
)
from bascule_shop._seed import SOLD_OUT

if TYPE_CHECKING:
    from tests.unit.shop.conftest import JoinedShop

pytestmark = pytest.mark.anyio


def reserve(reservation_id: str, **quantities: int) -> ReserveInventoryRequest:
    items = [Item(product_id=name, quantity=count) for name, count in quantities.items()]
    return ReserveInventoryRequest(reservation_id=reservation_id, items=items)


async def test_the_seed_has_sixty_products(shop: JoinedShop) -> None:
    reply = await shop.products.list_products(ListProductsRequest(page_size=100))
    assert len(reply.products) == 60
    assert reply.next_page_token == ""
    assert all(product.price and product.price.amount_minor > 0 for product in reply.products)


async def test_an_unknown_product_is_not_found(shop: JoinedShop) -> None:
    with pytest.raises(RpcError) as caught:
        await shop.products.get_product(GetProductRequest(id="prd_none"))
    assert caught.value.status is Status.NOT_FOUND
    assert caught.value.details[0].resource_name == "prd_none"


async def test_checking_tells_name_price_and_stock_in_the_order_asked(shop: JoinedShop) -> None:
    reply = await shop.products.check_inventory(
        CheckInventoryRequest(
            items=[Item(product_id=SOLD_OUT, quantity=1), Item(product_id="prd_001", quantity=100)]
        )
    )
    assert [(item.product_id, item.stock, item.available) for item in reply.items] == [
        (SOLD_OUT, 0, False),
        ("prd_001", 100, True),
    ]


async def test_checking_names_every_unknown_product(shop: JoinedShop) -> None:
    items = [Item(product_id=name, quantity=1) for name in ("no1", "prd_001", "no2")]
    with pytest.raises(RpcError) as caught:
        await shop.products.check_inventory(CheckInventoryRequest(items=items))
    assert [detail.resource_name for detail in caught.value.details] == ["no1", "no2"]


async def test_a_reservation_takes_once_and_gives_back_once(shop: JoinedShop) -> None:
    request = reserve("r1", prd_001=30, prd_002=5)
    first = await shop.products.reserve_inventory(request)
    assert await shop.products.reserve_inventory(request) == first
    assert first.state is ReservationState.HELD
    assert [await shop.stock("prd_001"), await shop.stock("prd_002")] == [70, 75]
    for _ in range(3):
        released = await shop.products.release_inventory(ReleaseInventoryRequest("r1"))
        assert released.state is ReservationState.RELEASED
    assert [await shop.stock("prd_001"), await shop.stock("prd_002")] == [100, 80]


async def test_out_of_stock_takes_nothing_and_names_each_product(shop: JoinedShop) -> None:
    request = reserve("r1", prd_001=30, prd_002=81, **{SOLD_OUT: 1})
    with pytest.raises(RpcError) as caught:
        await shop.products.reserve_inventory(request)
    assert caught.value.status is Status.FAILED_PRECONDITION
    (failure,) = caught.value.details
    assert [(v.type, v.subject) for v in failure.violations] == [
        ("STOCK", "prd_002"),
        ("STOCK", SOLD_OUT),
    ]
    assert "prd_002 is out of stock: 81 wanted, 80 left" in str(caught.value)
    assert await shop.stock("prd_001") == 100


async def test_an_unknown_product_cannot_be_reserved(shop: JoinedShop) -> None:
    with pytest.raises(RpcError) as caught:
        await shop.products.reserve_inventory(reserve("r1", prd_001=1, nothing=1))
    assert caught.value.status is Status.NOT_FOUND
    assert await shop.stock("prd_001") == 100


async def test_a_reservation_that_arrives_after_its_release_takes_nothing(
    shop: JoinedShop,
) -> None:
    await shop.products.release_inventory(ReleaseInventoryRequest("late"))
    with pytest.raises(RpcError, match="late was released") as caught:
        await shop.products.reserve_inventory(reserve("late", prd_001=1))
    assert caught.value.status is Status.ABORTED
    assert await shop.stock("prd_001") == 100


async def test_one_id_cannot_hold_other_items(shop: JoinedShop) -> None:
    await shop.products.reserve_inventory(reserve("r1", prd_001=1))
    with pytest.raises(RpcError, match="other items") as caught:
        await shop.products.reserve_inventory(reserve("r1", prd_001=2))
    assert caught.value.status is Status.ALREADY_EXISTS


async def test_fifty_at_once_for_the_last_ten(shop: JoinedShop) -> None:
    await shop.products.reserve_inventory(reserve("others", prd_001=90))
    refused: list[Status] = []

    async def take(number: int) -> None:
        try:
            await shop.products.reserve_inventory(reserve(f"r{number}", prd_001=1))
        except RpcError as error:
            refused.append(error.status)

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(take, number)
    assert refused == [Status.FAILED_PRECONDITION] * 40
    assert await shop.stock("prd_001") == 0


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (reserve("", prd_001=1), "reservation_id"),
        (reserve("r"), "items"),
        (reserve("r", prd_001=0), "items[0].quantity"),
        (reserve("r", prd_001=1001), "items[0].quantity"),
        (
            ReserveInventoryRequest("r", [Item(product_id="prd_001", quantity=1)] * 2),
            "items[1].product_id",
        ),
        (ReserveInventoryRequest("r", [Item(quantity=1)]), "items[0].product_id"),
        (reserve("r", **{f"p{number}": 1 for number in range(101)}), "items"),
    ],
)
async def test_a_bad_reservation_names_its_field(
    shop: JoinedShop, request_: ReserveInventoryRequest, field: str
) -> None:
    with pytest.raises(RpcError) as caught:
        await shop.products.reserve_inventory(request_)
    assert caught.value.status is Status.INVALID_ARGUMENT
    assert [v.field for v in caught.value.details[0].field_violations] == [field]
