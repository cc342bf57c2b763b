"""The trace in which a run began: kept in the note of its first record, for whoever goes on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bascule.observe import TraceContext, current_tracer, trace_here

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bascule.saga._records import SagaRun

__all__ = ["begun_in", "trace_note"]

_PREFIX = "traceparent "


def trace_note() -> str | None:
    """Give what to note of the trace of the work in progress; None if nobody records it."""
    if current_tracer() is None:
        return None
    here = trace_here()
    return None if here is None or not here.sampled else _PREFIX + here.traceparent


def begun_in(run: SagaRun) -> Sequence[TraceContext]:
    """Give the trace in which a run began, if that was noted."""
    if current_tracer() is None or not run.records:
        return ()
    note = run.records[0].note or ""
    began = TraceContext.parse(note.removeprefix(_PREFIX))
    return () if began is None else (began,)
