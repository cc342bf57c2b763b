"""Limits of concurrency, from the documentation and as plainly as can be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Ending: TypeAlias = Literal["done", "lost", "untold"]


@dataclass
class LimiterModel:
    """Counts calls by name; how its limit moves is for those that derive from it."""

    limit: float
    #: When each call that is in progress began.
    live: dict[int, int] = field(default_factory=dict)
    rejected: int = 0
    ended: dict[Ending, int] = field(default_factory=lambda: {"done": 0, "lost": 0, "untold": 0})

    def admit(self, now: int, call: int) -> bool:
        """Begin a call if there is room."""
        if len(self.live) >= int(self.limit):
            self.rejected += 1
            return False
        self.live[call] = now
        return True

    def complete(self, now: int, call: int, ending: Ending) -> None:
        """End a call."""
        self.ended[ending] += 1
        in_progress = len(self.live)
        began = self.live.pop(call)
        if ending != "untold":
            self.learn(began, now, lost=ending == "lost", in_progress=in_progress)

    def learn(self, began: int, now: int, *, lost: bool, in_progress: int) -> None:
        """Move the limit: a fixed one does not."""


@dataclass
class AimdModel(LimiterModel):
    """Up by one for as many good calls as the limit is, down once for all calls that knew it."""

    least: int = 1
    most: int = 1
    backoff: float = 0.5
    slow: int | None = None
    changed: int = -1

    def learn(self, began: int, now: int, *, lost: bool, in_progress: int) -> None:
        if lost or (self.slow is not None and now - began > self.slow):
            if began > self.changed:
                self.limit = max(float(self.least), self.limit * self.backoff)
                self.changed = now
        elif 2 * in_progress >= self.limit:
            self.limit = min(float(self.most), self.limit + 1 / self.limit)
