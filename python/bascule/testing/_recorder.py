"""Calls as they were made, to look at and to play again."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from grpclib.exceptions import GRPCError

from bascule.errors import RpcError, Status
from bascule.rpc import (
    Cardinality,
    ClientInterceptor,
    Method,
    MethodHandler,
    ServerInterceptor,
    call_context,
    codec_for,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from bascule.rpc import CallContext, ClientCallContext

__all__ = ["RecordedCall", "Recorder"]

Direction = Literal["request", "reply"]


@dataclass(slots=True, kw_only=True)
class RecordedCall:
    """One call.

    :ivar method: ``/package.Service/Method``
    :ivar metadata: what the client sent
    :ivar messages: requests and replies in the order in which this side sent and received them
    :ivar status: how it ended; None while it runs; CANCELLED if this side gave up
    :ivar message: the status's message
    :ivar details: the status's rich details
    :ivar trailing_metadata: what came with the status
    """

    method: str
    metadata: list[tuple[str, str | bytes]]
    messages: list[tuple[Direction, Any]] = field(default_factory=list)
    status: Status | None = None
    message: str | None = None
    details: list[Any] | None = None
    trailing_metadata: list[tuple[str, str | bytes]] = field(default_factory=list)

    @property
    def requests(self) -> list[Any]:
        """The messages of the client."""
        return [message for direction, message in self.messages if direction == "request"]

    @property
    def replies(self) -> list[Any]:
        """The messages of the server."""
        return [message for direction, message in self.messages if direction == "reply"]


class Recorder:
    """Keeps every call that passes its interceptors, and answers like the server it has seen.

    ``Server(..., interceptors=[recorder.server])`` or ``Channel(..., interceptors=[recorder.client])``;
    :meth:`replay` then is a service for a :class:`bascule.rpc.Server` or a
    :func:`bascule.testing.memory_channel`.
    """

    def __init__(self) -> None:
        #: In the order in which they began.
        self.calls: list[RecordedCall] = []
        self.client: ClientInterceptor = _OfClient(self)
        self.server: ServerInterceptor = _OfServer(self)

    def of(self, method: str) -> list[RecordedCall]:
        """The calls of a method, by its path or its last part."""
        return [
            each for each in self.calls if method in (each.method, each.method.rpartition("/")[2])
        ]

    def replay(self) -> Replay:
        """A service that answers as recorded.

        A call is answered by the first recorded one with equal requests that was not played yet, or
        by the last such one. FAILED_PRECONDITION says that there is none.
        """
        return Replay(self.calls)

    @contextmanager
    def record(
        self, call: CallContext | ClientCallContext
    ) -> Iterator[Callable[[Direction, Any], None]]:
        """Record what happens inside, and hand out what takes the messages."""
        recorded = RecordedCall(method=call.method, metadata=list(call.metadata.items()))
        self.calls.append(recorded)
        try:
            yield lambda direction, message: recorded.messages.append((direction, message))
        except GRPCError as error:
            recorded.status, recorded.message = error.status, error.message
            recorded.details = error.details
            raise
        except Exception as error:
            recorded.status, recorded.message = Status.UNKNOWN, str(error)
            raise
        else:
            # A handler may set a status without raising it.
            failed: GRPCError | None = getattr(call, "error", None)
            recorded.status = Status.OK if failed is None else failed.status
            recorded.message = None if failed is None else failed.message
        finally:
            if recorded.status is None:
                recorded.status = Status.CANCELLED
            recorded.trailing_metadata = list(call.trailing_metadata.items())


class _OfServer(ServerInterceptor):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def unary(
        self, call: CallContext, request: Any, proceed: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        with self._recorder.record(call) as note:
            note("request", request)
            reply = await proceed(request)
            note("reply", reply)
            return reply

    async def stream(
        self, call: CallContext, stream: Any, proceed: Callable[[Any], Awaitable[None]]
    ) -> None:
        with self._recorder.record(call) as note:
            _observe(stream, note, received="request", sent="reply")
            await proceed(stream)


class _OfClient(ClientInterceptor):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def unary(
        self, call: ClientCallContext, request: Any, proceed: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        with self._recorder.record(call) as note:
            note("request", request)
            reply = await proceed(request)
            note("reply", reply)
            return reply

    @asynccontextmanager
    async def stream(self, call: ClientCallContext) -> AsyncIterator[None]:
        with self._recorder.record(call) as note:
            call.on_stream = lambda stream: _observe(stream, note, received="reply", sent="request")
            yield


def _observe(
    stream: Any, note: Callable[[Direction, Any], None], *, received: Direction, sent: Direction
) -> None:
    """Have one stream tell of its messages; others go on as they are."""
    send, receive = stream.send_message, stream.recv_message

    async def send_message(message: Any, **options: Any) -> None:
        note(sent, message)
        await send(message, **options)

    async def recv_message() -> Any:
        message = await receive()
        if message is not None:
            note(received, message)
        return message

    stream.send_message, stream.recv_message = send_message, recv_message


class Replay:
    """A service made of recorded calls: what :meth:`Recorder.replay` answers."""

    def __init__(self, calls: Iterable[RecordedCall]) -> None:
        self._calls: dict[str, list[RecordedCall]] = {}
        for call in calls:
            if call.status is not None:
                self._calls.setdefault(call.method, []).append(call)
        self._played: set[int] = set()

    def __mapping__(self) -> dict[str, MethodHandler]:
        """Give the server its handlers."""
        return {path: self._handler(path) for path in self._calls}

    def _handler(self, path: str) -> MethodHandler:
        # On the wire, every kind of method is a stream in both directions, of bytes.
        method = Method(path, Cardinality.STREAM_STREAM, bytes, bytes)

        async def play(requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            fitting = self._calls[path]
            step = 0
            while True:
                # Of those that fit so far: one that was not played yet, or else the last one.
                unplayed = [each for each in fitting if id(each) not in self._played]
                chosen = unplayed[0] if unplayed else fitting[-1]
                if step == len(chosen.messages):
                    break
                direction, message = chosen.messages[step]
                if direction == "reply":
                    yield codec_for(type(message)).encode(message)
                    fitting = [
                        each
                        for each in fitting
                        if each.messages[step:][:1] == [(direction, message)]
                    ]
                else:
                    request = await anext(requests, None)
                    fitting = [each for each in fitting if _asks(each, step, request)]
                if not fitting:
                    text = f"no recorded call of {path} goes on with request {step + 1} of this one"
                    raise RpcError(Status.FAILED_PRECONDITION, text)
                step += 1
            self._played.add(id(chosen))
            call_context().trailing_metadata.extend(chosen.trailing_metadata)
            if chosen.status is not None and chosen.status is not Status.OK:
                raise RpcError(chosen.status, chosen.message, chosen.details)

        return MethodHandler.bidi(method, play)


def _asks(call: RecordedCall, step: int, request: bytes | None) -> bool:
    """Whether a recorded call has this request as its next message."""
    if step >= len(call.messages) or call.messages[step][0] != "request" or request is None:
        return False
    message = call.messages[step][1]
    return bool(codec_for(type(message)).decode(request) == message)
