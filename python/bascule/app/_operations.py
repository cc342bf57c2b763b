"""What operators ask a service by HTTP: does it live, can it serve, what does it count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bascule.net import HttpRequest, HttpResponse, HttpServer
from bascule.observe import Exposition

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bascule.observe import Metrics

__all__ = ["operations_server"]


def operations_server(
    listen: str, metrics: Metrics, ready: Callable[[], bool], status: Callable[[], Any]
) -> HttpServer:
    """Serve ``/livez``, ``/readyz`` with the status as JSON, and ``/metrics``.

    Without authentication: it is for an inner address.
    """
    exposition = Exposition(metrics)

    async def answer(request: HttpRequest) -> HttpResponse:
        if request.problem is not None:
            return HttpResponse(400)
        if request.method not in {"GET", "HEAD"}:
            return HttpResponse(405, [("allow", "GET, HEAD")])
        path, _, query = request.target.partition("?")
        if path == "/livez":
            return HttpResponse(200, [("content-type", "text/plain")], b"ok\n")
        if path == "/readyz":
            body = msgspec.json.encode(status()) + b"\n"
            code = 200 if ready() else 503
            return HttpResponse(code, [("content-type", "application/json")], body)
        if path == "/metrics":
            return HttpResponse(*await exposition.answer(query, request.headers))
        return HttpResponse(404)

    return HttpServer(answer, listen=listen, grace=1.0)
