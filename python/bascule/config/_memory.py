"""Configuration that the program itself holds: defaults, and tests."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import anyio

from bascule.config._document import Document, changes_between, check_key, replaced
from bascule.config._source import Layer, Revision
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = ["MemorySource"]

#: Revisions that are kept.
MOST_REVISIONS = 1000


class MemorySource:
    """A document in this process. For use from one event loop.

    :param document: what it holds at first
    :param name: for logs and metrics
    """

    def __init__(self, document: Document | None = None, *, name: str = "memory") -> None:
        self._name = name
        self._document: Document = deepcopy(dict(document or {}))
        self._revisions: list[tuple[Revision, Document]] = []
        self._count = 0
        self._changed = anyio.Event()

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[Layer]]:
        """Follow the document."""

        async def layers() -> AsyncIterator[Layer]:
            while True:
                changed = self._changed
                yield Layer(self._document)
                await changed.wait()

        yield layers()

    async def set(self, key: str, value: Any, *, by: str = "program") -> Revision:
        """See :class:`WritableSource`."""
        await anyio.lowlevel.checkpoint()
        return self._write(replaced(self._document, check_key(key), deepcopy(value)), by)

    async def replace(self, document: Document, *, by: str = "program") -> Revision:
        """Change all of it."""
        await anyio.lowlevel.checkpoint()
        return self._write(deepcopy(dict(document)), by)

    async def history(self, limit: int = 20) -> Sequence[Revision]:
        """See :class:`WritableSource`."""
        await anyio.lowlevel.checkpoint()
        return [revision for revision, _ in self._revisions[: -limit - 1 : -1]]

    async def rollback(self, revision: str, *, by: str = "program") -> Revision:
        """See :class:`WritableSource`."""
        await anyio.lowlevel.checkpoint()
        for known, document in self._revisions:
            if known.id == revision:
                return self._write(document, by, rollback=revision)
        message = f"{self._name} has no revision {revision!r}"
        raise ConfigurationError(message)

    def _write(self, document: Document, by: str, *, rollback: str = "") -> Revision:
        self._count += 1
        changes = changes_between(self._document, document)
        revision = Revision(str(self._count), time.time(), by, changes, rollback)
        self._document = document
        self._revisions = [*self._revisions[-MOST_REVISIONS + 1 :], (revision, document)]
        self._changed.set()
        self._changed = anyio.Event()
        return revision
