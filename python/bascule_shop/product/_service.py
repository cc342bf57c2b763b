"""What the product service does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bascule.errors import Status
from bascule_shop._checks import Checks, Page, now
from bascule_shop._faults import fault, not_found, out_of_stock
from bascule_shop._generated.product import (
    Availability,
    CheckInventoryRequest,
    CheckInventoryResponse,
    GetProductRequest,
    Item,
    ListProductsRequest,
    ListProductsResponse,
    Product,
    ReleaseInventoryRequest,
    Reservation,
    ReservationState,
    ReserveInventoryRequest,
)
from bascule_shop._generated.product.services import ProductServiceBase
from bascule_shop.product._store import OutOfStockError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bascule_shop.product._store import ProductStore

__all__ = ["ProductService"]


class ProductService(ProductServiceBase):
    """``product.ProductService``.

    :param store: of products and reservations
    """

    def __init__(self, store: ProductStore) -> None:
        self._store = store

    async def get_product(self, request: GetProductRequest) -> Product:
        """Give one product."""
        product = await self._store.get(request.id)
        if product is None:
            raise not_found("product", request.id)
        return product

    async def list_products(self, request: ListProductsRequest) -> ListProductsResponse:
        """Give a page of products."""
        page = Page(request.page_size, request.page_token)
        products = await self._store.list(page.after, page.size + 1)
        return ListProductsResponse(
            products=list(products[: page.size]),
            next_page_token=page.token([product.id for product in products]),
        )

    async def check_inventory(self, request: CheckInventoryRequest) -> CheckInventoryResponse:
        """Tell name, price and stock of many products."""
        checks = Checks()
        _check_items(checks, request.items)
        checks.finish()
        products = await self._store.get_many([item.product_id for item in request.items])
        if unknown := [i.product_id for i in request.items if i.product_id not in products]:
            raise not_found("product", *unknown)
        return CheckInventoryResponse(
            items=[_availability(products[item.product_id], item) for item in request.items]
        )

    async def reserve_inventory(self, request: ReserveInventoryRequest) -> Reservation:
        """Take every item from the stock, or none."""
        checks = Checks()
        checks.text(request.reservation_id, "reservation_id", longest=200)
        _check_items(checks, request.items)
        checks.finish()
        try:
            reservation = await self._store.reserve(request.reservation_id, request.items, now())
        except OutOfStockError as error:
            if unknown := [name for name, _, left in error.shortages if left is None]:
                raise not_found("product", *unknown) from error
            raise out_of_stock(
                (name, wanted, left or 0) for name, wanted, left in error.shortages
            ) from error
        if reservation.state is ReservationState.RELEASED:
            raise fault(
                Status.ABORTED,
                "RESERVATION_RELEASED",
                f"the reservation {reservation.id} was released: use another id",
            )
        if reservation.items != request.items:
            raise fault(
                Status.ALREADY_EXISTS,
                "RESERVATION_DIFFERS",
                f"the reservation {reservation.id} holds other items",
            )
        return reservation

    async def release_inventory(self, request: ReleaseInventoryRequest) -> Reservation:
        """Give a reservation back."""
        checks = Checks()
        checks.text(request.reservation_id, "reservation_id", longest=200)
        checks.finish()
        return await self._store.release(request.reservation_id, now())


def _availability(product: Product, item: Item) -> Availability:
    return Availability(
        product_id=product.id,
        name=product.name,
        price=product.price,
        stock=product.stock,
        available=product.stock >= item.quantity,
    )


def _check_items(checks: Checks, items: Sequence[Item]) -> None:
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
