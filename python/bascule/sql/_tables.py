"""What tables are made with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EXACT_TEXT", "exact"]

EXACT_TEXT: Mapping[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
"""Options of a ``sa.Table`` in which texts are equal only if they are the same: MySQL ignores case otherwise."""


def exact(length: int) -> sa.types.TypeEngine[str]:
    """Give a type of strings that differ by case and accents too, for one column. See :data:`EXACT_TEXT`."""
    bound = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(bound, "mysql", "mariadb")
