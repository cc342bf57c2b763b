"""What a saga is: named steps over a typed context."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

import msgspec
import msgspec.inspect

from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bascule.saga._backoff import Backoff

__all__ = ["Action", "Compensation", "Saga", "Step", "StepCall"]

ContextT = TypeVar("ContextT")

# Names travel in metadata and are parts of keys: no slash, nothing that a header cannot carry.
_is_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCall:
    """Which call of which step this is.

    :ivar saga_id: the run
    :ivar step: the step's name
    :ivar attempt: 1 for the first attempt
    :ivar cause: for a compensation, what made the saga fail; None if that is no longer known or if the
        saga was cancelled
    :ivar op: whether the step is being done or undone
    """

    saga_id: str
    step: str
    attempt: int = 1
    cause: Exception | None = None
    op: Literal["action", "undo"] = "action"

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

    :ivar name: unique in the saga; letters, digits, dots, hyphens and underscores
    :ivar action: does it
    :ivar compensation: undoes it; None if there is nothing to undo
    :ivar retry: how often to try the action; None for once. Retrying needs an action that does
        nothing more when it is repeated with the same idempotency key
    :ivar timeout: seconds for each attempt to do or undo it; None for no limit
    :ivar idempotent: whether the action may be repeated when nobody knows how far it came. A run that
        was interrupted in it goes on then; otherwise it is undone
    :ivar pivot: whether there is no way back once it is done: all later steps are tried until they are
        done, and undone no more. They have to be repeatable
    :raises ConfigurationError: if the name or the time-out cannot be used
    """

    name: str
    action: Action[ContextT]
    compensation: Compensation[ContextT] | None = None
    _: KW_ONLY
    retry: Backoff | None = None
    timeout: float | None = None
    idempotent: bool = False
    pivot: bool = False

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise ConfigurationError(
                f"a step's name is 1 to 100 letters, digits, '.', '-' and '_', not {self.name!r}"
            )
        if self.timeout is not None and self.timeout <= 0:
            raise ConfigurationError(f"step {self.name!r}: timeout must be more than 0 seconds")


class Saga(Generic[ContextT]):
    """An ordered list of stages, each of one step or of several that run at the same time.

    Immutable: :meth:`step` and :meth:`parallel` answer with a longer saga.

    >>> saga = (
    ...     Saga("create-order", OrderContext)
    ...     .step("inventory", reserve, release)
    ...     .step("payment", charge, refund, pivot=True)
    ...     .step("confirm", confirm)
    ... )

    :param name: under which its runs are logged: changing it orphans the unfinished ones
    :param context_type: a msgspec Struct or a dataclass whose fields can be written as JSON
    :raises ConfigurationError: if the context type has no fields, or steps do not fit together
    """

    def __init__(
        self,
        name: str,
        context_type: type[ContextT],
        stages: Sequence[Sequence[Step[ContextT]]] = (),
    ) -> None:
        if not _is_name(name):
            raise ConfigurationError(
                f"a saga's name is 1 to 100 letters, digits, '.', '-' and '_', not {name!r}"
            )
        info = msgspec.inspect.type_info(context_type)
        fields = getattr(info, "fields", None)
        if fields is None:
            raise ConfigurationError(
                f"saga {name!r}: the context type must be a msgspec Struct or a dataclass,"
                f" not {context_type!r}"
            )
        self.name = name
        self.context_type = context_type
        self.stages = tuple(tuple(stage) for stage in stages)
        self.steps = tuple(step for stage in self.stages for step in stage)
        self._fields = frozenset(field.encode_name for field in fields)
        self._check()

    def step(
        self,
        name: str,
        action: Action[ContextT],
        compensation: Compensation[ContextT] | None = None,
        *,
        retry: Backoff | None = None,
        timeout: float | None = None,
        idempotent: bool = False,
        pivot: bool = False,
    ) -> Saga[ContextT]:
        """Give this saga with one more step at the end. See :class:`Step`.

        :raises ConfigurationError: if it has a step of this name, or the step has a compensation but
            comes after the pivot
        """
        return self.parallel(
            Step(
                name,
                action,
                compensation,
                retry=retry,
                timeout=timeout,
                idempotent=idempotent,
                pivot=pivot,
            )
        )

    def parallel(self, *steps: Step[ContextT]) -> Saga[ContextT]:
        """Give this saga with a group of steps at the end that run at the same time.

        Each is given the context as it was before the group; what they return must name different
        fields. The first that fails cancels the others, and all are undone, in reverse order.

        :raises ConfigurationError: if there is none, names repeat, or one is a pivot among others
        """
        if not steps:
            raise ConfigurationError(f"saga {self.name!r}: a group needs at least one step")
        return Saga(self.name, self.context_type, (*self.stages, steps))

    def past_pivot(self, name: str) -> bool:
        """Tell whether a step comes after the pivot."""
        return name in self._past_pivot

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

    def _check(self) -> None:
        seen: set[str] = set()
        past_pivot: set[str] = set()
        pivot: str | None = None
        for stage in self.stages:
            for step in stage:
                if step.name in seen:
                    raise ConfigurationError(
                        f"saga {self.name!r} has two steps named {step.name!r}"
                    )
                seen.add(step.name)
                if pivot is not None:
                    past_pivot.add(step.name)
                    if step.compensation is not None:
                        raise ConfigurationError(
                            f"saga {self.name!r}: step {step.name!r} comes after the pivot"
                            f" {pivot!r} and is never undone: leave its compensation out"
                        )
                if step.pivot and (pivot is not None or len(stage) > 1):
                    raise ConfigurationError(
                        f"saga {self.name!r}: the pivot is one step, alone in its stage;"
                        f" {step.name!r} is not"
                    )
            if stage[0].pivot:
                pivot = stage[0].name
        self._past_pivot = frozenset(past_pivot)
