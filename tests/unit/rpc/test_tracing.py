"""Spans around calls of either side: their parents, their ends, and what goes on the wire."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest, Failure
from tests.unit.rpc.services import Echo

from bascule.errors import RpcError
from bascule.observe import TraceContext, current_trace
from bascule.rpc import ClientTracing, ServerTracing, call_context
from bascule.testing import memory_channel

pytestmark = pytest.mark.anyio


class OneSpan:
    def __init__(
        self, name: str, parent: TraceContext | None, attributes: Mapping[str, str | int]
    ) -> None:
        self.name, self.parent, self.attributes = name, parent, dict(attributes)
        self.context = TraceContext.root(sampled=True) if parent is None else parent.child()
        self.ended: list[tuple[int | str, BaseException | None]] = []

    def end(self, attributes: Mapping[str, str | int], error: BaseException | None) -> None:
        self.ended.append((attributes["rpc.grpc.status_code"], error))


class Spans:
    def __init__(self) -> None:
        self.spans: list[OneSpan] = []

    def start(
        self, name: str, parent: TraceContext | None, attributes: Mapping[str, str | int]
    ) -> OneSpan:
        self.spans.append(OneSpan(name, parent, attributes))
        return self.spans[-1]


class Traced(Echo):
    seen: TraceContext | None = None

    async def unary(self, request: EchoRequest) -> EchoReply:
        self.seen = current_trace()
        assert call_context().trace is not None
        return await super().unary(request)


async def test_the_servers_span_is_a_child_of_the_clients() -> None:
    client, server, echo = Spans(), Spans(), Traced()
    async with memory_channel(
        echo, interceptors=[ClientTracing(client)], server_interceptors=[ServerTracing(server)]
    ) as channel:
        stub = EchoStub(channel)
        await stub.unary(EchoRequest(), metadata={"traceparent": "what the caller says"})
        assert echo.seen == server.spans[0].context
        async with stub.server_stream(EchoRequest(replies=2)) as stream:
            assert len([each async for each in stream]) == 2
        with pytest.raises(RpcError):
            await stub.unary(EchoRequest(failure=Failure(code=5, message="no")))
        with anyio.move_on_after(0.05):
            await stub.unary(EchoRequest(hang=True))
        await echo.until(cancelled=1)
    assert current_trace() is None
    for spans in (client, server):
        statuses = [status for each in spans.spans for status, _ in each.ended]
        assert statuses == [0, 0, 5, 1]
        assert isinstance(spans.spans[2].ended[0][1], RpcError)
    for asked, handled in zip(client.spans, server.spans, strict=True):
        assert asked.parent is None
        assert handled.parent == asked.context
    assert server.spans[0].name == "echo.Echo/Unary"
    assert server.spans[0].attributes["rpc.method"] == "Unary"


async def test_a_handlers_calls_are_children_of_its_span() -> None:
    spans, leaf_spans = Spans(), Spans()

    class Middle(Echo):
        async def unary(self, request: EchoRequest) -> EchoReply:
            return await EchoStub(leaf).unary(request)

    async with (
        memory_channel(
            Echo(),
            interceptors=[ClientTracing(spans)],
            server_interceptors=[ServerTracing(leaf_spans)],
        ) as leaf,
        memory_channel(Middle(), server_interceptors=[ServerTracing(spans)]) as channel,
    ):
        await EchoStub(channel).unary(EchoRequest())
    handled, asked = spans.spans
    assert handled.parent is None
    assert asked.parent == handled.context
    assert leaf_spans.spans[0].parent == asked.context
