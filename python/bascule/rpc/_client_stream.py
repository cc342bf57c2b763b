"""The client's side of one call that streams."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import anyio
from grpclib.exceptions import ProtocolError
from multidict import MultiDict

from bascule.errors import BasculeError, DecodeError, RpcError, Status
from bascule.rpc._call import (
    ABANDONED,
    FAILURE,
    FAILURES,
    SUCCESS,
    UNSENT,
    error_of,
    leave_to_scope,
    refused,
)
from bascule.rpc._streams import PREFIX, TURN, MessageQueue, Room

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from bascule.net._link import Event
    from bascule.rpc._call import Slot
    from bascule.rpc._channel import Channel
    from bascule.rpc._context import ClientCallContext, ClientInterceptor, MetadataValue
    from bascule.rpc._method import Method

__all__ = ["Stream"]

Sent = TypeVar("Sent")
Received = TypeVar("Received")


class Stream(Generic[Sent, Received]):
    """A call in progress, with the methods of ``grpclib.client.Stream``, on both loops.

    Use as ``async with``. Leaving it before the call has ended resets it;
    leaving it by an exception or a cancellation does so at once. One task may
    receive while others send. A stream is entered once.

    A call that the server says it has not processed is sent again by whoever uses the stream next,
    once, and one that was never sent as often as needed, as long as its headers have not come and
    its request is small enough to be kept. Source: gRFC A6, "Transparent Retries".
    """

    def __init__(
        self,
        channel: Channel,
        method: Method[Sent, Received],
        context: ClientCallContext,
        interceptors: Sequence[ClientInterceptor],
    ) -> None:
        self._channel = channel
        self._method = method
        self._context = context
        self._interceptors = interceptors
        self._max_request = channel.max_send_message
        #: Whether to wait while no endpoint can be reached; None: as the channel does.
        self.wait_for_ready: bool | None = None
        self._queue = MessageQueue()
        self._entered = False
        self._slot: Slot | None = None
        self._call = 0
        self._started = False
        self._send_ended = False
        self._first: tuple[Any] | None = None
        self._headers_came = False
        self._outcome: tuple[int, str | None, Any] | None = None
        self._room = Room()
        self._turn = 0
        #: What was sent, as long as it may have to be sent again; None once it need not.
        self._replay: list[bytes] | None = []
        self._replay_size = 0
        # Whether the call has to be sent again, and whether it was because a server said so.
        self._again = False
        self._transparent = False
        self._deadline_ns: int | None = None
        self._of_scope = False
        # Whether the caller knows how the call ended: leaving need not say it again.
        self._told = False
        #: What came with the headers; None before they came.
        self.initial_metadata: MultiDict[MetadataValue] | None = None
        #: What came with the status; None before the call has ended.
        self.trailing_metadata: MultiDict[MetadataValue] | None = None

    @property
    def peer(self) -> str | None:
        """The server's address, once the call was sent."""
        return self._context.peer

    def send_on_enter(self, request: Sent) -> None:
        """Send the one request when the stream is entered."""
        self._first = (request,)

    async def __aenter__(self) -> Stream[Sent, Received]:
        if self._entered:
            text = f"a stream of {self._method.path} is one call: open another one for the next"
            raise ProtocolError(text)
        self._entered = True
        self._stack = AsyncExitStack()
        await self._stack.__aenter__()
        try:
            for each in self._interceptors:
                await self._stack.enter_async_context(each.stream(self._context))
            if self._context.on_stream is not None:
                self._context.on_stream(self)
            try:
                limit = self._channel.limit(self._context.timeout)
                self._deadline_ns, self._of_scope, _ = limit
                if self._deadline_ns == 0:
                    await anyio.lowlevel.checkpoint()
                if self._first is not None:
                    await self.send_message(self._first[0], end=True)
                    self._first = None
            except Exception:
                if not self._started:  # whoever tries again and again must let the loop turn
                    await anyio.lowlevel.checkpoint()
                raise
        except BaseException as error:
            self._abandon()
            if await self._stack.__aexit__(type(error), error, error.__traceback__):
                message = "an interceptor swallowed the error of a call that could not start"
                raise RuntimeError(message) from error
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        error = exc
        try:
            if exc is None and self._wants_status():
                await self.recv_trailing_metadata()
            elif not self._started:
                await anyio.lowlevel.checkpoint()
        except BaseException as late:  # noqa: BLE001 - raised again below
            error = late
        self._abandon()
        if error is None:
            return await self._stack.__aexit__(None, None, None)
        swallowed = await self._stack.__aexit__(type(error), error, error.__traceback__)
        if error is not exc and not swallowed:
            raise error
        return swallowed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    async def send_request(self, *, end: bool = False) -> None:
        """Start the call before there is a message to send.

        :raises ProtocolError: if it was started already, or the request is one message
        """
        if self._started:
            text = "the request was already sent"
            raise ProtocolError(text)
        if not self._method.cardinality.client_streaming:
            text = "a unary request is sent with its message"
            raise ProtocolError(text)
        await self._start(None)
        if end:
            await self.end()

    async def send_message(self, message: Sent, *, end: bool = False) -> None:
        """Send a request message; waits while the server does not read.

        :param end: whether it is the last one
        :raises ProtocolError: if the request has ended
        :raises RpcError: if the call could not start
        """
        data = self._encoded(message)
        if not self._method.cardinality.client_streaming:
            if self._replay is not None:
                self._replay.append(data)
            await self._start(data)
            self._send_ended = True
            return
        if not self._started:
            await self._start(None)
        if self._again:
            await self._restart()
        if self._outcome is not None:
            # The server ended the call: its status is what the caller should see.
            return
        if self._replay is not None:
            self._remember(data)
        writable = False  # while another task starts the call, which sends this as well
        if self._slot is not None:
            connection = self._slot.connection
            writable = connection.machine.send_message(self._call, data)
            # As for the server's replies.
            if writable and self._turn == 0:
                connection.link.flush_part(len(connection.streams) >> 1)
            else:
                connection.link.flush_soon()
        if not writable:
            self._turn = 0
            await self._room.expect(self._channel.driver.future())
            if self._again:
                await self._restart()
            elif not self._started:
                await self._start(None)
        elif (turn := self._turn + 1) == TURN:
            self._turn = 0
            await anyio.lowlevel.checkpoint()
        else:
            self._turn = turn
        if end:
            await self.end()

    async def end(self) -> None:
        """End a streaming request; replies may still come.

        :raises ProtocolError: if it has ended, or is one message that was not sent
        """
        if self._send_ended:
            text = "the request has already ended"
            raise ProtocolError(text)
        if not self._started:
            if not self._method.cardinality.client_streaming:
                text = "a unary request needs its one message"
                raise ProtocolError(text)
            await self._start(None)
        self._send_ended = True
        if self._outcome is None and self._slot is not None:
            self._slot.connection.machine.end(self._call)
            self._slot.connection.link.flush_soon()

    async def recv_initial_metadata(self) -> None:
        """Wait for the headers, which are then in ``initial_metadata``.

        :raises RpcError: if the call ended with a status other than OK instead
        """
        self._require_started()
        while not self._headers_came and self._outcome is None:
            await self._wait()
        if self.initial_metadata is None:
            self.initial_metadata = MultiDict()
        if not self._headers_came:
            await self._raise_for_status()

    async def recv_message(self) -> Received | None:
        """The next reply, or None after the last.

        :raises RpcError: if the call ended with a status other than OK
        """
        self._require_started()
        queue = self._queue
        while not queue.messages:
            if queue.ended:
                await self._raise_for_status()
                return None
            await self._wait()
        data = queue.messages.popleft()
        if self._slot is not None:
            self._slot.connection.machine.consume(self._call, PREFIX + len(data))
            self._slot.connection.link.flush_soon()
        _, _, decode, _ = self._channel.prepare(self._method)
        try:
            return decode(data)  # type: ignore[no-any-return]
        except DecodeError as error:
            text = f"cannot decode a reply of {self._method.path}: {error}"
            raise RpcError(Status.INTERNAL, text) from error

    async def recv_trailing_metadata(self) -> None:
        """Wait for the status; replies that were not received are dropped.

        :raises RpcError: if it is not OK
        """
        self._require_started()
        while self._outcome is None:
            while self._queue.messages:
                await self.recv_message()
            if not self._queue.ended:
                await self._wait()
        await self._raise_for_status()

    async def cancel(self) -> None:
        """End the call with RST_STREAM(CANCEL)."""
        self._told = True
        self._abandon()
        await anyio.lowlevel.checkpoint()

    @property
    def several(self) -> bool:
        """Whether there may be several messages either way, so that it may last."""
        cardinality = self._method.cardinality
        return bool(cardinality.client_streaming or cardinality.server_streaming)

    def handle_headers(self, headers: Any) -> None:
        """The connection reports the response headers."""
        self._headers_came = True
        self._drop_replay()
        self.initial_metadata = MultiDict(headers.items() if headers is not None else ())
        self._queue.wake()

    def handle_message(self, data: bytes) -> None:
        """The connection reports a reply."""
        self._queue.put(data)

    def handle_writable(self) -> None:
        """The connection has room for another message."""
        self._room.wake()

    def handle_end(self, event: Event) -> None:
        """The connection reports the status."""
        _, _, status, message, trailers, unprocessed = event
        slot, self._slot = self._slot, None
        if slot is not None:
            outcome = ABANDONED if unprocessed else _outcome_of(status)
            self._channel.complete(slot, outcome, trailers, stream=self.several)
        if self._may_repeat(unprocessed):
            self._transparent = self._transparent or unprocessed != UNSENT
            self._channel.attempts.transparent += 1
            self._again = True
            self._queue.wake()
            self.handle_writable()
            return
        self._drop_replay()
        self._outcome = (status, message, trailers)
        self.trailing_metadata = MultiDict(trailers.items() if trailers is not None else ())
        self._context.trailing_metadata = self.trailing_metadata
        self._queue.end()
        self.handle_writable()

    async def _start(self, request: bytes | None) -> None:
        self._require_entered()
        self._started = True
        channel = self._channel
        index, _, _, _ = channel.prepare(self._method)
        metadata = self._context.pairs()
        while True:
            try:
                limit_ns = None if self._of_scope else self._deadline_ns
                slot = await channel.admit(limit_ns, self.wait_for_ready, metadata, streams=True)
                if self._outcome is not None:  # cancelled by another task meanwhile
                    channel.complete(slot, ABANDONED)
                    return
                connection = slot.connection
                call = self._begin(slot, index, request, metadata)
                if call is not None:
                    break
                await refused(channel, slot)
            except Exception as error:
                # Whoever receives already, or tries to later, must not wait for ever.
                status = _status_of(error)
                self._outcome = (status.value, str(error), None)
                self._told = True
                self._queue.end()
                self.handle_writable()
                await anyio.lowlevel.checkpoint()
                raise
            except BaseException:
                # Cancelled before anything was sent: another message may start the call, or one
                # that waits for it already.
                self._started = False
                self.handle_writable()
                raise
        self._slot = slot
        self._call = call
        self._context.peer = connection.link.peer
        connection.streams[call] = self
        if request is None:
            # What was kept, or came from another task meanwhile: it is little, and need not wait.
            for data in self._replay or ():
                connection.machine.send_message(call, data)
            if self._send_ended:
                connection.machine.end(call)
            self.handle_writable()
        connection.link.flush_soon()
        if self._deadline_ns is not None and not self._of_scope:
            connection.arm(self._deadline_ns)

    def _begin(
        self,
        slot: Slot,
        index: int,
        request: bytes | None,
        metadata: list[tuple[str, MetadataValue]] | None,
    ) -> int | None:
        """Start the call on a connection; None if that takes none."""
        now_ns = self._channel.driver.now_ns()
        try:
            return slot.connection.machine.start(
                index, request, metadata, self._deadline_ns, False, now_ns
            )
        except BaseException:
            self._channel.complete(slot, ABANDONED)
            raise

    def _may_repeat(self, unprocessed: int) -> bool:
        if self._replay is None or self._outcome is not None:
            return False
        return unprocessed == UNSENT or (bool(unprocessed) and not self._transparent)

    async def _wait(self) -> None:
        """Wait until something comes; send the call again if it has to be."""
        if self._again:
            await self._restart()
        else:
            something = self._queue.expect(self._channel.driver.future())
            self._turn = 0
            try:
                await something
            except BaseException:
                self._queue.forget(something)
                raise

    async def _restart(self) -> None:
        self._again = False
        request = None
        if not self._method.cardinality.client_streaming and self._replay:
            request = self._replay[0]
        try:
            await self._start(request)
        except BaseException:
            # Cancelled: whoever else uses the stream goes on.
            self._started = True
            self._again = self._outcome is None
            self._queue.wake()
            self.handle_writable()
            raise

    def _remember(self, data: bytes) -> None:
        if self._replay is None:
            return
        fits = self._channel.attempts.keep(len(data), self._replay_size)
        if fits:
            self._replay_size += len(data)
        if fits or self._slot is None:
            self._replay.append(data)
        else:
            self._drop_replay()

    def _drop_replay(self) -> None:
        self._replay = None
        self._channel.attempts.release(self._replay_size)
        self._replay_size = 0

    def _abandon(self) -> None:
        self._drop_replay()
        slot, self._slot = self._slot, None
        if slot is not None:
            connection = slot.connection
            connection.streams.pop(self._call, None)
            connection.machine.cancel(self._call, self._channel.driver.now_ns())
            connection.link.flush_soon()
            self._channel.complete(slot, ABANDONED)
        if self._outcome is None:
            self._outcome = (Status.CANCELLED.value, "the call was cancelled here", None)
            self._queue.end()
            self.handle_writable()

    def _encoded(self, message: Sent) -> bytes:
        if self._send_ended:
            text = "the request has ended: no message can follow"
            raise ProtocolError(text)
        _, encode, _, _ = self._channel.prepare(self._method)
        data: bytes = encode(message)
        if len(data) > self._max_request:
            text = f"message of {len(data)} bytes is larger than the limit of {self._max_request}"
            raise RpcError(Status.RESOURCE_EXHAUSTED, text)
        return data

    def _wants_status(self) -> bool:
        """A caller that has received all it can expect should see how the call ended."""
        if self._told or self._outcome is not None:
            return not self._told
        unary_reply = not self._method.cardinality.server_streaming
        return self._send_ended and unary_reply

    def _require_entered(self) -> None:
        """Its deadline, its interceptors and its end are those of the block."""
        if not self._entered:
            text = f"enter the stream first: `async with` the stream of {self._method.path}"
            raise ProtocolError(text)

    def _require_started(self) -> None:
        if not self._started:
            text = "the request was not sent yet"
            raise ProtocolError(text)

    async def _raise_for_status(self) -> None:
        if self._outcome is None or self._outcome[0] == 0:
            return
        self._told = True
        if self._of_scope and self._outcome[0] == Status.DEADLINE_EXCEEDED.value:
            await leave_to_scope(self._deadline_ns)
        raise error_of(*self._outcome)


def _status_of(error: Exception) -> Status:
    """What a call ended with that could not start."""
    if isinstance(error, RpcError):
        return error.status
    return Status.UNAVAILABLE if isinstance(error, BasculeError) else Status.INTERNAL


def _outcome_of(status: int) -> int:
    return FAILURE if status in FAILURES else SUCCESS
