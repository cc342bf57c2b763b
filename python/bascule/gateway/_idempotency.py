"""One effect and one answer for a request that comes again.

Source: draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import hashlib
import logging
import re
import uuid
from typing import TYPE_CHECKING

import anyio

from bascule.errors import BreakerOpenError, RpcError, Status, StoreUnavailableError
from bascule.gateway._answers import (
    Answer,
    AnswerStore,
    Held,
    MemoryAnswers,
    RedisAnswers,
)
from bascule.gateway._limits import address_of
from bascule.gateway._problems import bad_request, problem, problem_for, retry_after
from bascule.net import HttpResponse
from bascule.resilience import BreakerSettings, CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from bascule.gateway._config import IdempotencyConfig
    from bascule.gateway._endpoints import Endpoint
    from bascule.gateway._exchange import Exchange
    from bascule.resilience import RedisClient

__all__ = ["Idempotency"]

_log = logging.getLogger("bascule.gateway")
_HEADER = "idempotency-key"
_METHODS = frozenset({"POST", "PATCH"})
# The draft's form is a string in quotes (RFC 9651, 3.3.3); most clients send it bare.
_KEY = re.compile(r'"([ !#-\[\]-~]{1,255})"|([!#-~]{1,255})')
# What tells of this answer only, such as the request's id and what is left of a limit, is made anew.
_KEPT = frozenset(
    ["content-type", "content-language", "location", "etag", "last-modified", "cache-control"]
)
# A service that answers so has decided; it will decide the same again.
_FINAL = frozenset(
    [
        Status.INVALID_ARGUMENT,
        Status.NOT_FOUND,
        Status.ALREADY_EXISTS,
        Status.PERMISSION_DENIED,
        Status.FAILED_PRECONDITION,
        Status.OUT_OF_RANGE,
    ]
)
# Nothing has happened yet, or the client is told to try again.
_NOT_FINAL = frozenset({406, 408, 413, 415, 425, 429})
# Seconds that a mark outlives the longest that its request can take.
_SPARE = 5.0
_BREAKER = BreakerSettings(failure_threshold=3, success_threshold=1, timeout=1.0)


class Idempotency:
    """Answers requests with an ``Idempotency-Key``: the first is served, the others get its answer.

    A key is of one caller (the token's subject, else the address) and one route. The same key with
    another method, target or body is refused (422), and so is one whose request is being served (409).

    A request with a key is served to its end though its client goes away, within the route's time: the
    answer is there when the client asks again. Answers that tell to try again (5xx, 408, 429, ABORTED)
    are not kept: the next request goes to the service, with the same key. While a request is served its
    key is marked; the mark of a gateway that crashed ends with the route's time.

    :param redis: where gateways share the answers; None to keep them in this process
    :ivar outcomes: what became of requests, by word
    """

    def __init__(self, config: IdempotencyConfig, redis: RedisClient | None) -> None:
        self._config = config
        self._store: AnswerStore = (
            MemoryAnswers(config.max_answers, config.max_bytes)
            if redis is None
            else RedisAnswers(redis, config.timeout)
        )
        self._breaker = CircuitBreaker("redis for idempotency keys", _BREAKER)
        words = ("executed", "replayed", "in_flight", "mismatched", "unavailable", "unprotected")
        self.outcomes = dict.fromkeys(words, 0)

    def concerns(self, exchange: Exchange) -> bool:
        """Whether a request has a key and a method to which keys mean something."""
        return exchange.request.method in _METHODS and _HEADER in exchange.headers

    async def answer(self, exchange: Exchange, endpoint: Endpoint) -> HttpResponse:
        """Serve a request, or answer as it was answered before."""
        match = _KEY.fullmatch(exchange.headers[_HEADER])
        if match is None:
            message = "must be one string of 1 to 255 printable ASCII characters"
            return problem(
                Status.INVALID_ARGUMENT,
                f"the {_HEADER} {message}",
                details=[bad_request(_HEADER, message)],
            )
        key = _key_of(exchange, match[1] or match[2])
        token = uuid.uuid4().hex
        hold = endpoint.settings.timeout + _SPARE
        try:
            # What is marked is served: given up in between, the mark would refuse the next attempts.
            with anyio.CancelScope(shield=True):
                async with self._breaker:
                    found = await self._store.begin(key, _fingerprint(exchange), token, hold)
        except (StoreUnavailableError, BreakerOpenError) as error:
            return await self._without_store(exchange, endpoint, error)
        match found:
            case Answer():
                self.outcomes["replayed"] += 1
                headers = [*found.headers, ("idempotency-replayed", "true")]
                return HttpResponse(found.status, headers, found.body)
            case Held.IN_FLIGHT:
                self.outcomes["in_flight"] += 1
                return problem(
                    Status.ABORTED,
                    f"a request with this {_HEADER} is being served: ask again for its answer",
                    headers=[retry_after(1.0)],
                )
            case Held.OTHER:
                self.outcomes["mismatched"] += 1
                return problem(
                    Status.INVALID_ARGUMENT,
                    f"this {_HEADER} was used for another request: use a new one",
                    http=422,
                )
            case Held.OURS:
                self.outcomes["executed"] += 1
                # Whoever sent it may be gone: the answer is for its next attempt.
                with anyio.CancelScope(shield=True):
                    response = await self._execute(exchange, endpoint, key, token)
                return response  # noqa: RET504 (a scope may swallow what it cancels)

    async def _execute(
        self, exchange: Exchange, endpoint: Endpoint, key: str, token: str
    ) -> HttpResponse:
        try:
            response = await endpoint.answer(exchange)
        except Exception as error:
            kept = (
                problem_for(error)
                if isinstance(error, RpcError) and error.status in _FINAL
                else None
            )
            await self._end(key, token, kept)
            raise
        is_final = response.status < 500 and response.status not in _NOT_FINAL
        await self._end(key, token, response if is_final else None)
        return response

    async def _end(self, key: str, token: str, response: HttpResponse | None) -> None:
        """Keep an answer, or unmark the key. The client gets its answer whatever comes of it."""
        if response is None:
            await self._tried(self._store.release(key, token))
            return
        if len(response.body) > self._config.max_body:
            response = problem(
                Status.ABORTED, "this request was served; its answer is too long to be given again"
            )
        headers = [(name, value) for name, value in response.headers if name in _KEPT]
        answer = Answer(response.status, headers, bytes(response.body))
        await self._tried(self._store.keep(key, token, answer, self._config.ttl))

    async def _tried(self, change: Awaitable[None]) -> None:
        try:
            await change
        except StoreUnavailableError as error:
            # The mark ends by itself; then the service gets the request again, with its key.
            _log.warning("the answer to a request with an %s is not kept: %s", _HEADER, error)

    async def _without_store(
        self, exchange: Exchange, endpoint: Endpoint, error: Exception
    ) -> HttpResponse:
        if self._config.away == "open":
            self.outcomes["unprotected"] += 1
            return await endpoint.answer(exchange)
        self.outcomes["unavailable"] += 1
        _log.warning("a request with an %s is refused: %s", _HEADER, error)
        return problem(
            Status.UNAVAILABLE,
            f"whether this {_HEADER} was used before cannot be told at the moment",
            headers=[retry_after(1.0)],
        )


def _key_of(exchange: Exchange, key: str) -> str:
    """A name for the caller, the route and the key, which tells none of them."""
    identity = exchange.identity
    # No subject holds a control character, so no token can name another's address.
    caller = "\0" + address_of(exchange.request.peer) if identity is None else identity.subject
    found = exchange.found
    route = "" if found is None else found.template
    # The lengths keep the parts apart, whatever they hold.
    text = f"{len(caller)}:{caller}{len(route)}:{route}{exchange.request.method} {key}"
    return hashlib.sha256(text.encode()).hexdigest()


def _fingerprint(exchange: Exchange) -> bytes:
    request = exchange.request
    kind = exchange.headers.get("content-type", "")
    head = f"{request.method} {request.target}\n{kind}\n".encode()
    return hashlib.sha256(head + bytes(request.body)).digest()
