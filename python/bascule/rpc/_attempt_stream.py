"""Streams whose method has a configuration: sizes, and more attempts than one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from bascule._tasks import owned_tasks
from bascule.errors import RpcError, Status
from bascule.rpc._call import (
    ABANDONED,
    FAILURE,
    FAILURES,
    SUCCESS,
    UNSENT,
    error_of,
    leaves_time,
    refused,
    shorter,
)
from bascule.rpc._client_stream import Stream
from bascule.rpc._context import ClientInterceptor
from bascule.rpc._hedge import Hedging, race
from bascule.rpc._retry import PREVIOUS_KEY, Answer, Failure, Retrying, attempt_attributes, repeat
from bascule.rpc._streams import TURN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskGroup

    from bascule.net._link import Event, Future
    from bascule.rpc._call import Slot
    from bascule.rpc._channel import Channel
    from bascule.rpc._context import ClientCallContext
    from bascule.rpc._method import Method
    from bascule.rpc._method_config import HedgingPolicy, MethodConfig, RetryPolicy

Sent = TypeVar("Sent")
Received = TypeVar("Received")


def open_stream(
    channel: Channel,
    method: Method[Sent, Received],
    context: ClientCallContext,
    interceptors: Sequence[ClientInterceptor],
) -> Stream[Sent, Received]:
    """The stream of a call, as the method's configuration wants it."""
    config = channel.prepare(method)[3]
    if config is None:
        return Stream(channel, method, context, interceptors)
    context.timeout = shorter(context.timeout, config.timeout)
    if config.retry is None and config.hedging is None:
        return ConfiguredStream(channel, method, context, interceptors, config)
    return AttemptedStream(channel, method, context, interceptors, config)


class ConfiguredStream(Stream[Sent, Received]):
    """A stream with limits of its method's own."""

    def __init__(
        self,
        channel: Channel,
        method: Method[Sent, Received],
        context: ClientCallContext,
        interceptors: Sequence[ClientInterceptor],
        config: MethodConfig,
    ) -> None:
        super().__init__(channel, method, context, interceptors)
        self._config = config
        self.wait_for_ready = config.wait_for_ready
        if config.max_request_bytes is not None:
            self._max_request = min(self._max_request, config.max_request_bytes)

    def handle_message(self, data: bytes) -> None:
        """The connection reports a reply."""
        most = self._config.max_response_bytes
        if most is None or len(data) <= most:
            super().handle_message(data)
        elif self._outcome is None:
            text = f"reply of {len(data)} bytes is larger than the method's {most}"
            self._outcome = (Status.RESOURCE_EXHAUSTED.value, text, None)
            self._abandon()
            self._queue.end()
            self.handle_writable()


class Nursery(ClientInterceptor):
    """Innermost around a stream: owns the tasks of its attempts."""

    tasks: TaskGroup

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        async with owned_tasks() as self.tasks:
            try:
                yield
            finally:
                self.tasks.cancel_scope.cancel()

    def stream(self, call: ClientCallContext) -> AbstractAsyncContextManager[None]:
        """Around the call's own ``async with``."""
        return self._open()


class Attempt:
    """One try of a stream, until its headers make it the stream's own."""

    def __init__(self, stream: AttemptedStream[Any, Any], slot: Slot, call: int) -> None:
        self.slot = slot
        self.call = call
        #: Messages that were sent of those that the stream keeps.
        self.sent = 0
        self.writable = True
        #: Gets the end, or None when the call goes on with this attempt alone.
        self.over: Future[Event | None] = stream.channel.driver.future()
        self._stream = stream
        self._ended = False
        self._live = True

    def pump(self) -> None:
        """Send what was not sent yet, as far as there is room."""
        stream, connection = self._stream, self.slot.connection
        kept = stream.kept or []
        while self.writable and self.sent < len(kept):
            self.writable = connection.machine.send_message(self.call, kept[self.sent])
            self.sent += 1
        if self.sent == len(kept) and stream.request_ended and not self._ended:
            self._ended = True
            connection.machine.end(self.call)
        connection.link.flush_soon()

    def reset(self) -> None:
        """Give it up, if it goes on."""
        if self._live:
            self._live = False
            connection, channel = self.slot.connection, self._stream.channel
            connection.streams.pop(self.call, None)
            connection.machine.cancel(self.call, channel.driver.now_ns())
            connection.link.flush_soon()
            channel.complete(self.slot, ABANDONED)

    def adopt(self) -> None:
        """The stream goes on with this attempt: it reports to the stream from now on."""
        self._live = False
        self.slot.connection.streams[self.call] = self._stream
        if not self.over.done():
            self.over.set_result(None)

    def handle_headers(self, headers: Any) -> None:
        """The connection reports the response headers: no other attempt may follow."""
        self._stream.commit(self)
        self._stream.handle_headers(headers)

    def handle_message(self, data: bytes) -> None:
        """Never before headers."""

    def handle_writable(self) -> None:
        """The connection has room for another message."""
        self.writable = True
        self.pump()

    def handle_end(self, event: Event) -> None:
        """The connection reports the status, and no headers came."""
        if event[2] == 0:
            self._stream.commit(self)
            del self.slot.connection.streams[self.call]
            self._stream.handle_end(event)
            return
        self._live = False
        outcome = FAILURE if event[2] in FAILURES else SUCCESS
        stream = self._stream
        stream.channel.complete(
            self.slot, ABANDONED if event[5] else outcome, stream=stream.several
        )
        if not self.over.done():
            self.over.set_result(event)


