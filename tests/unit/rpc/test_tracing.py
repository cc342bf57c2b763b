"""Spans around calls of either side: their parents, their ends, and what goes on the wire."""

from __future__ import annotations

import anyio
import pytest
from opentelemetry import trace as otel
from opentelemetry.trace import SpanKind
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest, Failure
from tests.tracing import Spans, context_of, exceptions_of, is_child, recorded, status_of
from tests.unit.rpc.services import Echo

from bascule.errors import RpcError, Status
from bascule.observe import (
    Sampling,
    TraceContext,
    current_trace,
    span,
    trace_variable,
    traced_by,
)
from bascule.rpc import (
    ClientTracing,
    HealthService,
    ServerTracing,
    call_context,
)
from bascule.rpc._generated.health_pb2 import HealthCheckRequest, HealthCheckResponse
from bascule.rpc._health import HEALTH_CHECK
from bascule.testing import memory_channel

pytestmark = pytest.mark.anyio


class Traced(Echo):
    """Notes where the handler stands, as each of the two APIs has it."""

    seen: TraceContext | None = None
    sent: TraceContext | None = None

    async def unary(self, request: EchoRequest) -> EchoReply:
        self.seen, self.sent = current_trace(), call_context().trace
        with otel.get_tracer("of the user").start_as_current_span("by the user"):
            pass
        return await super().unary(request)


class Middle(Echo):
    """Hands on what it is asked."""

    def __init__(self, leaf: EchoStub) -> None:
        super().__init__()
        self._leaf = leaf

    async def unary(self, request: EchoRequest) -> EchoReply:
        return await self._leaf.unary(request)


