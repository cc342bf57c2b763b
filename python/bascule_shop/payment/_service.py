"""What the payment service does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bascule.errors import Status
from bascule_shop._checks import Checks, new_id, now
from bascule_shop._faults import fault, try_again
from bascule_shop._generated.payment import (
    ChargeRequest,
    Payment,
    PaymentState,
    RefundRequest,
)
from bascule_shop._generated.payment.services import PaymentServiceBase
from bascule_shop._generated.shop import Money
from bascule_shop.payment._provider import PaymentRefusedError, ProviderDownError
from bascule_shop.payment._store import StoredPayment

if TYPE_CHECKING:
    from bascule_shop.payment._provider import PaymentProvider
    from bascule_shop.payment._store import PaymentStore

__all__ = ["PaymentService"]

_CURRENCY = re.compile(r"[A-Z]{3}")


class PaymentService(PaymentServiceBase):
    """``payment.PaymentService``.

    :param store: of the payments
    :param provider: who moves the money
    """

    def __init__(self, store: PaymentStore, provider: PaymentProvider) -> None:
        self._store = store
        self._provider = provider

    async def charge(self, request: ChargeRequest) -> Payment:
        """Take an amount."""
        amount = request.amount or Money()
        _check_charge(request, amount)
        known = await self._store.get(request.idempotency_key)
        if known is None:
            known = await self._charge_now(request, amount)
        if known.payment.state is PaymentState.REFUNDED:
            raise fault(
                Status.ABORTED,
                "CHARGE_REFUNDED",
                f"the charge {request.idempotency_key} was refunded: use another key",
            )
        if (known.payment.order_id, known.payment.amount) != (request.order_id, amount):
            raise fault(
                Status.ALREADY_EXISTS,
                "CHARGE_DIFFERS",
                f"the charge {request.idempotency_key} has another order or amount",
            )
        return known.payment

    async def refund(self, request: RefundRequest) -> Payment:
        """Give a charge back."""
        key = request.idempotency_key
        checks = Checks()
        checks.text(key, "idempotency_key", longest=200)
        checks.finish()
        moment = now()
        unknown = Payment(state=PaymentState.REFUNDED, create_time=moment)
        stored = await self._store.add(key, StoredPayment(unknown, ""), moment)
        if stored.payment.state is not PaymentState.REFUNDED:
            await self._give_back(stored.reference)
            await self._store.mark_refunded(key)
            stored.payment.state = PaymentState.REFUNDED
        return stored.payment

    async def _charge_now(self, request: ChargeRequest, amount: Money) -> StoredPayment:
        key = request.idempotency_key
        try:
            reference = await self._provider.charge(key, amount, request.payment_token)
        except PaymentRefusedError as error:
            raise fault(
                Status.FAILED_PRECONDITION, error.reason, f"payment refused: {error}"
            ) from error
        except ProviderDownError as error:
            raise try_again(Status.UNAVAILABLE, str(error)) from error
        moment = now()
        payment = Payment(
            id=new_id("pay"),
            order_id=request.order_id,
            amount=amount,
            state=PaymentState.CHARGED,
            create_time=moment,
        )
        stored = await self._store.add(key, StoredPayment(payment, reference), moment)
        if stored.payment.state is PaymentState.REFUNDED:
            # The refund came while the provider was charging.
            await self._give_back(reference)
        return stored

    async def _give_back(self, reference: str) -> None:
        try:
            await self._provider.refund(reference)
        except ProviderDownError as error:
            raise try_again(Status.UNAVAILABLE, str(error)) from error


def _check_charge(request: ChargeRequest, amount: Money) -> None:
    checks = Checks()
    checks.text(request.idempotency_key, "idempotency_key", longest=200)
    checks.text(request.order_id, "order_id", longest=64)
    checks.text(request.payment_token, "payment_token", longest=200)
    checks.require(_CURRENCY.fullmatch(amount.currency), "amount.currency", "must be like EUR")
    checks.require(amount.amount_minor > 0, "amount.amount_minor", "must be positive")
    checks.finish()
