"""The middleware, in the order that makes rejections visible.

Request id -> trace -> access log -> limit by address -> preflight -> authentication ->
limit by subject -> idempotency key -> endpoint.
It is one straight function: a tower of wrappers costs a coroutine a layer, for nothing that a reader gains.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, TypeAlias

from bascule.errors import (
    AuthenticationError,
    MethodNotAllowedError,
    RouteNotFoundError,
    Status,
    TranscodeError,
)
from bascule.gateway._access import AccessEntry
from bascule.gateway._exchange import Exchange
from bascule.gateway._limits import address_of
from bascule.gateway._problems import (
    insufficient_scope,
    problem,
    problem_for,
    problem_of_listener,
    unauthenticated,
)
from bascule.observe import SpanKind, escape, trace_variable, tracer_variable

if TYPE_CHECKING:
    from contextvars import Token

    from bascule.gateway._access import AccessLog
    from bascule.gateway._auth import Authenticator
    from bascule.gateway._cors import Cors
    from bascule.gateway._endpoints import Endpoint
    from bascule.gateway._idempotency import Idempotency
    from bascule.gateway._limits import RateLimit
    from bascule.gateway._router import Found
    from bascule.gateway._stats import GatewayStats
    from bascule.net import HttpRequest, HttpResponse
    from bascule.observe import AttributeValue, Span, Tracer

__all__ = ["Matching", "Pipeline"]

_log = logging.getLogger("bascule.gateway")
_CLIENT_GONE = 499
_LONGEST_ERROR = 300


class Matching(Protocol):
    """Finds the endpoint of a request. A later data path in Rust matches by itself."""

    def match(self, method: str, target: str) -> Found[Endpoint]:
        """Find the endpoint.

        :raises TranscodeError: if the target is malformed
        :raises RouteNotFoundError: if no route has this path
        :raises MethodNotAllowedError: if its routes take other methods only
        """
        ...


class Pipeline:
    """Takes a request through the middleware to its endpoint; never raises but when cancelled."""

    def __init__(
        self,
        matching: Matching,
        stats: GatewayStats,
        *,
        access_log: AccessLog | None,
        authenticator: Authenticator | None,
        realm: str,
        address_limit: RateLimit | None,
        subject_limit: RateLimit | None,
        idempotency: Idempotency | None,
        tracer: Tracer | None,
        cors: Cors | None = None,
        probes: frozenset[str | None] = frozenset(),
    ) -> None:
        self._match = matching.match
        self._stats = stats
        self._record = access_log.record if access_log is not None else None
        self._authenticator = authenticator
        self._realm = realm
        self._address_limit = address_limit
        self._subject_limit = subject_limit
        self._idempotency = idempotency
        self._cors = cors
        #: Where spans go; None to record nothing.
        self.tracer = tracer
        # Asked for every few seconds, for ever: no trace is begun by these.
        self._probes = probes

    def forget_tracer(self) -> None:
        """Record nothing any more."""
        self.tracer = None

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer one request; whatever goes wrong is an answer too."""
        begun = perf_counter()
        exchange = Exchange(request)
        tracer = self.tracer
        traced = None
        if tracer is not None and request.target not in self._probes:
            traced = _begin_span(tracer, exchange)
        token = trace_variable.set(exchange.trace)
        response: HttpResponse | None = None
        error: BaseException | None = None
        try:
            try:
                response = await self._respond(exchange)
            except Exception as raised:  # noqa: BLE001 (each becomes an answer)
                error = exchange.error = raised
                response = problem_for(raised, realm=self._realm) or self._unexpected(
                    raised, exchange
                )
            response.headers.append(("x-request-id", exchange.request_id))
            response.headers.extend(exchange.answer_headers)
            if self._cors is not None:
                response.headers.extend(self._cors.headers(exchange))
            return response
        except BaseException as cancelled:
            error = cancelled
            raise
        finally:
            trace_variable.reset(token)
            self._finish(exchange, response, error, perf_counter() - begun)
            if traced is not None:
                _end_span(traced, exchange, response)

    async def _respond(self, exchange: Exchange) -> HttpResponse:
        request = exchange.request
        if request.problem is not None:
            return problem_of_listener(request.problem)
        missed: Exception | None = None
        try:
            method = request.method
            found = exchange.found = self._match(
                "GET" if method == "HEAD" else method, request.target
            )
        except (RouteNotFoundError, MethodNotAllowedError, TranscodeError) as error:
            missed = error
        else:
            # The gateway's router has no transcoder of its own: its bindings are endpoints, too.
            endpoint: Endpoint = found.endpoint  # type: ignore[assignment]
            if not endpoint.limited:
                return await endpoint.answer(exchange)
        address = address_of(request.peer)
        limit = self._address_limit
        if limit is not None:
            decision = limit.check(address)
            if not decision.allowed:
                limit.rejected += 1
                return limit.refusal(decision)
            limit.admitted += 1
        if self._cors is not None:
            # Browsers send no token with it.
            preflight = self._cors.preflight(exchange, self._match)
            if preflight is not None:
                return preflight
        if missed is not None:
            raise missed
        refusal = await self._authenticate(exchange, endpoint)
        if refusal is not None:
            return refusal
        limit = self._subject_limit
        if limit is not None:
            identity = exchange.identity
            # No subject holds a control character, so no token can name another's address.
            key = identity.subject if identity is not None else "\0" + address
            shared = limit.shared
            counted = limit.check(key) if shared is None else await shared.check(key)
            if not counted.allowed:
                limit.rejected += 1
                return limit.refusal(counted)
            limit.admitted += 1
            exchange.answer_headers = limit.headers(counted)
        if self._idempotency is not None and self._idempotency.concerns(exchange):
            return await self._idempotency.answer(exchange, endpoint)
        return await endpoint.answer(exchange)

    async def _authenticate(self, exchange: Exchange, endpoint: Endpoint) -> HttpResponse | None:
        """Learn who asks. Return the refusal if that is not enough for the route."""
        authorization = exchange.headers.get("authorization")
        authenticator = self._authenticator
        settings = endpoint.settings
        if authenticator is None or authorization is None:
            return None if settings.public else unauthenticated(self._realm, None)
        identity = authenticator.known(authorization)
        if identity is None:
            try:
                identity = await authenticator.verify(authorization)
            except AuthenticationError as error:
                self._stats.refused(error.reason)
                raise
        exchange.identity = identity
        if settings.scopes and not settings.scopes <= identity.scopes:
            return insufficient_scope(self._realm, settings.scopes - identity.scopes)
        return None

    def _finish(
        self,
        exchange: Exchange,
        response: HttpResponse | None,
        error: BaseException | None,
        seconds: float,
    ) -> None:
        request = exchange.request
        status = _CLIENT_GONE if response is None else response.status
        found = exchange.found
        route = "" if found is None else found.template
        trace = exchange.trace
        self._stats.observe(
            request.method, route, status, seconds, trace.trace_id if trace.sampled else None
        )
        if self._record is not None:
            identity = exchange.identity
            self._record(
                AccessEntry(
                    datetime.now(UTC),
                    request.method,
                    request.target,
                    status,
                    round(seconds, 6),
                    request.peer,
                    exchange.request_id,
                    trace.trace_id,
                    request.version,
                    route,
                    "" if identity is None else identity.subject,
                    0 if response is None else len(response.body),
                    ""
                    if error is None or response is None
                    else escape(str(error)[:_LONGEST_ERROR]),
                )
            )

    def _unexpected(self, error: Exception, exchange: Exchange) -> HttpResponse:
        """A fault of ours: the log gets all of it, the client nothing that it could learn from."""
        _log.error(
            "request failed",
            exc_info=error,
            extra={"request_id": exchange.request_id, "target": exchange.request.target},
        )
        return problem(
            Status.INTERNAL, f"internal error; tell the operator this id: {exchange.request_id}"
        )