async def test_the_servers_span_is_a_child_of_the_clients() -> None:
    echo = Traced()
    async with recorded() as spans, memory_channel(echo) as channel:
        stub = EchoStub(channel)
        await stub.unary(EchoRequest(), metadata={"traceparent": "what the caller says"})
        handled, asked = await spans.all()
        assert echo.seen == context_of(handled)
        assert echo.sent == context_of(asked)
        assert is_child(handled, asked)
        assert asked.parent is None
        assert (handled.kind, asked.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
        assert handled.name == asked.name == "echo.Echo/Unary"
        names = {"rpc.system": "grpc", "rpc.service": "echo.Echo", "rpc.method": "Unary"}
        for each in (handled, asked):
            assert each.attributes is not None
            assert names.items() <= each.attributes.items()
            assert each.attributes["rpc.grpc.status_code"] == 0
            assert status_of(each) == "UNSET"
        assert current_trace() is None


async def test_streams_have_spans_of_both_sides() -> None:
    async with recorded() as spans, memory_channel(Echo()) as channel:
        async with EchoStub(channel).server_stream(EchoRequest(replies=2)) as stream:
            assert len([each async for each in stream]) == 2
        handled, asked = await spans.all()
        assert is_child(handled, asked)


async def test_a_handlers_calls_are_children_of_its_span() -> None:
    async with (
        recorded() as spans,
        memory_channel(Echo()) as leaf,
        memory_channel(Middle(EchoStub(leaf))) as channel,
    ):
        await EchoStub(channel).unary(EchoRequest())
        last, call, middle, first = await spans.all()
        assert is_child(last, call)
        assert is_child(call, middle)
        assert is_child(middle, first)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
async def test_a_status_is_the_clients_failure_and_only_sometimes_the_servers(
    status: Status,
) -> None:
    async with recorded() as spans, memory_channel(Echo()) as channel:
        with pytest.raises(RpcError):
            await EchoStub(channel).unary(
                EchoRequest(failure=Failure(code=status.value, message="no"))
            )
        handled, asked = await spans.all()
        faults = [
            "UNKNOWN",
            "DEADLINE_EXCEEDED",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
        ]
        assert status_of(handled) == ("ERROR" if status.name in faults else "UNSET")
        assert status_of(asked) == "ERROR"
        assert asked.status.description == f"{status.name}: no"
        for each in (handled, asked):
            assert each.attributes is not None
            assert each.attributes["rpc.grpc.status_code"] == status.value


async def test_an_exception_is_recorded_where_it_was_raised_and_nowhere_else() -> None:
    class Broken(Echo):
        async def unary(self, request: EchoRequest) -> EchoReply:
            with span("inner"):
                try:
                    raise KeyError("lost")
                except KeyError as error:
                    raise ValueError("not found") from error

    async with (
        recorded() as spans,
        memory_channel(Broken()) as leaf,
        memory_channel(Middle(EchoStub(leaf))) as channel,
    ):
        with pytest.raises(RpcError, match="internal error"):
            await EchoStub(channel).unary(EchoRequest())
        inner, *others = await spans.all()
        assert exceptions_of(inner) == ["ValueError"]
        assert [exceptions_of(each) for each in others] == [[], [], [], []]
        assert all(status_of(each) == "ERROR" for each in [inner, *others])


async def test_a_cancellation_is_no_error() -> None:
    echo = Echo()
    async with recorded() as spans, memory_channel(echo) as channel:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(EchoStub(channel).unary, EchoRequest(hang=True))
            await echo.until(begun=1)
            tasks.cancel_scope.cancel()
        await echo.until(cancelled=1)
        handled, asked = await spans.until(2)
        for each in (handled, asked):
            assert status_of(each) == "UNSET"
            assert exceptions_of(each) == []
            assert each.attributes is not None
            assert each.attributes["rpc.grpc.status_code"] == Status.CANCELLED.value


async def test_a_deadline_that_passes_is_the_servers_failure() -> None:
    async with recorded() as spans, memory_channel(Echo()) as channel:
        with pytest.raises(RpcError):
            await EchoStub(channel).unary(EchoRequest(hang=True), timeout=0.05)
        for each in await spans.until(2):
            assert status_of(each) == "ERROR"
            assert exceptions_of(each) == []
            assert each.attributes is not None
            assert each.attributes["rpc.grpc.status_code"] == Status.DEADLINE_EXCEEDED.value


async def test_a_span_of_opentelemetrys_own_is_the_parent_of_a_call_and_a_child_of_a_handler() -> (
    None
):
    class Users(Echo):
        async def unary(self, request: EchoRequest) -> EchoReply:
            with user.start_as_current_span("in the handler"):
                return await EchoStub(leaf).unary(request)

    async with recorded() as spans, memory_channel(Echo()) as leaf:
        user = spans.tracer._provider.get_tracer("of the user")
        async with memory_channel(Users()) as channel:
            with user.start_as_current_span("around the call"):
                await EchoStub(channel).unary(EchoRequest())
        last, call, within, middle, first, around = await spans.all()
        assert [within.name, around.name] == ["in the handler", "around the call"]
        for child, parent in [(last, call), (call, within), (within, middle), (middle, first)]:
            assert is_child(child, parent)
        assert is_child(first, around)


async def test_what_is_not_sampled_is_said_to_the_server_and_recorded_by_nobody() -> None:
    echo = Traced()
    async with recorded(Sampling(0.0)) as spans, memory_channel(echo) as channel:
        await EchoStub(channel).unary(EchoRequest())
        assert echo.sent is not None
        assert not echo.sent.sampled
        assert echo.seen == echo.sent
        parent = TraceContext.root(sampled=True)
        token = trace_variable.set(parent)
        await EchoStub(channel).unary(EchoRequest())
        trace_variable.reset(token)
        # That of whoever has begun the trace holds.
        assert len(await spans.all()) == 2


@pytest.mark.parametrize("sampled", [True, False])
async def test_the_callers_decision_holds(sampled: bool) -> None:
    parent = TraceContext.root(sampled=sampled)
    echo = Traced()
    spans = Spans(Sampling(1.0 - sampled))
    async with (
        spans.tracer,
        memory_channel(echo, server_interceptors=[ServerTracing(spans.tracer)]) as channel,
    ):
        await EchoStub(channel).unary(
            EchoRequest(), metadata={"traceparent": parent.traceparent, "tracestate": "vendor=1"}
        )
        assert len(await spans.all()) == sampled
        assert echo.seen is not None
        assert (echo.seen.trace_id, echo.seen.state) == (parent.trace_id, "vendor=1")
        assert echo.seen.sampled == sampled


async def test_probes_begin_no_traces() -> None:
    async with recorded() as spans, memory_channel(Echo(), HealthService()) as channel:
        with traced_by(None):
            reply = await channel.unary(HEALTH_CHECK, HealthCheckRequest())
        assert reply.status == HealthCheckResponse.SERVING
        assert await spans.all() == ()


async def test_tracers_may_be_given_to_a_channel_and_a_server_of_their_own() -> None:
    client, server = Spans(), Spans()
    async with client.tracer, server.tracer, recorded() as around:
        async with memory_channel(
            Echo(),
            interceptors=[ClientTracing(client.tracer)],
            server_interceptors=[ServerTracing(server.tracer)],
        ) as channel:
            await EchoStub(channel).unary(EchoRequest())
            async with EchoStub(channel).server_stream(EchoRequest(replies=2)) as stream:
                assert len([each async for each in stream]) == 2
            for asked, handled in zip(await client.all(), await server.all(), strict=True):
                assert is_child(handled, asked)
        assert await around.all() == ()


async def test_a_trace_that_the_caller_names_is_gone_on_with_unless_it_is_in_one() -> None:
    parent, other = (TraceContext.root(sampled=True) for _ in "ab")
    metadata = {"traceparent": parent.traceparent}
    async with recorded() as spans, memory_channel(Echo()) as channel:
        await EchoStub(channel).unary(EchoRequest(), metadata=metadata)
        token = trace_variable.set(other)
        await EchoStub(channel).unary(EchoRequest(), metadata=metadata)
        trace_variable.reset(token)
        _, first, _, second = await spans.all()
    for each, cause in ((first, parent), (second, other)):
        assert each.parent is not None
        assert f"{each.parent.span_id:016x}" == cause.span_id


async def test_without_a_tracer_there_is_no_span_and_the_trace_goes_on() -> None:
    echo = Traced()
    parent = TraceContext.root(sampled=True)
    async with memory_channel(echo) as leaf, memory_channel(Middle(EchoStub(leaf))) as channel:
        await EchoStub(channel).unary(EchoRequest(), metadata={"traceparent": parent.traceparent})
    assert echo.sent == parent
