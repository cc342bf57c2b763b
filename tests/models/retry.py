"""gRFC A6 as its text says it, in fractions and without regard to speed."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from fractions import Fraction

from bascule.rpc import RetryPolicy, RetryThrottling, Status


@dataclass
class ThrottleModel:
    """``token_count`` of one server name."""

    settings: RetryThrottling
    count: Fraction = field(init=False)

    def __post_init__(self) -> None:
        self.most = _three_places(self.settings.max_tokens)
        self.count = self.most

    def succeeded(self) -> None:
        self.count = min(self.most, self.count + _three_places(self.settings.token_ratio))

    def failed(self) -> None:
        self.count = max(Fraction(0), self.count - 1)

    @property
    def retries_are_off(self) -> bool:
        return self.count <= self.most / 2


@dataclass
class RetryModel:
    """One call with a retry policy: bounds of the pause after each failed attempt."""

    policy: RetryPolicy
    throttle: ThrottleModel
    attempts: int = 0
    failed_since_pushback: int = 0

    def after(
        self, status: Status, pushback: int | None, timed_out: bool
    ) -> tuple[float, float] | None:
        """:param pushback: milliseconds; None if the server wrote none"""
        self.attempts += 1
        asked_not_to = pushback is not None and pushback < 0
        qualifies = timed_out or status in self.policy.retryable_statuses
        if qualifies or asked_not_to:
            self.throttle.failed()
        if asked_not_to or not qualifies:
            return None
        if self.throttle.retries_are_off or self.attempts == self.policy.max_attempts:
            return None
        if pushback is not None:
            self.failed_since_pushback = 0
            return pushback / 1000, pushback / 1000
        self.failed_since_pushback += 1
        pause = self.policy.initial_backoff
        for _ in range(self.failed_since_pushback - 1):
            pause *= self.policy.backoff_multiplier
        pause = min(pause, self.policy.max_backoff)
        return 0.8 * pause, 1.2 * pause


def _three_places(value: float) -> Fraction:
    return Fraction(Decimal(repr(value)).quantize(Decimal("0.001"), rounding=ROUND_DOWN))
