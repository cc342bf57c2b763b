"""Methods as values, and what a service's ``__mapping__`` holds for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from grpclib.const import Cardinality, Handler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from bascule.rpc._streams import ServerStream

__all__ = ["Cardinality", "Method", "MethodHandler"]

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class Method(Generic[Request, Reply]):
    """One RPC: its path, how many messages flow each way, and their types.

    :param path: ``/package.Service/Method``
    :raises ValueError: if the path has another form
    """

    __slots__ = ("cardinality", "path", "reply_type", "request_type")

    def __init__(
        self,
        path: str,
        cardinality: Cardinality,
        request_type: type[Request],
        reply_type: type[Reply],
    ) -> None:
        if path.count("/") != 2 or not path.startswith("/"):
            message = f"method path {path!r}: expected /package.Service/Method"
            raise ValueError(message)
        self.path = path
        self.cardinality = cardinality
        self.request_type = request_type
        self.reply_type = reply_type

    def __repr__(self) -> str:
        return f"<Method {self.path} {self.cardinality.name}>"

    @property
    def service(self) -> str:
        """``package.Service``."""
        return self.path.split("/")[1]

    @property
    def name(self) -> str:
        """``Method``."""
        return self.path.split("/")[2]


class MethodHandler(Handler):
    """A method with the function that serves it.

    Works wherever ``grpclib.const.Handler`` does; bascule's server calls
    ``direct`` and spares the stream object.
    """

    direct: Callable[[Any], Any]

    @classmethod
    def unary(
        cls,
        method: Method[Request, Reply],
        function: Callable[[Request], Awaitable[Reply]],
    ) -> MethodHandler:
        """One request, one reply."""

        async def serve(stream: ServerStream[Any, Any]) -> None:
            request: Any = await stream.recv_message()
            await stream.send_message(await function(request))

        return cls._make_handler(serve, method, function)

    @classmethod
    def server_stream(
        cls,
        method: Method[Request, Reply],
        function: Callable[[Request], AsyncIterator[Reply]],
    ) -> MethodHandler:
        """One request, many replies."""

        async def serve(stream: ServerStream[Any, Any]) -> None:
            request: Any = await stream.recv_message()
            await _send_all(stream, function(request))

        return cls._make_handler(serve, method, function)

    @classmethod
    def client_stream(
        cls,
        method: Method[Request, Reply],
        function: Callable[[AsyncIterator[Request]], Awaitable[Reply]],
    ) -> MethodHandler:
        """Many requests, one reply."""

        async def serve(stream: ServerStream[Any, Any]) -> None:
            await stream.send_message(await function(stream))

        return cls._make_handler(serve, method, function)

    @classmethod
    def bidi(
        cls,
        method: Method[Request, Reply],
        function: Callable[[AsyncIterator[Request]], AsyncIterator[Reply]],
    ) -> MethodHandler:
        """Many requests, many replies."""

        def serve(stream: ServerStream[Any, Any]) -> Coroutine[Any, Any, None]:
            return _send_all(stream, function(stream))

        return cls._make_handler(serve, method, function)

    @classmethod
    def _make_handler(
        cls,
        serve: Callable[[Any], Awaitable[None]],
        method: Method[Any, Any],
        direct: Callable[[Any], Any],
    ) -> MethodHandler:
        handler = cls(serve, method.cardinality, method.request_type, method.reply_type)
        handler.direct = direct
        return handler


async def _send_all(stream: ServerStream[Any, Any], replies: AsyncIterator[Any]) -> None:
    """Send what an iterator gives, and close it whatever happens."""
    try:
        async for reply in replies:
            await stream.send_message(reply)
    finally:
        close = getattr(replies, "aclose", None)
        if close is not None:
            await close()
