"""What a method's configuration takes and what it refuses."""

from __future__ import annotations

import pytest

from bascule.errors import ConfigurationError
from bascule.rpc import HedgingPolicy, MethodConfig, RetryPolicy, RetryThrottling, Status


@pytest.mark.parametrize("policy", [RetryPolicy, HedgingPolicy])
def test_more_than_five_attempts_mean_five(policy) -> None:
    assert policy(max_attempts=9).max_attempts == 5
    assert policy(max_attempts=5).max_attempts == 5
    assert policy(max_attempts=2).max_attempts == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: RetryPolicy(max_attempts=1),
        lambda: RetryPolicy(initial_backoff=0),
        lambda: RetryPolicy(initial_backoff=float("nan")),
        lambda: RetryPolicy(max_backoff=-1),
        lambda: RetryPolicy(max_backoff=float("inf")),
        lambda: RetryPolicy(backoff_multiplier=0),
        lambda: RetryPolicy(retryable_statuses=frozenset()),
        lambda: RetryPolicy(retryable_statuses=frozenset({Status.OK})),
        lambda: RetryPolicy(per_attempt_timeout=0),
        lambda: HedgingPolicy(max_attempts=1),
        lambda: HedgingPolicy(hedging_delay=-0.1),
        lambda: HedgingPolicy(non_fatal_statuses=frozenset({Status.OK})),
        lambda: HedgingPolicy(per_attempt_timeout=-1),
        lambda: RetryThrottling(max_tokens=0),
        lambda: RetryThrottling(max_tokens=1001),
        lambda: RetryThrottling(token_ratio=0),
        lambda: RetryThrottling(token_ratio=float("nan")),
        lambda: MethodConfig(timeout=-1),
        lambda: MethodConfig(max_request_bytes=-1),
        lambda: MethodConfig(retry=RetryPolicy(), hedging=HedgingPolicy()),
    ],
)
def test_what_cannot_work_is_refused(make) -> None:
    with pytest.raises(ConfigurationError):
        make()


def test_statuses_may_come_as_any_set() -> None:
    policy = RetryPolicy(retryable_statuses={Status.ABORTED})  # type: ignore[arg-type]
    assert policy.retryable_statuses == frozenset({Status.ABORTED})
