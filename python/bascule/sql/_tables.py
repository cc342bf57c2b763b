"""What tables are made with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EXACT_TEXT"]

EXACT_TEXT: Mapping[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
"""Options of a ``sa.Table`` in which texts are equal only if they are the same: MySQL ignores case otherwise."""
