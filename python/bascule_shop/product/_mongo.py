"""Products in MongoDB: stock is moved by conditional updates of one document each, without transactions.

A reservation is a document of its own, whose state says what is to become of it::

    taking -> held -> giving -> released        undoing ends as released, or as no document at all if
      |                            ^            nothing but a shortage was the matter
      +----> undoing --------------+

Each product carries, beside its stock, the moves that are under way: a mark for each take and give. The
same update that moves the stock writes or removes the mark, so whoever finds a mark after a crash knows
that the stock was moved, and can finish or undo the move exactly once. Three rules make that so, however
late a process wakes up that was thought dead:

1. A take is conditional on ``stock >= n`` and on no mark of its reservation. While a reservation is
   ``taking``, its marks stay. It becomes ``held`` together with the tokens of the marks that count; a mark
   with another token was a take too many, and goes back.
2. A give is first pinned by a mark that moves nothing, then confirmed by the reservation, which must still
   be ``giving``, and only then applied, on condition that this very pin is there and was not applied.
   Pins are removed when the reservation is ``released``: a pin that comes later finds no confirmation.
3. A released reservation is remembered, an unknown one too, so a reservation that comes after its release
   takes nothing.

Marks live as long as a move does, so a product's document stays small however many reservations hold it.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pymongo.errors import DuplicateKeyError

from bascule.errors import DatabaseUnavailableError
from bascule.sql import from_micros, to_micros
from bascule_shop._generated.product import Item, Product, Reservation, ReservationState
from bascule_shop._generated.shop import Money
from bascule_shop.product._store import OutOfStockError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from bascule_shop._mongo import Collection, MongoDatabase

__all__ = ["MongoProductStore"]

Document = dict[str, Any]

#: Looks at a reservation that others keep changing, before it is left to them.
_ROUNDS = 50
#: What callers see of a product's document.
_VISIBLE = {"takes": 0, "gives": 0}


class MongoProductStore:
    """Products in MongoDB."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    async def get(self, product_id: str) -> Product | None:
        """Give a product; None if there is none."""
        return (await self.get_many([product_id])).get(product_id)

    async def get_many(self, product_ids: Sequence[str]) -> Mapping[str, Product]:
        """Give the products that exist, by id."""
        query = {"_id": {"$in": list(product_ids)}}
        found = await self._database.run(
            lambda collection: list(collection("products").find(query, _VISIBLE))
        )
        return {document["_id"]: _to_product(document) for document in found}

    async def list(self, after: str | None, limit: int) -> Sequence[Product]:
        """Give products by ascending id."""
        query = {"_id": {"$gt": after or ""}}
        found = await self._database.run(
            lambda collection: list(
                collection("products").find(query, _VISIBLE, sort=[("_id", 1)], limit=limit)
            )
        )
        return [_to_product(document) for document in found]

    async def reserve(
        self, reservation_id: str, items: Sequence[Item], moment: datetime
    ) -> Reservation:
        """Take all items from the stock, or none. See :class:`ProductStore`.

        Another reservation that turns out to be short may hold items for a moment, so that this one is
        refused what comes back at once.
        """
        wanted = [[item.product_id, item.quantity] for item in items]
        record = await self._database.run(
            lambda collection: Moves(collection).reserve(reservation_id, wanted, to_micros(moment))
        )
        return _to_reservation(record)

    async def release(self, reservation_id: str, moment: datetime) -> Reservation:
        """Give a reservation back, once. See :class:`ProductStore`."""
        record = await self._database.run(
            lambda collection: Moves(collection).release(reservation_id, to_micros(moment))
        )
        return _to_reservation(record)

    async def seed(self, products: Sequence[Product]) -> None:
        """Add products, if there is no product at all."""
        rows = [_to_document(product) for product in products]

        def work(collection: Collection) -> None:
            known = collection("products")
            there = {each["_id"] for each in known.find({}, {"_id": 1}, limit=len(rows) + 1)}
            # What has begun to be seeded, here or elsewhere, has its last product last.
            if rows[-1]["_id"] not in there and there <= {row["_id"] for row in rows}:
                for row in rows:
                    with suppress(DuplicateKeyError):
                        known.insert_one(dict(row))

        await self._database.run(work)

    async def tidy(self) -> None:
        """Finish or undo what processes left that ended in the middle; what is under way stays unharmed.

        Not needed for correctness of what is repeated by its caller: it is for the rest.
        """
        await self._database.run(lambda collection: Moves(collection).tidy())


