"""The task group that does not wrap its body's exception."""

from __future__ import annotations

import anyio
import pytest

from bascule._tasks import owned_tasks

pytestmark = pytest.mark.anyio


async def test_the_bodys_exception_comes_out_as_it_is() -> None:
    with pytest.raises(ValueError, match="mine") as caught:
        async with owned_tasks() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            raise ValueError("mine") from KeyError("cause")
    assert isinstance(caught.value.__cause__, KeyError)


async def test_a_tasks_exception_comes_in_a_group() -> None:
    async def fail() -> None:
        raise ValueError("task")

    with pytest.raises(ExceptionGroup) as caught:
        async with owned_tasks() as tasks:
            tasks.start_soon(fail)
            await anyio.sleep_forever()
    assert [str(error) for error in caught.value.exceptions] == ["task"]


async def test_both_come_in_a_group() -> None:
    async def fail_last() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("task")

    with pytest.raises(ExceptionGroup) as caught:
        async with owned_tasks() as tasks:
            tasks.start_soon(fail_last)
            await anyio.wait_all_tasks_blocked()
            raise ValueError("mine")
    assert {str(error) for error in caught.value.exceptions} == {"task", "mine"}


async def test_a_cancellation_goes_through() -> None:
    with anyio.CancelScope() as scope:
        async with owned_tasks() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_cancelling_its_own_scope_ends_it() -> None:
    async with owned_tasks() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        tasks.cancel_scope.cancel()
        await anyio.sleep_forever()
