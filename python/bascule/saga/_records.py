"""What a log keeps of a run: how it stands, and everything that happened to it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["NOTE_LENGTH", "Progress", "SagaEvent", "SagaRecord", "SagaRun", "SagaState", "check_id"]

NOTE_LENGTH = 2_000
"""Characters of a note that are kept."""

# No blank at either end: some databases compare without it.
_is_id = re.compile(r"[!-~]([ -~]{0,126}[!-~])?").fullmatch


def check_id(what: str, text: str) -> str:
    """Give an id or a key back.

    :raises ValueError: if it is not 1 to 128 printable ASCII characters
    """
    if not _is_id(text):
        raise ValueError(f"{what} must be 1 to 128 printable ASCII characters, not {text!r}")
    return text


class SagaState(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    UNDOING = "undoing"
    PARKED = "parked"
    COMPLETED = "completed"
    UNDONE = "undone"

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        return self in {SagaState.COMPLETED, SagaState.UNDONE}


class SagaEvent(StrEnum):
    """What a record says has happened, to its step if it names one, else to the run."""

    STARTED = "started"
    BEGUN = "begun"
    DONE = "done"
    RETRYING = "retrying"
    FAILED = "failed"
    COMPENSATED = "compensated"
    PARKED = "parked"
    CLAIMED = "claimed"
    RETRIED = "retried"
    COMPLETED = "completed"
    UNDONE = "undone"


class SagaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a run's journal.

    :ivar sequence: 0, 1, 2, ... within the run
    :ivar event: what happened
    :ivar at: when, in seconds of the Unix epoch
    :ivar by: the worker, or the person, that it was done by
    :ivar step: the step it happened to; None if to the run
    :ivar note: an error or a reason, for people to read
    """

    sequence: int
    event: SagaEvent
    at: float
    by: str
    step: str | None = None
    note: str | None = None


class SagaRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as its log keeps it. Times are in seconds of the Unix epoch.

    :ivar saga_id: the run
    :ivar name: the saga's name
    :ivar state: how it stands
    :ivar context: its context, as JSON
    :ivar idempotency_key: unique among the runs of the saga; None if it has none
    :ivar owner: the worker that is at it; None if none is
    :ivar epoch: how often it was claimed: what an earlier owner writes is refused
    :ivar due: when it may be claimed: the end of its owner's lease, or the next attempt; None if it is
        finished or parked
    :ivar sequence: records in its journal
    :ivar step: the step that it is parked at, or that failed
    :ivar error: what went wrong there, for people to read
    :ivar created: when it was started
    :ivar updated: when it was written last
    :ivar records: its journal, oldest first; empty in lists
    """

    saga_id: str
    name: str
    state: SagaState
    context: bytes
    idempotency_key: str | None = None
    owner: str | None = None
    epoch: int = 1
    due: float | None = None
    sequence: int = 0
    step: str | None = None
    error: str | None = None
    created: float = 0.0
    updated: float = 0.0
    records: tuple[SagaRecord, ...] = ()

    @property
    def cursor(self) -> str:
        """Where a list goes on after this run."""
        return f"{round(self.created * 1e6)}/{self.saga_id}"


@dataclass(slots=True)
class Progress:
    """How far a run has come, by its journal.

    :ivar begun: steps that were begun and not undone, in the order of their beginning
    :ivar done: those of them that are done
    :ivar failed: the step whose failure made the run fail; None if it has not failed
    :ivar attempts: failed attempts of steps, since they were last begun, failed or retried by a person
    :ivar crashes: how often an owner was lost since the run last made progress
    """

    begun: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    failed: str | None = None
    reason: str | None = None
    attempts: dict[str, int] = field(default_factory=dict)
    crashes: int = 0

    @classmethod
    def of(cls, records: Iterable[SagaRecord]) -> Progress:
        """Read a journal."""
        progress = cls()
        for record in records:
            progress._take(record)
        return progress

    def _take(self, record: SagaRecord) -> None:
        step = record.step or ""
        if record.event is SagaEvent.CLAIMED:
            self.crashes += record.note is not None
            return
        self.crashes = 0
        match record.event:
            case SagaEvent.BEGUN:
                self.begun.append(step)
            case SagaEvent.DONE:
                self.done.add(step)
            case SagaEvent.RETRYING:
                self.attempts[step] = self.attempts.get(step, 0) + 1
            case SagaEvent.FAILED:
                self.failed, self.reason = step, record.note
                self.attempts.clear()
            case SagaEvent.RETRIED:
                self.attempts.clear()
            case SagaEvent.COMPENSATED:
                # Steps without a compensation leave no record.
                while self.begun and self.begun.pop() != step:
                    pass
            case _:
                pass
