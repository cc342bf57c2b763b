"""The trace that an event belongs to: taken from the work that publishes it, given to its handlers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bascule.observe import (
    SpanKind,
    TraceContext,
    current_tracer,
    trace_here,
    trace_variable,
    traced_by,
)
from bascule.rpc._context import _current

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bascule.events._event import Event
    from bascule.observe import AttributeValue, Tracer

__all__ = ["handling", "made_here"]


def made_here(topic: str, event_id: str) -> TraceContext | None:
    """Give the trace of an event that the work in progress makes: in a span of its own if it is recorded."""
    here = trace_here()
    if here is None and (handled := _current.get()) is not None:
        here = handled.trace
    tracer = current_tracer()
    if tracer is None or here is None or not here.sampled:
        return here
    span = tracer.start(
        f"create {topic}",
        here,
        SpanKind.PRODUCER,
        {
            "messaging.operation.type": "create",
            "messaging.destination.name": topic,
            "messaging.message.id": event_id,
        },
    )
    span.end()
    return span.context


@contextmanager
def handling(
    events: Sequence[Event[Any]], subscriber: str, tracer: Tracer | None
) -> Iterator[None]:
    """Put what handles events into their trace; in a span, if there is somebody to record it.

    One event's span continues the trace of who made it. Several, which may belong to as many traces,
    are handled in a trace of its own with a link to each.
    """
    parents = [_parent(event) for event in events]
    parent = parents[0] if len(events) == 1 else None
    tracer = tracer or current_tracer()
    if tracer is None:
        token = trace_variable.set(parent)
        try:
            yield
        finally:
            trace_variable.reset(token)
        return
    topic = events[0].topic.name
    # OpenTelemetry's semantic conventions for messaging.
    attributes: dict[str, AttributeValue] = {
        "messaging.operation.type": "process",
        "messaging.destination.name": topic,
        "messaging.consumer.group.name": subscriber,
    }
    if len(events) == 1:
        attributes["messaging.message.id"] = events[0].id
    else:
        attributes["messaging.batch.message_count"] = len(events)
    span = tracer.start(
        f"process {topic}",
        parent,
        SpanKind.CONSUMER,
        attributes,
        links=[] if len(events) == 1 else [each for each in parents if each and each.sampled],
    )
    with traced_by(tracer):
        span.enter()
        try:
            yield
        except BaseException as raised:
            span.end(raised if isinstance(raised, Exception) else None)
            raise
        span.end()


def _parent(event: Event[Any]) -> TraceContext | None:
    if event.traceparent is None:
        return None
    return TraceContext.parse(event.traceparent, event.tracestate)
