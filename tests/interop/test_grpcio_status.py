"""Rich errors as grpcio-status writes and reads them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import grpc
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.rpc.code_pb2 import INVALID_ARGUMENT
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status as RichStatus
from grpc_status import rpc_status
from tests.generated.better import echo as echo_better
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest, Failure
from tests.generated.echo_pb2_grpc import (
    EchoServicer,
    add_EchoServicer_to_server,
)
from tests.generated.echo_pb2_grpc import EchoStub as GrpcioStub
from tests.unit.rpc.services import Echo

from bascule.errors import RpcError, Status
from bascule.rpc import Channel, Server

pytestmark = pytest.mark.anyio

VIOLATION = BadRequest(field_violations=[BadRequest.FieldViolation(field="email")])


class Refusing(Echo):
    async def unary(self, request: EchoRequest) -> EchoReply:
        details = [VIOLATION, echo_better.Failure(field="x")]
        raise RpcError(Status.INVALID_ARGUMENT, "é", details)


async def test_grpcio_status_reads_what_bascule_raises() -> None:
    def ask(address: str) -> Any:
        with grpc.insecure_channel(address) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                GrpcioStub(channel).Unary(EchoRequest(), timeout=20)
            return rpc_status.from_call(caught.value)

    async with Server([Refusing()]) as server:
        rich = await anyio.to_thread.run_sync(ask, server.addresses[0])
    assert (rich.code, rich.message, len(rich.details)) == (INVALID_ARGUMENT, "é", 2)
    bad, failure = BadRequest(), Failure()
    assert rich.details[0].Unpack(bad)
    assert rich.details[1].Unpack(failure)
    assert (bad, failure) == (VIOLATION, Failure(field="x"))


class GrpcioRefusing(EchoServicer):
    def Unary(self, request: EchoRequest, context: Any) -> EchoReply:
        rich = RichStatus(code=INVALID_ARGUMENT, message="é")
        for detail in (VIOLATION, ErrorInfo(reason="R")):
            rich.details.add().Pack(detail)
        rich.details.append(Packed(type_url="t/some.Unknown", value=b"1"))
        context.abort_with_status(rpc_status.to_status(rich))
        raise AssertionError


async def test_bascule_reads_what_grpcio_status_sends() -> None:
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        add_EchoServicer_to_server(GrpcioRefusing(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            async with Channel(f"127.0.0.1:{port}") as channel:
                with pytest.raises(RpcError) as caught:
                    await EchoStub(channel).unary(EchoRequest())
        finally:
            await anyio.to_thread.run_sync(server.stop(0).wait)
    error = caught.value
    assert (error.status, error.message) == (Status.INVALID_ARGUMENT, "é")
    assert error.detail(BadRequest) == VIOLATION
    assert error.detail(ErrorInfo) == ErrorInfo(reason="R")
    assert error.details[2] == Packed(type_url="t/some.Unknown", value=b"1")
