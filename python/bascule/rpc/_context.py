"""What a handler can know about its call, and an interceptor on either side."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from multidict import MultiDict

from bascule.observe import TraceContext, current_trace
from bascule.rpc._compression import require_compression

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from bascule._core import Headers
    from bascule.observe import Span

__all__ = [
    "CallContext",
    "ClientCallContext",
    "ClientInterceptor",
    "MetadataLike",
    "ServerInterceptor",
    "TLSInfo",
    "call_context",
]

#: Text values are ``str``; names that end in ``-bin`` have ``bytes``.
MetadataValue = str | bytes

#: What is accepted as metadata.
MetadataLike = Mapping[str, MetadataValue] | Collection[tuple[str, MetadataValue]]


class TLSInfo(NamedTuple):
    """What a connection and its client have agreed on.

    :ivar version: such as ``TLSv1.3``
    :ivar cipher: such as ``TLS_AES_256_GCM_SHA384``
    :ivar bits: secret bits of the cipher
    :ivar protocol: by ALPN, such as ``h2``; None if none was negotiated
    """

    version: str
    cipher: str
    bits: int
    protocol: str | None


class CallContext:
    """One call as its handler sees it.

    :ivar method: ``/package.Service/Method``
    :ivar peer: the client's address: ``host:port``, ``unix:path`` or ``memory:name``
    :ivar deadline: in the clock of :func:`anyio.current_time`; infinity if there is none
    """

    # Defaults of the class, not of each object: most calls change none of them.
    deadline = math.inf
    _metadata: MultiDict[MetadataValue] | None = None
    _trailing_metadata: MultiDict[MetadataValue] | None = None
    _state: dict[Any, Any] | None = None
    _compression: str | None = None
    _trace_headers: list[tuple[str, MetadataValue]] | None = None

    def __init__(
        self,
        method: str,
        peer: str,
        headers: Headers | None = None,
        tls: ssl.SSLObject | None = None,
    ) -> None:
        self.method = method
        self.peer = peer
        self._headers = headers
        self._tls = tls

    @property
    def metadata(self) -> MultiDict[MetadataValue]:
        """What the client sent; ``bytes`` for names that end in ``-bin``."""
        if self._metadata is None:
            self._metadata = MultiDict(self._headers.items() if self._headers else ())
        return self._metadata

    @property
    def trailing_metadata(self) -> MultiDict[MetadataValue]:
        """What will be sent to the client with the status; add to it."""
        if self._trailing_metadata is None:
            self._trailing_metadata = MultiDict()
        return self._trailing_metadata

    async def send_initial_metadata(self, metadata: MetadataLike | None = None) -> None:
        """Send the headers now; otherwise they go with the first reply, and carry no metadata.

        :raises ProtocolError: if they were sent already
        :raises ValueError: if it cannot be sent: a name or a value that is none, or more than 16 KiB
        """
        raise NotImplementedError

    @property
    def compression(self) -> str | None:
        """What the handler has chosen to compress the replies: ``gzip``, ``deflate``, ``zstd`` or
        ``identity``; None if the server decides. It holds for the messages from now
        on, if the client accepts it. Those of less than 1 KiB are never compressed.

        Setting it raises ConfigurationError if the name is unknown, and ProtocolError if the
        headers were sent and have announced another compression.
        """
        return self._compression

    @compression.setter
    def compression(self, name: str) -> None:
        require_compression(name)
        self._compress(name)
        self._compression = name

    def _compress(self, name: str) -> None:
        raise NotImplementedError

    @property
    def identity(self) -> dict[str, Any] | None:
        """The client's verified certificate as :meth:`ssl.SSLSocket.getpeercert` gives it; None
        without TLS, or if the server asks clients for none.
        """
        return None if self._tls is None else self._tls.getpeercert() or None

    @property
    def tls(self) -> TLSInfo | None:
        """How the connection is encrypted; None if it is not."""
        if self._tls is None:
            return None
        cipher = self._tls.cipher() or ("", "", 0)
        protocol = self._tls.selected_alpn_protocol()
        return TLSInfo(self._tls.version() or "", cipher[0], cipher[2], protocol)

    @property
    def trace(self) -> TraceContext | None:
        """Where the client's work stands in its trace, by ``traceparent`` and ``tracestate`` or else
        ``grpc-trace-bin``; None if it sent nothing that is well formed.

        Calls that the handler makes belong to the same trace by themselves.
        """
        return None if self._headers is None else _trace_of(self._headers)

    @property
    def trace_headers(self) -> list[tuple[str, MetadataValue]]:
        """The metadata that puts another call into this one's trace; do not change it."""
        if self._trace_headers is None:
            self._trace_headers = [] if self._headers is None else _passed_on(self._headers)
        return self._trace_headers

    @property
    def state(self) -> dict[Any, Any]:
        """Where interceptors leave what later ones and the handler may use."""
        if self._state is None:
            self._state = {}
        return self._state

    @property
    def time_left(self) -> float:
        """Seconds until the deadline; infinity if there is none."""
        return self.deadline - anyio.current_time()


def pairs(metadata: MetadataLike | None) -> list[tuple[str, MetadataValue]] | None:
    """Metadata as the core takes it."""
    if not metadata:
        return None
    # Lists first: asking whether something is a Mapping costs ten times a call into the core.
    if not isinstance(metadata, list) and isinstance(metadata, Mapping):
        return list(metadata.items())
    return list(metadata)


