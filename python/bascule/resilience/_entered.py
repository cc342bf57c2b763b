"""What a task holds of the policies whose blocks it is inside of.

The circuit breaker keeps a stack of its own: through this one, a block of 900 ns takes 140 more.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TypeAlias

#: What a task is inside of, the innermost first: policy, permit, the rest.
_Entered: TypeAlias = "tuple[object, int, _Entered] | None"
_entered: ContextVar[_Entered] = ContextVar("bascule_policies_entered", default=None)


def enter(policy: object, permit: int) -> None:
    """Remember the permit of a block that this task enters."""
    _entered.set((policy, permit, _entered.get()))


def leave(policy: object, name: str) -> int:
    """Take the innermost permit of the policy out; blocks of generators need not nest.

    :raises RuntimeError: if this task has not entered it
    """
    permit, rest = _taken(policy, name, _entered.get())
    _entered.set(rest)
    return permit


def _taken(policy: object, name: str, entered: _Entered) -> tuple[int, _Entered]:
    if entered is None:
        msg = f"{name!r} is left by a task that did not enter it: use admit() where a call spans tasks"
        raise RuntimeError(msg)
    other, permit, rest = entered
    if other is policy:
        return permit, rest
    mine, rest = _taken(policy, name, rest)
    return mine, (other, permit, rest)
