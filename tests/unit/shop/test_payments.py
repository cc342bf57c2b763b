"""The payment service: money moves once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from bascule.errors import RpcError, Status
from bascule_shop._generated.payment import ChargeRequest, PaymentState, RefundRequest
from bascule_shop._generated.shop import Money
from bascule_shop.payment import PaymentService, SimulatedProvider

if TYPE_CHECKING:
    from tests.unit.shop.conftest import JoinedShop

pytestmark = pytest.mark.anyio


def charge(key: str = "k1", *, minor: int = 1999, token: str = "tok_visa") -> ChargeRequest:
    return ChargeRequest(
        idempotency_key=key,
        order_id="ord_1",
        amount=Money(currency="EUR", amount_minor=minor),
        payment_token=token,
    )


async def test_a_repeated_charge_is_one_payment(shop: JoinedShop) -> None:
    first = await shop.payments.charge(charge())
    assert first.state is PaymentState.CHARGED
    assert await shop.payments.charge(charge()) == first


async def test_a_charge_is_refunded_once(shop: JoinedShop) -> None:
    payment = await shop.payments.charge(charge())
    for _ in range(2):
        refunded = await shop.payments.refund(RefundRequest("k1"))
        assert (refunded.id, refunded.state) == (payment.id, PaymentState.REFUNDED)
    with pytest.raises(RpcError, match="was refunded") as caught:
        await shop.payments.charge(charge())
    assert caught.value.status is Status.ABORTED


async def test_a_charge_that_arrives_after_its_refund_takes_nothing(shop: JoinedShop) -> None:
    await shop.payments.refund(RefundRequest("k1"))
    with pytest.raises(RpcError, match="was refunded"):
        await shop.payments.charge(charge())


async def test_a_charge_overtaken_by_its_refund_is_given_back(shop: JoinedShop) -> None:
    given_back: list[str] = []

    class Overtaken(SimulatedProvider):
        async def charge(self, key: str, amount: Money, token: str) -> str:
            await service.refund(RefundRequest(key))
            return await super().charge(key, amount, token)

        async def refund(self, reference: str) -> None:
            given_back.append(reference)

    service = PaymentService(shop.payments._store, Overtaken())
    with pytest.raises(RpcError, match="was refunded"):
        await service.charge(charge())
    assert len(given_back) == 1


@pytest.mark.parametrize(
    ("token", "minor", "reason"),
    [
        ("tok_declined", 1, "CARD_DECLINED"),
        ("tok_expired", 1, "CARD_EXPIRED"),
        ("tok_insufficient", 1, "INSUFFICIENT_FUNDS"),
        ("tok_visa", 1_000_001, "AMOUNT_TOO_LARGE"),
    ],
)
async def test_refusals_depend_on_the_request_alone(
    shop: JoinedShop, token: str, minor: int, reason: str
) -> None:
    for _ in range(2):
        with pytest.raises(RpcError, match="payment refused") as caught:
            await shop.payments.charge(charge(token=token, minor=minor))
        assert caught.value.status is Status.FAILED_PRECONDITION
        assert caught.value.details[0].reason == reason


async def test_a_provider_that_is_down_makes_the_service_unavailable(shop: JoinedShop) -> None:
    await shop.payments.charge(charge("paid"))
    shop.provider.down = True
    for action in (
        shop.payments.charge(charge("new")),
        shop.payments.refund(RefundRequest("paid")),
    ):
        with pytest.raises(RpcError, match="does not answer") as caught:
            await action
        assert caught.value.status is Status.UNAVAILABLE
    shop.provider.down = False
    assert (await shop.payments.refund(RefundRequest("paid"))).state is PaymentState.REFUNDED


async def test_one_key_cannot_pay_two_orders(shop: JoinedShop) -> None:
    await shop.payments.charge(charge())
    with pytest.raises(RpcError, match="another order or amount"):
        await shop.payments.charge(charge(minor=5))


async def test_many_at_once_with_one_key_are_one_payment(shop: JoinedShop) -> None:
    ids: set[str] = set()

    async def pay() -> None:
        ids.add((await shop.payments.charge(charge())).id)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(pay)
    assert len(ids) == 1


async def test_bad_fields_are_named(shop: JoinedShop) -> None:
    with pytest.raises(RpcError) as caught:
        await shop.payments.charge(ChargeRequest())
    assert [v.field for v in caught.value.details[0].field_violations] == [
        "idempotency_key",
        "order_id",
        "payment_token",
        "amount.currency",
        "amount.amount_minor",
    ]