class AttemptedStream(ConfiguredStream[Sent, Received]):
    """A stream that is retried or hedged until its headers have come.

    Its request messages are kept for other attempts, up to a limit; whatever ends that, the call
    goes on with one attempt. Source: gRFC A6, "When Retries are Valid".
    """

    def __init__(
        self,
        channel: Channel,
        method: Method[Sent, Received],
        context: ClientCallContext,
        interceptors: Sequence[ClientInterceptor],
        config: MethodConfig,
    ) -> None:
        self._nursery = Nursery()
        super().__init__(channel, method, context, (*interceptors, self._nursery), config)
        self.channel = channel
        self._replay = None  # its attempts have their own
        #: Messages that an attempt may still have to send; None once there are none.
        self.kept: list[bytes] | None = []
        self._kept_size = 0
        self._request: bytes | None = None
        self._running: list[Attempt] = []
        # Where hedges were sent to; the next one goes elsewhere if it can.
        self._used: list[int] = []
        self._winner: Attempt | None = None
        # Whether the next attempt is the last one, because not all of the request was kept.
        self._last = False
        self._begun = anyio.Event()
        self._scope: anyio.CancelScope | None = None
        self._refusal: Exception | None = None
        self._transparent = False
        self._gave_up = False

    @property
    def request_ended(self) -> bool:
        """Whether a streaming request has ended."""
        return self._send_ended and self._request is None

    async def send_message(self, message: Sent, *, end: bool = False) -> None:
        """Send a request message; waits while the server does not read."""
        if self.kept is None or not self._method.cardinality.client_streaming:
            await super().send_message(message, end=end)
            return
        data = self._encoded(message)
        if not self._started:
            await self._start(None)
        if self._outcome is not None or self.kept is None:
            if self._outcome is None:
                await super().send_message(message, end=end)
            return
        self.kept.append(data)
        self._keep(len(data))
        self._pump()
        while self._last and self.kept is not None and self._outcome is None:
            await self._room.expect(self.channel.driver.future())
        self._turn = (self._turn + 1) % TURN
        if self._turn == 0:
            await anyio.lowlevel.checkpoint()
        if end:
            await self.end()

    async def end(self) -> None:
        """End a streaming request; replies may still come."""
        if not self._started and self._method.cardinality.client_streaming:
            await self._start(None)
        if self.kept is None or self._send_ended or not self._started:
            await super().end()
            return
        self._send_ended = True
        self._pump()

    def commit(self, attempt: Attempt) -> None:
        """Go on with one attempt alone; what else runs is reset."""
        for other in self._running:
            if other is not attempt:
                other.reset()
        self._last = True
        self._winner = attempt
        self._slot, self._call = attempt.slot, attempt.call
        self._context.peer = attempt.slot.connection.link.peer
        attempt.adopt()
        self._forget()

    def handle_writable(self) -> None:
        """The connection has room for another message, or the call has ended."""
        if self._winner is not None and self.kept is not None and self._slot is not None:
            self._winner.handle_writable()
            self._forget()
        else:
            super().handle_writable()

    def handle_end(self, event: Event) -> None:
        """The connection reports the status."""
        if event[2] == 0:
            self.channel.attempts.succeeded()
        super().handle_end(event)
        self._release()

    async def _start(self, request: bytes | None) -> None:
        self._require_entered()
        if not self._started:
            self._started = True
            self._request = request
            if request is not None:
                self._keep(len(request))
            # Not the task group's own scope, which is around the caller's code as well.
            self._scope = anyio.CancelScope()
            self._nursery.tasks.start_soon(self._run, self._scope)
        await self._begun.wait()
        if self._refusal is not None:
            raise self._refusal

    async def _run(self, scope: anyio.CancelScope) -> None:
        with scope:
            await self._make_attempts()

    async def _make_attempts(self) -> None:
        """Make attempts until one has the headers or none may follow."""
        config = self._config
        try:
            if config.hedging is not None:
                answer, gave_up = await self._hedge(config.hedging)
            elif config.retry is not None:
                answer, gave_up = await self._retry(config.retry)
        except Exception as error:  # noqa: BLE001 - raised by whoever waits for the start
            if not self._settled():
                # Nothing was sent.
                self._refuse(error, Status.UNAVAILABLE, str(error))
            return
        failure = answer.failure
        # An attempt may fail in the same turn in which another one gets its headers.
        if failure is None or self._settled():
            return
        self._gave_up = gave_up
        if self._begun.is_set():
            self.handle_end((4, 0, failure.status, answer.message, answer.trailers, False))
        else:
            raised = error_of(failure.status, answer.message, answer.trailers)
            raised.exhausted = raised.exhausted or gave_up
            self._refuse(raised, Status(failure.status), answer.message)

    def _refuse(self, error: Exception, status: Status, message: str | None) -> None:
        """Let whoever waits for the start raise an error, and the others see a status."""
        if self._outcome is None:
            self._outcome = (status.value, message, None)
        self._told = not self._begun.is_set()
        self._refusal = error
        self._begun.set()
        self._queue.end()
        self.handle_writable()
        self._release()

    async def _retry(self, policy: RetryPolicy) -> tuple[Answer, bool]:
        return await repeat(
            Retrying(policy, self.channel.attempts),
            lambda n: self._attempt(n, policy.per_attempt_timeout),
            lambda wait: leaves_time(self.channel, self._deadline_ns, wait),
            lambda: self._last,
        )

    async def _hedge(self, policy: HedgingPolicy) -> tuple[Answer, bool]:
        attempts = self.channel.attempts
        plan = Hedging(policy, attempts, anyio.current_time())
        answer = await race(plan, lambda n: self._attempt(n, policy.per_attempt_timeout))
        return answer, plan.gave_up

    async def _attempt(self, previous: int, seconds: float | None) -> Answer:
        """Make one attempt until it is the stream's own, then without a failure, or has ended."""
        late = False
        with anyio.move_on_after(seconds) as scope:
            try:
                event = await self._until_over(previous)
            except RpcError as error:
                event = (4, 0, error.status.value, error.message, None, False)
        if scope.cancelled_caught and not self._settled():
            late = True
            event = (4, 0, Status.DEADLINE_EXCEEDED.value, "the attempt took too long", None, False)
        elif scope.cancelled_caught:
            event = None
        if event is None:
            return Answer(None, "", None, None, None)
        _, _, status, message, trailers, _ = event
        if status and self._context.span is not None:
            self._context.span.event("attempt failed", attempt_attributes(previous, status))
        return Answer(None, "", message, trailers, Failure(status, trailers, timed_out=late))

    async def _until_over(self, previous: int) -> Event | None:
        while True:
            attempt = await self._open(previous)
            if self._settled():
                # Another attempt came first while this one waited for a connection.
                attempt.reset()
                return None
            self._running.append(attempt)
            attempt.pump()
            self._begun.set()
            if self._last:
                self.commit(attempt)
            try:
                event = await attempt.over
            finally:
                attempt.reset()
                self._running.remove(attempt)
            if event is None or not event[5] or (self._transparent and event[5] != UNSENT):
                return event
            self._transparent = self._transparent or event[5] != UNSENT
            self.channel.attempts.transparent += 1

    async def _open(self, previous: int) -> Attempt:
        channel = self.channel
        index = channel.prepare(self._method)[0]
        metadata = self._context.pairs()
        if previous:
            metadata = [*(metadata or ()), (PREVIOUS_KEY, str(previous))]
        while True:
            limit_ns = None if self._of_scope else self._deadline_ns
            slot = await channel.admit(
                limit_ns, self.wait_for_ready, metadata, self._used, streams=True
            )
            if self._config.hedging is not None:
                self._used.append(slot.endpoint)
            connection = slot.connection
            try:
                now_ns = channel.driver.now_ns()
                call = connection.machine.start(
                    index, self._request, metadata, self._deadline_ns, False, now_ns
                )
            except BaseException:
                channel.complete(slot, ABANDONED)
                await anyio.lowlevel.checkpoint()
                raise
            if call is not None:
                break
            await refused(channel, slot)
        attempt = Attempt(self, slot, call)
        connection.streams[call] = attempt
        if self._deadline_ns is not None and not self._of_scope:
            connection.arm(self._deadline_ns)
        return attempt

    def _settled(self) -> bool:
        return self._winner is not None or self._outcome is not None

    def _keep(self, size: int) -> None:
        """Count what the stream keeps; too much of it ends the choice between attempts."""
        if self._last:
            return
        if self.channel.attempts.keep(size, self._kept_size):
            self._kept_size += size
            return
        self._last = True
        if self._running:
            self.commit(max(self._running, key=lambda attempt: attempt.sent))

    def _pump(self) -> None:
        if self._winner is not None:
            self._winner.pump()
            self._forget()
        else:
            for attempt in self._running:
                attempt.pump()

    def _forget(self) -> None:
        """Drop what the one attempt that is left has sent."""
        winner = self._winner
        if winner is None or self.kept is None:
            return
        self._release()
        del self.kept[: winner.sent]
        winner.sent = 0
        if not self.kept and winner.writable:
            self.kept = None
            super().handle_writable()

    def _release(self) -> None:
        size, self._kept_size = self._kept_size, 0
        self.channel.attempts.release(size)

    def _abandon(self) -> None:
        for attempt in self._running:
            attempt.reset()
        if self._scope is not None:
            self._scope.cancel()
        self._release()
        super()._abandon()
        self._begun.set()

    async def _raise_for_status(self) -> None:
        try:
            await super()._raise_for_status()
        except RpcError as error:
            error.exhausted = error.exhausted or self._gave_up
            raise
