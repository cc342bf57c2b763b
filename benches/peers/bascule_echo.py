"""The echo service and client on bascule, written out as its protoc plugin would."""

from collections.abc import Awaitable, Callable, Mapping

from grpclib.const import Cardinality

from bascule.rpc import (
    CallContext,
    ClientCallContext,
    ClientInterceptor,
    Method,
    MethodHandler,
    ServerInterceptor,
)
from benches._generated.bench.echo_pb2 import Chunk, Message, Total
from benches.peers import echo

UNARY = Method(echo.UNARY, Cardinality.UNARY_UNARY, Message, Message)
UPLOAD = Method(echo.UPLOAD, Cardinality.STREAM_UNARY, Chunk, Total)
DOWNLOAD = Method(echo.DOWNLOAD, Cardinality.UNARY_STREAM, Total, Chunk)


class EchoService:
    """The service under test."""

    def __mapping__(self) -> Mapping[str, MethodHandler]:
        """Answer with the handlers by path."""
        return {
            echo.UNARY: MethodHandler.unary(UNARY, echo.unary),
            echo.UPLOAD: MethodHandler.client_stream(UPLOAD, echo.upload),
            echo.DOWNLOAD: MethodHandler.server_stream(DOWNLOAD, echo.download),
        }


class PassThrough(ServerInterceptor):
    """The smallest interceptor: what the chain itself costs."""

    async def unary(
        self, call: CallContext, request: object, proceed: Callable[[object], Awaitable[object]]
    ) -> object:
        """Proceed."""
        return await proceed(request)


class ClientPassThrough(ClientInterceptor):
    """The smallest interceptor of the client's side."""

    async def unary(
        self,
        call: ClientCallContext,
        request: object,
        proceed: Callable[[object], Awaitable[object]],
    ) -> object:
        """Proceed."""
        return await proceed(request)
