"""Every exception that bascule raises, grouped by what a handler would do about it."""

from __future__ import annotations

from typing import Any, TypeVar

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from bascule._messages import full_name, packed_in, read_as

__all__ = [
    "AuthenticationError",
    "BasculeError",
    "BreakerOpenError",
    "BulkheadFullError",
    "ClosedError",
    "CommitUnknownError",
    "ConcurrencyLimitedError",
    "ConfigurationError",
    "DatabaseUnavailableError",
    "DecodeError",
    "EncodeError",
    "KeysUnavailableError",
    "MethodNotAllowedError",
    "NoEndpointError",
    "RateLimitedError",
    "RejectedError",
    "RouteNotFoundError",
    "RpcError",
    "Status",
    "StoreUnavailableError",
    "TranscodeError",
    "TransportError",
    "WrongLoopError",
]

M = TypeVar("M")


class BasculeError(Exception):
    """Base of every error raised by bascule."""


class ConfigurationError(BasculeError, ValueError):
    """A setting cannot work: correct it and start again."""


class ClosedError(BasculeError):
    """The server, channel or call was used after its ``async with`` had ended."""


class WrongLoopError(BasculeError, RuntimeError):
    """A channel was used from another thread or event loop than the one that entered it."""


class TransportError(BasculeError, OSError):
    """The connection could not be made, or broke."""


class StoreUnavailableError(TransportError):
    """A store that is shared with others, such as Redis, could not be reached or did not do as asked."""


class DecodeError(BasculeError, ValueError):
    """Bytes that are no valid encoding of the expected message."""


class EncodeError(BasculeError, ValueError):
    """A message whose fields hold values that its schema cannot carry."""


class RejectedError(BasculeError):
    """Refused with nothing done: trying again duplicates nothing.

    :ivar target: name of the breaker, limiter or channel that refused
    :ivar retry_after: seconds until it makes sense to try again; None if unknown
    """

    def __init__(self, target: str, retry_after: float | None = None) -> None:
        super().__init__(target, retry_after)
        self.target = target
        self.retry_after = retry_after

    def _hint(self) -> str:
        return "" if self.retry_after is None else f"; try again in {self.retry_after:.3f} s"


class BreakerOpenError(RejectedError):
    """The circuit breaker is open, or its probes are all in flight."""

    def __str__(self) -> str:
        return f"circuit breaker {self.target!r} is open{self._hint()}"


class RateLimitedError(RejectedError):
    """The rate limit of this key is used up."""

    def __str__(self) -> str:
        return f"rate limit {self.target!r} is used up{self._hint()}"


class ConcurrencyLimitedError(RejectedError):
    """There are as many calls in progress as the limit of concurrency allows: send fewer at once."""

    def __str__(self) -> str:
        return f"{self.target!r} has as many calls in progress as its limit allows{self._hint()}"


class BulkheadFullError(RejectedError):
    """A bulkhead had no room, nor in its queue, or none came free while the caller waited.

    :ivar waited: seconds spent in the queue; 0 if it was full
    """

    def __init__(self, target: str, waited: float = 0.0) -> None:
        super().__init__(target)
        self.args = (target, waited)
        self.waited = waited

    def __str__(self) -> str:
        since = f" for {self.waited:.3f} s" if self.waited else ""
        return (
            f"bulkhead {self.target!r} is full{since}: send fewer calls at once, or raise its"
            " max_concurrent or max_waiting"
        )


class NoEndpointError(RejectedError):
    """The resolver knows no endpoint that could take the call."""

    def __str__(self) -> str:
        return f"no endpoint for {self.target!r}{self._hint()}"


class KeysUnavailableError(RejectedError):
    """The keys that verify tokens cannot be fetched, and the last ones are too old."""

    def __str__(self) -> str:
        return f"verification keys of {self.target!r} are unavailable{self._hint()}"


