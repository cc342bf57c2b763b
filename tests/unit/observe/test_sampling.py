"""Which traces are recorded: by the standard variables, and as OpenTelemetry's own SDK would choose."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace as otel
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    TraceIdRatioBased,
)

from bascule.observe import OpenTelemetryTracer, Sampling, TraceContext
from bascule.observe._open_telemetry import _within

IDS = st.integers(1, 2**128 - 1)


@pytest.mark.parametrize(
    ("name", "argument", "sampling"),
    [
        ("", "", Sampling(1.0)),
        ("always_on", "", Sampling(1.0, by_parent=False)),
        ("always_off", "", Sampling(0.0, by_parent=False)),
        ("traceidratio", "0.25", Sampling(0.25, by_parent=False)),
        ("parentbased_always_on", "", Sampling(1.0)),
        ("parentbased_always_off", "", Sampling(0.0)),
        ("parentbased_traceidratio", "0.25", Sampling(0.25)),
        ("parentbased_traceidratio", "", Sampling(1.0)),
        (" PARENTBASED_TRACEIDRATIO ", " 0 ", Sampling(0.0)),
        ("always_on", "0.25", Sampling(1.0, by_parent=False)),
    ],
)
def test_the_standard_names(name: str, argument: str, sampling: Sampling) -> None:
    variables = {"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument}
    assert Sampling.read(variables) == sampling


@pytest.mark.parametrize(
    ("name", "argument"),
    [("xray", ""), ("traceidratio", "a lot"), ("traceidratio", "1.5"), ("traceidratio", "nan")],
)
def test_what_is_unknown_is_told_and_left_out(
    name: str, argument: str, caplog: pytest.LogCaptureFixture
) -> None:
    variables = {"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument}
    with caplog.at_level(logging.WARNING):
        assert Sampling.read(variables).ratio == 1.0
    assert "OTEL_TRACES_SAMPLER" in caplog.text


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_is_between_0_and_1(ratio: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Sampling(ratio)


def by_sdk(sampling: Sampling) -> Sampler:
    if sampling.by_parent:
        if sampling.ratio in {0.0, 1.0}:
            return ParentBased(ALWAYS_ON if sampling.ratio else ALWAYS_OFF)
        return ParentBasedTraceIdRatio(sampling.ratio)
    return TraceIdRatioBased(sampling.ratio)


@settings(max_examples=100)  # each has a provider of the SDK, which the process never forgets
@given(
    st.builds(Sampling, st.floats(0, 1), st.booleans()),
    IDS,
    st.sampled_from([None, True, False]),
)
def test_the_decision_is_that_of_the_sdks_own_sampler(
    sampling: Sampling, trace_id: int, sampled: bool | None
) -> None:
    tracer = OpenTelemetryTracer("test", exporter=_Nowhere(), sampling=sampling)
    name, parent, around = f"{trace_id:032x}", None, otel.set_span_in_context(otel.INVALID_SPAN)
    if sampled is not None:
        parent = TraceContext(name, "1" * 16, sampled)
        around = _within(parent)
    chosen = by_sdk(sampling).should_sample(around, trace_id, "x").decision.is_sampled()
    span = tracer.start("x", parent, trace_id=name)
    assert (span.recording, span.context.sampled) == (chosen, chosen)
    assert span.context.trace_id == name
    span.end()


class _Nowhere:
    """Is never given a span: the tracer is not entered."""

    def export(self, spans: object) -> object:
        raise NotImplementedError

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True
