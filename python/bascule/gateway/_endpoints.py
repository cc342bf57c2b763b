"""What answers a request once it is admitted: a gRPC service, or a Python handler."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import quote

import anyio
import msgspec

from bascule.errors import Status, TranscodeError
from bascule.gateway._config import RouteConfig
from bascule.gateway._problems import problem
from bascule.net import HttpResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from bascule.gateway._config import Created
    from bascule.gateway._exchange import Exchange

__all__ = ["DeclaredEndpoint", "Endpoint", "Handler", "HandlerEndpoint", "Transcoding", "Upstream"]

_JSON = ("content-type", "application/json")

Handler: TypeAlias = "Callable[[Exchange], Awaitable[HttpResponse]]"


class Endpoint(Protocol):
    """The end of a route."""

    @property
    def settings(self) -> RouteConfig:
        """Who may come here, and for how long."""
        ...

    @property
    def limited(self) -> bool:
        """Whether the rate limits count its requests."""
        ...

    async def answer(self, exchange: Exchange) -> HttpResponse:
        """Answer an admitted request. Cancelled when the client goes away.

        :raises Exception: whatever :func:`bascule.gateway._problems.problem_for` knows an answer for
        """
        ...


class Transcoding(Protocol):
    """Translation of one route's messages, by its index. A later data path in Rust needs none of it here."""

    def request(self, binding: int, values: tuple[str, ...], query: str, body: bytes) -> bytes:
        """JSON to protobuf.

        :raises TranscodeError: if the request does not fit the route's message
        """
        ...

    def response(self, binding: int, message: bytes) -> bytes:
        """Protobuf to JSON."""
        ...


class Upstream(Protocol):
    """Calls one gRPC method with encoded messages."""

    def __call__(
        self, message: bytes, timeout: float, metadata: Mapping[str, str], /
    ) -> Awaitable[bytes]:
        """Make the call.

        :param timeout: seconds until it fails with DEADLINE_EXCEEDED
        :raises RpcError: if the service answers with another status than OK
        :raises RejectedError: if the call was refused before it was sent
        :raises TransportError: if the connection broke
        """
        ...


class HandlerEndpoint:
    """A Python handler: ``async def handler(exchange: Exchange) -> HttpResponse``.

    It may raise :class:`bascule.errors.RpcError`: the status is mapped as if a service had answered.
    """

    limited = True

    def __init__(self, handler: Handler, settings: RouteConfig | None = None) -> None:
        self._handler = handler
        self.settings = settings if settings is not None else RouteConfig()

    def __repr__(self) -> str:
        return getattr(self._handler, "__qualname__", repr(self._handler))

    async def answer(self, exchange: Exchange) -> HttpResponse:
        """Run the handler, for ``settings.timeout`` seconds at most."""
        with anyio.fail_after(timeout_of(exchange, self.settings.timeout)):
            return await self._handler(exchange)


class DeclaredEndpoint:
    """A route that ``google.api.http`` declares: JSON in, gRPC, JSON out.

    :param binding: index of the route in ``transcoding``
    :param forward: request headers that travel on, by allow-list
    """

    limited = True

    def __init__(
        self,
        binding: int,
        name: str,
        *,
        transcoding: Transcoding,
        upstream: Upstream,
        settings: RouteConfig,
        forward: Sequence[str],
    ) -> None:
        self._binding = binding
        self._name = name
        self._request = transcoding.request
        self._response = transcoding.response
        self._upstream = upstream
        self._forward = forward
        self.settings = settings

    def __repr__(self) -> str:
        return self._name

    async def answer(self, exchange: Exchange) -> HttpResponse:
        """Translate, call, translate back."""
        body = exchange.request.body
        headers = exchange.headers
        if body and not _is_json(headers.get("content-type", "")):
            return _unsupported()
        if not _takes_json(headers.get("accept", "*/*")):
            return problem(
                Status.INVALID_ARGUMENT, "this gateway answers with application/json only", http=406
            )
        found = exchange.found
        assert found is not None  # noqa: S101 (the pipeline found this endpoint by it)
        message = self._request(self._binding, found.values, found.query, body)
        settings = self.settings
        timeout = settings.timeout
        if "x-request-timeout" in headers:
            timeout = timeout_of(exchange, timeout)
        reply = await self._upstream(message, timeout, self._metadata(exchange))
        document = self._response(self._binding, reply)
        if settings.created is None:
            return HttpResponse(200, [_JSON], document)
        return _created(settings.created, document)

    def _metadata(self, exchange: Exchange) -> dict[str, str]:
        trace = exchange.trace
        metadata = {"x-request-id": exchange.request_id, "traceparent": trace.traceparent}
        if trace.state:
            metadata["tracestate"] = trace.state
        if exchange.identity is not None:
            metadata["x-bascule-subject"] = exchange.identity.subject
        headers = exchange.headers
        for name in self._forward:
            value = headers.get(name)
            # What gRPC metadata cannot carry stays here: it is printable ASCII (gRPC over HTTP/2, Custom-Metadata).
            if value is not None and value.isascii() and value.isprintable():
                metadata[name] = value
        return metadata


def timeout_of(exchange: Exchange, longest: float) -> float:
    """Return the seconds that a request has: the client may ask for less by ``x-request-timeout``, never for more.

    ``grpc-timeout`` is not looked at: it would let any browser script end calls in ways of another protocol.

    :raises TranscodeError: if the header is no positive number of seconds
    """
    text = exchange.headers.get("x-request-timeout")
    if text is None:
        return longest
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not (math.isfinite(seconds) and seconds > 0):
        raise TranscodeError("malformed", "x-request-timeout", "is no positive number of seconds")
    return min(seconds, longest)


def _created(rule: Created, document: bytes) -> HttpResponse:
    headers = [_JSON]
    if rule.location is not None:
        fields: dict[str, Any] = msgspec.json.decode(document)
        escaped = {
            name: quote(str(value), safe="")
            for name, value in fields.items()
            if isinstance(value, str | int)
        }
        # What was created stays created: an answer without the field only lacks the header.
        with suppress(KeyError):
            headers.append(("location", rule.location.format_map(escaped)))
    return HttpResponse(201, headers, document)


def _unsupported() -> HttpResponse:
    accept = ("accept", "application/json")  # RFC 9110, 15.5.16
    message = "the body must be JSON: send content-type: application/json"
    return problem(Status.INVALID_ARGUMENT, message, http=415, headers=[accept])


# Clients send few distinct values; those who send many only turn the small cache over.
@lru_cache(maxsize=64)
def _is_json(content_type: str) -> bool:
    kind, _, parameters = content_type.partition(";")
    charset = parameters.strip().lower()
    return kind.strip().lower() == "application/json" and charset in {
        "",
        "charset=utf-8",
        'charset="utf-8"',
    }


@lru_cache(maxsize=64)
def _takes_json(accept: str) -> bool:
    """RFC 9110, 12.5.1: the most specific range that names JSON decides, a weight of zero refuses."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            weights[kind] = float(quality)
        except ValueError:
            weights[kind] = 1.0
    for kind in ("application/json", "application/*", "*/*"):
        if kind in weights:
            return weights[kind] > 0
    return not accept.strip()
