"""Whoever moves the money."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from bascule_shop._generated.shop import Money

__all__ = ["PaymentProvider", "PaymentRefusedError", "ProviderDownError", "SimulatedProvider"]


class PaymentRefusedError(Exception):
    """The provider refuses the payment, now and always.

    :ivar reason: such as ``CARD_DECLINED``
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ProviderDownError(Exception):
    """The provider does not answer: nobody knows whether it has acted."""


class PaymentProvider(Protocol):
    """Moves money, once for a key however often it is asked."""

    async def charge(self, key: str, amount: Money, token: str) -> str:
        """Take an amount; give the provider's reference.

        :raises PaymentRefusedError: if it refuses
        :raises ProviderDownError: if it does not answer
        """

    async def refund(self, reference: str) -> None:
        """Give back what was taken under a reference.

        :raises ProviderDownError: if it does not answer
        """


class SimulatedProvider:
    """Moves no money. What it refuses depends on its arguments alone.

    :param largest: amount in minor units above which every charge is refused
    :ivar down: while true, it does not answer
    """

    REFUSALS: ClassVar = {
        "tok_declined": ("CARD_DECLINED", "the card was declined"),
        "tok_expired": ("CARD_EXPIRED", "the card has expired"),
        "tok_insufficient": ("INSUFFICIENT_FUNDS", "the account does not cover the amount"),
    }
    DOWN_TOKEN = "tok_down"  # noqa: S105 - not a password

    def __init__(self, *, largest: int = 1_000_000) -> None:
        self.down = False
        self._largest = largest

    async def charge(self, key: str, amount: Money, token: str) -> str:
        """Take an amount. See :class:`PaymentProvider`."""
        if self.down or token == self.DOWN_TOKEN:
            raise ProviderDownError("the payment provider does not answer")
        if refusal := self.REFUSALS.get(token):
            raise PaymentRefusedError(*refusal)
        if amount.amount_minor > self._largest:
            raise PaymentRefusedError(
                "AMOUNT_TOO_LARGE",
                f"{amount.amount_minor} is more than {self._largest} {amount.currency} cents",
            )
        return f"sim_{hashlib.sha256(key.encode()).hexdigest()[:24]}"

    async def refund(self, reference: str) -> None:
        """Give back what was taken. See :class:`PaymentProvider`."""
        if self.down:
            raise ProviderDownError(f"the payment provider does not answer about {reference}")
