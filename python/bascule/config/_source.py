"""Where configuration comes from, and what is kept of its changes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence  # noqa: TC003 - msgspec reads the annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

from bascule.errors import BasculeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from bascule.config._document import Document

__all__ = ["ConflictError", "Layer", "Revision", "Source", "WritableSource", "new_id"]


class ConflictError(BasculeError):
    """The source was changed by somebody else meanwhile: look again, and decide again."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What a source says.

    :param document: None if there is none to be had: the last one holds
    :param problem: why there is none
    :param key: dotted, of the value that is at fault; empty for the whole source
    :param away: whether the source cannot be reached, rather than says nonsense
    """

    document: Document | None
    problem: str | None = None
    key: str = ""
    away: bool = False


class Source(Protocol):
    """One layer of the configuration."""

    @property
    def name(self) -> str:
        """For logs and the label of metrics: without secrets."""
        ...

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[Layer]]:
        """The layer now, and again whenever it changes. A slow reader misses states in between,
        never the last one. An exception makes the reader watch again after a pause.
        """
        ...


class Revision(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change of a source.

    :ivar id: what :meth:`WritableSource.rollback` takes
    :ivar at: when, in seconds since 1970
    :ivar by: who; ``unknown`` for a change that was not made through bascule
    :ivar changes: old and new value of each dotted key
    :ivar rollback: id of the revision that was restored; empty if this is none
    """

    id: str
    at: float
    by: str
    changes: Mapping[str, Sequence[Any]]
    rollback: str = ""


def new_id() -> str:
    """Make a revision's id: they sort by time, and two at once differ."""
    return f"{time.time_ns() // 1_000:016d}-{secrets.token_hex(3)}"


@runtime_checkable
class WritableSource(Source, Protocol):
    """A source that can be changed, and keeps who changed what and when."""

    async def set(self, key: str, value: Any, *, by: str) -> Revision:
        """Change one dotted key; ``MISSING`` takes it away. Nothing else that was written meanwhile is lost.

        :raises ConflictError: if others change it all the time
        :raises ConfigurationError: if the source cannot hold this
        """
        ...

    async def history(self, limit: int = 20) -> Sequence[Revision]:
        """The last changes, the newest first."""
        ...

    async def rollback(self, revision: str, *, by: str) -> Revision:
        """Make everything as it was after a revision. That is a change too.

        :raises ConfigurationError: if there is no such revision
        :raises ConflictError: if others change it all the time
        """
        ...
