"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP from its own thread."""

from __future__ import annotations

import logging
import os
import threading
from random import getrandbits
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.to_thread

from bascule.errors import ConfigurationError
from bascule.observe._sampling import Sampling
from bascule.observe._trace_context import TraceContext, current_trace, trace_variable
from bascule.observe._tracing import SpanKind, recorded_first

try:
    from opentelemetry import context as otel_context
    from opentelemetry import trace as otel
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
except ImportError as missing:
    raise ConfigurationError(
        "tracing needs OpenTelemetry's SDK: pip install 'bascule[otel]'"
    ) from missing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextvars import Token
    from types import TracebackType

    from opentelemetry.sdk.trace.export import SpanExporter

    from bascule.observe._tracing import Attributes, Span

__all__ = ["OpenTelemetryTracer"]

_logger = logging.getLogger("bascule.observe")

_SAMPLED = otel.TraceFlags(otel.TraceFlags.SAMPLED)
_NOT_SAMPLED = otel.TraceFlags(otel.TraceFlags.DEFAULT)
_KINDS = [otel.SpanKind(kind.value) for kind in SpanKind]
_FROM_OUTSIDE = frozenset({SpanKind.SERVER, SpanKind.CONSUMER})
_NOTHING_YET = otel_context.Context()
_LOWER_HALF = 2**64 - 1


