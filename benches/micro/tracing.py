"""What tracing adds to a call, beside OpenTelemetry's own API: ``python -m benches.micro.tracing [--json]``.

Each figure is what is left when the same is done without tracing in the same round.
"""

import contextvars
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from rich.console import Console
from rich.table import Table
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest

from bascule.observe import (
    OpenTelemetryTracer,
    Sampling,
    TraceContext,
    trace_variable,
    tracer_variable,
)
from bascule.rpc import CallContext, ServerTracing, call_context
from bascule.rpc._context import _current, traced
from bascule.rpc._tracing import begin_call
from bascule.testing import memory_channel
from benches.report.units import readable

#: Operations of a sample: some tens of milliseconds, thousands of times what reading the clock does.
REPEAT = 10_000

Samples = dict[str, dict[str, list[float]]]
Once = Callable[[], object]


def run(rounds: int = 7) -> Samples:
    """Answer with the seconds that tracing added to one operation: case, subject, samples."""
    samples: Samples = {}
    for case, subjects in _cases().items():
        samples[case] = {name: [] for name in subjects}
        for _, (name, (subject, without)) in itertools.product(range(rounds), subjects.items()):
            samples[case][name].append(_timed(subject) - _timed(without))
    return samples


def show(console: Console, samples: Samples) -> None:
    """Print medians."""
    table = Table("case", "subject", "added to one", title="tracing")
    for case, subjects in samples.items():
        for index, (name, each) in enumerate(subjects.items()):
            median = readable(statistics.median(each), "s")
            table.add_row("" if index else case, name, median)
        table.add_section()
    console.print(table)


def _cases() -> Mapping[str, Mapping[str, tuple[Once, Once]]]:
    parent = TraceContext.root()
    off, on = (_tracer(ratio) for ratio in (0.0, 1.0))
    said = _call({"traceparent": parent.traceparent})
    sampled = _call({"traceparent": parent._replace(sampled=True).traceparent})
    silent = _call({})
    return {
        "handled and made, not sampled": {
            "bascule": _handled(off, said, calls=1),
            "OpenTelemetry's API": _by_sdk({"traceparent": parent.traceparent}),
        },
        "handled, not sampled": {"bascule": _handled(off, said)},
        "handled, begins a trace, not sampled": {"bascule": _handled(off, silent)},
        "handled, sampled": {"bascule": _handled(on, sampled)},
    }


def _handled(tracer: OpenTelemetryTracer, call: CallContext, calls: int = 0) -> tuple[Once, Once]:
    """A call that a server handles, and so many that its handler makes."""
    around = ServerTracing(tracer)

    async def handler(request: object) -> object:
        for _ in range(calls):
            begin_call(tracer, "/package.Service/Method", None)
        return request

    async def plain(request: object) -> object:
        for _ in range(calls):
            if _current.get() is not None or trace_variable.get() is not None:
                traced(None)
        return request

    def within(once: Once) -> Once:
        def start() -> None:
            # Each call has a context of its own, as a task has.
            _current.set(call)
            once()

        return lambda: contextvars.copy_context().run(start)

    tracer_variable.set(None)
    return (
        within(lambda: _drive(around.unary(call, None, handler))),
        within(lambda: _drive(plain(None))),
    )


def _by_sdk(headers: Mapping[str, str]) -> tuple[Once, Once]:
    """The same by the SDK: a server's span, and a client's within."""
    tracer = TracerProvider(sampler=ParentBased(ALWAYS_OFF)).get_tracer("bench")

    def once() -> None:
        with (
            tracer.start_as_current_span("handled", context=extract(headers)),
            tracer.start_as_current_span("made"),
        ):
            pass

    return once, lambda: None


def _call(metadata: Mapping[str, str]) -> CallContext:
    """A call as a real server has it."""
    kept: list[CallContext] = []

    class Keeping(EchoBase):
        async def unary(self, request: EchoRequest) -> EchoReply:
            kept.append(call_context())
            return EchoReply()

    async def ask() -> None:
        async with memory_channel(Keeping()) as channel:
            await EchoStub(channel).unary(EchoRequest(), metadata=metadata)

    anyio.run(ask)
    return kept[0]


class _Nowhere(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _tracer(ratio: float) -> OpenTelemetryTracer:
    # It is not entered: spans end and go nowhere.
    return OpenTelemetryTracer("bench", exporter=_Nowhere(), sampling=Sampling(ratio))


def _drive(coroutine: Any) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("it waits for something")


def _timed(once: Once) -> float:
    # The process's own time, so that a busy machine does not count.
    begin = time.process_time()
    for _ in range(REPEAT):
        once()
    return (time.process_time() - begin) / REPEAT


if __name__ == "__main__":
    measured = run()
    if "--json" in sys.argv[1:]:
        print(json.dumps({"unit": "s", "samples": measured}, indent=1))
    else:
        show(Console(), measured)
