"""Metrics, tracing and logging. Every exporter is imported by its first use, not with this package."""

from typing import TYPE_CHECKING

from bascule.observe._breaker_metrics import BreakerCounts as BreakerCounts
from bascule.observe._breaker_metrics import BreakerWindow as BreakerWindow
from bascule.observe._call_metrics import CallStats as CallStats
from bascule.observe._discovery_metrics import DiscoveryRow as DiscoveryRow
from bascule.observe._discovery_metrics import DiscoveryStats as DiscoveryStats
from bascule.observe._event_metrics import EventRow as EventRow
from bascule.observe._event_metrics import EventStats as EventStats
from bascule.observe._exposition import Exposition as Exposition
from bascule.observe._http_metrics import HttpRow as HttpRow
from bascule.observe._http_metrics import HttpStats as HttpStats
from bascule.observe._logging import configure_logging as configure_logging
from bascule.observe._logging import escape as escape
from bascule.observe._metrics import Metrics as Metrics
from bascule.observe._metrics import MetricSources as MetricSources
from bascule.observe._process_metrics import CertificateState as CertificateState
from bascule.observe._process_metrics import thread_states as thread_states
from bascule.observe._samples import Sample as Sample
from bascule.observe._sampling import Sampling as Sampling
from bascule.observe._server_metrics import ServerCounts as ServerCounts
from bascule.observe._sharing import shared_metrics as shared_metrics
from bascule.observe._trace_context import TraceContext as TraceContext
from bascule.observe._trace_context import current_trace as current_trace
from bascule.observe._trace_context import trace_variable as trace_variable
from bascule.observe._tracing import Attributes as Attributes
from bascule.observe._tracing import AttributeValue as AttributeValue
from bascule.observe._tracing import Span as Span
from bascule.observe._tracing import SpanKind as SpanKind
from bascule.observe._tracing import Tracer as Tracer
from bascule.observe._tracing import add_event as add_event
from bascule.observe._tracing import current_tracer as current_tracer
from bascule.observe._tracing import span as span
from bascule.observe._tracing import trace_here as trace_here
from bascule.observe._tracing import traced_by as traced_by
from bascule.observe._tracing import tracer_variable as tracer_variable
from bascule.observe._tracing_switch import open_tracing as open_tracing
from bascule.observe._tracing_switch import tracing_wanted as tracing_wanted

if TYPE_CHECKING:
    from bascule.observe._open_telemetry import OpenTelemetryTracer as OpenTelemetryTracer


def __getattr__(name: str) -> object:
    if name == "OpenTelemetryTracer":
        from bascule.observe._open_telemetry import OpenTelemetryTracer

        return OpenTelemetryTracer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
