"""The order service: an order is made whole, or leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from bascule.errors import BreakerOpenError, RpcError, Status
from bascule.saga import SagaState
from bascule_shop._caller import Caller
from bascule_shop._generated.order import (
    CancelOrderRequest,
    CreateOrderRequest,
    GetOrderRequest,
    ListOrdersRequest,
    Order,
    OrderItem,
    OrderStatus,
)
from bascule_shop._generated.payment import PaymentState, RefundRequest
from bascule_shop._seed import SOLD_OUT
from bascule_shop.order import OrderCreated

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.shop.conftest import JoinedShop

pytestmark = pytest.mark.anyio

UNAVAILABLE = RpcError(Status.UNAVAILABLE, "connection lost")


def order(
    user: str = "usr_ada",
    *,
    token: str = "tok_visa",
    key: str = "",
    items: dict[str, int] | None = None,
) -> CreateOrderRequest:
    items = items or {"prd_001": 2, "prd_002": 1}
    return CreateOrderRequest(
        user_id=user,
        items=[OrderItem(product_id=name, quantity=count) for name, count in items.items()],
        payment_token=token,
        idempotency_key=key,
    )


async def refused(shop: JoinedShop, request: CreateOrderRequest) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await shop.orders.create_order(request)
    return caught.value


async def last_order(shop: JoinedShop) -> Order:
    return (await shop.orders.list_orders(ListOrdersRequest(page_size=1))).orders[0]


async def test_an_order_reserves_pays_and_tells(shop: JoinedShop) -> None:
    made = await shop.orders.create_order(order())
    assert made.status is OrderStatus.CONFIRMED
    assert made.total is not None
    assert made.total.amount_minor == 2 * 1290 + 1935
    assert [line.name for line in made.lines] == ["Plank XS", "Plank S"]
    assert await shop.orders.get_order(GetOrderRequest(made.id)) == made
    assert await shop.stock("prd_001") == 98
    ((_, event),) = await shop.order_outbox.pending(10)
    assert event.payload == OrderCreated(order_id=made.id, user_id="usr_ada")
    assert event.topic.name == "order.created"


async def test_a_missing_user_is_the_callers_fault(shop: JoinedShop) -> None:
    error = await refused(shop, order("usr_nobody"))
    assert error.status is Status.INVALID_ARGUMENT
    assert error.details[0].reason == "USER_NOT_FOUND"
    assert dict(error.details[0].metadata) == {"user_id": "usr_nobody"}
    assert shop.product_client.calls == []


async def test_an_unknown_product_is_named_with_its_place(shop: JoinedShop) -> None:
    error = await refused(shop, order(items={"prd_001": 1, "nothing": 1}))
    assert error.status is Status.INVALID_ARGUMENT
    assert [v.field for v in error.details[0].field_violations] == ["items[1].product_id"]


async def test_out_of_stock_leaves_nothing_behind(shop: JoinedShop) -> None:
    error = await refused(shop, order(items={"prd_001": 1, SOLD_OUT: 1}))
    assert error.status is Status.FAILED_PRECONDITION
    assert error.details[0].violations[0].subject == SOLD_OUT
    assert await shop.stock("prd_001") == 100
    assert (await last_order(shop)).status is OrderStatus.REJECTED
    assert "charge" not in shop.payment_client.calls
    assert await shop.order_outbox.pending(10) == []


async def test_a_refused_payment_gives_the_stock_back(shop: JoinedShop) -> None:
    error = await refused(shop, order(token="tok_declined"))
    assert error.status is Status.FAILED_PRECONDITION
    assert error.details[0].reason == "CARD_DECLINED"
    assert await shop.stock("prd_001") == 100
    assert (await last_order(shop)).status is OrderStatus.REJECTED
    assert shop.product_client.calls[-1] == "release_inventory"


@pytest.mark.parametrize("step", ["reserve_inventory", "charge"])
async def test_a_lost_answer_is_undone_too(shop: JoinedShop, step: str) -> None:
    client = shop.payment_client if step == "charge" else shop.product_client
    client.after[step] = UNAVAILABLE
    error = await refused(shop, order())
    assert error.status is Status.UNAVAILABLE
    assert [await shop.stock("prd_001"), await shop.stock("prd_002")] == [100, 80]
    rejected = await last_order(shop)
    assert rejected.status is OrderStatus.REJECTED
    if step == "charge":
        again = await shop.payments.refund(RefundRequest(f"{rejected.id}/payment"))
        assert again.state is PaymentState.REFUNDED
        assert again.id


async def test_an_order_cancelled_on_the_way_is_undone(shop: JoinedShop) -> None:
    charging = shop.payment_client.hang["charge"] = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(shop.orders.create_order, order())
        await charging.wait()
        assert await shop.stock("prd_001") == 98
        tasks.cancel_scope.cancel()
    assert await shop.stock("prd_001") == 100
    assert (await last_order(shop)).status is OrderStatus.REJECTED


async def test_what_cannot_be_undone_is_parked(shop: JoinedShop) -> None:
    shop.product_client.before["release_inventory"] = UNAVAILABLE
    error = await refused(shop, order(token="tok_declined"))
    assert (error.status, error.details[0].reason) == (Status.INTERNAL, "ORDER_PARKED")
    (parked,) = await shop.log.list(state=SagaState.PARKED)
    assert (parked.name, parked.step) == ("create-order", "inventory")


@pytest.mark.parametrize(
    ("client", "method"),
    [
        (lambda shop: shop.user_client, "get_user"),
        (lambda shop: shop.product_client, "check_inventory"),
        (lambda shop: shop.product_client, "reserve_inventory"),
        (lambda shop: shop.payment_client, "charge"),
    ],
)
@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (BreakerOpenError("payment", 1.5), Status.UNAVAILABLE),
        (UNAVAILABLE, Status.UNAVAILABLE),
        (RpcError(Status.INVALID_ARGUMENT, "our own mistake"), Status.INTERNAL),
        (RuntimeError("a bug"), Status.INTERNAL),
    ],
)
async def test_a_failing_service_is_answered_for(
    shop: JoinedShop,
    client: Callable[[JoinedShop], object],
    method: str,
    raised: Exception,
    status: Status,
) -> None:
    target = client(shop)
    target.before[method] = raised  # type: ignore[attr-defined]
    if isinstance(raised, RuntimeError) and method in {"get_user", "check_inventory"}:
        with pytest.raises(RuntimeError):
            await shop.orders.create_order(order())
        return
    error = await refused(shop, order())
    assert error.status is status
    assert "our own mistake" not in str(error)
    if isinstance(raised, BreakerOpenError):
        assert error.details[0].retry_delay.ToMilliseconds() == 1_500


async def test_a_repeated_order_is_answered_with_the_first_one(shop: JoinedShop) -> None:
    first = await shop.orders.create_order(order(key="k1"))
    assert await shop.orders.create_order(order(key="k1")) == first
    other = await shop.orders.create_order(order("usr_bram", key="k1"))
    assert other.id != first.id
    assert await shop.stock("prd_001") == 96
    error = await refused(shop, order(key="k1", items={"prd_001": 7}))
    assert error.details[0].field_violations[0].field == "idempotency_key"


async def test_the_http_header_serves_as_idempotency_key(shop: JoinedShop) -> None:
    shop.caller = Caller(idempotency_key="k1")
    assert await shop.orders.create_order(order()) == await shop.orders.create_order(order())


async def test_a_repeated_failure_is_answered_with_the_first_one(shop: JoinedShop) -> None:
    first = await refused(shop, order(token="tok_declined", key="k1"))
    charges = shop.payment_client.calls.count("charge")
    again = await refused(shop, order(token="tok_declined", key="k1"))
    assert (again.status, again.message) == (first.status, first.message)
    assert again.details == first.details
    assert shop.payment_client.calls.count("charge") == charges


async def test_an_order_that_was_interrupted_and_undone_is_to_be_placed_with_another_key(
    shop: JoinedShop,
) -> None:
    """Its own key gets the same answer for ever: it must not read as one to be tried again."""
    charging = shop.payment_client.hang["charge"] = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(shop.orders.create_order, order(key="k1"))
        await charging.wait()
        tasks.cancel_scope.cancel()
    shop.payment_client.hang.clear()
    for _ in range(2):
        answer = await refused(shop, order(key="k1"))
        assert (answer.status, answer.details[0].reason) == (Status.ABORTED, "ORDER_UNDONE")
    assert (await shop.orders.create_order(order(key="k2"))).status is OrderStatus.CONFIRMED


async def test_many_at_once_with_one_key_make_one_order(shop: JoinedShop) -> None:
    made: set[str] = set()
    refusals: set[tuple[Status, str]] = set()

    async def place() -> None:
        try:
            made.add((await shop.orders.create_order(order(key="k1"))).id)
        except RpcError as error:
            refusals.add((error.status, error.details[0].reason))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(place)
    assert len(made) == 1
    assert refusals <= {(Status.ABORTED, "ORDER_IN_PROGRESS")}
    assert await shop.stock("prd_001") == 98
    assert len((await shop.orders.list_orders(ListOrdersRequest())).orders) == 1


async def test_fifty_at_once_for_the_last_ten(shop: JoinedShop) -> None:
    await shop.orders.create_order(order(items={"prd_001": 90}))
    outcomes: list[Status] = []

    async def place() -> None:
        try:
            await shop.orders.create_order(order(items={"prd_001": 1}))
            outcomes.append(Status.OK)
        except RpcError as error:
            outcomes.append(error.status)

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(place)
    assert outcomes.count(Status.OK) == 10
    assert outcomes.count(Status.FAILED_PRECONDITION) == 40
    assert await shop.stock("prd_001") == 0


async def test_cancelling_refunds_and_gives_back_once(shop: JoinedShop) -> None:
    made = await shop.orders.create_order(order())
    for _ in range(2):
        cancelled = await shop.orders.cancel_order(CancelOrderRequest(made.id))
        assert cancelled.status is OrderStatus.CANCELLED
    assert await shop.stock("prd_001") == 100
    assert shop.payment_client.calls.count("refund") == 1


async def test_a_cancellation_that_failed_half_way_can_be_repeated(shop: JoinedShop) -> None:
    made = await shop.orders.create_order(order())
    shop.product_client.before["release_inventory"] = UNAVAILABLE
    with pytest.raises(RpcError, match="connection lost"):
        await shop.orders.cancel_order(CancelOrderRequest(made.id))
    shop.product_client.before.clear()
    await shop.orders.cancel_order(CancelOrderRequest(made.id))
    assert await shop.stock("prd_001") == 100


async def test_a_rejected_order_cannot_be_cancelled(shop: JoinedShop) -> None:
    await refused(shop, order(token="tok_declined"))
    rejected = await last_order(shop)
    with pytest.raises(RpcError, match="only a confirmed order") as caught:
        await shop.orders.cancel_order(CancelOrderRequest(rejected.id))
    assert caught.value.status is Status.FAILED_PRECONDITION


async def test_a_subject_acts_for_itself_and_sees_its_own_orders(shop: JoinedShop) -> None:
    foreign = await shop.orders.create_order(order("usr_bram"))
    shop.caller = Caller(subject="usr_ada")
    own = await shop.orders.create_order(order(""))
    assert own.user_id == "usr_ada"
    assert (await shop.orders.list_orders(ListOrdersRequest())).orders == [own]
    for attempt in (
        shop.orders.get_order(GetOrderRequest(foreign.id)),
        shop.orders.cancel_order(CancelOrderRequest(foreign.id)),
    ):
        with pytest.raises(RpcError) as caught:
            await attempt
        assert caught.value.status is Status.NOT_FOUND
    with pytest.raises(RpcError) as caught:
        await shop.orders.list_orders(ListOrdersRequest(user_id="usr_bram"))
    assert caught.value.status is Status.PERMISSION_DENIED
    assert (await refused(shop, order("usr_bram"))).status is Status.PERMISSION_DENIED


async def test_orders_are_listed_newest_first_in_pages(shop: JoinedShop) -> None:
    made = {(await shop.orders.create_order(order(items={"prd_001": 1}))).id for _ in range(5)}
    first = await shop.orders.list_orders(ListOrdersRequest(page_size=3))
    rest = await shop.orders.list_orders(
        ListOrdersRequest(page_size=3, page_token=first.next_page_token)
    )
    ids = [listed.id for listed in [*first.orders, *rest.orders]]
    assert ids == sorted(made, reverse=True)
    assert rest.next_page_token == ""


async def test_bad_fields_are_named(shop: JoinedShop) -> None:
    request = CreateOrderRequest(user_id="usr_ada", items=[OrderItem(), OrderItem(quantity=5000)])
    error = await refused(shop, request)
    assert [v.field for v in error.details[0].field_violations] == [
        "items[0].product_id",
        "items[0].quantity",
        "items[1].product_id",
        "items[1].quantity",
        "payment_token",
    ]
