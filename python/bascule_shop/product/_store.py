"""Where products and reservations are kept."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import sqlalchemy as sa

from bascule.sql import EXACT_TEXT, from_micros, to_micros
from bascule_shop._generated.product import Item, Product, Reservation, ReservationState
from bascule_shop._generated.shop import Money

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from bascule.sql import Database

__all__ = ["METADATA", "OutOfStockError", "ProductStore", "SqlProductStore"]


class OutOfStockError(Exception):
    """A reservation asks for more than there is; nothing was taken.

    :ivar shortages: of each product that is short: its id, wanted and left; None left if the
        product does not exist
    """

    def __init__(self, shortages: Sequence[tuple[str, int, int | None]]) -> None:
        super().__init__(shortages)
        self.shortages = shortages


class ProductStore(Protocol):
    """What the service needs of a store."""

    async def get(self, product_id: str) -> Product | None:
        """Give a product; None if there is none."""

    async def get_many(self, product_ids: Sequence[str]) -> Mapping[str, Product]:
        """Give the products that exist, by id."""

    async def list(self, after: str | None, limit: int) -> Sequence[Product]:
        """Give products by ascending id."""

    async def reserve(
        self, reservation_id: str, items: Sequence[Item], moment: datetime
    ) -> Reservation:
        """Take all items from the stock, or none; give the reservation of this id if there is one.

        :raises OutOfStockError: if a product is short or unknown
        """

    async def release(self, reservation_id: str, moment: datetime) -> Reservation:
        """Give a reservation back, once. An unknown one is remembered as released."""

    async def seed(self, products: Sequence[Product]) -> None:
        """Add products, if there is no product at all."""


METADATA = sa.MetaData()
_PRODUCTS = sa.Table(
    "products",
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("description", sa.String(1000), nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("price_minor", sa.BigInteger, nullable=False),
    sa.Column("stock", sa.Integer, nullable=False),
    sa.CheckConstraint("stock >= 0", name="ck_products_stock"),
    **EXACT_TEXT,
)
_RESERVATIONS = sa.Table(
    "reservations",
    METADATA,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("state", sa.Integer, nullable=False),
    sa.Column("items", sa.LargeBinary, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    **EXACT_TEXT,
)


# Built once: building takes SQLAlchemy longer than SQLite takes to run them.
_GET_MANY = sa.select(_PRODUCTS).where(_PRODUCTS.c.id.in_(sa.bindparam("ids", expanding=True)))
_TAKE = (
    sa.update(_PRODUCTS)
    .where(_PRODUCTS.c.id == sa.bindparam("of"), _PRODUCTS.c.stock >= sa.bindparam("quantity"))
    .values(stock=_PRODUCTS.c.stock - sa.bindparam("quantity"))
)
_FIND = sa.select(_RESERVATIONS).where(_RESERVATIONS.c.id == sa.bindparam("of"))
_INSERT = sa.insert(_RESERVATIONS)


class SqlProductStore:
    """Products in SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, product_id: str) -> Product | None:
        """Give a product; None if there is none."""
        return (await self.get_many([product_id])).get(product_id)

    async def get_many(self, product_ids: Sequence[str]) -> Mapping[str, Product]:
        """Give the products that exist, by id."""
        wanted = {"ids": list(product_ids)}
        rows = await self._database.read(
            lambda connection: connection.execute(_GET_MANY, wanted).all()
        )
        return {row.id: _to_product(row) for row in rows}

    async def list(self, after: str | None, limit: int) -> Sequence[Product]:
        """Give products by ascending id."""
        columns = _PRODUCTS.c
        query = sa.select(_PRODUCTS).where(columns.id > (after or "")).order_by(columns.id)
        rows = await self._database.read(
            lambda connection: connection.execute(query.limit(limit)).all()
        )
        return [_to_product(row) for row in rows]

    async def reserve(
        self, reservation_id: str, items: Sequence[Item], moment: datetime
    ) -> Reservation:
        """Take all items from the stock, or none. See :class:`ProductStore`."""

        def work(connection: sa.Connection) -> Reservation:
            if (known := _find(connection, reservation_id)) is not None:
                return known
            reservation = Reservation(
                id=reservation_id,
                state=ReservationState.HELD,
                items=list(items),
                create_time=moment,
            )
            _insert(connection, reservation, moment)
            if shortages := [item for item in items if not _take(connection, item)]:
                raise OutOfStockError([_shortage(connection, item) for item in shortages])
            return reservation

        try:
            return await self._database.write(work)
        except sa.exc.IntegrityError:
            # Another writer added the reservation after this one had looked for it.
            return await self._database.write(work)

    async def release(self, reservation_id: str, moment: datetime) -> Reservation:
        """Give a reservation back, once. See :class:`ProductStore`."""

        def work(connection: sa.Connection) -> Reservation:
            reservation = _find(connection, reservation_id)
            if reservation is None:
                reservation = Reservation(
                    id=reservation_id, state=ReservationState.RELEASED, create_time=moment
                )
                _insert(connection, reservation, moment)
            elif _mark_released(connection, reservation_id):
                for item in reservation.items:
                    _give_back(connection, item)
            reservation.state = ReservationState.RELEASED
            return reservation

        try:
            return await self._database.write(work)
        except sa.exc.IntegrityError:
            return await self._database.write(work)

    async def seed(self, products: Sequence[Product]) -> None:
        """Add products, if there is no product at all."""

        def work(connection: sa.Connection) -> None:
            if connection.scalar(sa.select(_PRODUCTS.c.id).limit(1)) is None:
                connection.execute(sa.insert(_PRODUCTS), [_to_row(item) for item in products])

        # Another process may be seeding too: one of them has its way.
        with suppress(sa.exc.IntegrityError):
            await self._database.write(work)


