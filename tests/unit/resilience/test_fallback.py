"""A fallback answers for failures, and for nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from bascule.errors import (
    BreakerOpenError,
    NoEndpointError,
    RateLimitedError,
    RpcError,
    Status,
    TransportError,
)
from bascule.resilience import BreakerSettings, CircuitBreaker, failed_there, fallback
from bascule.rpc._call import FAILURES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio


async def from_cache(error: Exception, product: str, *, currency: str = "EUR") -> str:
    return f"{product} in {currency} from the cache: {type(error).__name__}"


def failing(error: BaseException) -> Callable[..., Awaitable[str]]:
    @fallback(from_cache)
    async def price(product: str, *, currency: str = "EUR") -> str:
        raise error

    return price


async def test_it_gets_the_error_and_the_arguments() -> None:
    price = failing(RpcError(Status.UNAVAILABLE))
    assert await price("tea", currency="CHF") == "tea in CHF from the cache: RpcError"


async def test_what_succeeds_is_left_alone() -> None:
    @fallback(from_cache)
    async def price(product: str, *, currency: str = "EUR") -> str:
        """What it costs."""
        return f"{product}: 5"

    assert await price("tea") == "tea: 5"
    assert (price.__name__, price.__doc__) == ("price", "What it costs.")


@pytest.mark.parametrize(
    "error",
    [
        BreakerOpenError("a"),
        RateLimitedError("a"),
        NoEndpointError("a"),
        TransportError("broken"),
        TimeoutError(),
        ExceptionGroup("both", [TimeoutError(), RpcError(Status.INTERNAL)]),
    ],
)
async def test_refusals_and_broken_connections_are_failures(error: Exception) -> None:
    assert "from the cache" in await failing(error)("tea")


@pytest.mark.parametrize(
    "error",
    [
        RpcError(Status.NOT_FOUND),
        KeyError("a fault of the program"),
        ExceptionGroup("one is an answer", [TimeoutError(), RpcError(Status.NOT_FOUND)]),
    ],
)
async def test_answers_and_faults_of_the_program_are_raised(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        await failing(error)("tea")
    assert caught.value is error


def test_failures_are_those_that_breakers_count() -> None:
    told = {status.value for status in Status if failed_there(RpcError(status))}
    assert told == FAILURES


async def test_classes_or_a_function_tell_what_it_is_for() -> None:
    async def default(error: Exception) -> str:
        return f"instead of {error}"

    @fallback(default, on=(KeyError, ValueError))
    async def one() -> str:
        raise ValueError("one")

    @fallback(default, on=lambda error: "two" in str(error))
    async def two() -> str:
        raise OSError("two")

    @fallback(default, on=KeyError)
    async def three() -> str:
        raise ValueError("three")

    assert await one() == "instead of one"
    assert await two() == "instead of two"
    with pytest.raises(ValueError, match="three"):
        await three()


async def test_its_own_error_has_the_first_as_context() -> None:
    async def worse(error: Exception) -> str:
        raise LookupError("the cache is empty")

    @fallback(worse)
    async def price() -> str:
        raise TimeoutError

    with pytest.raises(LookupError, match="the cache is empty") as caught:
        await price()
    assert isinstance(caught.value.__context__, TimeoutError)


async def test_cancellation_is_no_failure() -> None:
    asked: list[str] = []

    async def otherwise(error: Exception) -> None:
        asked.append(repr(error))

    @fallback(otherwise, on=Exception)
    async def waits() -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(0) as scope:
        await waits()
    assert scope.cancelled_caught
    assert asked == []


async def test_it_is_outside_of_a_breaker() -> None:
    breaker = CircuitBreaker("catalogue", BreakerSettings(failure_threshold=1))

    @fallback(from_cache)
    @breaker
    async def price(product: str, *, currency: str = "EUR") -> str:
        raise TimeoutError

    assert await price("tea") == "tea in EUR from the cache: TimeoutError"
    assert await price("tea") == "tea in EUR from the cache: BreakerOpenError"


def test_a_plain_function_is_refused() -> None:
    with pytest.raises(TypeError, match="decorate an `async def`"):
        fallback(from_cache)(len)  # type: ignore[arg-type]
