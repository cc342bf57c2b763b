"""What a service config says about calls: time, retries, hedging, sizes."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from bascule.errors import ConfigurationError, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HedgingPolicy", "MethodConfig", "RetryPolicy", "RetryThrottling"]

#: gRFC A6: a client makes no more attempts than these, whatever the configuration asks for.
MOST_ATTEMPTS = 5

#: gRFC A6: the largest ``maxTokens``.
MOST_TOKENS = 1000.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Repeat a call that failed, by gRFC A6.

    :param max_attempts: attempts in all, at least 2; more than 5 mean 5
    :param initial_backoff: seconds before the first repetition, give or take a fifth
    :param max_backoff: seconds that the growing pause does not exceed but for that fifth
    :param backoff_multiplier: growth of the pause from one repetition to the next
    :param retryable_statuses: statuses that are worth another attempt
    :param per_attempt_timeout: seconds for each attempt; one that takes longer is reset and
        repeated whatever ``retryable_statuses`` says. None: only the call's own deadline holds
    :raises ConfigurationError: if a value cannot work
    """

    max_attempts: int = 3
    initial_backoff: float = 0.1
    max_backoff: float = 1.0
    backoff_multiplier: float = 2.0
    retryable_statuses: frozenset[Status] = frozenset({Status.UNAVAILABLE})
    per_attempt_timeout: float | None = None

    def __post_init__(self) -> None:
        _set_attempts(self)
        _above_zero("initial_backoff", self.initial_backoff)
        _above_zero("max_backoff", self.max_backoff)
        _above_zero("backoff_multiplier", self.backoff_multiplier)
        _above_zero("per_attempt_timeout", self.per_attempt_timeout)
        _set_statuses(self, "retryable_statuses", self.retryable_statuses)


@dataclass(frozen=True, slots=True)
class HedgingPolicy:
    """Send a call again before the first attempt has failed, and take the first answer, by gRFC A6.

    Only for methods that may run several times at once.

    :param max_attempts: attempts in all, at least 2; more than 5 mean 5
    :param hedging_delay: seconds from one attempt to the next; 0 sends all at once
    :param non_fatal_statuses: a failure with one of these sends the next attempt at once; any
        other ends the call
    :param per_attempt_timeout: seconds for each attempt; one that takes longer is reset, which is
        not fatal. None: only the call's own deadline holds
    :raises ConfigurationError: if a value cannot work
    """

    max_attempts: int = 2
    hedging_delay: float = 0.0
    non_fatal_statuses: frozenset[Status] = frozenset({Status.UNAVAILABLE})
    per_attempt_timeout: float | None = None

    def __post_init__(self) -> None:
        _set_attempts(self)
        _at_least_zero("hedging_delay", self.hedging_delay)
        _above_zero("per_attempt_timeout", self.per_attempt_timeout)
        _set_statuses(self, "non_fatal_statuses", self.non_fatal_statuses, none=True)


@dataclass(frozen=True, slots=True)
class RetryThrottling:
    """Stop retries and hedges while too many attempts fail, by gRFC A6.

    A failed attempt takes one token, a successful one gives ``token_ratio`` of a token back. With
    half of the tokens or fewer left, no call is retried or hedged.

    :param max_tokens: tokens at the start and at most, above 0 and up to 1000
    :param token_ratio: above 0; like ``max_tokens``, it counts to three decimal places
    :raises ConfigurationError: if a value cannot work
    """

    max_tokens: float = 10.0
    token_ratio: float = 0.1

    def __post_init__(self) -> None:
        if not 0.001 <= self.max_tokens <= MOST_TOKENS:
            message = (
                f"max_tokens is {self.max_tokens}: give a number from 0.001 to {MOST_TOKENS:g}"
            )
            raise ConfigurationError(message)
        if not 0.001 <= self.token_ratio <= MOST_TOKENS:
            message = (
                f"token_ratio is {self.token_ratio}: give a number from 0.001 to {MOST_TOKENS:g}"
            )
            raise ConfigurationError(message)


@dataclass(frozen=True, slots=True)
class MethodConfig:
    """Settings of one method, of a service or of all methods.

    :param timeout: seconds for the whole call; a call's own timeout holds if it is shorter
    :param wait_for_ready: whether calls wait while no endpoint can be reached; None: as the
        channel does
    :param retry: repeat calls that failed; not together with ``hedging``
    :param hedging: send calls several times
    :param max_request_bytes: largest request message
    :param max_response_bytes: largest reply message
    :raises ConfigurationError: if a value cannot work
    """

    timeout: float | None = None
    wait_for_ready: bool | None = None
    retry: RetryPolicy | None = None
    hedging: HedgingPolicy | None = None
    max_request_bytes: int | None = None
    max_response_bytes: int | None = None

    def __post_init__(self) -> None:
        _at_least_zero("timeout", self.timeout)
        _at_least_zero("max_request_bytes", self.max_request_bytes)
        _at_least_zero("max_response_bytes", self.max_response_bytes)
        if self.retry is not None and self.hedging is not None:
            message = "a method has both a retry and a hedging policy: give one of them (gRFC A6)"
            raise ConfigurationError(message)


def _set_attempts(policy: RetryPolicy | HedgingPolicy) -> None:
    if policy.max_attempts < 2:
        message = f"max_attempts is {policy.max_attempts}: give 2 or more, or no policy at all"
        raise ConfigurationError(message)
    object.__setattr__(policy, "max_attempts", min(policy.max_attempts, MOST_ATTEMPTS))


def _set_statuses(
    policy: object, name: str, statuses: Iterable[Status], *, none: bool = False
) -> None:
    statuses = frozenset(statuses)
    if Status.OK in statuses or not (statuses or none):
        message = f"{name} must name {'statuses' if none else 'at least one status'}, and not OK"
        raise ConfigurationError(message)
    object.__setattr__(policy, name, statuses)


def _above_zero(name: str, value: float | None) -> None:
    if value is not None and not (isfinite(value) and value > 0):
        message = f"{name} is {value}: give a number above 0"
        raise ConfigurationError(message)


def _at_least_zero(name: str, value: float | None) -> None:
    if value is not None and not (isfinite(value) and value >= 0):
        message = f"{name} is {value}: give 0 or more"
        raise ConfigurationError(message)
