"""The trace that an event belongs to: taken from the work that publishes it, given to its handlers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bascule.observe import TraceContext, current_trace, trace_variable
from bascule.rpc._context import _current

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bascule.events._event import Event
    from bascule.observe import Tracer

__all__ = ["handling", "trace_here"]


def trace_here() -> TraceContext | None:
    """The trace of the work in progress: a span's around it, or else that of the call being handled."""
    handled = _current.get()
    return current_trace() or (None if handled is None else handled.trace)


@contextmanager
def handling(event: Event[Any], subscriber: str, tracer: Tracer | None) -> Iterator[None]:
    """Put what handles an event into its trace; in a span, if there is somebody to record it."""
    parent = None
    if event.traceparent is not None:
        parent = TraceContext.parse(event.traceparent, event.tracestate)
    if tracer is None:
        token = trace_variable.set(parent)
        try:
            yield
        finally:
            trace_variable.reset(token)
        return
    # OpenTelemetry's semantic conventions for messaging.
    attributes: dict[str, str | int] = {
        "messaging.operation.type": "process",
        "messaging.destination.name": event.topic.name,
        "messaging.consumer.group.name": subscriber,
        "messaging.message.id": event.id,
    }
    span = tracer.start(f"process {event.topic.name}", parent, attributes)
    token = trace_variable.set(span.context)
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        trace_variable.reset(token)
        span.end({}, error)
