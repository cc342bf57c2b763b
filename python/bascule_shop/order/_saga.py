"""The saga that an order is made by: order, inventory, payment, confirmation."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime  # noqa: TC003 - msgspec reads the annotation
from typing import TYPE_CHECKING, Any

import msgspec

from bascule.errors import BreakerOpenError, CommitUnknownError, RejectedError, RpcError, Status
from bascule.events import Topic
from bascule.saga import Saga, StepCall
from bascule_shop._faults import encode_fault, fault, try_again
from bascule_shop._generated.order import Order, OrderLine, OrderStatus
from bascule_shop._generated.payment import ChargeRequest, RefundRequest
from bascule_shop._generated.product import (
    Item,
    ReleaseInventoryRequest,
    ReserveInventoryRequest,
)
from bascule_shop._generated.shop import Money
from bascule_shop.order._store import KeyTakenError, StoredOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bascule_shop.order._clients import PaymentClient, ProductClient
    from bascule_shop.order._store import OrderStore

__all__ = ["ORDER_CREATED", "Line", "OrderCreated", "OrderSteps", "PlacedOrder", "answer_to"]

CALL_TIMEOUT = 5.0
"""Seconds that a call of another service may take."""


class OrderCreated(msgspec.Struct, frozen=True):
    """An order was confirmed. Whoever needs to know more asks the service."""

    order_id: str
    user_id: str


ORDER_CREATED = Topic("order.created", OrderCreated)


class Line(msgspec.Struct, frozen=True):
    """One line of an order, with the price that held when it was placed."""

    product_id: str
    name: str
    quantity: int
    unit_minor: int


class PlacedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The saga's context: all that its steps need, after a restart too."""

    order_id: str
    user_id: str
    lines: tuple[Line, ...]
    currency: str
    payment_token: str
    create_time: datetime
    idempotency_key: str | None = None
    fingerprint: bytes = b""
    payment_id: str | None = None

    @property
    def total(self) -> Money:
        """The price of all lines."""
        minor = sum(line.quantity * line.unit_minor for line in self.lines)
        return Money(currency=self.currency, amount_minor=minor)

    def order(self, status: OrderStatus) -> Order:
        """Give the order as callers see it."""
        return Order(
            id=self.order_id,
            user_id=self.user_id,
            status=status,
            lines=[
                OrderLine(
                    product_id=line.product_id,
                    name=line.name,
                    quantity=line.quantity,
                    unit_price=Money(currency=self.currency, amount_minor=line.unit_minor),
                )
                for line in self.lines
            ],
            total=self.total,
            create_time=self.create_time,
        )


class OrderSteps:
    """The saga's steps.

    Each gives its call's idempotency key to the service that it calls, so that a compensation finds
    what the action did even if the action's answer was lost.

    :param store: of the orders
    :param products: client of the product service
    :param payments: client of the payment service
    :param notify: called after an event was stored
    """

    def __init__(
        self,
        store: OrderStore,
        products: ProductClient,
        payments: PaymentClient,
        notify: Callable[[], None],
    ) -> None:
        self._store = store
        self._products = products
        self._payments = payments
        self._notify = notify

    def saga(self) -> Saga[PlacedOrder]:
        """Give the saga.

        Every service knows a repeated call by its key, so that an interrupted order goes on. Once it
        is paid for there is no way back: it is confirmed, however long that takes.
        """
        return (
            Saga("create-order", PlacedOrder)
            .step("order", self._add, self._reject, idempotent=True)
            .step("inventory", self._reserve, self._release, idempotent=True)
            .step("payment", self._charge, self._refund, idempotent=True, pivot=True)
            .step("confirm", self._confirm)
        )

    async def undo_confirmed(self, order_id: str) -> None:
        """Refund a confirmed order and give its items back. Repeating it changes nothing more."""
        await self._refund_charge(f"{order_id}/payment", "cancelled by its user")
        await self._release_reservation(f"{order_id}/inventory")

    async def _add(self, placed: PlacedOrder, _call: StepCall) -> None:
        order = placed.order(OrderStatus.PENDING)
        try:
            await self._store.add(StoredOrder(order, placed.idempotency_key, placed.fingerprint))
        except KeyTakenError:
            if await self._store.get(placed.order_id) is None:
                raise

    async def _reject(self, placed: PlacedOrder, call: StepCall) -> None:
        answer = answer_to(call.cause)
        pending = placed.order(OrderStatus.PENDING)
        with suppress(KeyTakenError):
            # If it was never added, it must not be added later.
            await self._store.add(StoredOrder(pending, placed.idempotency_key, placed.fingerprint))
        await self._store.reject(
            placed.order_id, encode_fault(answer), keep_key=answer.status in _STANDS
        )

    async def _reserve(self, placed: PlacedOrder, call: StepCall) -> None:
        items = [Item(product_id=line.product_id, quantity=line.quantity) for line in placed.lines]
        await self._products.reserve_inventory(
            ReserveInventoryRequest(reservation_id=call.idempotency_key, items=items),
            timeout=CALL_TIMEOUT,
        )

    async def _release(self, _placed: PlacedOrder, call: StepCall) -> None:
        await self._release_reservation(call.idempotency_key)

    async def _charge(self, placed: PlacedOrder, call: StepCall) -> Mapping[str, Any]:
        payment = await self._payments.charge(
            ChargeRequest(
                idempotency_key=call.idempotency_key,
                order_id=placed.order_id,
                amount=placed.total,
                payment_token=placed.payment_token,
            ),
            timeout=CALL_TIMEOUT,
        )
        return {"payment_id": payment.id}

    async def _refund(self, _placed: PlacedOrder, call: StepCall) -> None:
        await self._refund_charge(call.idempotency_key, "the order failed")

    async def _confirm(self, placed: PlacedOrder, _call: StepCall) -> None:
        created = OrderCreated(order_id=placed.order_id, user_id=placed.user_id)
        await self._store.confirm(placed.order_id, ORDER_CREATED.event(placed.order_id, created))
        self._notify()

    async def _release_reservation(self, key: str) -> None:
        await self._products.release_inventory(
            ReleaseInventoryRequest(reservation_id=key), timeout=CALL_TIMEOUT
        )

    async def _refund_charge(self, key: str, reason: str) -> None:
        await self._payments.refund(
            RefundRequest(idempotency_key=key, reason=reason), timeout=CALL_TIMEOUT
        )


_STANDS = frozenset({Status.FAILED_PRECONDITION, Status.NOT_FOUND})
"""What the same request would be answered again. After anything else it may succeed, with the same key."""

_PASSED_ON = _STANDS | {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.ABORTED}


def answer_to(cause: Exception | None) -> RpcError:
    """Give the error to answer with when a step failed.

    What the caller can do something about is passed on; what can only be this service's fault, such
    as an INVALID_ARGUMENT of another service, is not the caller's business.
    """
    match cause:
        case RpcError() if cause.status in _PASSED_ON:
            return cause
        case BreakerOpenError():
            return try_again(Status.UNAVAILABLE, f"a service is down: {cause}", cause.retry_after)
        case RejectedError():
            return try_again(Status.UNAVAILABLE, str(cause), cause.retry_after)
        case KeyTakenError():
            return fault(
                Status.ABORTED,
                "ORDER_IN_PROGRESS",
                "an order with this idempotency key is being made: try again",
            )
        case CommitUnknownError() | None:
            return try_again(Status.ABORTED, "the order was interrupted and undone")
        case _:
            return fault(Status.INTERNAL, "ORDER_FAILED", "the order could not be made")
