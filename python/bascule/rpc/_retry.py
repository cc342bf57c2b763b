"""Repeating a call that failed, by gRFC A6."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, NamedTuple

import anyio

from bascule.errors import RejectedError, RpcError, Status
from bascule.rpc._method_config import RetryThrottling

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bascule._core import Headers
    from bascule.rpc._method_config import RetryPolicy

__all__ = ["Attempts"]

#: gRFC A6: what the server asks for, and how many attempts the client made before.
PUSHBACK_KEY, PREVIOUS_KEY = "grpc-retry-pushback-ms", "grpc-previous-rpc-attempts"

#: gRFC A6: a signed 32-bit integer without needless leading zeros. What is negative or none is
#: the server's wish not to be asked again.
_PUSHBACK = re.compile(r"0|[1-9][0-9]{0,9}")
_MOST_PUSHBACK = 2**31 - 1

#: gRFC A6: pauses vary by a fifth either way, so that clients do not come back together.
JITTER = 0.2

#: How far back an error's causes are followed.
_MOST_CAUSES = 16

#: Bytes of requests that one call, and all calls of a channel, keep for another attempt. gRPC's
#: implementations allow a call 256 KiB to 1 MiB and a channel 16 MiB.
CALL_BUFFER, CHANNEL_BUFFER = 256 * 1024, 16 * 1024 * 1024


class Attempts:
    """The retries and hedges of one channel: what they share, and their counters.

    :ivar attempts: attempts of calls whose method has a retry or a hedging policy
    :ivar retries: attempts that repeated a failed one
    :ivar hedges: attempts sent beside others
    :ivar transparent: repetitions of what no server has processed; calls without policy included
    :ivar throttled: attempts that were not made because too many had failed
    :ivar pushed_back: attempts that were not made because the server said so
    :ivar unbuffered: calls that were sent once because their request was too large to keep
    :ivar buffered: bytes kept for another attempt now
    """

    __slots__ = (
        "_most",
        "_ratio",
        "_tokens",
        "attempts",
        "buffered",
        "hedges",
        "pushed_back",
        "retries",
        "throttled",
        "transparent",
        "unbuffered",
    )

    def __init__(self, throttling: RetryThrottling | None = None) -> None:
        self.attempts = self.retries = self.hedges = self.transparent = 0
        self.throttled = self.pushed_back = self.unbuffered = self.buffered = 0
        self._most = self._ratio = self._tokens = 0
        self.configure(throttling)

    def configure(self, throttling: RetryThrottling | None) -> None:
        """Take the settings of a service config; by default those of gRFC A6's example.

        The bucket stays as full as it is.
        """
        throttling = throttling or RetryThrottling()
        most, self._ratio = (
            _thousandths(throttling.max_tokens),
            _thousandths(throttling.token_ratio),
        )
        self._tokens = most if self._most == 0 else self._tokens * most // self._most
        self._most = most

    @property
    def tokens(self) -> float:
        """What is left in the bucket that throttles."""
        return self._tokens / 1000

    @property
    def allowed(self) -> bool:
        """Whether retries and hedges may be sent now."""
        return self._tokens * 2 > self._most

    def succeeded(self) -> None:
        """An attempt under a policy ended well."""
        self._tokens = min(self._tokens + self._ratio, self._most)

    def failed(self) -> None:
        """An attempt under a policy ended with what the policy calls a failure."""
        self._tokens = max(self._tokens - 1000, 0)

    def keep(self, size: int, kept: int = 0) -> bool:
        """Whether a call that keeps ``kept`` bytes may keep so many more; if so they count."""
        if kept + size > CALL_BUFFER or self.buffered + size > CHANNEL_BUFFER:
            self.unbuffered += 1
            return False
        self.buffered += size
        return True

    def release(self, size: int) -> None:
        """Forget bytes that were kept."""
        self.buffered -= size


def _thousandths(value: float) -> int:
    """What of a number the gRFC counts: three decimal places."""
    return round(value * 1_000_000) // 1000


def pushback_of(trailers: Headers) -> str | None:
    """The server's pushback as it wrote it; what it wrote twice is no number."""
    found = [str(value) for name, value in trailers.items() if name == PUSHBACK_KEY]
    return ",".join(found) if found else None


