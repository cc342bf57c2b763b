"""The errors that the shop's services answer with, each with details that a program can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from bascule.errors import CommitUnknownError, RpcError, Status
from bascule.rpc import ServerInterceptor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from google.protobuf.message import Message

    from bascule.rpc import CallContext

__all__ = [
    "DOMAIN",
    "UnknownOutcomes",
    "decode_fault",
    "encode_fault",
    "fault",
    "invalid",
    "not_found",
    "out_of_stock",
    "try_again",
]

DOMAIN = "shop.bascule"
"""``domain`` of every ErrorInfo: a reason is unique within it."""

_DETAILS: tuple[type[Message], ...] = (
    error_details_pb2.BadRequest,
    error_details_pb2.ErrorInfo,
    error_details_pb2.PreconditionFailure,
    error_details_pb2.ResourceInfo,
    error_details_pb2.RetryInfo,
)


def fault(status: Status, reason: str, message: str, **metadata: str) -> RpcError:
    """Give an error with an ErrorInfo.

    :param reason: such as ``USER_NOT_FOUND``
    :param metadata: what the reason is about
    """
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    return RpcError(status, message, [info])


def invalid(violations: Mapping[str, str]) -> RpcError:
    """Give INVALID_ARGUMENT with a description for each bad field."""
    bad = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
            for field, description in violations.items()
        ]
    )
    message = "; ".join(f"{field} {text}" for field, text in violations.items())
    return RpcError(Status.INVALID_ARGUMENT, message, [bad])


def not_found(kind: str, *names: str) -> RpcError:
    """Give NOT_FOUND with a ResourceInfo for each thing that does not exist."""
    details = [
        error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name) for name in names
    ]
    return RpcError(Status.NOT_FOUND, f"no {kind} has the id {', '.join(names)}", details)


def out_of_stock(shortages: Iterable[tuple[str, int, int]]) -> RpcError:
    """Give FAILED_PRECONDITION with each product that is short: its id, wanted and left."""
    texts = {
        product: f"{product} is out of stock: {wanted} wanted, {left} left"
        for product, wanted, left in shortages
    }
    failure = error_details_pb2.PreconditionFailure(
        violations=[
            error_details_pb2.PreconditionFailure.Violation(
                type="STOCK", subject=product, description=text
            )
            for product, text in texts.items()
        ]
    )
    return RpcError(Status.FAILED_PRECONDITION, "; ".join(texts.values()), [failure])


def try_again(status: Status, message: str, delay: float | None = None) -> RpcError:
    """Give an error that passes by itself.

    :param delay: seconds after which to try again, if known
    """
    if delay is None:
        return RpcError(status, message)
    pause = Duration()
    pause.FromMilliseconds(round(delay * 1_000))
    return RpcError(status, message, [error_details_pb2.RetryInfo(retry_delay=pause)])


class UnknownOutcomes(ServerInterceptor):
    """Tells callers what to do when a database broke while it kept a change: to ask again.

    Everything that the shop does twice with the same key or the same address is done once.
    """

    async def unary(
        self, call: CallContext, request: Any, proceed: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        """Answer ABORTED where it is not known what was kept."""
        try:
            return await proceed(request)
        except CommitUnknownError as error:
            raise fault(
                Status.ABORTED,
                "OUTCOME_UNKNOWN",
                f"whether {call.method} was done is not known: try again",
            ) from error


def encode_fault(error: RpcError) -> bytes:
    """Write an error as a ``google.rpc.Status``, to be given again later."""
    status = status_pb2.Status(code=error.status.value, message=error.message or "")
    for detail in error.details or ():
        status.details.add().Pack(detail)
    data: bytes = status.SerializeToString()
    return data


def decode_fault(data: bytes) -> RpcError:
    """Read an error that :func:`encode_fault` wrote."""
    status = status_pb2.Status.FromString(data)
    details: list[Message] = []
    for packed in status.details:
        for kind in _DETAILS:
            detail = kind()
            if packed.Unpack(detail):
                details.append(detail)
    return RpcError(Status(status.code), status.message or None, details or None)
