"""An order cancelled at any of its awaits is made whole, or leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.unit.shop.conftest import joined_shop

from bascule.errors import RpcError
from bascule.saga import SagaState
from bascule_shop._generated.order import (
    CreateOrderRequest,
    ListOrdersRequest,
    OrderItem,
    OrderStatus,
)
from bascule_shop._generated.payment import PaymentState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from pathlib import Path

    from tests.unit.shop.conftest import JoinedShop

pytestmark = pytest.mark.anyio


def request(token: str) -> CreateOrderRequest:
    return CreateOrderRequest(
        user_id="usr_ada",
        items=[OrderItem(product_id="prd_001", quantity=3)],
        payment_token=token,
    )


class Interruption:
    """Calls a function when what it watches waits for the n-th time, in whichever task."""

    def __init__(self, at: int, interrupt: Callable[[], object] = lambda: None) -> None:
        self._at = at
        self.interrupt = interrupt
        self.waits = 0

    def count(self) -> None:
        self.waits += 1
        if self.waits == self._at:
            self.interrupt()


class Watched:
    """Awaits something and counts how often it waits."""

    def __init__(self, awaitable: Awaitable[Any], interruption: Interruption) -> None:
        self._awaitable = awaitable
        self._interruption = interruption

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._awaitable.__await__()
        send: Callable[[], Any] = lambda: next(steps)  # noqa: E731
        while True:
            try:
                waiting_for = send()
            except StopIteration as done:
                return done.value
            self._interruption.count()
            try:
                result = yield waiting_for
            except BaseException as error:  # noqa: BLE001
                send = lambda error=error: steps.throw(error)  # type: ignore[misc]  # noqa: E731
            else:
                send = lambda result=result: steps.send(result)  # type: ignore[misc]  # noqa: E731


async def create_order(shop: JoinedShop, token: str, interruption: Interruption) -> None:
    """Order something, watched in the caller's task and in that of the saga."""
    coordinator = shop.orders.coordinator
    drive = type(coordinator)._run_or_undo

    async def watched(execution: Any) -> None:
        await Watched(drive(coordinator, execution), interruption)

    coordinator._run_or_undo = watched  # type: ignore[method-assign]
    await Watched(shop.orders.create_order(request(token)), interruption)


async def check_balance(shop: JoinedShop) -> None:
    orders = (await shop.orders.list_orders(ListOrdersRequest(page_size=100))).orders
    states = {order.status for order in orders}
    assert states <= {OrderStatus.CONFIRMED, OrderStatus.REJECTED}
    confirmed = [order for order in orders if order.status is OrderStatus.CONFIRMED]
    assert await shop.stock("prd_001") == 100 - 3 * len(confirmed)
    for order in orders:
        paid = await shop.payments._store.get(f"{order.id}/payment")
        charged = paid is not None and paid.payment.state is PaymentState.CHARGED
        assert charged == (order.status is OrderStatus.CONFIRMED)
    assert len(await shop.order_outbox.pending(100)) == len(confirmed)
    assert await shop.log.list(state=SagaState.PARKED) == []


@pytest.mark.parametrize("token", ["tok_visa", "tok_declined"])
async def test_an_order_survives_its_cancellation_at_every_await(
    tmp_path: Path, token: str
) -> None:
    cancelled: set[bool] = set()
    async with joined_shop(tmp_path) as shop:
        at = 0
        while True:
            at += 1
            with anyio.CancelScope() as scope, contextlib.suppress(RpcError):
                interruption = Interruption(at, scope.cancel)
                await create_order(shop, token, interruption)
            await check_balance(shop)
            cancelled.add(scope.cancelled_caught)
            if interruption.waits < at:
                break
    assert at > 15
    assert cancelled == {True, False}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("token", ["tok_visa", "tok_declined"])
async def test_an_order_survives_a_native_cancellation_at_every_await(
    tmp_path: Path, token: str
) -> None:
    async with joined_shop(tmp_path) as shop:
        at = 0
        while True:
            at += 1
            interruption = Interruption(at)
            task = asyncio.create_task(create_order(shop, token, interruption))
            interruption.interrupt = task.cancel
            with contextlib.suppress(RpcError, asyncio.CancelledError):
                await task
            await check_balance(shop)
            if interruption.waits < at:
                break
    assert at > 15
