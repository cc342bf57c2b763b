"""Moments as databases keep them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["database_micros", "from_micros", "to_micros"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROS: Mapping[str, sa.TextClause] = {
    "mysql": sa.text("SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)"),
    "mariadb": sa.text("SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)"),
    "postgresql": sa.text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"),
}


def to_micros(moment: datetime) -> int:
    """Give a moment as microseconds of the Unix epoch: exact in every database."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """Give microseconds of the Unix epoch as a moment in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def database_micros(connection: sa.Connection) -> int:
    """Give the time of the database's clock in microseconds of the Unix epoch.

    It is the one clock that all its clients share. Whoever uses SQLite is on the same machine, so
    there it is this one's.
    """
    query = _MICROS.get(connection.dialect.name)
    return time.time_ns() // 1_000 if query is None else int(connection.execute(query).scalar_one())