#: A ``traceparent`` of version 00 (Trace Context, 3.2).
_COMMON = re.compile("00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch


def _trace_of(headers: Headers) -> TraceContext | None:
    parent = headers.get("traceparent")
    if parent is not None:
        return TraceContext.parse(parent, headers.get("tracestate") or "")
    packed = headers.get("grpc-trace-bin")
    return None if packed is None else TraceContext.parse_binary(packed)


def _passed_on(headers: Headers) -> list[tuple[str, MetadataValue]]:
    parent = headers.get("traceparent")
    if parent is not None and _COMMON(parent) and headers.get("tracestate") is None:
        # As it came: most calls are not recorded, and should cost next to nothing.
        return [("traceparent", parent)]
    trace = _trace_of(headers)
    return [] if trace is None else _pairs_of(trace)


_current: ContextVar[CallContext | None] = ContextVar("bascule_call_context", default=None)


def call_context() -> CallContext:
    """The call that the current task handles.

    :raises LookupError: if the current task handles none
    """
    call = _current.get()
    if call is None:
        message = "call_context() works only inside a handler: no call is being handled here"
        raise LookupError(message)
    return call


def traced(
    headers: list[tuple[str, MetadataValue]] | None,
) -> list[tuple[str, MetadataValue]] | None:
    """Metadata of a call that this work makes, with the trace that the work belongs to: that of the
    span around it, or else of the call that is being handled.
    """
    trace = current_trace()
    if trace is not None:
        own = _pairs_of(trace)
    elif (call := _current.get()) is not None:
        own = call.trace_headers
    else:
        return headers
    if not headers:
        return own or headers
    if not own or any(name == "traceparent" for name, _ in headers):
        return headers
    return [*headers, *own]


_TRACE_NAMES = frozenset({"traceparent", "tracestate"})


def with_trace(
    headers: list[tuple[str, MetadataValue]] | None, trace: TraceContext
) -> list[tuple[str, MetadataValue]]:
    """Metadata of a call that belongs to this trace, whatever it said of any before."""
    own = _pairs_of(trace)
    if not headers:
        return own
    return [*(each for each in headers if each[0] not in _TRACE_NAMES), *own]


def _pairs_of(trace: TraceContext) -> list[tuple[str, MetadataValue]]:
    parent = ("traceparent", trace.traceparent)
    return [parent, ("tracestate", trace.state)] if trace.state else [parent]


class ClientCallContext:
    """One call as a client's interceptor sees it.

    :ivar method: ``/package.Service/Method``
    :ivar timeout: seconds, or None; change it before the call proceeds
    :ivar peer: the server's address, once the call was sent
    :ivar on_stream: called with the :class:`bascule.rpc.Stream` of a call that streams, before
        anything is sent; set it in :meth:`ClientInterceptor.stream`
    """

    # Defaults of the class, not of each object: most calls change but one of them.
    peer: str | None = None
    on_stream: Callable[[Any], None] | None = None
    #: Of a call that streams, if it is recorded.
    span: Span | None = None
    _metadata: MultiDict[MetadataValue] | None = None
    _trailing_metadata: MultiDict[MetadataValue] | None = None

    def __init__(
        self, method: str, sent: list[tuple[str, MetadataValue]] | None, timeout: float | None
    ) -> None:
        self.method = method
        self.timeout = timeout
        self._sent = sent

    @property
    def metadata(self) -> MultiDict[MetadataValue]:
        """What will be sent; change it before the call proceeds."""
        if self._metadata is None:
            self._metadata = MultiDict(self._sent or ())
        return self._metadata

    @property
    def trailing_metadata(self) -> MultiDict[MetadataValue]:
        """What came with the status, once the call has ended."""
        if self._trailing_metadata is None:
            self._trailing_metadata = MultiDict()
        return self._trailing_metadata

    @trailing_metadata.setter
    def trailing_metadata(self, came: MultiDict[MetadataValue]) -> None:
        self._trailing_metadata = came

    def pairs(self) -> list[tuple[str, MetadataValue]] | None:
        """The metadata as the core takes it."""
        return self._sent if self._metadata is None else list(self._metadata.items()) or None


class ServerInterceptor:
    """Runs around every handler. Override what you need."""

    async def unary(
        self, call: CallContext, request: Any, proceed: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        """Around a method with one request and one reply; answers with the reply.

        :raises RpcError: to end the call with a status
        """
        return await proceed(request)

    async def stream(
        self, call: CallContext, stream: Any, proceed: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Around a method that streams in either direction.

        :raises RpcError: to end the call with a status
        """
        await proceed(stream)


class ClientInterceptor:
    """Runs around every call of a channel. Override what you need."""

    async def unary(
        self, call: ClientCallContext, request: Any, proceed: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        """Around a call with one request and one reply; answers with the reply.
        ``proceed`` may be awaited more than once.
        """
        return await proceed(request)

    def stream(self, call: ClientCallContext) -> AbstractAsyncContextManager[None]:
        """Around a call that streams in either direction: entered before it
        starts, left after it has ended, with its exception if it failed.
        """
        return nullcontext()
