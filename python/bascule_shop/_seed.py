"""What an empty shop starts with: 5 users and 60 products."""

from __future__ import annotations

from datetime import UTC, datetime

from bascule_shop._generated.product import Product
from bascule_shop._generated.shop import Money
from bascule_shop._generated.user import User

__all__ = ["PRODUCTS", "SOLD_OUT", "USERS"]

_OPENING = datetime(2026, 1, 1, tzinfo=UTC)
_PEOPLE = {
    "ada": "Ada Okafor",
    "bram": "Bram de Wit",
    "chiara": "Chiara Rossi",
    "dev": "Dev Sharma",
    "elif": "Elif Kaya",
}
# Name, what it is, and the price of the smallest in cents.
_KINDS = (
    ("Plank", "Planed larch, weatherproof.", 1_290),
    ("Beam", "Laminated spruce for short spans.", 4_990),
    ("Rope", "Braided hemp, 10 m.", 1_850),
    ("Chain", "Galvanised steel links, 2 m.", 2_275),
    ("Pulley", "Brass wheel on a ball bearing.", 3_400),
    ("Counterweight", "Cast iron with an eye bolt.", 8_900),
    ("Hinge", "Forged, with screws.", 1_120),
    ("Winch", "Hand-driven, with a ratchet.", 12_500),
    ("Bolt set", "Twenty bolts, nuts and washers.", 990),
    ("Railing", "Powder-coated, 1 m.", 5_650),
    ("Lantern", "Solar, switches itself on at dusk.", 2_990),
    ("Bell", "Bronze, tuned to A.", 7_450),
)
_SIZES = ("XS", "S", "M", "L", "XL")

USERS = tuple(
    User(id=f"usr_{short}", email=f"{short}@example.com", display_name=name, create_time=_OPENING)
    for short, name in _PEOPLE.items()
)

PRODUCTS = tuple(
    Product(
        id=f"prd_{1 + kind * len(_SIZES) + size:03}",
        name=f"{name} {label}",
        description=description,
        price=Money(currency="EUR", amount_minor=cents * (size + 2) // 2),
        stock=100 - 20 * size,
    )
    for kind, (name, description, cents) in enumerate(_KINDS)
    for size, label in enumerate(_SIZES)
)

SOLD_OUT = "prd_060"
"""The largest bell cannot be had."""

PRODUCTS[-1].stock = 0