class Moves:
    """The moves of stock. Every method may end after any of its commands, and be called again."""

    def __init__(self, collection: Collection) -> None:
        self._products = collection("products")
        self._reservations = collection("reservations")

    def reserve(self, reservation: str, items: Sequence[Any], moment: int) -> Document:
        """Take all items or none; give the reservation's document as it is then.

        :raises OutOfStockError: if a product is short or unknown
        """
        for _ in range(_ROUNDS):
            record = self._record(reservation, "taking", items, moment)
            match record["state"]:
                case "taking":
                    self._take(record)
                case "undoing":
                    self._undo(record)
                case _:
                    return record
        raise _contended(reservation)

    def release(self, reservation: str, moment: int) -> Document:
        """Give all items back, once; give the reservation's document as it is then."""
        for _ in range(_ROUNDS):
            record = self._record(reservation, "released", [], moment)
            match record["state"]:
                case "taking":
                    self._advance(record, "undoing", keep=True)
                case "undoing":
                    if record["keep"] or self._advance(record, "undoing", keep=True):
                        self._undo(record)
                case "held":
                    self._advance(record, "giving")
                case "giving":
                    self._give(record)
                case _:
                    return record
        raise _contended(reservation)

    def tidy(self) -> None:
        """Finish what was left half done."""
        for record in list(self._reservations.find({"state": {"$in": ["undoing", "giving"]}})):
            self._undo(record) if record["state"] == "undoing" else self._give(record)
        moving: Document = {"$or": [{"takes": {"$ne": {}}}, {"gives": {"$ne": {}}}]}
        for product in list(self._products.find(moving)):
            for take in product["takes"].values():
                self._settle(product["_id"], take)
            for pin in product["gives"].values():
                record = self._reservations.find_one({"_id": pin["reservation"]})
                if record is None or record["state"] != "giving":
                    self._unpin(product["_id"], pin)

    def _record(self, reservation: str, state: str, items: Sequence[Any], moment: int) -> Document:
        """Give the reservation's document, new in the given state if there is none."""
        for _ in range(_ROUNDS):
            known: Document | None = self._reservations.find_one({"_id": reservation})
            if known is not None:
                return known
            with suppress(DuplicateKeyError):
                self._reservations.insert_one(
                    {
                        "_id": reservation,
                        "state": state,
                        "life": uuid4().hex,
                        "keep": False,
                        "items": list(items),
                        "create_time": moment,
                    }
                )
        raise _contended(reservation)

    def _advance(self, record: Document, state: str, **changes: Any) -> bool:
        """Change the state, if it is still what the document says."""
        condition = {"_id": record["_id"], "life": record["life"], "state": record["state"]}
        done = self._reservations.update_one(condition, {"$set": {"state": state, **changes}})
        return bool(done.matched_count)

    def _take(self, record: Document) -> None:
        tokens: list[str] = []
        shortages: dict[str, tuple[str, int, int | None]] = {}
        # In one order for all, so that two that want the same do not refuse each other.
        for name, quantity in sorted(record["items"]):
            token, left = self._take_one(record, name, quantity, look_only=bool(shortages))
            if token is not None:
                tokens.append(token)
            elif left is None or left < quantity:
                shortages[name] = (name, quantity, left)
        if shortages:
            if self._advance(record, "undoing"):
                self._undo(record)
                raise OutOfStockError(
                    [shortages[name] for name, _ in record["items"] if name in shortages]
                )
        elif self._advance(record, "held", takes=tokens):
            for name, _ in record["items"]:
                self._products.update_one(
                    {"_id": name, _at("takes", record["_id"], "life"): record["life"]},
                    {"$unset": {_at("takes", record["_id"]): ""}},
                )
            return
        # Somebody else went on with this reservation: what was taken too much goes back.
        for name, _ in record["items"]:
            product = self._products.find_one({"_id": name})
            if product is not None and (take := product["takes"].get(_key(record["_id"]))):
                self._settle(name, take)

    def _take_one(
        self, record: Document, name: str, quantity: int, *, look_only: bool
    ) -> tuple[str | None, int | None]:
        """Give the token of the take, or None and the stock."""
        take = {
            "reservation": record["_id"],
            "life": record["life"],
            "token": uuid4().hex,
            "quantity": quantity,
        }
        for _ in range(_ROUNDS):
            if not look_only:
                taken = self._products.update_one(
                    {
                        "_id": name,
                        "stock": {"$gte": quantity},
                        _at("takes", record["_id"]): {"$exists": False},
                    },
                    {"$inc": {"stock": -quantity}, "$set": {_at("takes", record["_id"]): take}},
                )
                if taken.matched_count:
                    return take["token"], None
            product = self._products.find_one({"_id": name})
            if product is None:
                return None, None
            known = product["takes"].get(_key(record["_id"]))
            if known is not None and known["life"] == record["life"]:
                return known["token"], None
            if known is not None:
                self._settle(name, known)
            elif look_only or product["stock"] < quantity:
                return None, product["stock"]
            # A mark of an earlier life was in the way, or stock has come back: try again.
        raise _contended(record["_id"])

    def _settle(self, name: str, take: Document) -> None:
        """Remove a mark that was seen: with its stock, unless the take counts or may still count."""
        record = self._reservations.find_one({"_id": take["reservation"]})
        counts = False
        if record is not None and record["life"] == take["life"]:
            if record["state"] in {"taking", "undoing"}:
                return
            counts = take["token"] in record.get("takes", ())
        change: Document = {"$unset": {_at("takes", take["reservation"]): ""}}
        if not counts:
            change["$inc"] = {"stock": take["quantity"]}
        place = _at("takes", take["reservation"], "token")
        self._products.update_one({"_id": name, place: take["token"]}, change)

    def _undo(self, record: Document) -> None:
        """Give back what an unfinished reservation took, then forget it, or keep it as released."""
        for name, quantity in record["items"]:
            self._products.update_one(
                {"_id": name, _at("takes", record["_id"], "life"): record["life"]},
                {"$inc": {"stock": quantity}, "$unset": {_at("takes", record["_id"]): ""}},
            )
        condition = {"_id": record["_id"], "life": record["life"], "state": "undoing"}
        if not self._reservations.delete_one({**condition, "keep": False}).deleted_count:
            self._reservations.update_one(condition, {"$set": {"state": "released"}})

    def _give(self, record: Document) -> None:
        if all(self._give_one(record, *item) for item in record["items"]) and self._advance(
            record, "released"
        ):
            for name, _ in record["items"]:
                self._products.update_one(
                    {"_id": name}, {"$unset": {_at("gives", record["_id"]): ""}}
                )

    def _give_one(self, record: Document, name: str, quantity: int) -> bool:
        """Give one item back, once; tell whether the reservation is still to be given back."""
        pin = {"reservation": record["_id"], "token": uuid4().hex, "applied": False}
        pinned = self._products.update_one(
            {"_id": name, _at("gives", record["_id"]): {"$exists": False}},
            {"$set": {_at("gives", record["_id"]): pin}},
        )
        if not pinned.matched_count:
            product = self._products.find_one({"_id": name}) or {"gives": {}}
            known = product["gives"].get(_key(record["_id"]))
            if known is None:
                # Its pin was removed, so the reservation is released; or the product was.
                return bool(self._reservations.find_one({"_id": record["_id"], "state": "giving"}))
            pin = known
        if not self._advance(record, "giving", confirmed=pin["token"]):
            self._unpin(name, pin)
            return False
        self._products.update_one(
            {
                "_id": name,
                _at("gives", record["_id"], "token"): pin["token"],
                _at("gives", record["_id"], "applied"): False,
            },
            {"$inc": {"stock": quantity}, "$set": {_at("gives", record["_id"], "applied"): True}},
        )
        return True

    def _unpin(self, name: str, pin: Document) -> None:
        place = _at("gives", pin["reservation"])
        self._products.update_one(
            {"_id": name, f"{place}.token": pin["token"]}, {"$unset": {place: ""}}
        )


