"""Clocks: this machine's, and how far those of others are from it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bascule.cli.doctor._examine import Report

__all__ = ["Moment", "compare", "look_at_steps"]

#: Seconds. Leases, leaders and the order of events are told by clocks; who keeps time is within this.
_NOTICED = 1.0

#: Seconds. What the gateway forgives an issuer's clock if it is not told otherwise.
_LEEWAY = 30.0

#: Seconds for which the two clocks of this machine are compared.
_WATCHED = 0.25

#: Seconds. A clock that is slewed moves by 500 us a second at most, so this was a step.
_STEP = 0.05


class Moment:
    """The time of this machine around a question to another one."""

    def __init__(self) -> None:
        self.begun = self.ended = time.time()

    def end(self) -> None:
        """Say that the answer has come."""
        self.ended = time.time()


def compare(report: Report, whose: str, theirs: float, moment: Moment, *, grain: float) -> None:
    """Find out how far another clock is from ours, from one answer.

    It was read between question and answer, as in NTP (RFC 5905, section 8) where only one of its
    timestamps is known; so half of that time is uncertain, and half of what it rounds to.

    :param theirs: seconds since the epoch, rounded down
    :param grain: seconds that it was rounded to
    """
    ours = (moment.begun + moment.ended) / 2
    doubt = (moment.ended - moment.begun) / 2 + grain / 2
    skew = theirs + grain / 2 - ours
    least = max(0.0, abs(skew) - doubt)
    place = {"subject": f"clock of {whose}", "topic": "clocks"}
    if least <= _NOTICED:
        report.ok(f"the same to {abs(skew) + doubt:.3g} s", **place)
        return
    found = (
        f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine (to {doubt:.1g} s)"
    )
    advice = "let both machines keep time (chrony, systemd-timesyncd): one of them does not"
    if least > _LEEWAY:
        report.failed(f"{found}: tokens are refused, leases are taken over", advice, **place)
    else:
        report.warning(f"{found}: leases and the order of events suffer", advice, **place)


async def look_at_steps(report: Report) -> None:
    """Find out whether the wall clock jumps against the monotonic one."""
    import anyio

    wall, steady = time.time(), time.monotonic()
    await anyio.sleep(_WATCHED)
    drift = (time.time() - wall) - (time.monotonic() - steady)
    info = time.get_clock_info("monotonic")
    if abs(drift) > _STEP:
        report.warning(
            f"the wall clock jumped by {drift:+.3f} s within {_WATCHED} s",
            "something sets it: let it be slewed instead; timeouts do not suffer, tokens and leases may",
        )
    else:
        report.ok(f"goes with the monotonic one, which ticks every {info.resolution * 1e9:.0f} ns")
