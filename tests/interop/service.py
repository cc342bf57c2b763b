"""The service of gRPC's interoperability cases.

Source: the gRPC project's "Interoperability Test Case Descriptions".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from tests.generated.interop.load_report_pb2 import OrcaLoadReport
from tests.generated.interop.load_service_bascule import OpenRcaServiceBase
from tests.generated.interop.testing_bascule import TestServiceBase as Base
from tests.generated.interop.testing_pb2 import (
    BoolValue,
    EchoStatus,
    Empty,
    Payload,
    SimpleRequest,
    SimpleResponse,
    StreamingInputCallRequest,
    StreamingInputCallResponse,
    StreamingOutputCallRequest,
    StreamingOutputCallResponse,
)
from tests.generated.interop.testing_pb2 import (
    TestOrcaReport as Report,
)

from bascule.rpc import RpcError, Status, call_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.generated.interop.load_service_pb2 import OrcaLoadReportRequest

#: Metadata that is sent back, with the headers and with the status.
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"

#: Trailing metadata with the load of one call (gRFC A51).
CALL_REPORT = "endpoint-load-metrics-bin"


class Interop(Base):
    """One of the servers, which has a name."""

    def __init__(self, name: str = "bascule") -> None:
        self.name = name
        #: What the client last told the server to report of itself.
        self.load = OrcaLoadReport()

    async def empty_call(self, request: Empty) -> Empty:
        return Empty()

    async def unary_call(self, request: SimpleRequest) -> SimpleResponse:
        await echo_metadata()
        refuse(request.response_status)
        if request.HasField("response_compressed"):
            compress(request.response_compressed)
        if request.HasField("orca_per_query_report"):
            report = load_of(request.orca_per_query_report).SerializeToString()
            call_context().trailing_metadata.add(CALL_REPORT, report)
        return SimpleResponse(
            payload=zeros(request.response_size),
            server_id=self.name if request.fill_server_id else "",
        )

    async def streaming_output_call(
        self, request: StreamingOutputCallRequest
    ) -> AsyncIterator[StreamingOutputCallResponse]:
        for parameters in request.response_parameters:
            if parameters.HasField("compressed"):
                compress(parameters.compressed)
            await anyio.sleep(parameters.interval_us / 1e6)
            yield StreamingOutputCallResponse(payload=zeros(parameters.size))

    async def streaming_input_call(
        self, requests: AsyncIterator[StreamingInputCallRequest]
    ) -> StreamingInputCallResponse:
        size = 0
        async for request in requests:
            size += len(request.payload.body)
        return StreamingInputCallResponse(aggregated_payload_size=size)

    async def full_duplex_call(
        self, requests: AsyncIterator[StreamingOutputCallRequest]
    ) -> AsyncIterator[StreamingOutputCallResponse]:
        await echo_metadata()
        async for request in requests:
            refuse(request.response_status)
            if request.HasField("orca_oob_report"):
                self.load = load_of(request.orca_oob_report)
            async for response in self.streaming_output_call(request):
                yield response

    async def half_duplex_call(
        self, requests: AsyncIterator[StreamingOutputCallRequest]
    ) -> AsyncIterator[StreamingOutputCallResponse]:
        for request in [request async for request in requests]:
            async for response in self.streaming_output_call(request):
                yield response


class LoadReports(OpenRcaServiceBase):
    """Tells the load of an :class:`Interop` as often as the client wants."""

    def __init__(self, of: Interop) -> None:
        self.of = of

    async def stream_core_metrics(
        self, request: OrcaLoadReportRequest
    ) -> AsyncIterator[OrcaLoadReport]:
        interval = request.report_interval
        while True:
            yield self.of.load
            await anyio.sleep(interval.seconds + interval.nanos / 1e9)


async def echo_metadata() -> None:
    context = call_context()
    if INITIAL in context.metadata:
        await context.send_initial_metadata([(INITIAL, context.metadata[INITIAL])])
    if TRAILING in context.metadata:
        context.trailing_metadata.add(TRAILING, context.metadata[TRAILING])


def compress(wanted: BoolValue) -> None:
    call_context().compression = "gzip" if wanted.value else "identity"


def refuse(status: EchoStatus) -> None:
    if status.code:
        raise RpcError(Status(status.code), status.message)


def zeros(size: int) -> Payload:
    return Payload(body=bytes(size))


def load_of(report: Report) -> OrcaLoadReport:
    return OrcaLoadReport(
        cpu_utilization=report.cpu_utilization,
        mem_utilization=report.memory_utilization,
        request_cost=report.request_cost,
        utilization=report.utilization,
    )
