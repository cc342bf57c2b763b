"""What the order service does."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from bascule.errors import RejectedError, RpcError, Status
from bascule.saga import (
    MemorySagaLog,
    Saga,
    SagaCoordinator,
    SagaFailedError,
    SagaInterruptedError,
    SagaLogError,
    SagaParkedError,
)
from bascule_shop._caller import Caller
from bascule_shop._checks import Checks, Page, new_id, now
from bascule_shop._faults import decode_fault, fault, invalid, not_found, try_again
from bascule_shop._generated.order import (
    CancelOrderRequest,
    CreateOrderRequest,
    GetOrderRequest,
    ListOrdersRequest,
    ListOrdersResponse,
    Order,
    OrderStatus,
)
from bascule_shop._generated.order.services import OrderServiceBase
from bascule_shop._generated.product import Availability, CheckInventoryRequest, Item
from bascule_shop._generated.shop import Money
from bascule_shop._generated.user import GetUserRequest
from bascule_shop.order._saga import CALL_TIMEOUT, Line, OrderSteps, PlacedOrder, answer_to
from bascule_shop.order._store import KeyTakenError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bascule_shop.order._clients import PaymentClient, ProductClient, UserClient
    from bascule_shop.order._store import OrderStore, StoredOrder

__all__ = ["OrderService"]

_logger = logging.getLogger("bascule_shop.order")


class OrderService(OrderServiceBase):
    """``order.OrderService``.

    A call with a verified subject is about the subject's own orders only: others do not exist for it.

    :param store: of the orders
    :param users: client of the user service
    :param products: client of the product service
    :param payments: client of the payment service
    :param coordinator: runs the sagas
    :param notify: called after an event was stored
    :param caller: gives the caller of the call being handled
    :ivar coordinator: what runs the sagas
    :ivar saga: by which orders are made, for a worker to end those that were interrupted
    """

    def __init__(
        self,
        store: OrderStore,
        users: UserClient,
        products: ProductClient,
        payments: PaymentClient,
        *,
        coordinator: SagaCoordinator | None = None,
        notify: Callable[[], None] = lambda: None,
        caller: Callable[[], Caller] = Caller,
    ) -> None:
        self._store = store
        self._users = users
        self._products = products
        self.coordinator = coordinator or SagaCoordinator(MemorySagaLog())
        self._caller = caller
        self._steps = OrderSteps(store, products, payments, notify)
        self.saga: Saga[PlacedOrder] = self._steps.saga()

    async def create_order(self, request: CreateOrderRequest) -> Order:
        """Order, reserve and pay."""
        caller = self._caller()
        user_id = _acting_user(request, caller.subject)
        key = request.idempotency_key or caller.idempotency_key
        _check(request, key)
        fingerprint = _fingerprint(user_id, request)
        if key:
            known = await self._store.find(user_id, key)
            if known is not None:
                return _answer_again(known, fingerprint)
        await self._require_user(user_id)
        lines, currency = await self._price(request)
        placed = PlacedOrder(
            order_id=new_id("ord"),
            user_id=user_id,
            lines=lines,
            currency=currency,
            payment_token=request.payment_token,
            create_time=now(),
            idempotency_key=key or None,
            fingerprint=fingerprint,
        )
        return await self._make(placed)

    async def get_order(self, request: GetOrderRequest) -> Order:
        """Give one order."""
        return (await self._visible(request.id)).order

    async def list_orders(self, request: ListOrdersRequest) -> ListOrdersResponse:
        """Give a page of orders."""
        page = Page(request.page_size, request.page_token)
        subject = self._caller().subject
        user_id = request.user_id or subject
        if subject is not None and user_id != subject:
            raise _foreign(subject)
        orders = await self._store.list(user_id, page.after, page.size + 1)
        return ListOrdersResponse(
            orders=list(orders[: page.size]),
            next_page_token=page.token([order.id for order in orders]),
        )

    async def cancel_order(self, request: CancelOrderRequest) -> Order:
        """Refund a confirmed order and give its items back."""
        order = (await self._visible(request.id)).order
        if order.status is OrderStatus.CANCELLED:
            return order
        if order.status is not OrderStatus.CONFIRMED:
            raise fault(
                Status.FAILED_PRECONDITION,
                "ORDER_NOT_CONFIRMED",
                f"only a confirmed order can be cancelled; {order.id} is {order.status.name}",
            )
        try:
            await self._steps.undo_confirmed(order.id)
        except (RpcError, RejectedError) as error:
            # What has been undone stays undone; a repeated call undoes the rest.
            raise answer_to(error) from error
        await self._store.set_status(order.id, OrderStatus.CANCELLED)
        order.status = OrderStatus.CANCELLED
        return order

    async def _visible(self, order_id: str) -> StoredOrder:
        stored = await self._store.get(order_id)
        subject = self._caller().subject
        if stored is None or (subject is not None and stored.order.user_id != subject):
            raise not_found("order", order_id)
        return stored

    async def _require_user(self, user_id: str) -> None:
        try:
            await self._users.get_user(GetUserRequest(id=user_id), timeout=CALL_TIMEOUT)
        except RpcError as error:
            if error.status is not Status.NOT_FOUND:
                raise answer_to(error) from error
            raise fault(
                Status.INVALID_ARGUMENT,
                "USER_NOT_FOUND",
                f"no user has the id {user_id}",
                user_id=user_id,
            ) from error
        except RejectedError as error:
            raise answer_to(error) from error

    async def _price(self, request: CreateOrderRequest) -> tuple[tuple[Line, ...], str]:
        """Give the order's lines at the prices of this moment, and their currency."""
        items = [Item(product_id=i.product_id, quantity=i.quantity) for i in request.items]
        try:
            reply = await self._products.check_inventory(
                CheckInventoryRequest(items=items), timeout=CALL_TIMEOUT
            )
        except RpcError as error:
            if error.status is not Status.NOT_FOUND:
                raise answer_to(error) from error
            unknown = {detail.resource_name for detail in error.details or ()}
            raise invalid(
                {
                    f"items[{index}].product_id": f"names no product: {item.product_id}"
                    for index, item in enumerate(items)
                    if item.product_id in unknown
                }
                or {"items": f"names no product: {error.message}"}
            ) from error
        except RejectedError as error:
            raise answer_to(error) from error
        return _lines(request, reply.items)

    async def _make(self, placed: PlacedOrder) -> Order:
        try:
            done = await self.coordinator.run(self.saga, placed, saga_id=placed.order_id)
        except SagaFailedError as error:
            if isinstance(error.cause, KeyTakenError) and placed.idempotency_key:
                known = await self._store.find(placed.user_id, placed.idempotency_key)
                if known is not None:
                    return _answer_again(known, placed.fingerprint)
            answer = answer_to(error.cause)
            if answer.status is Status.INTERNAL:
                _logger.exception("order %s failed", placed.order_id)
            raise answer from error
        except SagaParkedError as error:
            raise fault(
                Status.INTERNAL,
                "ORDER_PARKED",
                f"the order {placed.order_id} waits for a person: something could not be undone or,"
                " once it was paid for, not confirmed",
                order_id=placed.order_id,
            ) from error
        except SagaInterruptedError as error:
            raise fault(
                Status.ABORTED,
                "ORDER_INTERRUPTED",
                f"the order {placed.order_id} was interrupted and is being ended: look at it later",
                order_id=placed.order_id,
            ) from error
        except SagaLogError as error:
            raise try_again(Status.UNAVAILABLE, "orders cannot be taken now") from error
        return done.order(OrderStatus.CONFIRMED)


