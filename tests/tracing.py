"""Spans that were recorded, for tests: by OpenTelemetry's SDK, into memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bascule.observe import OpenTelemetryTracer, Sampling, TraceContext, traced_by


class Spans:
    """What a tracer has recorded.

    :ivar tracer: the tracer, which is that of the work inside of :func:`recorded`
    """

    def __init__(self, sampling: Sampling | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer = OpenTelemetryTracer("test", exporter=self.exporter, sampling=sampling)

    async def all(self) -> Sequence[ReadableSpan]:
        """All spans that have ended, in this order."""
        assert await self.tracer.flush()
        return self.exporter.get_finished_spans()

    async def until(self, count: int) -> Sequence[ReadableSpan]:
        """All spans, once there are so many."""
        with anyio.fail_after(30):
            while len(ended := await self.all()) < count:  # noqa: ASYNC110 (nobody tells)
                await anyio.sleep(0.005)
        return ended

    async def named(self, name: str) -> list[ReadableSpan]:
        """Those with a name."""
        return [each for each in await self.all() if each.name == name]

    async def one(self, name: str) -> ReadableSpan:
        """The only one with a name."""
        (span,) = await self.named(name)
        return span


@asynccontextmanager
async def recorded(sampling: Sampling | None = None) -> AsyncIterator[Spans]:
    """Record what is done within."""
    spans = Spans(sampling or Sampling())
    async with spans.tracer:
        with traced_by(spans.tracer):
            yield spans


def context_of(span: ReadableSpan) -> TraceContext:
    """Where a span stands."""
    own = span.get_span_context()
    assert own is not None
    return TraceContext(
        f"{own.trace_id:032x}", f"{own.span_id:016x}", sampled=own.trace_flags.sampled
    )


def is_child(child: ReadableSpan, parent: ReadableSpan) -> bool:
    """Whether a span is another's child."""
    own = parent.get_span_context()
    return (
        child.parent is not None
        and own is not None
        and (child.parent.trace_id, child.parent.span_id) == (own.trace_id, own.span_id)
    )


def status_of(span: ReadableSpan) -> str:
    """``UNSET``, ``OK`` or ``ERROR``."""
    return span.status.status_code.name


def exceptions_of(span: ReadableSpan) -> list[str]:
    """The types of the exceptions that it has recorded."""
    return [
        str((event.attributes or {})["exception.type"])
        for event in span.events
        if event.name == "exception"
    ]
