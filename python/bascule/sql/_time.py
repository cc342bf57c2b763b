"""Moments as databases keep them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["from_micros", "to_micros"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_micros(moment: datetime) -> int:
    """Give a moment as microseconds of the Unix epoch: exact in every database."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """Give microseconds of the Unix epoch as a moment in UTC."""
    return _EPOCH + timedelta(microseconds=micros)
