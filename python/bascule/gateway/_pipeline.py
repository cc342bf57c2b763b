"""The middleware, in the order that makes rejections visible.

Request id -> trace -> access log -> limit by address -> authentication -> limit by subject ->
idempotency key -> endpoint.
It is one straight function: a tower of wrappers costs a coroutine a layer, for nothing that a reader gains.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

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
from bascule.observe import escape, trace_variable

if TYPE_CHECKING:
    from bascule.gateway._access import AccessLog
    from bascule.gateway._auth import Authenticator
    from bascule.gateway._endpoints import Endpoint
    from bascule.gateway._idempotency import Idempotency
    from bascule.gateway._limits import RateLimit
    from bascule.gateway._router import Found
    from bascule.gateway._stats import GatewayStats
    from bascule.net import HttpRequest, HttpResponse
    from bascule.observe import Span, Tracer

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
    ) -> None:
        self._match = matching.match
        self._stats = stats
        self._record = access_log.record if access_log is not None else None
        self._authenticator = authenticator
        self._realm = realm
        self._address_limit = address_limit
        self._subject_limit = subject_limit
        self._idempotency = idempotency
        self._tracer = tracer

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer one request; whatever goes wrong is an answer too."""
        begun = perf_counter()
        exchange = Exchange(request)
        span = self._begin_span(exchange) if self._tracer is not None else None
        token = trace_variable.set(exchange.trace)
        response: HttpResponse | None = None
        error: BaseException | None = None
        try:
            try:
                response = await self._respond(exchange)
            except Exception as raised:  # noqa: BLE001 (each becomes an answer)
                error = raised
                response = problem_for(raised, realm=self._realm) or self._unexpected(
                    raised, exchange
                )
            response.headers.append(("x-request-id", exchange.request_id))
            response.headers.extend(exchange.answer_headers)
            return response
        except BaseException as cancelled:
            error = cancelled
            raise
        finally:
            trace_variable.reset(token)
            self._finish(exchange, response, error, perf_counter() - begun)
            if span is not None:
                _end_span(span, exchange, response, error)

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

    def _begin_span(self, exchange: Exchange) -> Span:
        assert self._tracer is not None  # noqa: S101 (asked for by the caller)
        request = exchange.request
        span = self._tracer.start(
            request.method,
            exchange.parent,
            {"http.request.method": request.method, "url.path": request.target.partition("?")[0]},
        )
        exchange.trace = span.context
        return span

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


def _end_span(
    span: Span, exchange: Exchange, response: HttpResponse | None, error: BaseException | None
) -> None:
    attributes: dict[str, str | int] = {
        "http.response.status_code": _CLIENT_GONE if response is None else response.status
    }
    if exchange.found is not None:
        attributes["http.route"] = exchange.found.template
    span.end(attributes, error)
