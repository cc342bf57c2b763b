"""What is decided before a call, from the documentation and as plainly as can be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.models.breaker import BreakerModel
from tests.models.latency import LatencyModel
from tests.models.windowed_breaker import WindowedBreakerModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.models.breaker import Outcome
    from tests.models.outlier import OutlierModel


@dataclass
class EndpointModel:
    """One endpoint from its listing until it leaves."""

    key: str
    breaker: BreakerModel | WindowedBreakerModel
    latency: LatencyModel
    weight: int = 0
    ready: bool = False
    #: When each call that is in flight began.
    calls: dict[int, int] = field(default_factory=dict)
    picks: int = 0
    successes: int = 0
    failures: int = 0


class CallPolicyModel:
    """Tells which endpoints may be picked, and takes note of the one that was."""

    def __init__(
        self,
        breaker: Callable[[], BreakerModel | WindowedBreakerModel],
        *,
        outlier: OutlierModel,
        decay: int,
    ) -> None:
        self.breaker = breaker
        self.outlier = outlier
        self.decay = decay
        self.listed: dict[int, EndpointModel] = {}

    def update(self, now: int, endpoints: list[tuple[str, int]], ids: list[int]) -> None:
        """Take over a listing, with the ids that the real one gave."""
        self.outlier.advance(now)
        before = self.listed
        known = {endpoint.key: number for number, endpoint in before.items()}
        self.listed = {}
        for (key, weight), number in zip(endpoints, ids, strict=True):
            if key in known:
                assert number == known[key], "a key that stays keeps its id"
            if number not in self.listed:
                endpoint = before.get(number) or EndpointModel(
                    key, self.breaker(), LatencyModel(self.decay)
                )
                endpoint.weight = 0
                self.listed[number] = endpoint
            self.listed[number].weight += weight
            assert self.listed[number].key == key
        self.outlier.update(now, list(self.listed))

    def candidates(self, now: int) -> dict[int, EndpointModel]:
        """Return the endpoints that may be picked: outliers only if there is nobody else."""
        admitting = {
            number: endpoint
            for number, endpoint in self._usable().items()
            if endpoint.breaker.would_admit(now)
        }
        well = {
            number: endpoint
            for number, endpoint in admitting.items()
            if self.outlier.ejected_until(number) is None
        }
        return well or admitting

    def verdict(self, now: int) -> tuple[int, int]:
        """Return the verdict and, for open breakers, how long to wait."""
        self.outlier.advance(now)
        if not self._usable():
            return (3, -1)
        if self.candidates(now):
            return (0, -1)
        waits = [endpoint.breaker.retry_after(now) for endpoint in self._usable().values()]
        return (2, min((wait for wait in waits if wait is not None), default=-1))

    def admit(self, now: int, number: int, call: int) -> None:
        """Send a call to an endpoint."""
        endpoint = self.listed[number]
        assert endpoint.breaker.admit(now, call)
        endpoint.calls[call] = now
        endpoint.picks += 1

    def complete(self, now: int, number: int, call: int, outcome: Outcome) -> None:
        """End a call; its endpoint may have left, or have left and come back."""
        self.outlier.advance(now)
        endpoint = self.listed.get(number)
        if endpoint is not None:
            took = now - endpoint.calls.pop(call)
            endpoint.latency.report(now, took, outcome)
            self.outlier.report(number, outcome)
            endpoint.successes += outcome == "success"
            endpoint.failures += outcome == "failure"
            if isinstance(endpoint.breaker, WindowedBreakerModel):
                endpoint.breaker.report(now, call, outcome, took)
            else:
                endpoint.breaker.report(now, call, outcome)

    def _usable(self) -> dict[int, EndpointModel]:
        return {
            number: endpoint
            for number, endpoint in self.listed.items()
            if endpoint.ready and endpoint.weight > 0
        }
