"""What the order service needs of the others: the generated stubs fit, and so do stubs in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bascule_shop._generated import payment, product, user

__all__ = ["PaymentClient", "ProductClient", "UserClient"]


class UserClient(Protocol):
    """Of the user service."""

    async def get_user(
        self, request: user.GetUserRequest, /, *, timeout: float | None = None
    ) -> user.User:
        """Give one user."""


class ProductClient(Protocol):
    """Of the product service."""

    async def check_inventory(
        self, request: product.CheckInventoryRequest, /, *, timeout: float | None = None
    ) -> product.CheckInventoryResponse:
        """Tell name, price and stock of many products."""

    async def reserve_inventory(
        self, request: product.ReserveInventoryRequest, /, *, timeout: float | None = None
    ) -> product.Reservation:
        """Take every item from the stock, or none."""

    async def release_inventory(
        self, request: product.ReleaseInventoryRequest, /, *, timeout: float | None = None
    ) -> product.Reservation:
        """Give a reservation back."""


class PaymentClient(Protocol):
    """Of the payment service."""

    async def charge(
        self, request: payment.ChargeRequest, /, *, timeout: float | None = None
    ) -> payment.Payment:
        """Take an amount."""

    async def refund(
        self, request: payment.RefundRequest, /, *, timeout: float | None = None
    ) -> payment.Payment:
        """Give a charge back."""
