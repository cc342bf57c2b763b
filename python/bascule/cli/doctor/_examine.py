"""Checks, each bounded in time, side by side; and what they find."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import anyio
import msgspec

from bascule.errors import BasculeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["Check", "Finding", "Level", "Look", "Report", "examine"]

#: Checks at a time: each may take a thread, a socket or a process.
_AT_ONCE = 16


#: Finds something out, and tells the report.
Look: TypeAlias = "Callable[[Report], Awaitable[None]]"


class Level(StrEnum):
    """How good a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNCHECKED = "not checked"


class Finding(msgspec.Struct, frozen=True):
    """What was found of one thing.

    :ivar topic: under which it is shown
    :ivar subject: what was looked at
    :ivar found: what was found
    :ivar advice: what to do about it; empty if nothing
    """

    topic: str
    subject: str
    level: Level
    found: str
    advice: str = ""


@dataclass(slots=True)
class Report:
    """Takes what one check finds, be it of its subject or of others that come with it."""

    topic: str
    subject: str
    findings: list[Finding] = field(default_factory=list)

    def ok(self, found: str, *, subject: str = "", topic: str = "") -> None:
        """Tell what is as it should be."""
        self.tell(Level.OK, found, "", subject=subject, topic=topic)

    def warning(self, found: str, advice: str, *, subject: str = "", topic: str = "") -> None:
        """Tell what works and may not for long, or not for everybody."""
        self.tell(Level.WARNING, found, advice, subject=subject, topic=topic)

    def failed(self, found: str, advice: str, *, subject: str = "", topic: str = "") -> None:
        """Tell what does not work."""
        self.tell(Level.FAILED, found, advice, subject=subject, topic=topic)

    def unchecked(self, found: str, advice: str, *, subject: str = "", topic: str = "") -> None:
        """Tell what could not be looked at, or was not to be."""
        self.tell(Level.UNCHECKED, found, advice, subject=subject, topic=topic)

    def tell(
        self, level: Level, found: str, advice: str, *, subject: str = "", topic: str = ""
    ) -> None:
        """Add a finding.

        :param subject: the check's own if empty, as is ``topic``
        """
        self.findings.append(
            Finding(topic or self.topic, subject or self.subject, level, found, advice)
        )


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at.

    :ivar look: finds out; what it raises is a failure
    :ivar advice: what to do if it fails, or does not answer
    :ivar timeout: seconds; None for what all have
    :ivar silence: how bad it is if that is not enough
    """

    topic: str
    subject: str
    look: Look
    advice: str = "find out why, and try again"
    timeout: float | None = None
    silence: Level = Level.FAILED


async def examine(checks: Sequence[Check], *, timeout: float) -> list[Finding]:
    """Run all checks side by side; give what they found, in the order of the checks.

    :param timeout: seconds for each check that has none of its own
    """
    reports = [Report(check.topic, check.subject) for check in checks]
    turns = anyio.CapacityLimiter(_AT_ONCE)
    async with anyio.create_task_group() as tasks:
        for check, report in zip(checks, reports, strict=True):
            tasks.start_soon(_run, check, report, turns, check.timeout or timeout)
    return [finding for report in reports for finding in report.findings]


async def _run(check: Check, report: Report, turns: anyio.CapacityLimiter, limit: float) -> None:
    async with turns:
        with anyio.move_on_after(limit) as scope:
            try:
                await check.look(report)
            except (BasculeError, OSError, ValueError) as error:
                report.failed(str(error) or type(error).__name__, check.advice)
            except Exception as error:  # noqa: BLE001 - one check that breaks must not hide the others
                report.failed(f"{type(error).__name__}: {error}", check.advice)
    if scope.cancelled_caught:
        report.tell(check.silence, f"no answer within {limit:g} s", check.advice)
