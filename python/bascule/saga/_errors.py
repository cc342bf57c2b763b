"""What a saga raises. See :mod:`bascule.errors` for the base."""

from __future__ import annotations

from bascule.errors import BasculeError

__all__ = [
    "DuplicateSagaError",
    "SagaError",
    "SagaFailedError",
    "SagaFencedError",
    "SagaInterruptedError",
    "SagaLogError",
    "SagaParkedError",
]


class SagaLogError(BasculeError):
    """The log cannot be read or written now: it may be possible later."""


class SagaError(BasculeError):
    """Base of a saga's errors.

    :ivar saga_id: the run that it is about
    """

    def __init__(self, saga_id: str, *details: object) -> None:
        super().__init__(saga_id, *details)
        self.saga_id = saga_id

    def __str__(self) -> str:
        return f"saga {self.saga_id!r}: {', '.join(map(str, self.args[1:]))}"


class DuplicateSagaError(SagaError):
    """A saga of this id, or one with this idempotency key, has been started before.

    :ivar saga_id: the earlier run
    """

    def __str__(self) -> str:
        return f"saga {self.saga_id!r} has been started before: load or resume it instead"


class SagaInterruptedError(SagaError):
    """The run does not go on in this process. Its log says how far it came: a worker ends it.

    :ivar reason: why
    """

    def __init__(self, saga_id: str, reason: str) -> None:
        super().__init__(saga_id, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"saga {self.saga_id!r} was interrupted: {self.reason}; a worker goes on with it"


class SagaFencedError(SagaInterruptedError):
    """Another worker has taken the run over: nothing more may be written, done or undone here."""

    def __init__(self, saga_id: str) -> None:
        super().__init__(saga_id, "another worker has taken it over")


class SagaFailedError(SagaError):
    """A step failed; everything that had been done is undone.

    :ivar step: the step that failed
    :ivar cause: what it raised; None if the failure was found in the log
    :ivar reason: the failure in words, as the log has it
    """

    def __init__(
        self, saga_id: str, step: str, cause: Exception | None, reason: str | None = None
    ) -> None:
        super().__init__(saga_id, step, cause)
        self.step = step
        self.cause = cause
        self.reason = reason if cause is None else repr(cause)

    def __str__(self) -> str:
        why = self.reason or "interrupted"
        return f"saga {self.saga_id!r} failed at step {self.step!r} and was undone: {why}"


class SagaParkedError(SagaError):
    """A step can be neither undone nor, after the pivot, done: the saga waits for a person.

    :ivar step: the step
    :ivar cause: what its last attempt raised; None if that was found in the log
    :ivar reason: the failure in words, as the log has it
    """

    def __init__(
        self, saga_id: str, step: str, cause: Exception | None, reason: str | None = None
    ) -> None:
        super().__init__(saga_id, step, cause)
        self.step = step
        self.cause = cause
        self.reason = reason if cause is None else repr(cause)

    def __str__(self) -> str:
        return (
            f"saga {self.saga_id!r} is parked at step {self.step!r} ({self.reason});"
            " mend the cause, then retry it, or settle the step by hand and resolve it"
        )
