"""One request on its way through the gateway, and what has been learned about it."""

from __future__ import annotations

from random import getrandbits
from typing import TYPE_CHECKING

from bascule.observe import TraceContext

if TYPE_CHECKING:
    from bascule.gateway._endpoints import Endpoint
    from bascule.gateway._router import Found
    from bascule.gateway._tokens import Identity
    from bascule.net import HttpRequest

__all__ = ["Exchange"]

# strip() with these leaves nothing of a value that has nothing else: one C call instead of a regex.
_ID_CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.:/+="
_LONGEST_ID = 128
# A second one of these could make two readers believe different things (RFC 9110, 5.3: they are no lists).
_SINGLE = frozenset(
    [
        *("authorization", "content-type", "host", "content-length"),
        *("traceparent", "x-request-id", "idempotency-key"),
    ]
)


class Exchange:
    """A request with its identifiers; route, caller and answer's headers are filled in as they become known.

    :ivar request: the request as the listener took it
    :ivar headers: its headers by lower-case name; repeated ones joined by commas
    :ivar request_id: the client's ``x-request-id`` if it is sane, otherwise one of ours
    :ivar parent: the client's trace context; None if it sent none that is well-formed
    :ivar trace: what upstream calls continue
    :ivar found: route and path variables; None before and without a route
    :ivar identity: who asks, as the token says; None without a token
    :ivar error: what was raised and became the answer; None if nothing was
    :ivar answer_headers: headers that the answer gets whoever makes it
    """

    __slots__ = (
        "answer_headers",
        "error",
        "found",
        "headers",
        "identity",
        "parent",
        "request",
        "request_id",
        "trace",
    )

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        headers = dict(request.headers)
        if len(headers) != len(request.headers):
            headers = _joined(request.headers)
        self.headers = headers
        self.parent: TraceContext | None = None
        traceparent = headers.get("traceparent")
        if traceparent is not None:
            self.parent = TraceContext.parse(traceparent, headers.get("tracestate", ""))
        self.trace = self.parent or TraceContext.root()
        request_id = headers.get("x-request-id")
        if (
            request_id is None
            or len(request_id) > _LONGEST_ID
            or not request_id
            or request_id.strip(_ID_CHARACTERS)
        ):
            # A trace of our own serves as the id: one number to look for in all logs.
            began = self.parent is None
            request_id = self.trace.trace_id if began else f"{getrandbits(128):032x}"
        self.request_id = request_id
        self.found: Found[Endpoint] | None = None
        self.identity: Identity | None = None
        self.error: Exception | None = None
        self.answer_headers: list[tuple[str, str]] = []

    @property
    def params(self) -> dict[str, str]:
        """The path variables by name; none before a route is found."""
        return {} if self.found is None else self.found.params

    @property
    def query(self) -> str:
        """The query string as it was sent, without the question mark."""
        return "" if self.found is None else self.found.query


def _joined(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Join repeated headers; of those that must not be repeated, keep something that nobody accepts."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        if name not in headers:
            headers[name] = value
        elif name in _SINGLE:
            headers[name] = "\0repeated"
        else:
            headers[name] += (", " if name != "cookie" else "; ") + value
    return headers