class OpenTelemetryTracer:
    """Sends spans to a collector, as the ``OTEL_`` variables of OpenTelemetry say.

    Use it with ``async with``; leaving it sends what is left, for at most ``grace`` seconds, while the
    event loop goes on. Spans that are opened by OpenTelemetry's own API around and within those of
    bascule are their parents and children.

    :param service: ``service.name``, unless ``OTEL_SERVICE_NAME`` or ``OTEL_RESOURCE_ATTRIBUTES`` says
        another
    :param exporter: where spans go; None for what ``OTEL_TRACES_EXPORTER`` names: ``otlp`` (to
        ``OTEL_EXPORTER_OTLP_ENDPOINT``, by HTTP), ``console`` or ``none``
    :param sampling: which traces are recorded; None for what ``OTEL_TRACES_SAMPLER`` says
    :param grace: seconds to send what is left at the end
    :param most_waiting: spans that may wait to be sent, beyond which they are lost; None for what
        ``OTEL_BSP_MAX_QUEUE_SIZE`` says, or 2,048
    :raises ConfigurationError: if OpenTelemetry's SDK is not installed, or a variable asks for what this
        cannot do
    """

    def __init__(
        self,
        service: str,
        *,
        exporter: SpanExporter | None = None,
        sampling: Sampling | None = None,
        grace: float = 5.0,
        most_waiting: int | None = None,
    ) -> None:
        self._sampling = sampling or Sampling.read(os.environ)
        self._exporter = _exporter(os.environ) if exporter is None else exporter
        self._grace = grace
        self._most_waiting = most_waiting
        self._processor: BatchSpanProcessor | None = None
        resource = Resource.create()
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": service}))
        self._build(resource)

    def _build(self, resource: Resource) -> None:
        self._ids = _Ids()
        self._resource = resource
        self._provider = TracerProvider(
            sampler=_SameDecision(self._sampling),
            resource=resource,
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        self._start_span = self._provider.get_tracer("bascule").start_span
        self._bound = self._sampling.bound
        self.by_parent = self._sampling.by_parent

    @property
    def service(self) -> str:
        """The name of the service whose spans these are."""
        return str(self._resource.attributes["service.name"])

    async def __aenter__(self) -> Self:
        if self._exporter is not None:
            self._processor = BatchSpanProcessor(self._exporter, self._most_waiting)
            self._provider.add_span_processor(self._processor)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        processor, self._processor = self._processor, None
        if processor is None or self._exporter is None:
            return
        if not await self._in_time(processor.shutdown):
            _logger.warning(
                "spans of %s could not be sent within %g s and are lost", self.service, self._grace
            )
            # What waits to send them again gives up.
            self._exporter.shutdown()

    async def flush(self) -> bool:
        """Send what is there now; tell whether that was done within ``grace`` seconds."""
        processor = self._processor
        return processor is None or await self._in_time(processor.force_flush)

    async def _in_time(self, work: Any) -> bool:
        """Run what blocks in a thread, and wait for it for so long."""
        with anyio.move_on_after(self._grace, shield=True):
            limiter = anyio.CapacityLimiter(1)
            await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=limiter)
            return True
        return False

    def named(self, service: str) -> OpenTelemetryTracer:
        """Give a tracer of another service in the same process, which sends through this one.

        Use it while this one is entered; it needs no ``async with`` of its own.
        """
        other = object.__new__(OpenTelemetryTracer)
        other._sampling, other._exporter, other._grace = self._sampling, None, self._grace
        other._processor = None
        other._build(self._resource.merge(Resource({"service.name": service})))
        if self._processor is not None:
            other._provider.add_span_processor(self._processor)
        return other

    def install(self) -> None:
        """Have OpenTelemetry's own API record here too, in all of the process, if nothing else does yet."""
        if isinstance(otel.get_tracer_provider(), otel.ProxyTracerProvider):
            otel.set_tracer_provider(self._provider)

    def current(self) -> TraceContext | None:
        """Where the work in progress stands. See :class:`Tracer`."""
        here = current_trace()
        if here is not None and not here.sampled:
            # Nothing that could be opened within it is recorded.
            return here
        around = otel.get_current_span()
        if around is otel.INVALID_SPAN:
            return here
        return _read(around.get_span_context()) or here

    def start(
        self,
        name: str,
        parent: TraceContext | None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        *,
        links: Sequence[TraceContext] = (),
        trace_id: str | None = None,
    ) -> Span:
        """Begin a span. See :class:`Tracer`."""
        if parent is None:
            number = getrandbits(128) or 1 if trace_id is None else int(trace_id, 16)
            if number & _LOWER_HALF >= self._bound:
                return _Unrecorded(
                    TraceContext(trace_id or f"{number:032x}", f"{getrandbits(64) or 1:016x}")
                )
            self._ids.next.trace_id = number
            around = _NOTHING_YET
        else:
            if not (
                parent.sampled if self.by_parent else int(parent.trace_id[16:], 16) < self._bound
            ):
                return _Unrecorded(parent._replace(sampled=False) if parent.sampled else parent)
            around = _within(parent, remote=kind in _FROM_OUTSIDE)
        started = self._start_span(
            name,
            around,
            _KINDS[kind],
            attributes,
            [otel.Link(_written(link)) for link in links],
        )
        context = _read(started.get_span_context())
        if context is None or not started.is_recording():
            # The SDK is switched off: what others record goes on as if this service were not there.
            return _Unrecorded(parent or TraceContext.root())
        return _Recorded(started, context)

    def event(self, name: str, attributes: Attributes) -> None:
        """Add something to the span that was entered last. See :class:`Tracer`."""
        otel.get_current_span().add_event(name, attributes)


class _Unrecorded:
    """A span of a trace that is not sampled: what its parts have to know of it, and no more."""

    __slots__ = ("_token", "context")

    recording = False

    def __init__(self, context: TraceContext) -> None:
        self.context = context
        self._token: Token[TraceContext | None] | None = None

    def set(self, attributes: Attributes) -> None:
        pass

    def rename(self, name: str) -> None:
        pass

    def event(self, name: str, attributes: Attributes) -> None:
        pass

    def enter(self) -> None:
        # Spans by OpenTelemetry's API within are not recorded either: see the sampler.
        self._token = trace_variable.set(self.context)

    def end(self, failure: BaseException | str | None = None) -> None:
        if self._token is not None:
            trace_variable.reset(self._token)


