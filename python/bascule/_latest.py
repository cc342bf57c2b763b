"""One value from one task to another: the latest one counts."""

from __future__ import annotations

from typing import Generic, TypeVar

import anyio

__all__ = ["Latest"]

T = TypeVar("T")


class Latest(Generic[T]):
    """Holds one value until it is taken; a newer one replaces it. ``async for`` takes them for ever."""

    def __init__(self) -> None:
        self._value: tuple[T] | None = None
        self._there = anyio.Event()

    def put(self, value: T) -> None:
        """Replace what was not taken yet."""
        self._value = (value,)
        self._there.set()

    def __aiter__(self) -> Latest[T]:
        return self

    async def __anext__(self) -> T:
        """Wait for a value that was not taken yet."""
        while self._value is None:
            self._there = anyio.Event()
            await self._there.wait()
        (value,), self._value = self._value, None
        return value