def pushback_seconds(text: str) -> float | None:
    """How long the server wants to be left alone; None if it is not to be asked again."""
    if _PUSHBACK.fullmatch(text) and int(text) <= _MOST_PUSHBACK:
        return int(text) / 1000
    return None


def gave_up(error: BaseException | None) -> bool:
    """Whether an error comes from a call that was given up: see ``RpcError.exhausted``."""
    for _ in range(_MOST_CAUSES):
        if error is None:
            return False
        if isinstance(error, RpcError) and error.exhausted:
            return True
        error = error.__cause__ or error.__context__
    return False


class Failure:
    """How an attempt failed, as far as the decision about another one needs it."""

    __slots__ = ("pushback", "status", "timed_out")

    def __init__(self, status: int, trailers: Headers | None, *, timed_out: bool = False) -> None:
        self.status = status
        self.timed_out = timed_out
        #: Milliseconds as the server wrote them; None if it did not.
        self.pushback = None if trailers is None else pushback_of(trailers)


def attempt_attributes(previous: int, status: int) -> dict[str, str | int]:
    """What a span is told of an attempt that failed."""
    return {"rpc.attempt": previous + 1, "rpc.grpc.status": Status(status).name}


class Answer(NamedTuple):
    """What an attempt of a unary call came to."""

    reply: bytes | None
    peer: str
    message: str | None
    trailers: Headers | None
    #: None if it went well.
    failure: Failure | None


class Retrying:
    """When the next attempt of one call follows, if one does. It does no I/O.

    :ivar made: attempts that were made
    :ivar gave_up: whether the last failure would have been worth another attempt
    """

    __slots__ = ("_attempts", "_policy", "_uniform", "_unpushed", "gave_up", "made")

    def __init__(
        self,
        policy: RetryPolicy,
        attempts: Attempts,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._policy = policy
        self._attempts = attempts
        self._uniform = uniform
        self._unpushed = 0  # retries since the server last said when
        self.made = 0
        self.gave_up = False

    def begin(self) -> int:
        """Count an attempt that is about to be made, and return how many were before."""
        previous = self.made
        self.made += 1
        self._attempts.attempts += 1
        if previous:
            self._attempts.retries += 1
        return previous

    def after(self, failure: Failure) -> float | None:
        """Seconds until the next attempt; None if the failure stands.

        Source: gRFC A6, summary of retry and hedging logic.
        """
        wait: float | None = None
        policy, attempts = self._policy, self._attempts
        if failure.pushback is not None:
            wait = pushback_seconds(failure.pushback)
            if wait is None:
                attempts.failed()
                attempts.pushed_back += 1
                self.gave_up = True
                return None
        if not failure.timed_out and Status(failure.status) not in policy.retryable_statuses:
            return None
        attempts.failed()
        self.gave_up = True
        if self.made >= policy.max_attempts:
            return None
        if not attempts.allowed:
            attempts.throttled += 1
            return None
        self.gave_up = False
        if wait is not None:
            self._unpushed = 0
            return wait
        growth = policy.backoff_multiplier**self._unpushed
        self._unpushed += 1
        wait = min(policy.initial_backoff * growth, policy.max_backoff)
        return wait * self._uniform(1 - JITTER, 1 + JITTER)


async def repeat(
    plan: Retrying,
    attempt: Callable[[int], Awaitable[Answer]],
    may_wait: Callable[[float], bool],
    is_last: Callable[[], bool] = lambda: False,
) -> tuple[Answer, bool]:
    """Make attempts as the plan says: the last answer, and whether the call was given up.

    :param may_wait: whether a pause of so many seconds leaves time for another attempt
    :param is_last: whether the attempt that has just failed cannot be repeated
    :raises RejectedError: if the first attempt could not be sent
    """
    answer = None
    while True:
        try:
            answer = await attempt(plan.begin())
        except RejectedError:
            if answer is None:
                raise
            return answer, False  # why the last attempt failed says more
        if answer.failure is None or is_last():
            return answer, False
        wait = plan.after(answer.failure)
        if wait is None or not may_wait(wait):
            return answer, plan.gave_up
        await anyio.sleep(wait)
