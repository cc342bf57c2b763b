"""Whether a process records spans, as the standard variables say."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bascule.observe._tracing import traced_by

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from bascule.observe._tracing import Tracer

__all__ = ["open_tracing", "tracing_wanted"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def tracing_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the ``OTEL_`` variables name somewhere for spans to go.

    That is an endpoint or an exporter, and not ``OTEL_SDK_DISABLED=true``. Without any of them nothing
    is recorded: no collector is looked for at an address that nobody has named.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return exporter != "none"
    return any(environment.get(name, "").strip() for name in _ENDPOINTS)


@asynccontextmanager
async def open_tracing(service: str, *, install: bool = False) -> AsyncIterator[Tracer | None]:
    """Record the spans of all that is done, started and opened within, if the ``OTEL_`` variables ask for it.

    Leaving it sends what is left, for 5 seconds at most.

    :param service: its name, unless the variables say another
    :param install: have OpenTelemetry's own API record to the same place, in all of the process
    :raises ConfigurationError: if they ask for what is not there, or the SDK is not installed
    """
    if not tracing_wanted():
        yield None
        return
    from bascule.observe._open_telemetry import OpenTelemetryTracer

    async with OpenTelemetryTracer(service) as tracer:
        if install:
            tracer.install()
        with traced_by(tracer):
            yield tracer
