"""Spans around calls, for whatever records them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from grpclib.exceptions import GRPCError

from bascule.errors import Status
from bascule.observe import current_trace, trace_variable
from bascule.rpc._context import ClientInterceptor, ServerInterceptor, _current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from bascule.observe import Span, TraceContext, Tracer
    from bascule.rpc._context import CallContext, ClientCallContext

__all__ = ["ClientTracing", "ServerTracing"]


class ServerTracing(ServerInterceptor):
    """A span for every call that is handled: a child of the client's, and the parent of the calls
    that the handler makes. Handlers write no tracing code.

    :param tracer: where the spans go
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def unary(
        self, call: CallContext, request: Any, proceed: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        with self._around(call):
            return await proceed(request)

    async def stream(
        self, call: CallContext, stream: Any, proceed: Callable[[Any], Awaitable[None]]
    ) -> None:
        with self._around(call):
            await proceed(stream)

    @contextmanager
    def _around(self, call: CallContext) -> Iterator[None]:
        attributes = {**_names(call.method), "client.address": call.peer}
        span = self._tracer.start(call.method[1:], call.trace, attributes)
        token = trace_variable.set(span.context)
        try:
            with _ended(span):
                yield
        finally:
            trace_variable.reset(token)


class ClientTracing(ClientInterceptor):
    """A span for every call of a channel: a child of the span or the handled call around it, and the
    parent of the server's.

    :param tracer: where the spans go
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def unary(
        self, call: ClientCallContext, request: Any, proceed: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        with self._around(call):
            return await proceed(request)

    def stream(self, call: ClientCallContext) -> AbstractAsyncContextManager[None]:
        return self._around_stream(call)

    @asynccontextmanager
    async def _around_stream(self, call: ClientCallContext) -> AsyncIterator[None]:
        with self._around(call):
            yield

    @contextmanager
    def _around(self, call: ClientCallContext) -> Iterator[None]:
        span = self._tracer.start(call.method[1:], _parent(), _names(call.method))
        call.metadata["traceparent"] = span.context.traceparent
        if span.context.state:
            call.metadata["tracestate"] = span.context.state
        with _ended(span):
            yield


def _parent() -> TraceContext | None:
    """What a call made here is a child of."""
    handled = _current.get()
    return current_trace() or (None if handled is None else handled.trace)


def _names(path: str) -> dict[str, str | int]:
    # OpenTelemetry's semantic conventions for gRPC.
    _, service, method = path.split("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}


@contextmanager
def _ended(span: Span) -> Iterator[None]:
    """End the span with the status, whatever happens."""
    status = Status.CANCELLED
    error: BaseException | None = None
    try:
        yield
        status = Status.OK
    except GRPCError as failed:
        status, error = failed.status, failed
        raise
    except Exception as failed:
        status, error = Status.UNKNOWN, failed
        raise
    except BaseException as cancelled:
        error = cancelled
        raise
    finally:
        span.end({"rpc.grpc.status_code": status.value}, error)
