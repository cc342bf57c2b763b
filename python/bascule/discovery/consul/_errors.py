"""What the Consul client raises. See :mod:`bascule.errors` for the base."""

from __future__ import annotations

from bascule.errors import BasculeError, TransportError

__all__ = [
    "ConsulAnswerError",
    "ConsulDeniedError",
    "ConsulError",
    "ConsulStatusError",
    "ConsulUnavailableError",
    "LockLostError",
    "TransactionError",
]


#: Bytes of an error's body that are kept, and that are told.
_MOST_KEPT, _MOST_TOLD = 64 * 1024, 300


class ConsulError(BasculeError):
    """Base of what goes wrong between this process and Consul.

    :ivar retryable: whether the same request may well work later, unchanged. A write that failed so
        may have been done: repeat it with check-and-set, or where doing it twice does no harm
    :ivar kind: ``unavailable``, ``answer``, ``status`` or ``other``: bounded, so fit for metric labels
    """

    retryable = False
    kind = "other"


class ConsulUnavailableError(ConsulError, TransportError):
    """No answer: the connection could not be made, broke, or took too long.

    :ivar sent: False if it is sure that the request never left
    """

    retryable = True
    kind = "unavailable"

    def __init__(self, request: str, reason: str, *, sent: bool = True) -> None:
        super().__init__(request, reason)
        self.request = request
        self.reason = reason
        self.sent = sent

    def __str__(self) -> str:
        return f"Consul does not answer {self.request}: {self.reason}"


class ConsulAnswerError(ConsulError):
    """An answer that is none of Consul's: cut, garbage, too large, or without what belongs to it.

    Something between this process and Consul may be at fault, so it can be gone later.
    """

    retryable = True
    kind = "answer"

    def __init__(self, request: str, reason: str) -> None:
        super().__init__(request, reason)
        self.request = request
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot use Consul's answer to {self.request}: {self.reason}"


class ConsulStatusError(ConsulError):
    """Consul refused or failed (HTTP 4xx or 5xx).

    :ivar status: HTTP status
    :ivar message: the beginning of what Consul said
    """

    kind = "status"

    def __init__(self, request: str, status: int, body: bytes = b"") -> None:
        super().__init__(request, status, body[:_MOST_KEPT])
        self.request = request
        self.status = status
        self.body = body[:_MOST_KEPT]
        self.message = " ".join(self.body[:_MOST_TOLD].decode(errors="replace").split())
        self.retryable = status >= 500 or status == 429

    def __str__(self) -> str:
        return (
            f"Consul answered {self.status} to {self.request}: {self.message or 'no reason given'}"
        )


class ConsulDeniedError(ConsulStatusError):
    """The ACL token does not allow this, or is not known (HTTP 401 or 403): give another one."""


class TransactionError(ConsulError):
    """None of a transaction's operations was done, since one cannot be (HTTP 409).

    :ivar failures: index of each operation that failed, and why
    """

    def __init__(self, failures: tuple[tuple[int, str], ...]) -> None:
        super().__init__(failures)
        self.failures = failures

    def __str__(self) -> str:
        told = "; ".join(f"operation {index}: {why}" for index, why in self.failures[:5])
        return f"transaction rolled back: {told}"


class LockLostError(ConsulError):
    """The lock is not, or may not be, held any more: what its body did last may have run beside
    another holder's. Its fencing token keeps that from doing harm.

    :ivar key: the lock
    :ivar reason: how it was lost
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"lock {self.key!r} was lost: {self.reason}"