def _acting_user(request: CreateOrderRequest, subject: str | None) -> str:
    if subject is None:
        return request.user_id
    if request.user_id not in {"", subject}:
        raise _foreign(subject)
    return subject


def _check(request: CreateOrderRequest, key: str) -> None:
    checks = Checks()
    items = request.items
    checks.require(1 <= len(items) <= 100, "items", f"must be 1 to 100, not {len(items)}")
    seen: set[str] = set()
    for index, item in enumerate(items):
        name = f"items[{index}].product_id"
        checks.text(item.product_id, name, longest=64)
        checks.require(item.product_id not in seen, name, f"repeats {item.product_id}")
        seen.add(item.product_id)
        checks.require(
            1 <= item.quantity <= 1_000,
            f"items[{index}].quantity",
            f"must be 1 to 1000, not {item.quantity}",
        )
    checks.text(request.payment_token, "payment_token", longest=200)
    checks.text(key, "idempotency_key", shortest=0, longest=128)
    checks.finish()


def _lines(
    request: CreateOrderRequest, available: Sequence[Availability]
) -> tuple[tuple[Line, ...], str]:
    prices = [known.price or Money() for known in available]
    currencies = sorted({price.currency for price in prices})
    if len(currencies) != 1:
        raise invalid({"items": f"must all be sold in one currency, not {', '.join(currencies)}"})
    lines = tuple(
        Line(known.product_id, known.name, item.quantity, price.amount_minor)
        for known, item, price in zip(available, request.items, prices, strict=True)
    )
    return lines, currencies[0]


def _fingerprint(user_id: str, request: CreateOrderRequest) -> bytes:
    items = [(item.product_id, item.quantity) for item in request.items]
    return hashlib.sha256(repr((user_id, items, request.payment_token)).encode()).digest()


def _answer_again(known: StoredOrder, fingerprint: bytes) -> Order:
    """Give the answer that the first request with this idempotency key was given.

    :raises RpcError: if that was an error, is not known yet, or the request is a different one
    """
    if known.fingerprint != fingerprint:
        raise invalid({"idempotency_key": "was used before with a different request"})
    if known.failure is not None:
        raise decode_fault(known.failure)
    if known.order.status is OrderStatus.PENDING:
        raise answer_to(KeyTakenError(known.idempotency_key))
    return known.order


def _foreign(subject: str) -> RpcError:
    return fault(
        Status.PERMISSION_DENIED,
        "NOT_YOUR_ORDERS",
        f"the token is {subject}'s: leave user_id empty, or name that user",
        subject=subject,
    )