class DatabaseUnavailableError(RejectedError):
    """The database did not carry out a transaction: nothing of it was kept.

    :ivar target: the database, without its password
    :ivar reason: one of ``exhausted`` (no connection became free in time), ``unreachable`` (none could be
        made), ``lost`` (it broke before COMMIT), ``contended`` (others held the rows, again and again),
        ``slow`` (a statement took too long): bounded, so fit for metric labels
    """

    def __init__(self, target: str, reason: str, message: str) -> None:
        super().__init__(target)
        self.args = (target, reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"database {self.target} is unavailable: {self.message}"


class CommitUnknownError(BasculeError):
    """The connection broke during COMMIT: the transaction was kept, or was not.

    Trying again is safe only if what it does is idempotent, or looks first.

    :ivar target: the database, without its password
    """

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.target = target

    def __str__(self) -> str:
        return f"the connection to database {self.target} broke during COMMIT: it is unknown whether the transaction was kept"


class AuthenticationError(BasculeError):
    """Credentials that prove nothing (HTTP 401).

    :ivar reason: one of ``scheme``, ``malformed``, ``algorithm``, ``key``, ``signature``, ``expired``,
        ``not_yet_valid``, ``issuer``, ``audience``, ``subject``: bounded, so fit for metric labels
    :ivar message: what is wrong, fit to be shown to the sender
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class RpcError(BasculeError, GRPCError):
    """A call that ended with a status other than OK.

    Derives from :class:`grpclib.exceptions.GRPCError`, so existing ``except`` clauses work.

    :ivar status: the gRPC status code
    :ivar message: the human-readable message, or None
    :ivar details: ``google.rpc`` messages that came in ``grpc-status-details-bin``, or None; what
        is of no type that is known here stays a ``google.protobuf.Any``. A handler may raise it
        with messages of google's or betterproto2's classes.
    :ivar exhausted: whether another attempt was worth it but not allowed any more: they are used
        up, throttled, or the server asked for none. A handler that ends with such an error tells
        its own client not to try again either
    """

    exhausted = False

    def __init__(self, status: Status, message: str | None = None, details: Any = None) -> None:
        GRPCError.__init__(self, status, message, details)

    def detail(self, message_type: type[M]) -> M | None:
        """The first detail of a type; None if there is none, or its bytes are no such message.

        :param message_type: ``google.rpc.error_details_pb2.BadRequest``, or any other class that
            google's or betterproto2's compiler has generated
        """
        wanted = full_name(message_type)
        for each in self.details or ():
            if isinstance(each, message_type):
                return each
            named = packed_in(each)
            if named is not None and named[0].rpartition("/")[2] == wanted:
                try:
                    return read_as(message_type, named[1])
                except Exception:  # noqa: BLE001 - each library raises what it likes for bad bytes
                    return None
        return None

    def __str__(self) -> str:
        return self.status.name if not self.message else f"{self.status.name}: {self.message}"


class TranscodeError(BasculeError, ValueError):
    """A request that its route cannot take: the client has to change it (HTTP 400).

    :ivar kind: one of ``malformed``, ``unknown_field``, ``wrong_type``, ``out_of_range``,
        ``duplicate_key``, ``oneof_conflict``, ``unknown_value``, ``too_deep``, ``missing_body``,
        ``unexpected_body``, ``bad_target``, ``unsupported``
    :ivar field: where, as the client wrote it (``items[2].quantity``); empty for the whole request
    :ivar reason: what is wrong with it
    :ivar offset: byte of the JSON document at which reading stopped; None outside JSON
    """

    def __init__(self, kind: str, field: str, reason: str, offset: int | None = None) -> None:
        super().__init__(kind, field, reason, offset)
        self.kind = kind
        self.field = field
        self.reason = reason
        self.offset = offset

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        at = "" if self.offset is None else f" (at byte {self.offset})"
        return f"{where}{self.reason}{at}"


class RouteNotFoundError(BasculeError, LookupError):
    """No route has this path (HTTP 404)."""


class MethodNotAllowedError(BasculeError):
    """The path has routes, but none for this HTTP method (HTTP 405).

    :ivar allowed: the methods that the path takes, sorted
    """

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(method, allowed)
        self.method = method
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.method} is not allowed here; allowed: {', '.join(self.allowed)}"
