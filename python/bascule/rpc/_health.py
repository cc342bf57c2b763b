"""The gRPC health service: ``grpc.health.v1``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from bascule.errors import RpcError, Status
from bascule.rpc._generated.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)
from bascule.rpc._method import Cardinality, Method, MethodHandler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

__all__ = ["HEALTH_CHECK", "HEALTH_LIST", "HEALTH_WATCH", "HealthService"]

HEALTH_CHECK: Final = Method(
    "/grpc.health.v1.Health/Check", Cardinality.UNARY_UNARY, HealthCheckRequest, HealthCheckResponse
)
HEALTH_LIST: Final = Method(
    "/grpc.health.v1.Health/List", Cardinality.UNARY_UNARY, HealthListRequest, HealthListResponse
)
HEALTH_WATCH: Final = Method(
    "/grpc.health.v1.Health/Watch",
    Cardinality.UNARY_STREAM,
    HealthCheckRequest,
    HealthCheckResponse,
)

#: What the protocol allows in one answer of List.
_LIST_LIMIT: Final = 100


class HealthService:
    """Tells clients and load balancers which services are ready. Serve it beside them.

    The server as a whole has the empty name and is serving until told otherwise. Call the methods in the thread of the
    server's event loop.

    :param services: full names, such as ``user.UserService``, of what is serving from the start
    """

    def __init__(self, services: Iterable[str] = ()) -> None:
        self._serving = dict.fromkeys(["", *services], True)
        self._changed = anyio.Event()
        self._closing = False

    def set(self, service: str, serving: bool) -> None:
        """Tell whether a service is ready; watchers hear of it. After :meth:`shutdown` nothing is."""
        self._serving[service] = serving and not self._closing
        self._tell()

    def shutdown(self) -> None:
        """Turn everything to NOT_SERVING for good, and end every watch after telling it so."""
        self._closing = True
        self._serving = dict.fromkeys(self._serving, False)
        self._tell()

    def __mapping__(self) -> dict[str, MethodHandler]:
        """Give the server the handler of each method."""
        return {
            HEALTH_CHECK.path: MethodHandler.unary(HEALTH_CHECK, self._check),
            HEALTH_LIST.path: MethodHandler.unary(HEALTH_LIST, self._list),
            HEALTH_WATCH.path: MethodHandler.server_stream(HEALTH_WATCH, self._watch),
        }

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _response(self, service: str) -> HealthCheckResponse:
        serving = self._serving.get(service)
        if serving is None:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        return HealthCheckResponse(status=status)

    async def _check(self, request: HealthCheckRequest) -> HealthCheckResponse:
        if request.service not in self._serving:
            raise RpcError(Status.NOT_FOUND, f"service {request.service!r} is not known here")
        return self._response(request.service)

    async def _list(self, request: HealthListRequest) -> HealthListResponse:
        if len(self._serving) > _LIST_LIMIT:
            message = f"{len(self._serving)} services are more than the {_LIST_LIMIT} that one list may name"
            raise RpcError(Status.RESOURCE_EXHAUSTED, message)
        return HealthListResponse(statuses={name: self._response(name) for name in self._serving})

    async def _watch(self, request: HealthCheckRequest) -> AsyncIterator[HealthCheckResponse]:
        sent = None
        while True:
            # The event first: a change between here and the wait sets this very one. A slow reader gets the latest
            # state only, so nothing piles up.
            changed = self._changed
            response = self._response(request.service)
            if response != sent:
                yield response
                sent = response
            elif self._closing:
                return
            else:
                await changed.wait()
