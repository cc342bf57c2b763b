"""Where payments are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa

from bascule.sql import EXACT_TEXT, from_micros, to_micros
from bascule_shop._generated.payment import Payment, PaymentState
from bascule_shop._generated.shop import Money

if TYPE_CHECKING:
    from datetime import datetime

    from bascule.sql import Database

__all__ = ["METADATA", "PaymentStore", "SqlPaymentStore", "StoredPayment"]


@dataclass(frozen=True, slots=True)
class StoredPayment:
    """A payment with what only the service may know of it.

    :ivar reference: the provider's; empty if it was refunded before it was charged
    """

    payment: Payment
    reference: str


class PaymentStore(Protocol):
    """What the service needs of a store."""

    async def get(self, key: str) -> StoredPayment | None:
        """Give the payment with this idempotency key; None if there is none."""

    async def add(self, key: str, stored: StoredPayment, moment: datetime) -> StoredPayment:
        """Add a payment unless there is one with this key; give the one that is there then."""

    async def mark_refunded(self, key: str) -> None:
        """Note that a payment was given back."""


METADATA = sa.MetaData()
_PAYMENTS = sa.Table(
    "payments",
    METADATA,
    sa.Column("idempotency_key", sa.String(200), primary_key=True),
    sa.Column("id", sa.String(64), nullable=False),
    sa.Column("order_id", sa.String(64), nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Integer, nullable=False),
    sa.Column("reference", sa.String(100), nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    **EXACT_TEXT,
)


# Built once: building takes SQLAlchemy longer than SQLite takes to run them.
_FIND = sa.select(_PAYMENTS).where(_PAYMENTS.c.idempotency_key == sa.bindparam("of"))
_INSERT = sa.insert(_PAYMENTS)


class SqlPaymentStore:
    """Payments in SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key: str) -> StoredPayment | None:
        """Give the payment with this idempotency key; None if there is none."""
        return await self._database.read(lambda connection: _find(connection, key))

    async def add(self, key: str, stored: StoredPayment, moment: datetime) -> StoredPayment:
        """Add a payment unless there is one with this key. See :class:`PaymentStore`."""
        payment, amount = stored.payment, stored.payment.amount or Money()
        row = {
            "idempotency_key": key,
            "id": payment.id,
            "order_id": payment.order_id,
            "currency": amount.currency,
            "amount_minor": amount.amount_minor,
            "state": int(payment.state),
            "reference": stored.reference,
            "create_time": to_micros(moment),
        }
        try:
            await self._database.write(lambda connection: connection.execute(_INSERT, row))
        except sa.exc.IntegrityError:
            known = await self.get(key)
            if known is None:
                raise
            return known
        return stored

    async def mark_refunded(self, key: str) -> None:
        """Note that a payment was given back."""
        update = (
            sa.update(_PAYMENTS)
            .where(_PAYMENTS.c.idempotency_key == key)
            .values(state=int(PaymentState.REFUNDED))
        )
        await self._database.write(lambda connection: connection.execute(update))


def _find(connection: sa.Connection, key: str) -> StoredPayment | None:
    row: sa.Row[Any] | None = connection.execute(_FIND, {"of": key}).first()
    if row is None:
        return None
    payment = Payment(
        id=row.id,
        order_id=row.order_id,
        amount=Money(currency=row.currency, amount_minor=row.amount_minor),
        state=PaymentState(row.state),
        create_time=from_micros(row.create_time),
    )
    return StoredPayment(payment, row.reference)
