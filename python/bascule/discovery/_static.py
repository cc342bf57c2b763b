"""A list that never changes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from bascule.discovery._endpoint import Endpoint

__all__ = ["StaticResolver"]


class StaticResolver:
    """Resolves to the endpoints that it was given."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._endpoints = tuple(endpoints)

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[Sequence[Endpoint]]]:
        """Give the list once, then wait until cancelled."""

        async def states() -> AsyncIterator[Sequence[Endpoint]]:
            yield self._endpoints
            await anyio.sleep_forever()

        yield states()
