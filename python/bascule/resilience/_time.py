"""The clock that policies read, and the step between seconds and nanoseconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from bascule.errors import ConfigurationError

#: Returns nanoseconds that never go backwards, like :func:`time.monotonic_ns`.
Clock: TypeAlias = Callable[[], int]

#: What the core can count, in nanoseconds: 146 years.
_LONGEST_NS = 2**62


def span_ns(name: str, seconds: float, *, least_ns: int = 1) -> int:
    """Return a span in nanoseconds.

    :raises ConfigurationError: if it is shorter than ``least_ns``, longer than 146 years or no
        number
    """
    if not least_ns <= seconds * 1e9 <= _LONGEST_NS:
        least = "at least 0" if least_ns == 0 else "longer than 0"
        msg = f"{name} is {seconds}: give seconds, {least} and at most 146 years"
        raise ConfigurationError(msg)
    return round(seconds * 1e9)


def count(name: str, value: int, *, most: int = 2**32 - 1) -> int:
    """Return ``value`` if it is a count that the core can hold.

    :raises ConfigurationError: if it is below 1 or above ``most``
    """
    if not 1 <= value <= most:
        msg = f"{name} is {value}: give a whole number from 1 to {most}"
        raise ConfigurationError(msg)
    return value
