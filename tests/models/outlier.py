"""Outlier detection from gRFC A50, with a timer that always fires in time."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from statistics import mean, pvariance
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tests.models.breaker import Outcome

#: Threshold, enforcement in per cent (0 or 100, as chance has no model), hosts, calls.
Rule: TypeAlias = tuple[int, int, int, int]


@dataclass
class HostModel:
    """What is known of one host."""

    successes: int = 0
    failures: int = 0
    ejected_at: int | None = None
    multiplier: int = 0

    @property
    def volume(self) -> int:
        return self.successes + self.failures

    @property
    def success_rate(self) -> Fraction:
        # In millionths, which is how exact the real one says it is.
        return Fraction(self.successes * 1_000_000 // self.volume, 1_000_000)


@dataclass
class OutlierModel:
    """The hosts of one channel, by the ids of its endpoints."""

    interval: int
    base: int
    longest: int
    most_percent: int
    success_rate: Rule | None
    failure_percentage: Rule | None
    due: int | None = None

    def __post_init__(self) -> None:
        self.hosts: dict[int, HostModel] = {}

    def update(self, now: int, listed: list[int]) -> None:
        """List the hosts that there are; the first ones start the timer."""
        self.hosts = {number: self.hosts.get(number) or HostModel() for number in listed}
        if self.due is None and listed:
            self.due = now + self.interval

    def advance(self, now: int) -> None:
        """Let the timer fire."""
        while self.due is not None and self.due <= now:
            self._fire(self.due)
            self.due += self.interval

    def report(self, number: int, outcome: Outcome) -> None:
        """Count a call that has ended."""
        self.hosts[number].successes += outcome == "success"
        self.hosts[number].failures += outcome == "failure"

    def ejected_until(self, number: int) -> int | None:
        """When a host may come back, if it is out."""
        host = self.hosts[number]
        if host.ejected_at is None:
            return None
        return host.ejected_at + min(self.base * host.multiplier, max(self.base, self.longest))

    def _fire(self, now: int) -> None:
        if self.success_rate:
            self._success_rate(now, *self.success_rate)
        if self.failure_percentage:
            self._failure_percentage(now, *self.failure_percentage)
        for number, host in self.hosts.items():
            host.successes = host.failures = 0
            until = self.ejected_until(number)
            if until is None:
                host.multiplier = max(host.multiplier - 1, 0)
            elif now > until:
                host.ejected_at = None

    def _success_rate(
        self, now: int, factor: int, enforcement: int, hosts: int, volume: int
    ) -> None:
        judged = [host for host in self.hosts.values() if host.volume >= max(volume, 1)]
        if len(judged) < max(hosts, 1):
            return
        rates = [host.success_rate for host in judged]
        average, variance = mean(rates), pvariance(rates)
        for host in judged:
            below = average - host.success_rate
            # The standard deviation may be irrational, its square is not.
            if below > 0 and below**2 > Fraction(factor, 1000) ** 2 * variance:
                self._eject(now, host, enforcement)

    def _failure_percentage(
        self, now: int, threshold: int, enforcement: int, hosts: int, volume: int
    ) -> None:
        if len(self.hosts) < hosts:
            return
        for host in self.hosts.values():
            enough = host.volume >= max(volume, 1)
            if enough and Fraction(host.failures, host.volume) > Fraction(threshold, 100):
                self._eject(now, host, enforcement)

    def _eject(self, now: int, host: HostModel, enforcement: int) -> None:
        out = sum(other.ejected_at is not None for other in self.hosts.values())
        if Fraction(out, len(self.hosts)) >= Fraction(self.most_percent, 100):
            return
        if host.ejected_at is None and enforcement == 100:
            host.ejected_at = now
            host.multiplier += 1
