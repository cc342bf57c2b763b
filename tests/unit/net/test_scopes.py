"""The deadline of the scopes around a task, found as anyio finds it."""

from __future__ import annotations

import asyncio
import math
from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bascule.net._link import open_driver
from bascule.net._scopes import scope_deadline

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds from now, whether it is a shield, and whether it is cancelled.
Scopes = list[tuple[float, bool, bool]]

SCOPES = st.lists(
    st.tuples(st.sampled_from([math.inf, 50.0, 100.0, -1.0]), st.booleans(), st.booleans()),
    max_size=5,
)


def in_scopes(scopes: Scopes, look: Callable[[], float]) -> tuple[float, float]:
    """What it says within these scopes, the outermost first, and what anyio says."""
    with ExitStack() as stack:
        for after, shield, cancelled in scopes:
            deadline = anyio.current_time() + after
            scope = stack.enter_context(anyio.CancelScope(deadline=deadline, shield=shield))
            if cancelled:
                scope.cancel()
        return look(), anyio.current_effective_deadline()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(outer=SCOPES, inner=SCOPES)
def test_it_is_what_anyio_says(backend: str, outer: Scopes, inner: Scopes) -> None:
    found: list[tuple[float, float]] = []

    async def child(look: Callable[[], float]) -> None:
        found.append(in_scopes(inner, look))

    async def main() -> None:
        async with open_driver() as driver:
            found.append(in_scopes(outer, driver.scope_deadline))
            with anyio.move_on_after(100.0):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(child, driver.scope_deadline)

    anyio.run(main, backend=backend)
    assert len(found) == 2
    for own, anyios in found:
        assert own == anyios


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_it_asks_anyio_itself_only_where_anyio_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    assert scope_deadline(loop) is not anyio.current_effective_deadline, (
        "anyio keeps its scopes elsewhere now: calls take a twentieth longer until net/_scopes.py follows"
    )
    module = __import__(type(anyio.CancelScope()).__module__, fromlist=["_task_states"])
    monkeypatch.delattr(module, "_task_states")
    assert scope_deadline(loop) is anyio.current_effective_deadline


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_outside_of_any_task_there_is_no_deadline() -> None:
    loop = asyncio.get_running_loop()
    look, said = scope_deadline(loop), asyncio.Event()
    heard: list[float] = []

    def callback() -> None:
        heard.append(look())
        said.set()

    loop.call_soon(callback)
    with anyio.fail_after(5.0):
        await said.wait()
    assert heard == [math.inf]
