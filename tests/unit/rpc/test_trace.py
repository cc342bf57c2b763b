"""A trace goes on from the call that is handled to the calls that its handler makes, by itself."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest

from bascule.observe import TraceContext, trace_variable
from bascule.rpc import Channel, Server, call_context
from bascule.testing import memory_channel

pytestmark = pytest.mark.anyio

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OPENCENSUS = bytes.fromhex("00004bf92f3577b34da6a3ce929d0e0e47360100f067aa0ba902b70201")


class Leaf(EchoBase):
    """Answers with what it was told of the trace."""

    async def unary(self, request: EchoRequest) -> EchoReply:
        metadata = call_context().metadata
        return EchoReply(text=f"{metadata.get('traceparent')} {metadata.get('tracestate')}")

    async def server_stream(self, request: EchoRequest) -> AsyncIterator[EchoReply]:
        yield await self.unary(request)


class Middle(EchoBase):
    """Asks the leaf, and says nothing of a trace."""

    def __init__(self, leaf: Channel) -> None:
        self.leaf = EchoStub(leaf)
        self.trace: TraceContext | None = None

    async def unary(self, request: EchoRequest) -> EchoReply:
        self.trace = call_context().trace
        return await self.leaf.unary(request)

    async def server_stream(self, request: EchoRequest) -> AsyncIterator[EchoReply]:
        async with self.leaf.server_stream(request) as stream:
            async for reply in stream:
                yield reply


async def through(metadata: dict[str, Any] | None, **settings: Any) -> tuple[str, Any]:
    async with (
        Server([Leaf()], listen="memory:leaf"),
        Channel("memory:leaf", **settings) as leaf,
        memory_channel(middle := Middle(leaf)) as channel,
    ):
        stub = EchoStub(channel)
        answer = (await stub.unary(EchoRequest(), metadata=metadata)).text
        async with stub.server_stream(EchoRequest(), metadata=metadata) as stream:
            assert [each.text async for each in stream] == [answer]
    return answer, middle.trace


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"traceparent": PARENT}, f"{PARENT} None"),
        ({"traceparent": PARENT, "tracestate": "a=1,b=2"}, f"{PARENT} a=1,b=2"),
        ({"traceparent": PARENT, "tracestate": "x" * 600}, f"{PARENT} None"),
        ({"traceparent": f"cc{PARENT[2:]}-more"}, f"{PARENT} None"),
        ({"traceparent": "nonsense", "tracestate": "a=1"}, "None None"),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}, "None None"),
        ({"grpc-trace-bin": OPENCENSUS}, f"{PARENT} None"),
        ({"grpc-trace-bin": OPENCENSUS[:-1]}, "None None"),
        ({}, "None None"),
        (None, "None None"),
    ],
)
async def test_what_a_client_says_is_passed_on(metadata: dict[str, Any] | None, told: str) -> None:
    answer, trace = await through(metadata)
    assert answer == told
    assert (trace is None) == told.startswith("None")


async def test_a_channel_can_keep_traces_to_itself() -> None:
    answer, trace = await through({"traceparent": PARENT}, propagate_trace=False)
    assert answer == "None None"
    assert trace is not None


async def test_a_span_around_a_call_is_its_parent() -> None:
    async with memory_channel(Leaf()) as channel:
        span = TraceContext.root(sampled=True)
        token = trace_variable.set(span)
        try:
            reply = await EchoStub(channel).unary(EchoRequest(), metadata={"x": "y"})
            own = await EchoStub(channel).unary(EchoRequest(), metadata={"traceparent": PARENT})
        finally:
            trace_variable.reset(token)
        assert reply.text == f"{span.traceparent} None"
        assert own.text == f"{PARENT} None"
        assert (await EchoStub(channel).unary(EchoRequest())).text == "None None"


@pytest.mark.parametrize("bad", [b"", OPENCENSUS[:28], b"\1" + OPENCENSUS[1:], bytes(29)])
async def test_a_malformed_binary_trace_is_no_parent(bad: bytes) -> None:
    assert TraceContext.parse_binary(base64.b64encode(bad).decode()) is None
    assert TraceContext.parse_binary("%") is None