def _take(connection: sa.Connection, item: Item) -> bool:
    taken = connection.execute(_TAKE, {"of": item.product_id, "quantity": item.quantity})
    return taken.rowcount == 1


def _give_back(connection: sa.Connection, item: Item) -> None:
    columns = _PRODUCTS.c
    connection.execute(
        sa.update(_PRODUCTS)
        .where(columns.id == item.product_id)
        .values(stock=columns.stock + item.quantity)
    )


def _shortage(connection: sa.Connection, item: Item) -> tuple[str, int, int | None]:
    query = sa.select(_PRODUCTS.c.stock).where(_PRODUCTS.c.id == item.product_id)
    return item.product_id, item.quantity, connection.scalar(query)


def _find(connection: sa.Connection, reservation_id: str) -> Reservation | None:
    row = connection.execute(_FIND, {"of": reservation_id}).first()
    if row is None:
        return None
    return Reservation(
        id=row.id,
        state=ReservationState(row.state),
        items=[Item(product_id=name, quantity=count) for name, count in _decode_items(row.items)],
        create_time=from_micros(row.create_time),
    )


def _insert(connection: sa.Connection, reservation: Reservation, moment: datetime) -> None:
    items = [(item.product_id, item.quantity) for item in reservation.items]
    row = {
        "id": reservation.id,
        "state": int(reservation.state),
        "items": msgspec.json.encode(items),
        "create_time": to_micros(moment),
    }
    connection.execute(_INSERT, row)


def _mark_released(connection: sa.Connection, reservation_id: str) -> bool:
    columns = _RESERVATIONS.c
    marked = connection.execute(
        sa.update(_RESERVATIONS)
        .where(columns.id == reservation_id, columns.state == int(ReservationState.HELD))
        .values(state=int(ReservationState.RELEASED))
    )
    return marked.rowcount == 1


def _decode_items(data: bytes) -> list[tuple[str, int]]:
    return msgspec.json.decode(data, type=list[tuple[str, int]])


def _to_product(row: sa.Row[Any]) -> Product:
    return Product(
        id=row.id,
        name=row.name,
        description=row.description,
        price=Money(currency=row.currency, amount_minor=row.price_minor),
        stock=row.stock,
    )


def _to_row(product: Product) -> dict[str, Any]:
    price = product.price or Money()
    return {
        "id": product.id,
        "name": product.name,
        "description": product.description,
        "currency": price.currency,
        "price_minor": price.amount_minor,
        "stock": product.stock,
    }
