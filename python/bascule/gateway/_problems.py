"""Every answer that is not the upstream's: an HTTP status and a ``google.rpc.Status`` as JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from bascule.errors import (
    AuthenticationError,
    MethodNotAllowedError,
    RejectedError,
    RouteNotFoundError,
    RpcError,
    Status,
    TranscodeError,
    TransportError,
)
from bascule.net import HttpResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["http_status", "problem", "problem_for", "problem_of_listener"]

Headers = list[tuple[str, str]]

# google/rpc/code.proto names the HTTP status beside each code.
_HTTP = {
    Status.OK: 200,
    Status.CANCELLED: 499,
    Status.UNKNOWN: 500,
    Status.INVALID_ARGUMENT: 400,
    Status.DEADLINE_EXCEEDED: 504,
    Status.NOT_FOUND: 404,
    Status.ALREADY_EXISTS: 409,
    Status.PERMISSION_DENIED: 403,
    Status.RESOURCE_EXHAUSTED: 429,
    Status.FAILED_PRECONDITION: 400,
    Status.ABORTED: 409,
    Status.OUT_OF_RANGE: 400,
    Status.UNIMPLEMENTED: 501,
    Status.INTERNAL: 500,
    Status.UNAVAILABLE: 503,
    Status.DATA_LOSS: 500,
    Status.UNAUTHENTICATED: 401,
}
_TYPE_URL = "type.googleapis.com/google.rpc."
#: Seconds to wait where nobody knows better.
_SOON = 1.0
_JSON = ("content-type", "application/json")

# What the listener could not take: its word for it, the HTTP status, the code, and what to tell.
_LISTENER = {
    "malformed": (400, Status.INVALID_ARGUMENT, "the request is malformed"),
    "body_too_large": (
        413,
        Status.INVALID_ARGUMENT,
        "the request's body is larger than this gateway takes",
    ),
    "headers_too_large": (
        431,
        Status.INVALID_ARGUMENT,
        "the request's headers are larger than this gateway takes",
    ),
    "timeout": (408, Status.DEADLINE_EXCEEDED, "the request did not arrive in time"),
}


def http_status(status: Status) -> int:
    """Return the HTTP status for a gRPC status."""
    return _HTTP[status]


def problem(
    status: Status,
    message: str,
    *,
    http: int | None = None,
    details: Sequence[dict[str, Any]] = (),
    headers: Iterable[tuple[str, str]] = (),
) -> HttpResponse:
    """Build an answer that carries a ``google.rpc.Status``.

    :param http: HTTP status; None for the one that belongs to ``status``
    :param details: ``Any`` messages in JSON form, each with its ``@type``
    """
    body = msgspec.json.encode({"code": status.value, "message": message, "details": details})
    return HttpResponse(_HTTP[status] if http is None else http, [_JSON, *headers], body)


def problem_of_listener(word: str) -> HttpResponse:
    """Word what the engine could not take: see ``HttpRequest.problem``."""
    http, status, message = _LISTENER.get(word, _LISTENER["malformed"])
    return problem(status, message, http=http)


def bad_request(field: str, description: str) -> dict[str, Any]:
    """A detail that names the field at fault."""
    return {
        "@type": _TYPE_URL + "BadRequest",
        "fieldViolations": [{"field": field, "description": description}],
    }


def retry_after(seconds: float) -> tuple[str, str]:
    """The header, in whole seconds and never zero: a client that obeys must not come too early."""
    return ("retry-after", str(max(1, math.ceil(seconds))))


def problem_for(error: Exception, *, realm: str = "bascule") -> HttpResponse | None:
    """Map an error to its answer; None if it is none of those that a client should hear about."""
    match error:
        case RpcError():
            return _rpc(error, realm)
        case RouteNotFoundError():
            return problem(Status.NOT_FOUND, "no route has this path")
        case MethodNotAllowedError():
            methods = {*error.allowed, *(["HEAD"] if "GET" in error.allowed else [])}
            allow = ("allow", ", ".join(sorted(methods)))
            return problem(Status.UNIMPLEMENTED, str(error), http=405, headers=[allow])
        case TranscodeError():
            detail = bad_request(error.field, error.reason)
            return problem(Status.INVALID_ARGUMENT, str(error), details=[detail])
        case AuthenticationError():
            return unauthenticated(realm, error)
        case RejectedError():
            return _rejected(error)
        case TransportError():
            return problem(
                Status.UNAVAILABLE, "the service cannot be reached", headers=[retry_after(_SOON)]
            )
        case TimeoutError():
            return problem(Status.DEADLINE_EXCEEDED, "the service did not answer in time")
    return None


def unauthenticated(realm: str, error: AuthenticationError | None) -> HttpResponse:
    """401, with the challenge of RFC 6750: without an error code if no token was sent."""
    challenge = f'Bearer realm="{realm}"'
    if error is None:
        message = "this route needs a bearer token"
    else:
        message = error.message
        # RFC 6750, 3: a description has neither quotes nor backslashes.
        description = message.replace('"', "'").replace("\\", "/")
        challenge += f', error="invalid_token", error_description="{description}"'
    return problem(Status.UNAUTHENTICATED, message, headers=[("www-authenticate", challenge)])


def insufficient_scope(realm: str, missing: Iterable[str]) -> HttpResponse:
    """403, naming what the token lacks."""
    scope = " ".join(sorted(missing))
    challenge = f'Bearer realm="{realm}", error="insufficient_scope", scope="{scope}"'
    return problem(
        Status.PERMISSION_DENIED,
        f"the token does not permit {scope}",
        headers=[("www-authenticate", challenge)],
    )


def _rejected(error: RejectedError) -> HttpResponse:
    """The gateway's own refusal. Which breaker, limit or address refused is for the log only.

    A limit of ours on an upstream is no fault of this client: 503, not 429.
    """
    seconds = _SOON if error.retry_after is None else error.retry_after
    message = "the service takes no calls at the moment"
    return problem(Status.UNAVAILABLE, message, headers=[retry_after(seconds)])


def _rpc(error: RpcError, realm: str) -> HttpResponse:
    headers: Headers = []
    details: list[dict[str, Any]] = []
    message = error.message or ""
    for detail in error.details or ():
        details.append(_any(detail))
        delay = getattr(detail, "retry_delay", None)  # google.rpc.RetryInfo
        if delay is not None:
            headers.append(retry_after(delay.seconds + delay.nanos / 1e9))
    if error.status is Status.UNAVAILABLE and not details:
        # Most likely a channel's own words, with addresses of the inside in them.
        message = "the service cannot be reached"
        headers.append(retry_after(_SOON))
    if error.status is Status.UNAUTHENTICATED:  # RFC 9110, 15.5.2: a 401 must carry a challenge
        headers.append(("www-authenticate", f'Bearer realm="{realm}"'))
    return problem(error.status, message, details=details, headers=headers)


def _any(detail: Any) -> dict[str, Any]:
    """Render one message of ``grpc-status-details-bin`` as ``Any`` is in JSON."""
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.json_format import MessageToDict
    from google.rpc import error_details_pb2  # noqa: F401 (makes its types known)

    if not isinstance(detail, AnyMessage):
        if not hasattr(detail, "DESCRIPTOR"):
            return {"@type": _TYPE_URL + "ErrorInfo", "reason": str(detail)}
        packed = AnyMessage()
        packed.Pack(detail)
        detail = packed
    try:
        return MessageToDict(detail)
    except (TypeError, ValueError):  # a type that nobody here knows: its bytes are still of use
        return {"@type": detail.type_url, "value": msgspec.to_builtins(detail.value)}
