"""Which saga a call is made for: told to services in the metadata of gRPC calls."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bascule.errors import RpcError, Status
from bascule.rpc import ClientInterceptor, call_context
from bascule.saga._records import check_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from bascule.rpc import ClientCallContext
    from bascule.saga._definition import StepCall

__all__ = ["SagaCall", "SagaClientInterceptor", "calling", "saga_call"]

_SAGA_ID, _STEP, _OP = "saga-id", "saga-step", "saga-op"


@dataclass(frozen=True, slots=True)
class SagaCall:
    """The step that a call is made for, as the service that is called sees it.

    :ivar saga_id: the run
    :ivar step: the step's name
    :ivar op: whether the step is being done or undone
    """

    saga_id: str
    step: str
    op: Literal["action", "undo"]

    @property
    def key(self) -> str:
        """The same for each attempt of the step and for its compensation, and for no other step."""
        return f"{self.saga_id}/{self.step}"


def saga_call() -> SagaCall | None:
    """Give the step that the call being handled is made for; None if it is for none.

    For handlers of services whose callers use :class:`SagaClientInterceptor`. Only callers inside
    may send this metadata: a gateway that lets it through lets strangers name sagas.

    :raises LookupError: if the current task handles no call
    :raises RpcError: INVALID_ARGUMENT if the metadata names no step that could be
    """
    metadata = call_context().metadata
    saga_id, step, op = (metadata.get(name) for name in (_SAGA_ID, _STEP, _OP))
    if saga_id is None and step is None and op is None:
        return None
    try:
        known = SagaCall(_text(_SAGA_ID, saga_id), _text(_STEP, step), _op(op))
    except ValueError as error:
        raise RpcError(
            Status.INVALID_ARGUMENT, f"the saga's metadata is malformed: {error}"
        ) from None
    return known


def _text(name: str, text: object) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{name} is missing")  # noqa: TRY004 - the caller's metadata, not our types
    return check_id(name, text)


def _op(text: object) -> Literal["action", "undo"]:
    match text:
        case "action" | "undo":
            return text
        case _:
            raise ValueError(f"{_OP} must be action or undo, not {text!r}")


_step: ContextVar[StepCall | None] = ContextVar("bascule_saga_step", default=None)


@contextmanager
def calling(call: StepCall) -> Iterator[None]:
    """Do or undo a step inside."""
    token = _step.set(call)
    try:
        yield
    finally:
        _step.reset(token)


class SagaClientInterceptor(ClientInterceptor):
    """Sends ``saga-id``, ``saga-step`` and ``saga-op`` with the calls that a step makes.

    Only with these: what a service that is called calls in its turn is its own affair.
    """

    async def unary(
        self, call: ClientCallContext, request: Any, proceed: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        """Around a call with one request and one reply."""
        self._add(call)
        return await proceed(request)

    def stream(self, call: ClientCallContext) -> AbstractAsyncContextManager[None]:
        """Around a call that streams."""
        self._add(call)
        return super().stream(call)

    def _add(self, call: ClientCallContext) -> None:
        step = _step.get()
        if step is not None:
            call.metadata[_SAGA_ID] = step.saga_id
            call.metadata[_STEP] = step.step
            call.metadata[_OP] = step.op
