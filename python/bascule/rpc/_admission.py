"""What a server takes on: as many calls as it does well, and none that must come too late."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from bascule import _core
from bascule.errors import Status
from bascule.resilience._concurrency import concurrency_snapshot, rule_of
from bascule.rpc._call import FAILURES
from bascule.rpc._retry import PUSHBACK_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bascule.observe import ServerCounts
    from bascule.resilience import ConcurrencyLimit
    from bascule.rpc._binding import Binding
    from bascule.rpc._server_call import ServerCall

__all__ = ["Admission"]

#: How calls ended, as ``_core.ServerAdmission`` counts them.
DONE, LOST, UNTOLD = 0, 1, 2

#: When a call that is refused for others' sake may come again, in milliseconds: clients obey it to
#: the letter (gRFC A6), so each hears another.
PUSHBACK_MS = (500, 1500)

#: A client sees its deadline before the server does, by the time that the request was under way:
#: one that gives up with no more than this part of its time left has not changed its mind.
AT_DEADLINE = 0.1


class Admission:
    """Decides on unary calls before their handlers start, those of all connections together.

    Streams may last for ever: neither do they count, nor are they held. Nor are health checks and
    reflection, which tell about overload: a server that refuses them is taken for dead.

    :param sheds_late: refuse calls whose deadline leaves less time than the shortest call of their
        method took lately: the work would be for nothing. They end with DEADLINE_EXCEEDED, as they
        would have later on; RESOURCE_EXHAUSTED would invite a retry, which has even less time.
    """

    def __init__(
        self, limit: ConcurrencyLimit | None, bindings: Sequence[Binding], *, sheds_late: bool
    ) -> None:
        rule = None if limit is None else rule_of(limit)
        self._core = _core.ServerAdmission(rule, random.getrandbits(63), len(bindings), sheds_late)
        self._held = [
            each.unary_request and each.unary_reply and not each.path.startswith("/grpc.")
            for each in bindings
        ]

    def admit(self, call: ServerCall, method: int) -> bool:
        """Let a call begin, or answer it; :meth:`end` is told how one that began has ended."""
        if not self._held[method]:
            return True
        session = call.session
        now_ns = session.driver.now_ns()
        permit, shortest_ns = self._core.admit(method, call.timeout_ns, now_ns)
        if permit >= 0:
            call.admitted = (method, permit)
            return True
        trailing = None
        if permit == -1:
            status = Status.RESOURCE_EXHAUSTED
            text = "the server has as many calls in progress as it does well"
            trailing = [(PUSHBACK_KEY, str(random.randrange(*PUSHBACK_MS)))]  # noqa: S311 - no secret
        else:
            status = Status.DEADLINE_EXCEEDED
            left = (call.timeout_ns or 0) / 1e9
            text = f"{left:.3f} s are left, but no such call took less than {shortest_ns / 1e9:.3f} s lately"
        session.machine.finish(call.stream, status.value, text, None, trailing, now_ns)
        session.link.flush_soon()
        return False

    def end(self, call: ServerCall, admitted: tuple[int, int], returned: bool) -> None:
        """A call that began has ended."""
        now_ns = call.session.driver.now_ns()
        self._core.complete(*admitted, _ending_of(call, returned, now_ns / 1e9), now_ns)

    def counted(self, counts: ServerCounts) -> ServerCounts:
        """Add to what a server counts."""
        row, late = self._core.snapshot()
        refused = {**counts.refused, "late": late}
        if row is None:
            return counts._replace(refused=refused)
        shot = concurrency_snapshot("server", *row)
        refused["concurrency"] = shot.calls["rejected"]
        return counts._replace(refused=refused, concurrency=shot)


def _ending_of(call: ServerCall, returned: bool, now: float) -> int:
    if call.gone:
        return LOST if call.deadline - now <= AT_DEADLINE * (call.timeout_ns or 0) / 1e9 else UNTOLD
    if call.error is None:
        return DONE if returned else LOST if call.deadline <= now else UNTOLD
    status = call.error.status
    if status is Status.DEADLINE_EXCEEDED:
        return LOST
    # What another service refused to this one says nothing of this one's load.
    return UNTOLD if status.value in FAILURES or status is Status.CANCELLED else DONE
