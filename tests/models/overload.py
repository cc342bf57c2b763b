"""A server with a knee, in virtual time: some workers, and a queue that nothing bounds."""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bascule.errors import ConcurrencyLimitedError
from bascule.resilience import AdaptiveLimiter, Outcome

if TYPE_CHECKING:
    from bascule.resilience import ConcurrencyLimit, ConcurrencyPermit


@dataclass
class Call:
    """One call that was let in."""

    arrived: int
    permit: ConcurrencyPermit | None
    began: int = 0


@dataclass
class Seen:
    """What came of a span of time."""

    good: int = 0
    late: int = 0
    rejected: int = 0
    limits: list[int] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    @property
    def mean_limit(self) -> float:
        """The mean of what the limit was at each arrival."""
        return sum(self.limits) / len(self.limits)


class KneeServer:
    """``workers`` calls at once take ``service`` seconds each; what comes beyond that waits.

    A call that its caller has given up, ``patience`` seconds after it came, is served all the same:
    the server does not know. So without a limit overload makes all of its work useless.

    :param limit: how many calls it lets in; None for all
    """

    def __init__(
        self,
        limit: ConcurrencyLimit | None,
        *,
        workers: int,
        service: float,
        patience: float,
        seed: int = 1,
    ) -> None:
        self.now = 0
        self.workers = workers
        self.service = service
        self.patience = patience
        self._random = random.Random(seed)
        self.limiter = None
        if limit is not None:
            self.limiter = AdaptiveLimiter("knee", limit, clock=lambda: self.now)
        self._queue: deque[Call] = deque()
        self._busy = 0
        self._ends: list[tuple[int, int, Call]] = []
        self._served = 0

    @property
    def capacity(self) -> float:
        """Calls in a second at most."""
        return self.workers / self.service

    def run(self, seconds: float, load: float) -> Seen:
        """Let calls come at ``load`` times the capacity, at random times, for some seconds."""
        seen = Seen()
        until = self.now + int(seconds * 1e9)
        while True:
            arrival = self.now + int(self._random.expovariate(load * self.capacity) * 1e9)
            if arrival >= until:
                break
            self._serve(arrival, seen)
            self.now = arrival
            self._arrive(seen)
        self._serve(until, seen)
        self.now = until
        return seen

    def _arrive(self, seen: Seen) -> None:
        permit = None
        if self.limiter is not None:
            seen.limits.append(self.limiter.limit)
            try:
                permit = self.limiter.admit()
            except ConcurrencyLimitedError:
                seen.rejected += 1
                return
        self._queue.append(Call(self.now, permit))
        self._begin()

    def _serve(self, until: int, seen: Seen) -> None:
        """End the calls that end until then, and begin those that wait for them."""
        while self._ends and self._ends[0][0] <= until:
            self.now, _, call = heapq.heappop(self._ends)
            self._busy -= 1
            took = (self.now - call.arrived) / 1e9
            is_good = took <= self.patience
            seen.good += is_good
            seen.late += not is_good
            seen.latencies.append(took)
            if call.permit is not None:
                call.permit.report(Outcome.SUCCESS if is_good else Outcome.FAILURE)
            self._begin()

    def _begin(self) -> None:
        while self._queue and self._busy < self.workers:
            call = self._queue.popleft()
            self._busy += 1
            self._served += 1
            took = self._random.uniform(0.5, 1.5) * self.service
            heapq.heappush(self._ends, (self.now + int(took * 1e9), self._served, call))
