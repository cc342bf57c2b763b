"""Retries with grpcio on the other side: its client against our server, ours against its server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import grpc
import pytest
from tests.generated import echo_bascule
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.generated.echo_pb2_grpc import EchoServicer, EchoStub, add_EchoServicer_to_server
from tests.unit.rpc.scripted import ANSWER, FAIL, Scripted, Step, configured

from bascule.rpc import (
    Channel,
    HedgingPolicy,
    MethodConfig,
    RetryPolicy,
    RpcError,
    Server,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.anyio

POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.05s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


async def by_grpcio(service: Scripted, call: Callable[[EchoStub], Any]) -> Any:
    """Call our server with grpcio's client, which retries by the policy."""
    settings = {"methodConfig": [{"name": [{}], "retryPolicy": POLICY}]}
    options = [("grpc.service_config", json.dumps(settings)), ("grpc.enable_retries", 1)]
    async with Server([service], grace=1.0) as server:
        with grpc.insecure_channel(server.addresses[0], options) as channel:
            with anyio.fail_after(20):
                return await anyio.to_thread.run_sync(call, EchoStub(channel))


async def test_grpcios_client_repeats_what_our_server_failed() -> None:
    service = Scripted(FAIL, FAIL, ANSWER)
    reply = await by_grpcio(service, lambda stub: stub.Unary(EchoRequest(text="x")))
    assert reply.text == "x"
    assert service.previous == [None, "1", "2"]


async def test_grpcios_client_obeys_our_servers_pushback() -> None:
    service = Scripted(Step(Status.UNAVAILABLE, pushback="-1"), ANSWER)
    with pytest.raises(grpc.RpcError) as caught:
        await by_grpcio(service, lambda stub: stub.Unary(EchoRequest()))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert service.previous == [None]
    service = Scripted(Step(Status.UNAVAILABLE, pushback="300"), ANSWER)
    await by_grpcio(service, lambda stub: stub.Unary(EchoRequest()))
    assert service.times[1] - service.times[0] >= 0.29


async def test_grpcios_client_repeats_streams() -> None:
    service = Scripted(FAIL, ANSWER)
    replies = await by_grpcio(
        service, lambda stub: [each.number for each in stub.ServerStream(EchoRequest(replies=3))]
    )
    assert replies == [0, 1, 2]
    service = Scripted(FAIL, ANSWER)
    requests = [EchoRequest(text=text) for text in "abc"]
    reply = await by_grpcio(service, lambda stub: stub.ClientStream(iter(requests)))
    assert reply.text == "a b c"
    assert service.previous == [None, "1"]


async def test_no_attempt_of_grpcio_follows_our_headers() -> None:
    service = Scripted(Step(Status.UNAVAILABLE, replies=1), ANSWER)
    with pytest.raises(grpc.RpcError):
        await by_grpcio(service, lambda stub: list(stub.ServerStream(EchoRequest(replies=3))))
    assert service.previous == [None]


class GrpcioScripted(EchoServicer):
    """Takes one step for each attempt; the last one again and again."""

    def __init__(self, script: tuple[Step, ...]) -> None:
        self.script = script
        self.previous: list[str | None] = []

    def _step(self, context: Any) -> None:
        step = self.script[min(len(self.previous), len(self.script) - 1)]
        metadata = dict(context.invocation_metadata())
        self.previous.append(metadata.get("grpc-previous-rpc-attempts"))
        if step.pushback is not None:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", step.pushback),))
        if step.status is not Status.OK:
            codes = {code.value[0]: code for code in grpc.StatusCode}
            context.abort(codes[step.status.value], f"attempt {len(self.previous)}")

    def Unary(self, request: EchoRequest, context: Any) -> EchoReply:
        self._step(context)
        return EchoReply(text=request.text)

    def ServerStream(self, request: EchoRequest, context: Any) -> Iterator[EchoReply]:
        self._step(context)
        for number in range(request.replies):
            yield EchoReply(number=number)

    def ClientStream(self, request_iterator: Iterator[EchoRequest], context: Any) -> EchoReply:
        texts = [request.text for request in request_iterator]
        self._step(context)
        return EchoReply(text=" ".join(texts))


@contextmanager
def grpcio(*script: Step) -> Iterator[tuple[str, GrpcioScripted]]:
    service = GrpcioScripted(script)
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads)
        add_EchoServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}", service
        finally:
            server.stop(0).wait()


CONFIGS = [
    pytest.param(
        MethodConfig(retry=RetryPolicy(initial_backoff=0.001, max_backoff=0.01)), id="retry"
    ),
    pytest.param(MethodConfig(hedging=HedgingPolicy(3, 100)), id="hedging"),
]


@pytest.mark.parametrize("config", CONFIGS)
async def test_our_client_repeats_what_grpcios_server_failed(config) -> None:
    with grpcio(FAIL, FAIL, ANSWER) as (address, service):
        async with Channel(address) as channel:
            stub = echo_bascule.EchoStub(configured(channel, config))
            assert (await stub.unary(EchoRequest(text="x"))).text == "x"
            assert service.previous == [None, "1", "2"]
            del service.previous[:]
            async with stub.server_stream(EchoRequest(replies=3)) as stream:
                assert [reply.number async for reply in stream] == [0, 1, 2]
            assert service.previous == [None, "1", "2"]
        async with Channel(address) as channel:
            stub = echo_bascule.EchoStub(configured(channel, config))
            del service.previous[:]
            async with stub.client_stream() as requests:
                for text in "abc":
                    await requests.send_message(EchoRequest(text=text))
                await requests.end()
                assert (await requests.recv_message()).text == "a b c"
            assert service.previous == [None, "1", "2"]


@pytest.mark.parametrize("config", CONFIGS)
async def test_our_client_obeys_grpcios_servers_pushback(config) -> None:
    with grpcio(Step(Status.UNAVAILABLE, pushback="-1"), ANSWER) as (address, service):
        async with Channel(address) as channel:
            stub = echo_bascule.EchoStub(configured(channel, config))
            with pytest.raises(RpcError) as caught:
                await stub.unary(EchoRequest())
            assert caught.value.exhausted
            assert service.previous == [None]
