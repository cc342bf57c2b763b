"""What the policies that go around a call have in common: whom they take, and what they make of errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeAlias

from bascule.errors import Status

#: Which exceptions count: types, or a function that tells.
FailureOn: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]

#: Statuses by which an endpoint shows that it is unwell. Others are answers.
FAILURES = frozenset(
    {
        Status.UNKNOWN,
        Status.DEADLINE_EXCEEDED,
        Status.RESOURCE_EXHAUSTED,
        Status.INTERNAL,
        Status.UNAVAILABLE,
        Status.DATA_LOSS,
    }
)

#: Those of them that say that there were too many calls.
OVERLOADS = frozenset({Status.DEADLINE_EXCEEDED, Status.RESOURCE_EXHAUSTED, Status.UNAVAILABLE})


def counts_as(error: Exception, which: FailureOn) -> bool:
    """Whether an exception is one of those."""
    return isinstance(error, which) if isinstance(which, type | tuple) else which(error)


def require_coroutine_function(function: object) -> None:
    """:raises TypeError: if it is none: a policy that is a decorator goes around those only"""
    if not inspect.iscoroutinefunction(function):
        msg = f"{function!r} is no coroutine function: decorate an `async def`"
        raise TypeError(msg)
