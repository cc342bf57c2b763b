"""What a saga raises. See :mod:`bascule.errors` for the base."""

from __future__ import annotations

from bascule.errors import BasculeError

__all__ = ["DuplicateSagaError", "SagaError", "SagaFailedError", "SagaParkedError"]


class SagaError(BasculeError):
    """Base of a saga's errors.

    :ivar saga_id: the run that it is about
    """

    def __init__(self, saga_id: str, *details: object) -> None:
        super().__init__(saga_id, *details)
        self.saga_id = saga_id


class DuplicateSagaError(SagaError):
    """A saga of this id, or one with this idempotency key, has been started before.

    :ivar saga_id: the earlier run
    """

    def __str__(self) -> str:
        return f"saga {self.saga_id!r} has been started before: load or resume it instead"


class SagaFailedError(SagaError):
    """A step failed; everything that had been done is undone.

    :ivar step: the step that failed
    :ivar cause: what it raised; None if the failure was found when the saga was resumed
    """

    def __init__(self, saga_id: str, step: str, cause: Exception | None) -> None:
        super().__init__(saga_id, step, cause)
        self.step = step
        self.cause = cause

    def __str__(self) -> str:
        return f"saga {self.saga_id!r} failed at step {self.step!r} and was undone: {self.cause!r}"


class SagaParkedError(SagaError):
    """A compensation kept failing: the saga waits for a person, half undone.

    :ivar step: the step whose compensation failed
    :ivar cause: what its last attempt raised; None if the time for undoing was over
    """

    def __init__(self, saga_id: str, step: str, cause: Exception | None) -> None:
        super().__init__(saga_id, step, cause)
        self.step = step
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"saga {self.saga_id!r} is parked: step {self.step!r} could not be undone"
            f" ({self.cause!r}); mend the cause, then resume the saga"
        )
