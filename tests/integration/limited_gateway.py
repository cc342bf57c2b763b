"""A gateway in a process of its own, whose limit others share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from bascule.gateway import (
    Exchange,
    Gateway,
    GatewayConfig,
    HandlerEndpoint,
    LimitConfig,
    RouteConfig,
)
from bascule.net import HttpResponse

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from bascule.resilience import LimitAlgorithm

__all__ = ["serve"]


def serve(
    backend: str, redis: str, requests: int, algorithm: LimitAlgorithm, ready: Connection
) -> None:
    """Serve ``/hello`` until killed; tell the port once it does."""
    config = GatewayConfig(
        {},
        listen="127.0.0.1:0",
        redis=redis,
        limit_timeout=5.0,
        subject_limit=LimitConfig(requests=requests, per=3600.0, algorithm=algorithm),
        address_limit=None,
    )

    async def hello(exchange: Exchange) -> HttpResponse:
        return HttpResponse(200, [("content-type", "text/plain")], b"hello")

    async def run() -> None:
        gateway = Gateway(config, b"")
        gateway.router.get("/hello", HandlerEndpoint(hello, RouteConfig(public=True)))
        async with gateway:
            ready.send(int(gateway.addresses[0].rpartition(":")[2]))
            await anyio.sleep_forever()

    anyio.run(run, backend=backend)
