"""What a service holds open while it lives: databases, channels, brokers."""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
import anyio.lowlevel

from bascule._backoff import pause_after
from bascule._tasks import owned_tasks
from bascule.errors import ConfigurationError, RpcError, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

__all__ = ["Resource", "Resources", "reason"]

T = TypeVar("T")

logger = logging.getLogger("bascule.app")

#: Seconds between attempts to open: the first pause, the factor, the longest.
FIRST_PAUSE, GROWTH, LONGEST_PAUSE = 0.5, 1.6, 15.0


class Resource(Generic[T]):
    """Something that is opened when a service starts and closed when it ends.

    A service starts without what is away: until it is open, :meth:`get` fails the calls that need it
    by UNAVAILABLE, readiness names it, and it is tried again and again. What ends by an error
    while it is open, is opened anew. Give the resource itself to handlers, and let them ask for
    the value in each call.

    :param name: for logs, metrics and the health service, where it is ``resource/NAME``
    :param open: makes the async context manager that opens it; called for each attempt
    :param required: whether the service is ready only while it is open
    :param open_timeout: seconds that one attempt may take
    :param close_timeout: seconds after which closing it is cancelled
    :raises ConfigurationError: if a time is not above 0
    """

    def __init__(
        self,
        name: str,
        open: Callable[[], AbstractAsyncContextManager[T]],  # noqa: A002
        *,
        required: bool = True,
        open_timeout: float = 10.0,
        close_timeout: float = 10.0,
    ) -> None:
        if not (open_timeout > 0 and close_timeout > 0):
            message = f"resource {name!r}: open_timeout is {open_timeout} and close_timeout {close_timeout}: give seconds above 0"
            raise ConfigurationError(message)
        self.name = name
        self.open = open
        self.required = required
        self.open_timeout = open_timeout
        self.close_timeout = close_timeout
        #: Why it is not open; None if it is.
        self.problem: str | None = "it was not opened yet"
        self._value: T | None = None

    def get(self) -> T:
        """Return what was opened.

        :raises RpcError: UNAVAILABLE if it is not open
        """
        if self.problem is not None:
            raise RpcError(Status.UNAVAILABLE, f"{self.name} is not available now")
        return self._value  # type: ignore[return-value]

    def _set(self, value: T | None, problem: str | None) -> None:
        self._value, self.problem = value, problem


class Resources:
    """Keeps resources open: opened in their order, closed in the reverse.

    Each has a task that opens and closes it. A cancellation from outside does not reach these
    tasks: they end in order when the body has ended, each within its time.

    :param changed: called when one was opened or is away
    """

    def __init__(self, resources: Sequence[Resource[object]], changed: Callable[[], None]) -> None:
        self._resources = resources
        self._changed = changed
        #: Seconds that closing each may still take, if that is less than its own time.
        self.patience = math.inf

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Try to open each, hold them, close them.

        :raises ConfigurationError: if the first attempt of one raises it
        """
        holders: list[_Holder] = []
        async with owned_tasks() as tasks:
            try:
                for each in self._resources:
                    holder = _Holder(each, self._changed)
                    holders.append(holder)
                    tasks.start_soon(holder.hold, name=f"resource {each.name}")
                    await holder.tried.wait()
                    if holder.refused is not None:
                        raise holder.refused
                yield
            finally:
                for holder in reversed(holders):
                    await holder.close(min(holder.resource.close_timeout, self.patience))


class _Holder:
    def __init__(self, resource: Resource[object], changed: Callable[[], None]) -> None:
        self.resource = resource
        self._changed = changed
        self._closing = anyio.Event()
        self._ended = anyio.Event()
        self._attempt = anyio.CancelScope()
        #: Set when the first attempt to open has ended.
        self.tried = anyio.Event()
        #: Why there is no use in another one.
        self.refused: ConfigurationError | None = None
        self._failures = 0

    async def hold(self) -> None:
        """Open, hold until told to close, close; again if it could not be opened or broke."""
        try:
            with anyio.CancelScope(shield=True):
                while not self._closing.is_set():
                    await self._hold_once()
                    pause = pause_after(
                        self._failures, FIRST_PAUSE, LONGEST_PAUSE, growth=GROWTH, jitter=0.2
                    )
                    with anyio.move_on_after(pause):
                        await self._closing.wait()
        finally:
            self.resource._set(None, "it is closed")
            self._ended.set()

    async def close(self, timeout: float) -> None:
        """Close what is open, in ``timeout`` seconds, and wait for the end of the task."""
        self._closing.set()
        if self.resource.problem is not None:
            self._attempt.cancel()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(timeout):
                await self._ended.wait()
            if not self._ended.is_set():
                name = self.resource.name
                logger.warning("closing takes too long: cancelled", extra={"resource": name})
                self._attempt.cancel()
                await self._ended.wait()

    async def _hold_once(self) -> None:
        resource = self.resource
        failure: Exception | None = None
        with anyio.CancelScope() as self._attempt:
            self._attempt.deadline = anyio.current_time() + resource.open_timeout
            try:
                async with resource.open() as value:
                    # What could not be cancelled in time is late all the same, and must not seem open:
                    # the next thing that waits would be cancelled.
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    self._attempt.deadline = math.inf
                    resource._set(value, None)
                    self._failures = 0
                    logger.info("resource is open", extra={"resource": resource.name})
                    self.tried.set()
                    self._changed()
                    await self._closing.wait()
            except Exception as error:  # noqa: BLE001 - whatever the library of a resource meets
                failure = error
        self._tell_failed(failure)

    def _tell_failed(self, failure: Exception | None) -> None:
        resource = self.resource
        opened, closing = resource.problem is None, self._closing.is_set()
        if failure is not None:
            problem = reason(failure)
        elif closing:
            return
        elif opened:
            problem = "it ended by itself"
        else:
            problem = f"it did not open within {resource.open_timeout} s"
        what = "closed" if closing else "held open" if opened else "opened"
        extra = {"resource": resource.name, "reason": problem}
        logger.warning(f"resource could not be {what}", extra=extra)  # noqa: G004
        resource._set(None, problem)
        self._failures += 1
        if isinstance(failure, ConfigurationError) and not self.tried.is_set():
            self.refused = failure
        self.tried.set()
        self._changed()


def reason(error: BaseException) -> str:
    """An error in a line, as a person would tell it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
