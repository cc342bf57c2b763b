"""What is done instead of a call that failed."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from bascule.errors import RejectedError, RpcError, TransportError
from bascule.resilience._around import FAILURES, counts_as, require_coroutine_function

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from bascule.resilience._around import FailureOn

__all__ = ["failed_there", "fallback"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def failed_there(error: Exception) -> bool:
    """Tell whether a call failed because of what it called, so that the same call may fare better elsewhere.

    So it is if a policy refused it, the connection or the time ended, or the status is one that a channel's
    breakers count as a failure. A status that is an answer, such as NOT_FOUND, is none, and neither is an
    error of the program. A group is if all of its errors are.
    """
    if isinstance(error, ExceptionGroup):
        return all(map(failed_there, error.exceptions))
    if isinstance(error, RpcError):
        return error.status in FAILURES
    return isinstance(error, RejectedError | TransportError | TimeoutError)


def fallback(
    otherwise: Callable[Concatenate[Exception, _P], Awaitable[_T]],
    *,
    on: FailureOn = failed_there,
) -> Callable[[Callable[_P, Coroutine[Any, Any, _T]]], Callable[_P, Coroutine[Any, Any, _T]]]:
    """Answer with something else when a coroutine function fails: the outermost of all policies.

    ::

        async def from_cache(error: Exception, product: str) -> Price: ...

        @fallback(from_cache)
        async def price(product: str) -> Price:
            return await catalogue.get_price(GetPriceRequest(product), timeout=0.5)

    What it raises itself is raised, with the first error as its context. Cancellation is no failure and
    goes on. A deadline that is to end in the fallback belongs inside of the function: with a scope around
    both, there is no time left for it.

    :param otherwise: is awaited with the error and the function's own arguments
    :param on: errors that it is for: classes, or what tells of an error whether it is one
    :raises TypeError: if what is decorated is no coroutine function
    """

    def decorate(
        function: Callable[_P, Coroutine[Any, Any, _T]],
    ) -> Callable[_P, Coroutine[Any, Any, _T]]:
        require_coroutine_function(function)

        @functools.wraps(function)
        async def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            try:
                return await function(*args, **kwargs)
            except Exception as error:
                if not counts_as(error, on):
                    raise
                return await otherwise(error, *args, **kwargs)

        return guarded

    return decorate
