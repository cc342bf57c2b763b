"""The service of streams on bascule, written out as its protoc plugin would."""

from collections.abc import Mapping

from grpclib.const import Cardinality

from bascule.rpc import Method, MethodHandler
from benches._generated.bench.streams_pb2 import Blob, Item, Wanted
from benches.peers import streams

COUNT = Method(streams.COUNT, Cardinality.UNARY_STREAM, Wanted, Item)
PING_PONG = Method(streams.PING_PONG, Cardinality.STREAM_STREAM, Item, Item)
LARGE = Method(streams.LARGE, Cardinality.UNARY_UNARY, Blob, Blob)


class StreamsService:
    """The service under test."""

    def __mapping__(self) -> Mapping[str, MethodHandler]:
        """Answer with the handlers by path."""
        return {
            streams.COUNT: MethodHandler.server_stream(COUNT, streams.count),
            streams.PING_PONG: MethodHandler.bidi(PING_PONG, streams.ping_pong),
            streams.LARGE: MethodHandler.unary(LARGE, streams.large),
        }