#: Others are one value to whoever groups by it: a client may send any word.
_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"}
)


#: A span, and what takes the tracer back out of the context.
_Traced: TypeAlias = "tuple[Span, Token[Tracer | None]]"


def _begin_span(tracer: Tracer, exchange: Exchange) -> _Traced:
    token = tracer_variable.set(tracer)
    span = tracer.start(
        exchange.request.method,
        exchange.parent,
        SpanKind.SERVER,
        # The one that the client is told as its request's id.
        trace_id=exchange.trace.trace_id,
    )
    exchange.trace = span.context
    span.enter()
    return span, token


def _end_span(traced: _Traced, exchange: Exchange, response: HttpResponse | None) -> None:
    """End a span by its answer. Source: OpenTelemetry's semantic conventions for HTTP."""
    span, token = traced
    failure: BaseException | str | None = None
    if span.recording:
        request = exchange.request
        method = request.method if request.method in _METHODS else "_OTHER"
        status = _CLIENT_GONE if response is None else response.status
        attributes: dict[str, AttributeValue] = {
            "http.request.method": method,
            "url.path": request.target.partition("?")[0],
            "http.response.status_code": status,
            "client.address": address_of(request.peer),
            "network.protocol.version": request.version,
            "bascule.request_id": exchange.request_id,
        }
        route = "" if exchange.found is None else exchange.found.template
        if route:
            attributes["http.route"] = route
        span.rename(f"{'HTTP' if method == '_OTHER' else method} {route}".strip())
        span.set(attributes)
        if status >= 500:
            failure = exchange.error or f"HTTP {status}"
    span.end(failure)
    tracer_variable.reset(token)