def _key(reservation: str) -> str:
    """Give the name of a reservation's marks: an id may hold dots, a field's name may not."""
    return hashlib.blake2b(reservation.encode(), digest_size=16).hexdigest()


def _at(marks: str, reservation: str, field: str = "") -> str:
    return f"{marks}.{_key(reservation)}" + (f".{field}" if field else "")


def _contended(reservation: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        "products", "contended", f"others keep moving the reservation {reservation}"
    )


def _to_reservation(record: Document) -> Reservation:
    held = record["state"] in {"taking", "held"}
    return Reservation(
        id=record["_id"],
        state=ReservationState.HELD if held else ReservationState.RELEASED,
        items=[Item(product_id=name, quantity=count) for name, count in record["items"]],
        create_time=from_micros(record["create_time"]),
    )


def _to_product(document: Document) -> Product:
    return Product(
        id=document["_id"],
        name=document["name"],
        description=document["description"],
        price=Money(currency=document["currency"], amount_minor=document["price_minor"]),
        stock=document["stock"],
    )


def _to_document(product: Product) -> Document:
    price = product.price or Money()
    return {
        "_id": product.id,
        "name": product.name,
        "description": product.description,
        "currency": price.currency,
        "price_minor": price.amount_minor,
        "stock": product.stock,
        "takes": {},
        "gives": {},
    }
