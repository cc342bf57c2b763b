"""What operators ask: does it live, can it serve, what does it count. Neither limited nor behind a token."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bascule.gateway._config import RouteConfig
from bascule.net import HttpResponse
from bascule.observe import Exposition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bascule.gateway._exchange import Exchange
    from bascule.net import HttpRequest
    from bascule.observe import Metrics

__all__ = ["Operation", "health", "metrics_text", "readiness"]

_PUBLIC = RouteConfig(public=True)
_TEXT = ("content-type", "text/plain; charset=utf-8")
_log = logging.getLogger("bascule.gateway")


class Operation:
    """A route for probes and scrapes: no limit may turn a healthy process into a dead one."""

    limited = False
    settings = _PUBLIC

    def __init__(self, name: str, report: Callable[[HttpRequest], Awaitable[HttpResponse]]) -> None:
        self._name = name
        self._report = report

    def __repr__(self) -> str:
        return self._name

    async def answer(self, exchange: Exchange) -> HttpResponse:
        """Report."""
        return await self._report(exchange.request)


def health() -> Operation:
    """200 while the event loop turns."""

    async def report(_: HttpRequest) -> HttpResponse:
        return HttpResponse(200, [_TEXT], b"ok\n")

    return Operation("health", report)


def readiness(ready: Callable[[], Awaitable[bool]]) -> Operation:
    """200 while ``ready`` says so, else 503. A check that fails is a no."""

    async def report(_: HttpRequest) -> HttpResponse:
        try:
            answer = await ready()
        except Exception:  # noqa: BLE001 (whatever fails is a no)
            _log.exception("readiness check failed")
            answer = False
        return (
            HttpResponse(200, [_TEXT], b"ready\n")
            if answer
            else HttpResponse(503, [_TEXT], b"not ready\n")
        )

    return Operation("readiness", report)


def metrics_text(metrics: Metrics) -> Operation:
    """What Prometheus scrapes."""
    exposition = Exposition(metrics)

    async def report(request: HttpRequest) -> HttpResponse:
        query = request.target.partition("?")[2]
        return HttpResponse(*await exposition.answer(query, request.headers))

    return Operation("metrics", report)
