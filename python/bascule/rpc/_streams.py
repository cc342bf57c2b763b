"""The server's side of one call, for handlers written for a stream object."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import anyio
from grpclib.exceptions import ProtocolError
from grpclib.metadata import Deadline

from bascule.errors import RpcError, Status

if TYPE_CHECKING:
    from multidict import MultiDict

    from bascule.net._link import Future
    from bascule.rpc._context import MetadataLike, MetadataValue
    from bascule.rpc._server_call import ServerCall

__all__ = ["ServerStream"]

Received = TypeVar("Received")
Sent = TypeVar("Sent")

#: gRPC's prefix of a message, which counts against the flow-control window.
PREFIX = 5

#: Messages sent in a row before the loop gets a turn, so that one busy stream
#: neither starves the others nor outruns a cancellation.
TURN = 128


class MessageQueue:
    """What a stream has received and its reader has not yet taken.

    Bounded by the flow-control window: taking a message gives its credit back.
    """

    __slots__ = ("_waiting", "ended", "messages")

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self.ended = False
        self._waiting: Future[None] | None = None

    def put(self, message: bytes) -> None:
        self.messages.append(message)
        self.wake()

    def end(self) -> None:
        self.ended = True
        self.wake()

    def wake(self) -> None:
        waiting = self._waiting
        if waiting is not None:
            self._waiting = None
            if not waiting.done():
                waiting.set_result(None)

    def expect(self, future: Future[None]) -> Future[None]:
        """What to await until something changes, and then to :meth:`forget`. One task at a time may
        receive.
        """
        if self._waiting is not None and not self._waiting.done():
            message = "another task is already receiving from this stream"
            raise ProtocolError(message)
        self._waiting = future
        return future

    def forget(self, future: Future[None]) -> None:
        """Wake nobody who waits no more."""
        if self._waiting is future:
            self._waiting = None


class Room:
    """Where tasks wait until their peer takes more of what they send."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Future[None]] = []

    def expect(self, future: Future[None]) -> Future[None]:
        """What to await until there is room."""
        self._waiting.append(future)
        return future

    def wake(self) -> None:
        """There is room, or no reason to wait any more."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                if not each.done():  # or its task was cancelled
                    each.set_result(None)


class ServerStream(Generic[Received, Sent]):
    """The methods of ``grpclib.server.Stream``, on both loops.

    One task may receive while others send. What a task sends is whole, whatever others send.
    """

    def __init__(self, call: ServerCall) -> None:
        self._call = call
        self._sent = 0
        self._turn = 0
        self._trailing_sent = False

    @property
    def metadata(self) -> MultiDict[MetadataValue]:
        """What the client sent."""
        return self._call.metadata

    @property
    def deadline(self) -> Deadline | None:
        """The call's deadline, if it has one."""
        left = self._call.time_left
        return None if left == math.inf else Deadline.from_timeout(max(left, 0.0))

    @property
    def peer(self) -> str:
        """The client's address."""
        return self._call.peer

    @property
    def user_agent(self) -> str | None:
        """The client's ``user-agent``."""
        value = self._call.metadata.get("user-agent")
        return value if isinstance(value, str) else None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    async def recv_message(self) -> Received | None:
        """The next request message, or None after the last.

        :raises DecodeError: if it is no encoding of the request type
        :raises RpcError: CANCELLED if the client gave up and the handler shields itself
        """
        call = self._call
        queue = call.queue
        while not queue.messages:
            if call.gone:
                await anyio.lowlevel.checkpoint()
                raise RpcError(Status.CANCELLED, "the client gave up")
            if queue.ended:
                return None
            something = queue.expect(call.session.driver.future())
            self._turn = 0
            try:
                await something
            except BaseException:
                queue.forget(something)
                raise
        data = queue.messages.popleft()
        if not call.binding.unary_request:
            call.session.machine.consume(call.stream, PREFIX + len(data))
            call.session.link.flush_soon()
        return call.binding.decode(data)  # type: ignore[no-any-return]

    async def send_initial_metadata(self, *, metadata: MetadataLike | None = None) -> None:
        """Send headers before the first message.

        :raises ProtocolError: if they were sent already
        """
        await self._call.send_initial_metadata(metadata)

    async def send_message(self, message: Sent) -> None:
        """Send a reply; waits while the client does not read.

        :raises ProtocolError: if a unary reply was sent already
        :raises EncodeError: if a field holds what its type cannot carry
        """
        call = self._call
        data = call.binding.encode(message)
        if call.binding.unary_reply:
            if self._sent:
                text = "a unary reply was already sent"
                raise ProtocolError(text)
            self._sent = 1
            call.reply = data
            return
        self._sent += 1
        call.headers_sent = True
        session = call.session
        writable = session.machine.send_message(call.stream, data)
        # The first since the loop had its turn is one of many streams'; those that follow are this
        # one's. Without room, not now: a flush may tell of new room, and nobody waits for it yet.
        if writable and self._turn == 0:
            session.link.flush_part(len(session.calls) >> 1)
        else:
            session.link.flush_soon()
        if not writable:
            self._turn = 0
            await call.room().expect(session.driver.future())
        elif (turn := self._turn + 1) == TURN:
            self._turn = 0
            await anyio.lowlevel.checkpoint()
        else:
            self._turn = turn

    async def send_trailing_metadata(
        self,
        *,
        status: Status = Status.OK,
        status_message: str | None = None,
        status_details: Any = None,
        metadata: MetadataLike | None = None,
    ) -> None:
        """Set how the call ends, once its handler returns."""
        if self._trailing_sent:
            text = "trailing metadata was already sent"
            raise ProtocolError(text)
        self._trailing_sent = True
        if metadata:
            self._call.trailing_metadata.extend(metadata)
        if status is not Status.OK:
            self._call.error = RpcError(status, status_message, status_details)

    async def cancel(self) -> None:
        """End the call at once with RST_STREAM(CANCEL)."""
        self._call.abort()
        await anyio.lowlevel.checkpoint()
