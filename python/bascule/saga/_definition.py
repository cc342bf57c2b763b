"""What a saga is: named steps over a typed context."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec
import msgspec.inspect

from bascule.errors import ConfigurationError

__all__ = ["Action", "Compensation", "Saga", "Step", "StepCall"]

ContextT = TypeVar("ContextT")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCall:
    """Which call of which step this is.

    :ivar saga_id: the run
    :ivar step: the step's name
    :ivar attempt: 1 for the first attempt
    :ivar cause: for a compensation, what made the saga fail; None if that is no longer known or if the
        saga was cancelled
    """

    saga_id: str
    step: str
    attempt: int = 1
    cause: Exception | None = None

    @property
    def idempotency_key(self) -> str:
        """The same for each attempt of the step and for its compensation, and for no other step."""
        return f"{self.saga_id}/{self.step}"


Action: TypeAlias = Callable[[ContextT, StepCall], Awaitable[Mapping[str, Any] | None]]
"""Does a step. What it returns is merged into the context."""

Compensation: TypeAlias = Callable[[ContextT, StepCall], Awaitable[None]]
"""Undoes a step, whether it was done, half done or never begun, once however often it is called."""


@dataclass(frozen=True, slots=True)
class Step(Generic[ContextT]):
    """One step of a saga.

    :ivar name: unique in the saga
    :ivar action: does it
    :ivar compensation: undoes it; None if there is nothing to undo
    """

    name: str
    action: Action[ContextT]
    compensation: Compensation[ContextT] | None = None


class Saga(Generic[ContextT]):
    """An ordered list of steps. Immutable: :meth:`step` answers with a longer saga.

    >>> saga = (
    ...     Saga("create-order", OrderContext)
    ...     .step("inventory", reserve, release)
    ...     .step("payment", charge, refund)
    ... )

    :param name: under which its runs are logged: changing it orphans the unfinished ones
    :param context_type: a msgspec Struct or a dataclass whose fields can be written as JSON
    :raises ConfigurationError: if the context type has no fields
    """

    def __init__(
        self,
        name: str,
        context_type: type[ContextT],
        steps: tuple[Step[ContextT], ...] = (),
    ) -> None:
        info = msgspec.inspect.type_info(context_type)
        fields = getattr(info, "fields", None)
        if fields is None:
            raise ConfigurationError(
                f"saga {name!r}: the context type must be a msgspec Struct or a dataclass,"
                f" not {context_type!r}"
            )
        self.name = name
        self.context_type = context_type
        self.steps = steps
        self._fields = frozenset(field.encode_name for field in fields)

    def step(
        self,
        name: str,
        action: Action[ContextT],
        compensation: Compensation[ContextT] | None = None,
    ) -> Saga[ContextT]:
        """Give this saga with one more step at the end.

        :raises ConfigurationError: if it has a step of this name
        """
        if any(step.name == name for step in self.steps):
            raise ConfigurationError(f"saga {self.name!r} has two steps named {name!r}")
        return Saga(self.name, self.context_type, (*self.steps, Step(name, action, compensation)))

    def encode(self, context: ContextT) -> bytes:
        """Write a context as JSON."""
        return msgspec.json.encode(context)

    def decode(self, data: bytes) -> ContextT:
        """Read a context.

        :raises msgspec.ValidationError: if the data does not fit the context type
        """
        return msgspec.json.decode(data, type=self.context_type)

    def merge(self, context: ContextT, changes: Mapping[str, Any] | None) -> ContextT:
        """Give the context with the changes that an action returned.

        :raises TypeError: if a change names no field of the context
        :raises msgspec.ValidationError: if a value is not of its field's type
        """
        if not changes:
            return context
        if unknown := sorted(changes.keys() - self._fields):
            raise TypeError(
                f"saga {self.name!r}: an action returned {unknown}, which are no fields of"
                f" {self.context_type.__name__}"
            )
        merged = msgspec.to_builtins(context) | msgspec.to_builtins(dict(changes))
        return msgspec.convert(merged, self.context_type)
