"""A method of a server, with its codecs and the interceptors around its handler."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol

from bascule.errors import RpcError, Status
from bascule.rpc._codec import codec_for
from bascule.rpc._context import ServerInterceptor
from bascule.rpc._method import MethodHandler
from bascule.rpc._streams import ServerStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from grpclib.const import Handler

    from bascule.rpc._codec import Codec
    from bascule.rpc._server_call import ServerCall

__all__ = ["Binding", "Servable"]


class Servable(Protocol):
    """A service: what bascule's, grpclib's and betterproto2's generated bases are."""

    def __mapping__(self) -> Mapping[str, Handler]: ...


class Binding:
    """A method of a server: its codecs and its handler with the interceptors around it."""

    __slots__ = ("decode", "encode", "path", "serve", "unary_reply", "unary_request")

    def __init__(
        self,
        path: str,
        handler: Handler,
        interceptors: Sequence[ServerInterceptor],
        max_message: int,
        codecs: Callable[[type[Any]], Codec[Any]] = codec_for,
    ) -> None:
        cardinality = handler.cardinality
        self.path = path
        self.unary_request = not cardinality.client_streaming
        self.unary_reply = not cardinality.server_streaming
        self.decode = codecs(handler.request_type).decode
        self.encode = _bounded(codecs(handler.reply_type).encode, max_message)
        self.serve: Callable[[ServerCall], Coroutine[Any, Any, None]]
        if self.unary_request and self.unary_reply:
            self.serve = self._serve_unary(handler, interceptors)
        else:
            self.serve = self._serve_stream(handler, interceptors)

    def _serve_unary(
        self, handler: Handler, interceptors: Sequence[ServerInterceptor]
    ) -> Callable[[ServerCall], Coroutine[Any, Any, None]]:
        decode, encode = self.decode, self.encode
        around = [each for each in interceptors if type(each).unary is not ServerInterceptor.unary]
        if isinstance(handler, MethodHandler) and not around:
            direct = handler.direct

            async def serve(call: ServerCall) -> None:
                call.reply = encode(await direct(decode(call.request)))

            return serve

        if isinstance(handler, MethodHandler):
            direct = handler.direct

            def innermost(call: ServerCall, request: Any) -> Awaitable[Any]:
                awaitable: Awaitable[Any] = direct(request)
                return awaitable
        else:

            async def through_stream(call: ServerCall, request: Any) -> Any:
                stream = _UnaryStream(call, request)
                await handler.func(stream)
                if call.error is not None:
                    raise call.error
                return stream.reply

            innermost = through_stream

        chain: Callable[[ServerCall, Any], Awaitable[Any]] = innermost
        for each in reversed(around):
            chain = _around_unary(each, chain)

        async def serve_around(call: ServerCall) -> None:
            reply = await chain(call, decode(call.request))
            if reply is not None:
                call.reply = encode(reply)

        return serve_around

    def _serve_stream(
        self, handler: Handler, interceptors: Sequence[ServerInterceptor]
    ) -> Callable[[ServerCall], Coroutine[Any, Any, None]]:
        def innermost(_call: ServerCall, stream: Any) -> Awaitable[None]:
            served: Awaitable[None] = handler.func(stream)
            return served

        chain: Callable[[ServerCall, Any], Awaitable[None]] = innermost
        for each in reversed(interceptors):
            if type(each).stream is not ServerInterceptor.stream:
                chain = _around_stream(each, chain)

        async def serve(call: ServerCall) -> None:
            await chain(call, ServerStream(call))

        return serve


def _bounded(encode: Callable[[Any], bytes], limit: int) -> Callable[[Any], bytes]:
    def encode_bounded(message: Any) -> bytes:
        data = encode(message)
        if len(data) > limit:
            text = f"reply of {len(data)} bytes is larger than the limit of {limit} bytes"
            raise RpcError(Status.RESOURCE_EXHAUSTED, text)
        return data

    return encode_bounded


def _around_unary(
    interceptor: ServerInterceptor, proceed: Callable[[ServerCall, Any], Awaitable[Any]]
) -> Callable[[ServerCall, Any], Awaitable[Any]]:
    def run(call: ServerCall, request: Any) -> Awaitable[Any]:
        return interceptor.unary(call, request, functools.partial(proceed, call))

    return run


def _around_stream(
    interceptor: ServerInterceptor, proceed: Callable[[ServerCall, Any], Awaitable[None]]
) -> Callable[[ServerCall, Any], Awaitable[None]]:
    def run(call: ServerCall, stream: Any) -> Awaitable[None]:
        return interceptor.stream(call, stream, functools.partial(proceed, call))

    return run


class _UnaryStream(ServerStream[Any, Any]):
    """A stream whose one request is there and whose one reply is kept."""

    def __init__(self, call: ServerCall, request: Any) -> None:
        super().__init__(call)
        self._request = request
        self.reply: Any = None

    async def recv_message(self) -> Any:
        request, self._request = self._request, None
        return request

    async def send_message(self, message: Any) -> None:
        self.reply = message