class _Recorded:
    __slots__ = ("_span", "_tokens", "context")

    recording = True

    def __init__(self, started: otel.Span, context: TraceContext) -> None:
        self._span = started
        self._tokens: tuple[Token[TraceContext | None], Any] | None = None
        self.context = context

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def event(self, name: str, attributes: Attributes) -> None:
        self._span.add_event(name, attributes)

    def enter(self) -> None:
        around = otel.set_span_in_context(self._span)
        self._tokens = trace_variable.set(self.context), otel_context.attach(around)

    def end(self, failure: BaseException | str | None = None) -> None:
        if self._tokens is not None:
            trace_variable.reset(self._tokens[0])
            otel_context.detach(self._tokens[1])
        if failure is not None:
            if isinstance(failure, BaseException):
                self._span.set_attribute("error.type", type(failure).__qualname__)
                described = type(failure).__name__
                if recorded_first(failure):
                    self._span.record_exception(failure)
                    described = f"{described}: {failure}"
                failure = described
            self._span.set_status(otel.StatusCode.ERROR, failure)
        self._span.end()


class _Ids(RandomIdGenerator):
    """Gives a trace the id by which it was chosen."""

    def __init__(self) -> None:
        self.next = threading.local()

    def generate_trace_id(self) -> int:
        chosen: int | None = self.next.__dict__.pop("trace_id", None)
        return chosen or getrandbits(128) or 1

    def is_trace_id_random(self) -> bool:
        return True


class _SameDecision(Sampler):
    """For the SDK, which asks again: and for spans by its own API, which only it asks about."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._bound = sampling.bound

    def should_sample(
        self,
        parent_context: otel_context.Context | None,
        trace_id: int,
        name: str,
        kind: otel.SpanKind | None = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: otel.TraceState | None = None,
    ) -> SamplingResult:
        parent = otel.get_current_span(parent_context).get_span_context()
        here = None if parent_context is _NOTHING_YET else current_trace()
        if parent.is_valid and self._sampling.by_parent:
            chosen = parent.trace_flags.sampled
        elif here is not None and self._sampling.by_parent:
            chosen = here.sampled
        else:
            chosen = trace_id & _LOWER_HALF < self._bound
        decision = Decision.RECORD_AND_SAMPLE if chosen else Decision.DROP
        return SamplingResult(decision, attributes, parent.trace_state)

    def get_description(self) -> str:
        return repr(self._sampling)


def _read(context: otel.SpanContext) -> TraceContext | None:
    if not context.is_valid:
        return None
    return TraceContext(
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
        context.trace_flags.sampled,
        context.trace_state.to_header() if context.trace_state else "",
    )


def _written(trace: TraceContext, *, remote: bool = True) -> otel.SpanContext:
    return otel.SpanContext(
        int(trace.trace_id, 16),
        int(trace.span_id, 16),
        is_remote=remote,
        trace_flags=_SAMPLED if trace.sampled else _NOT_SAMPLED,
        trace_state=otel.TraceState.from_header([trace.state]) if trace.state else None,
    )


def _within(parent: TraceContext, *, remote: bool = True) -> otel_context.Context:
    around = otel.NonRecordingSpan(_written(parent, remote=remote))
    return otel.set_span_in_context(around, _NOTHING_YET)


def _exporter(environment: Mapping[str, str]) -> SpanExporter | None:
    """:raises ConfigurationError: if the variables ask for what is not here"""
    name = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    if name == "none" or environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if name == "console":
        return ConsoleSpanExporter()
    if name != "otlp":
        raise ConfigurationError(f"OTEL_TRACES_EXPORTER={name}: spans go to otlp, console or none")
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environment.get(variable, "").strip().lower()
        if protocol == "http/protobuf":
            break
        if protocol:
            raise ConfigurationError(
                f"{variable}={protocol}: spans are sent by http/protobuf, which collectors take at port 4318"
            )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
