"""The tracer on OpenTelemetry's SDK: what switches it on, what it sends, and how it ends."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import anyio
import pytest
from opentelemetry import trace as otel
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from tests.tracing import context_of, exceptions_of, is_child, recorded, status_of

from bascule.errors import ConfigurationError
from bascule.observe import (
    OpenTelemetryTracer,
    Sampling,
    TraceContext,
    add_event,
    current_trace,
    current_tracer,
    open_tracing,
    span,
    trace_here,
    trace_variable,
    tracing_wanted,
)

pytestmark = pytest.mark.anyio

COLLECTOR = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "order"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": COLLECTOR}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, False),
        ({"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, True),
    ],
)
def test_it_is_on_where_the_variables_name_somewhere_for_spans_to_go(
    variables: dict[str, str], wanted: bool
) -> None:
    assert tracing_wanted(variables) == wanted


async def test_without_variables_nothing_is_recorded() -> None:
    async with open_tracing("order") as tracer:
        assert tracer is None
        assert current_tracer() is None
        with span("work") as around:
            assert not around.recording
            assert current_trace() is None


async def test_a_service_is_named_by_the_variables_or_else_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    assert OpenTelemetryTracer("order").service == "order"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=from-attributes,team=a")
    assert OpenTelemetryTracer("order").service == "from-attributes"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-name")
    tracer = OpenTelemetryTracer("order")
    assert tracer.service == "from-name"
    assert tracer.named("payment").service == "payment"


async def test_one_that_is_switched_off_leaves_traces_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    parent = TraceContext.root(sampled=True)
    async with OpenTelemetryTracer("order") as tracer:
        for context in (parent, None):
            started = tracer.start("x", context)
            assert not started.recording
            assert started.context.sampled == (context is not None)
            started.end()
        assert tracer.start("x", parent).context == parent


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
    ],
)
async def test_what_cannot_be_done_is_said(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", COLLECTOR)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=value):
        async with open_tracing("order"):
            pass


async def test_spans_of_both_apis_are_in_one_tree() -> None:
    async with recorded() as spans:
        user = spans.tracer._provider.get_tracer("of the user")
        with span("outer", {"n": 1}) as outer:
            assert current_trace() == outer.context == trace_here()
            with user.start_as_current_span("theirs"):
                carrier: dict[str, str] = {}
                inject(carrier)
                here = trace_here()
                assert here is not None
                assert carrier["traceparent"].startswith(here.traceparent[:52])
                with span("inner"):
                    add_event("seen", {"by": "inner"})
            add_event("seen", {"by": "outer"})
        inner, theirs, outside = await spans.all()
    assert is_child(inner, theirs)
    assert is_child(theirs, outside)
    for each in (inner, outside):
        assert [(event.attributes or {})["by"] for event in each.events] == [each.name]
    assert otel.get_current_span() is otel.INVALID_SPAN


async def test_nothing_is_recorded_within_what_is_not_sampled_by_either_api() -> None:
    async with recorded(Sampling(0.0)) as spans:
        user = spans.tracer._provider.get_tracer("of the user")
        with span("outer") as outer:
            assert not outer.recording
            here = current_trace()
            assert here is not None
            assert not here.sampled
            with span("inner"), user.start_as_current_span("theirs"):
                assert trace_here() == here
        assert current_trace() is None
        # One that others have chosen is, though.
        token = trace_variable.set(TraceContext.root(sampled=True))
        with span("chosen"), user.start_as_current_span("theirs"):
            pass
        trace_variable.reset(token)
        assert [each.name for each in await spans.all()] == ["theirs", "chosen"]


async def test_links_and_the_vendors_state_are_kept() -> None:
    parent = TraceContext.root(sampled=True)._replace(state="vendor=1")
    other = TraceContext.root(sampled=True)
    async with recorded() as spans:
        started = spans.tracer.start("x", parent, links=[other])
        assert started.context.state == "vendor=1"
        assert (started.context.trace_id, started.context.sampled) == (parent.trace_id, True)
        started.end()
        (ended,) = await spans.all()
    (link,) = ended.links
    assert f"{link.context.trace_id:032x}" == other.trace_id
    assert context_of(ended).span_id == started.context.span_id


async def test_an_exception_is_recorded_by_the_innermost_span_alone() -> None:
    async with recorded() as spans:
        with pytest.raises(ExceptionGroup):
            with span("outer"):
                try:
                    with span("inner"):
                        raise KeyError("a")
                except KeyError as error:
                    raise ExceptionGroup("some", [error]) from None
        inner, outer = await spans.all()
    assert (exceptions_of(inner), exceptions_of(outer)) == (["KeyError"], [])
    assert status_of(inner) == status_of(outer) == "ERROR"


async def test_a_cancelled_span_has_not_failed() -> None:
    async with recorded() as spans:
        with anyio.CancelScope() as scope, span("work"):
            scope.cancel()
            await anyio.lowlevel.checkpoint()
        assert status_of(await spans.one("work")) == "UNSET"


class Stuck(SpanExporter):
    """A collector that takes for ever, until it is shut down."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.begun.set()
        self.over.wait(60)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.over.set()


async def test_the_loop_goes_on_while_what_is_left_is_sent() -> None:
    exporter = Stuck()

    async def let_go() -> None:
        while not exporter.begun.is_set():  # noqa: ASYNC110 (another thread sets it)
            await anyio.sleep(0.005)
        exporter.over.set()

    with anyio.fail_after(50):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(let_go)
            async with OpenTelemetryTracer("test", exporter=exporter, grace=60.0) as tracer:
                tracer.start("late", None).end()


async def test_what_cannot_be_sent_is_given_up_in_time(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Stuck()
    begun = time.monotonic()
    async with OpenTelemetryTracer("test", exporter=exporter, grace=0.2) as tracer:
        tracer.start("lost", None).end()
    assert time.monotonic() - begun < 50.0
    assert exporter.over.is_set()
    assert "could not be sent within 0.2 s" in caplog.text


async def test_leaving_it_cancelled_sends_what_is_left_all_the_same() -> None:
    with anyio.CancelScope() as scope:
        async with recorded() as spans:
            with span("last"):
                pass
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert [each.name for each in spans.exporter.get_finished_spans()] == ["last"]


async def test_a_collector_that_is_away_disturbs_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", COLLECTOR)
    async with open_tracing("order") as tracer:
        assert isinstance(tracer, OpenTelemetryTracer)
        tracer._grace = 0.2
        with caplog.at_level(logging.CRITICAL), span("work"):
            pass
    assert current_tracer() is None


def test_it_can_be_what_the_api_of_opentelemetry_uses_in_all_of_the_process() -> None:
    """In a process of its own: it cannot be taken back."""
    program = """
import anyio
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from bascule.observe import OpenTelemetryTracer

async def main():
    kept = InMemorySpanExporter()
    async with OpenTelemetryTracer("test", exporter=kept) as tracer:
        tracer.install()
        trace.get_tracer("of the user").start_span("theirs").end()
    print([each.name for each in kept.get_finished_spans()])

anyio.run(main)
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("['theirs']\n", "")
