"""Spans around calls, for whatever records them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from grpclib.exceptions import GRPCError

from bascule.errors import DecodeError, RejectedError, Status
from bascule.observe import SpanKind, TraceContext, trace_variable, tracer_variable
from bascule.observe._tracing import recorded_first
from bascule.rpc._context import ClientInterceptor, ServerInterceptor, _current, with_trace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from bascule.observe import Attributes, Span, Tracer
    from bascule.rpc._context import CallContext, ClientCallContext, MetadataValue

__all__ = ["ClientTracing", "ServerTracing"]

#: What a server is at fault for; of all other statuses the client is.
#: Source: OpenTelemetry, "Semantic conventions for gRPC", span status.
_FAULTS = frozenset(
    {
        Status.UNKNOWN,
        Status.DEADLINE_EXCEEDED,
        Status.UNIMPLEMENTED,
        Status.INTERNAL,
        Status.UNAVAILABLE,
        Status.DATA_LOSS,
    }
)

_OK: Attributes = {"rpc.grpc.status_code": 0}


class ServerTracing(ServerInterceptor):
    """A span for every call that is handled: a child of the client's, and the parent of all that the
    handler does. Handlers write no tracing code.

    A server that is made where there is a tracer, such as that of an app, has one by itself.

    :param tracer: where the spans go
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._by_parent = tracer.by_parent

    async def unary(
        self, call: CallContext, request: Any, proceed: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        span = self._begin(call)
        if span is None:
            return await proceed(request)
        try:
            reply = await proceed(request)
        except BaseException as error:
            _end_handled(span, call, error)
            raise
        span.set(_OK)
        span.end()
        return reply

    async def stream(
        self, call: CallContext, stream: Any, proceed: Callable[[Any], Awaitable[None]]
    ) -> None:
        span = self._begin(call)
        try:
            await proceed(stream)
        except BaseException as error:
            if span is not None:
                _end_handled(span, call, error)
            raise
        if span is not None:
            span.set(_OK)
            span.end()

    def _begin(self, call: CallContext) -> Span | None:
        """Begin the span of a call; None if it is not recorded.

        A call has a context of its own: what is set here need not be taken back.
        """
        tracer = self._tracer
        tracer_variable.set(tracer)
        parent = call.trace
        if parent is not None and not parent.sampled and self._by_parent:
            trace_variable.set(parent)
            return None
        span = tracer.start(call.method[1:], parent, SpanKind.SERVER)
        span.enter()
        if not span.recording:
            return None
        span.set(names_of(call.method) | _address("client", call.peer))
        return span


class ClientTracing(ClientInterceptor):
    """A span for every call of a channel: a child of the span or the handled call around it, and the
    parent of the server's.

    Where there is a tracer, such as in an app, every channel has one by itself.

    :param tracer: where the spans go
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def unary(
        self, call: ClientCallContext, request: Any, proceed: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        span = self._begin(call)
        if span is None:
            return await proceed(request)
        span.enter()
        try:
            reply = await proceed(request)
        except BaseException as error:
            end_call(span, call.peer, error)
            raise
        end_call(span, call.peer, None)
        return reply

    def stream(self, call: ClientCallContext) -> AbstractAsyncContextManager[None]:
        return self._around_stream(call)

    @asynccontextmanager
    async def _around_stream(self, call: ClientCallContext) -> AsyncIterator[None]:
        span = self._begin(call)
        # It is not entered: one task may open a stream, and others go on with it.
        call.span = span
        try:
            yield
        except BaseException as error:
            if span is not None:
                end_call(span, call.peer, error)
            raise
        if span is not None:
            end_call(span, call.peer, None)

    def _begin(self, call: ClientCallContext) -> Span | None:
        span, headers = begin_call(self._tracer, call.method, call.pairs())
        if span is not None or headers is not None:
            for name in ("traceparent", "tracestate"):
                call.metadata.popall(name, None)
            call.metadata.extend(
                each for each in headers or () if each[0] in {"traceparent", "tracestate"}
            )
        return span


def begin_call(
    tracer: Tracer, path: str, headers: list[tuple[str, MetadataValue]] | None
) -> tuple[Span | None, list[tuple[str, MetadataValue]] | None]:
    """Begin the span of a call, and give its metadata with the trace in it; None if it is not recorded."""
    parent = tracer.current()
    if parent is None:
        handled = _current.get()
        parent = _said_in(headers) if handled is None else handled.trace
    if parent is not None and not parent.sampled:
        return None, with_trace(headers, parent)
    span = tracer.start(path[1:], parent, SpanKind.CLIENT)
    headers = with_trace(headers, span.context)
    if not span.recording:
        return None, headers
    span.set(names_of(path))
    return span, headers


def _said_in(headers: list[tuple[str, MetadataValue]] | None) -> TraceContext | None:
    """The trace that the caller has named by hand."""
    said = dict(headers or ())
    parent, state = said.get("traceparent"), said.get("tracestate", "")
    if isinstance(parent, str) and isinstance(state, str):
        return TraceContext.parse(parent, state)
    return None


def end_call(span: Span, peer: str | None, error: BaseException | None) -> None:
    """End the span of a call by the status that it ended with: all but OK are failures to a client."""
    if peer is not None:
        span.set(_address("server", peer))
    if error is None:
        span.set(_OK)
        span.end()
    elif isinstance(error, GRPCError):
        span.set({"rpc.grpc.status_code": error.status.value, "error.type": error.status.name})
        # The server has recorded what was raised there: here it is an answer.
        recorded_first(error)
        span.end(_said(error))
    elif isinstance(error, Exception):
        span.end(error)
    else:
        span.set({"rpc.grpc.status_code": Status.CANCELLED.value})
        span.end()


def _end_handled(span: Span, call: CallContext, error: BaseException) -> None:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    status = _status_of(error, call)
    span.set({"rpc.grpc.status_code": status.value})
    if status not in _FAULTS:
        return span.end()
    if isinstance(error, Exception):
        return span.end(error)
    return span.end(status.name)


def _status_of(error: BaseException, call: CallContext) -> Status:
    """What the client is told; see :meth:`ServerCall.end`."""
    if isinstance(error, GRPCError):
        return _known(error)
    if isinstance(error, RejectedError):
        return Status.UNAVAILABLE
    if isinstance(error, DecodeError):
        return Status.INTERNAL
    if isinstance(error, Exception):
        return Status.UNKNOWN
    said = getattr(call, "error", None)
    if isinstance(said, GRPCError):
        return _known(said)
    late = call.deadline <= anyio.current_time()
    return Status.DEADLINE_EXCEEDED if late else Status.CANCELLED


def _known(error: GRPCError) -> Status:
    try:
        return Status(error.status)
    except ValueError:  # a handler may raise anything
        return Status.UNKNOWN


def _said(error: GRPCError) -> str:
    return f"{error.status.name}: {error.message}" if error.message else error.status.name


def names_of(path: str) -> dict[str, str | int]:
    """Which method it is. Source: OpenTelemetry's semantic conventions for gRPC."""
    _, service, method = path.split("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}


def _address(side: str, peer: str) -> dict[str, str | int]:
    host, colon, port = peer.rpartition(":")
    if colon and port.isdigit():
        return {f"{side}.address": host.strip("[]"), f"{side}.port": int(port)}
    return {f"{side}.address": peer}
