"""Where orders are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import sqlalchemy as sa

from bascule.events import outbox_tables
from bascule.saga import saga_tables
from bascule.sql import EXACT_TEXT, from_micros, to_micros
from bascule_shop._generated.order import Order, OrderLine, OrderStatus
from bascule_shop._generated.shop import Money

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bascule.events import Event, SqlOutbox
    from bascule.sql import Database

__all__ = [
    "METADATA",
    "SAGAS",
    "KeyTakenError",
    "OrderStore",
    "SqlOrderStore",
    "StoredOrder",
]


class KeyTakenError(Exception):
    """The user has an order with this idempotency key."""


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """An order with what only the service may know of it.

    :ivar idempotency_key: the caller's; None if it gave none
    :ivar fingerprint: of the request, to tell a repeated one from a different one
    :ivar failure: the error that a rejected order was answered with, as ``google.rpc.Status``
    """

    order: Order
    idempotency_key: str | None = None
    fingerprint: bytes = b""
    failure: bytes | None = None


class OrderStore(Protocol):
    """What the service needs of a store."""

    async def add(self, stored: StoredOrder) -> None:
        """Add a pending order.

        :raises KeyTakenError: if its user has an order with its idempotency key
        """

    async def confirm(self, order_id: str, event: Event[Any]) -> None:
        """Confirm a pending order and store the event that tells of it, both or neither."""

    async def reject(self, order_id: str, failure: bytes, *, keep_key: bool) -> None:
        """Reject a pending order, if there is one. What was said of one that is rejected, stands.

        :param failure: what to answer to the same request
        :param keep_key: whether its idempotency key stays its own; else another order may have it
        """

    async def set_status(self, order_id: str, status: OrderStatus) -> None:
        """Change the status of an order, if there is one."""

    async def get(self, order_id: str) -> StoredOrder | None:
        """Give an order; None if there is none."""

    async def find(self, user_id: str, idempotency_key: str) -> StoredOrder | None:
        """Give the order that a user placed with a key; None if there is none."""

    async def list(self, user_id: str | None, before: str | None, limit: int) -> Sequence[Order]:
        """Give orders by descending id, of one user or of all."""


METADATA = sa.MetaData()
outbox_tables(METADATA)
SAGAS = saga_tables(METADATA)
_ORDERS = sa.Table(
    "orders",
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("user_id", sa.String(64), nullable=False, index=True),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("lines", sa.LargeBinary, nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("total_minor", sa.BigInteger, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("idempotency_key", sa.String(128)),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("failure", sa.LargeBinary),
    sa.UniqueConstraint("user_id", "idempotency_key", name="uq_orders_key"),
    **EXACT_TEXT,
)


# Built once: building takes SQLAlchemy longer than SQLite takes to run them.
_INSERT = sa.insert(_ORDERS)
_CONFIRM = (
    sa.update(_ORDERS)
    .where(_ORDERS.c.id == sa.bindparam("of"), _ORDERS.c.status == int(OrderStatus.PENDING))
    .values(status=int(OrderStatus.CONFIRMED))
)
_GET = sa.select(_ORDERS).where(_ORDERS.c.id == sa.bindparam("of"))
_FIND = sa.select(_ORDERS).where(
    _ORDERS.c.user_id == sa.bindparam("user"), _ORDERS.c.idempotency_key == sa.bindparam("key")
)


class SqlOrderStore:
    """Orders in SQL."""

    def __init__(self, database: Database, outbox: SqlOutbox) -> None:
        self._database = database
        self._outbox = outbox

    async def add(self, stored: StoredOrder) -> None:
        """Add a pending order. See :class:`OrderStore`."""
        row = _to_row(stored)
        try:
            await self._database.write(lambda connection: connection.execute(_INSERT, row))
        except sa.exc.IntegrityError as error:
            raise KeyTakenError(stored.idempotency_key) from error

    async def confirm(self, order_id: str, event: Event[Any]) -> None:
        """Confirm a pending order. See :class:`OrderStore`."""

        def work(connection: sa.Connection) -> None:
            if connection.execute(_CONFIRM, {"of": order_id}).rowcount == 1:
                self._outbox.add(connection, event)

        await self._database.write(work)

    async def reject(self, order_id: str, failure: bytes, *, keep_key: bool) -> None:
        """Reject an order, if there is one. See :class:`OrderStore`."""
        values: dict[str, Any] = {"status": int(OrderStatus.REJECTED), "failure": failure}
        if not keep_key:
            values["idempotency_key"] = None
        pending = _ORDERS.c.status == int(OrderStatus.PENDING)
        await self._update(order_id, values, pending)

    async def set_status(self, order_id: str, status: OrderStatus) -> None:
        """Change the status of an order, if there is one."""
        await self._update(order_id, {"status": int(status)})

    async def _update(
        self, order_id: str, values: Mapping[str, Any], *conditions: sa.ColumnElement[bool]
    ) -> None:
        update = sa.update(_ORDERS).where(_ORDERS.c.id == order_id, *conditions).values(values)
        await self._database.write(lambda connection: connection.execute(update))

    async def get(self, order_id: str) -> StoredOrder | None:
        """Give an order; None if there is none."""
        return await self._first(_GET, {"of": order_id})

    async def find(self, user_id: str, idempotency_key: str) -> StoredOrder | None:
        """Give the order that a user placed with a key; None if there is none."""
        return await self._first(_FIND, {"user": user_id, "key": idempotency_key})

    async def list(self, user_id: str | None, before: str | None, limit: int) -> Sequence[Order]:
        """Give orders by descending id, of one user or of all."""
        columns = _ORDERS.c
        query = sa.select(_ORDERS).order_by(columns.id.desc()).limit(limit)
        if user_id is not None:
            query = query.where(columns.user_id == user_id)
        if before is not None:
            query = query.where(columns.id < before)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [_from_row(row).order for row in rows]

    async def _first(self, query: sa.Select[Any], wanted: Mapping[str, str]) -> StoredOrder | None:
        row = await self._database.read(
            lambda connection: connection.execute(query, wanted).first()
        )
        return None if row is None else _from_row(row)


class _Line(msgspec.Struct, array_like=True):
    product_id: str
    name: str
    quantity: int
    unit_minor: int


def _to_row(stored: StoredOrder) -> dict[str, Any]:
    order = stored.order
    assert order.total is not None  # noqa: S101 - the service sets it
    assert order.create_time is not None  # noqa: S101 - the service sets it
    lines = [
        _Line(line.product_id, line.name, line.quantity, (line.unit_price or Money()).amount_minor)
        for line in order.lines
    ]
    return {
        "id": order.id,
        "user_id": order.user_id,
        "status": int(order.status),
        "lines": msgspec.json.encode(lines),
        "currency": order.total.currency,
        "total_minor": order.total.amount_minor,
        "create_time": to_micros(order.create_time),
        "idempotency_key": stored.idempotency_key,
        "fingerprint": stored.fingerprint,
        "failure": stored.failure,
    }


def _from_row(row: sa.Row[Any]) -> StoredOrder:
    lines = msgspec.json.decode(row.lines, type=list[_Line])
    order = Order(
        id=row.id,
        user_id=row.user_id,
        status=OrderStatus(row.status),
        lines=[
            OrderLine(
                product_id=line.product_id,
                name=line.name,
                quantity=line.quantity,
                unit_price=Money(currency=row.currency, amount_minor=line.unit_minor),
            )
            for line in lines
        ],
        total=Money(currency=row.currency, amount_minor=row.total_minor),
        create_time=from_micros(row.create_time),
    )
    return StoredOrder(order, row.idempotency_key, row.fingerprint, row.failure)
