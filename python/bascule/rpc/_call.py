"""One call of a channel with one request and one reply, and how calls end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import anyio

from bascule.errors import DecodeError, RpcError, Status
from bascule.observe import add_event
from bascule.resilience import _around
from bascule.rpc._details import DETAILS_KEY, decode_details
from bascule.rpc._hedge import Hedging, race
from bascule.rpc._method_config import RetryPolicy
from bascule.rpc._retry import (
    PREVIOUS_KEY,
    Answer,
    Failure,
    Retrying,
    attempt_attributes,
    pushback_of,
    pushback_seconds,
    repeat,
)

if TYPE_CHECKING:
    from bascule._core import CallPolicy, Headers
    from bascule.net._link import Event
    from bascule.rpc._channel import Channel
    from bascule.rpc._context import ClientCallContext
    from bascule.rpc._method import Method
    from bascule.rpc._method_config import HedgingPolicy, MethodConfig
    from bascule.rpc._subchannel import Connection

#: Outcomes as ``_core.CallPolicy`` counts them; OVERLOAD is a failure that a limit of concurrency
#: learns from.
SUCCESS, FAILURE, ABANDONED, OVERLOAD = 0, 1, 2, 3

#: A call that was never sent, as ``_core.ClientConnection`` reports it.
UNSENT = 2

#: What the wire calls the statuses by which an endpoint shows that it is unwell, and that it has too many calls.
FAILURES = frozenset(each.value for each in _around.FAILURES)
OVERLOADS = frozenset(each.value for each in _around.OVERLOADS)


class Slot(NamedTuple):
    """What a call holds while it runs: its connection and its permit.

    :ivar policy: who gave the permit: a channel changes its policy when its resolver says so
    """

    connection: Connection
    endpoint: int
    permit: int
    policy: CallPolicy


#: A slot, which may lack its names: they take as long as the picking.
Picked: TypeAlias = "tuple[Connection, int, int, CallPolicy]"


async def unary(
    channel: Channel,
    method: Method[Any, Any],
    wait_for_ready: bool | None,
    context: ClientCallContext,
    request: Any,
) -> Any:
    """Call a method with one request and one reply: the reply. The context gets what came with it."""
    timeout, metadata = context.timeout, context.pairs()
    try:
        index, encode, decode, config = channel.prepare(method)
        data = encode(request)
        most = channel.max_send_message
        if len(data) > most:
            text = f"request of {len(data)} bytes is larger than the limit of {most}"
            raise RpcError(Status.RESOURCE_EXHAUSTED, text)
        if config is not None:
            timeout = shorter(timeout, config.timeout)
        deadline_ns, of_scope, now_ns = channel.limit(timeout)
    except Exception:
        # Whoever tries again and again must let the loop turn, here and at every early end.
        await anyio.lowlevel.checkpoint()
        raise
    if deadline_ns == 0:
        await anyio.lowlevel.checkpoint()
    if config is not None:
        if wait_for_ready is None:
            wait_for_ready = config.wait_for_ready
        configured = ConfiguredCall(
            channel, index, data, metadata, deadline_ns, of_scope, config, wait_for_ready
        )
        answer = await configured.run()
        context.peer = answer.peer
        if answer.trailers is not None:
            context.trailing_metadata.extend(answer.trailers.items())
        try:
            return decode(answer.reply)
        except DecodeError as error:
            raise _undecodable(method, error) from error
    retried, driver = False, channel.driver
    while True:
        slot, verdict, retry_ns = channel.pick(now_ns, metadata)
        if slot is None:
            limit_ns = None if of_scope else deadline_ns
            slot = await channel.admit(
                limit_ns, wait_for_ready, metadata, refused=(verdict, retry_ns)
            )
            now_ns = driver.now_ns()
        # What `_exchange` does, here: most calls come this way, and a coroutine is a fiftieth of one.
        connection, endpoint, permit, policy = slot
        machine = connection.machine
        try:
            call = machine.start(index, data, metadata, deadline_ns, True, now_ns)
        except BaseException:
            channel.complete(slot, ABANDONED)
            await anyio.lowlevel.checkpoint()
            raise
        if call is None:
            await refused(channel, slot)
            now_ns = driver.now_ns()
            continue
        connection.replies[call] = future = driver.future()
        connection.begun(deadline_ns, of_scope)
        try:
            event: Event = await future
            if of_scope and event[2] == Status.DEADLINE_EXCEEDED.value:
                await leave_to_scope(deadline_ns)
        except BaseException:
            _abandon(channel, slot, call)
            raise
        _, _, status, reply, message, _, trailers, unprocessed = event
        if status == 0:
            context.peer = connection.link.peer
            if trailers is None:
                policy.complete(endpoint, permit, SUCCESS, driver.now_ns())
            else:
                channel.complete(slot, SUCCESS, trailers)
                context.trailing_metadata.extend(trailers.items())
            try:
                return decode(reply)
            except DecodeError as error:
                raise _undecodable(method, error) from error
        # gRFC A6: what the server has not processed is repeated once, what was never sent always.
        if unprocessed == UNSENT or (unprocessed and not retried):
            channel.complete(slot, ABANDONED)
            channel.attempts.transparent += 1
            retried = retried or unprocessed != UNSENT
            now_ns = driver.now_ns()
            continue
        channel.complete(slot, outcome_of(status), trailers)
        raise error_of(status, message, trailers)


class ConfiguredCall:
    """A unary call of a method that has a configuration: one attempt or more.

    :raises RpcError: from :meth:`run`, as from a call without configuration
    """

    __slots__ = (
        "_channel",
        "_config",
        "_data",
        "_deadline_ns",
        "_index",
        "_metadata",
        "_of_scope",
        "_transparent",
        "_used",
        "_wait_for_ready",
    )

    def __init__(
        self,
        channel: Channel,
        index: int,
        data: bytes,
        metadata: list[tuple[str, Any]] | None,
        deadline_ns: int | None,
        of_scope: bool,
        config: MethodConfig,
        wait_for_ready: bool | None,
    ) -> None:
        self._channel = channel
        self._index = index
        self._data = data
        self._metadata = metadata
        self._deadline_ns = deadline_ns
        self._of_scope = of_scope
        self._config = config
        self._wait_for_ready = wait_for_ready
        self._transparent = False
        # Where hedges were sent to; the next one goes elsewhere if it can.
        self._used: list[int] = []

    async def run(self) -> Answer:
        """Make the attempts that the configuration allows, until one has the answer."""
        config, attempts, size = self._config, self._channel.attempts, len(self._data)
        if config.max_request_bytes is not None and size > config.max_request_bytes:
            text = f"request of {size} bytes is larger than the method's {config.max_request_bytes}"
            await anyio.lowlevel.checkpoint()
            raise RpcError(Status.RESOURCE_EXHAUSTED, text)
        gave_up = False
        if (config.retry is None and config.hedging is None) or not attempts.keep(size):
            answer = await self._attempt(0, None)
        else:
            try:
                if config.hedging is None:
                    answer, gave_up = await self._retry(config.retry or RetryPolicy())
                else:
                    answer, gave_up = await self._hedge(config.hedging)
            finally:
                attempts.release(size)
        if answer.failure is not None:
            error = error_of(answer.failure.status, answer.message, answer.trailers)
            error.exhausted = error.exhausted or gave_up
            raise error
        most = config.max_response_bytes
        if most is not None and answer.reply is not None and len(answer.reply) > most:
            text = f"reply of {len(answer.reply)} bytes is larger than the method's {most}"
            raise RpcError(Status.RESOURCE_EXHAUSTED, text)
        return answer

    async def _retry(self, policy: RetryPolicy) -> tuple[Answer, bool]:
        attempts = self._channel.attempts
        answer, gave_up = await repeat(
            Retrying(policy, attempts),
            lambda n: self._attempt(n, policy.per_attempt_timeout),
            lambda wait: leaves_time(self._channel, self._deadline_ns, wait),
        )
        if answer.failure is None:
            attempts.succeeded()
        return answer, gave_up

    async def _hedge(self, policy: HedgingPolicy) -> tuple[Answer, bool]:
        attempts = self._channel.attempts
        plan = Hedging(policy, attempts, anyio.current_time())
        answer = await race(plan, lambda n: self._attempt(n, policy.per_attempt_timeout))
        if answer.failure is None:
            attempts.succeeded()
        return answer, plan.gave_up

    async def _attempt(self, previous: int, seconds: float | None) -> Answer:
        channel, metadata = self._channel, self._metadata
        if previous:
            metadata = [*(metadata or ()), (PREVIOUS_KEY, str(previous))]
        deadline_ns, of_scope, limited = self._deadline_ns, self._of_scope, False
        if seconds is not None:
            until_ns = channel.driver.now_ns() + int(seconds * 1e9)
            if deadline_ns is None or until_ns < deadline_ns:
                deadline_ns, of_scope, limited = until_ns, False, True
        while True:
            try:
                slot = await channel.admit(
                    None if of_scope else deadline_ns, self._wait_for_ready, metadata, self._used
                )
                if self._config.hedging is not None:
                    self._used.append(slot.endpoint)
                event = await _exchange(
                    channel, slot, self._index, self._data, metadata, deadline_ns, of_scope
                )
                if event is REFUSED:
                    await refused(channel, slot)
                    continue
            except RpcError as error:
                late = limited and error.status is Status.DEADLINE_EXCEEDED
                failure = Failure(error.status.value, None, timed_out=late)
                self._note(previous, failure)
                return Answer(None, "", error.message, None, failure)
            _, _, status, reply, message, _, trailers, unprocessed = event
            if unprocessed == UNSENT or (unprocessed and not self._transparent):
                channel.complete(slot, ABANDONED)
                channel.attempts.transparent += 1
                self._transparent = self._transparent or unprocessed != UNSENT
                continue
            channel.complete(slot, outcome_of(status), trailers)
            late = limited and status == Status.DEADLINE_EXCEEDED.value
            failed = None if status == 0 else Failure(status, trailers, timed_out=late)
            if failed is not None:
                self._note(previous, failed)
            return Answer(reply, slot.connection.link.peer, message, trailers, failed)

    def _note(self, previous: int, failure: Failure) -> None:
        """Tell the span of the call, if it has one, of an attempt that failed where there may be more."""
        if self._config.retry is not None or self._config.hedging is not None:
            add_event("attempt failed", attempt_attributes(previous, failure.status))


def outcome_of(status: int) -> int:
    """What a status says of the endpoint that it came from."""
    if status in OVERLOADS:
        return OVERLOAD
    return FAILURE if status in FAILURES else SUCCESS


def leaves_time(channel: Channel, deadline_ns: int | None, seconds: float) -> bool:
    """Whether the deadline comes after a pause; if not, the failure at hand says more than it would."""
    return deadline_ns is None or channel.driver.now_ns() + int(seconds * 1e9) < deadline_ns


def shorter(timeout: float | None, other: float | None) -> float | None:
    """The shorter of two timeouts in seconds."""
    if timeout is None or other is None:
        return other if timeout is None else timeout
    return min(timeout, other)


def _undecodable(method: Method[Any, Any], error: DecodeError) -> RpcError:
    return RpcError(Status.INTERNAL, f"cannot decode the reply of {method.path}: {error}")


async def _exchange(
    channel: Channel,
    slot: Slot,
    index: int,
    data: bytes,
    metadata: list[tuple[str, Any]] | None,
    deadline_ns: int | None,
    of_scope: bool,
) -> Event:
    driver, connection = channel.driver, slot.connection
    machine = connection.machine
    try:
        now_ns = driver.now_ns()
        call = machine.start(index, data, metadata, deadline_ns, True, now_ns)
    except BaseException:
        channel.complete(slot, ABANDONED)
        await anyio.lowlevel.checkpoint()
        raise
    if call is None:
        return REFUSED
    future = connection.replies[call] = driver.future()
    connection.begun(deadline_ns, of_scope)
    try:
        event: Event = await future
        if of_scope and event[2] == Status.DEADLINE_EXCEEDED.value:
            await leave_to_scope(deadline_ns)
        return event
    except BaseException:
        _abandon(channel, slot, call)
        raise


def _abandon(channel: Channel, slot: Picked, call: int) -> None:
    # An answer that came in the same turn is not worth a wrong count: abandoned.
    connection, *_ = slot
    connection.replies.pop(call, None)
    connection.machine.cancel(call, channel.driver.now_ns())
    connection.link.flush_soon()
    channel.complete(slot, ABANDONED)


async def refused(channel: Channel, slot: Picked) -> None:
    """Give the permit of a call back that its connection did not take; another one may.

    :raises RpcError: UNAVAILABLE if the connection is well but overcharged
    """
    channel.complete(slot, ABANDONED)
    await anyio.lowlevel.checkpoint()
    connection, *_ = slot
    if not connection.machine.draining:
        text = f"too many calls wait for their turn on the connection to {channel.target}"
        raise RpcError(Status.UNAVAILABLE, text)
    connection.drain()


#: How much sooner than the caller a server may see their deadline, in seconds: it is told the time
#: left, which is rounded down, and learns of it later.
LEEWAY = 0.05

#: Instead of an answer: the connection did not take the call.
REFUSED: Event = ()


async def leave_to_scope(deadline_ns: int | None) -> None:
    """The server was faster to see the deadline of a cancel scope around the
    call: what ends the call is still that scope.
    """
    if deadline_ns is None or deadline_ns / 1e9 - anyio.current_time() > LEEWAY:
        return  # it was another deadline: one of the server's own, or of an attempt
    await anyio.sleep_until(deadline_ns / 1e9)
    await anyio.lowlevel.checkpoint()
    # A loop may be late to cancel: uvloop's timers go by milliseconds.
    while anyio.current_effective_deadline() * 1e9 < deadline_ns + 1:  # noqa: ASYNC110 - tells nobody
        await anyio.sleep(0.001)


def error_of(status: int, message: str | None, trailers: Headers | None) -> RpcError:
    """The error of a call that ended with a status other than OK."""
    details: Any = None
    exhausted = False
    if trailers is not None:
        packed = dict(trailers.items()).get(DETAILS_KEY)
        if isinstance(packed, bytes):
            details = decode_details(packed)
        pushback = pushback_of(trailers)
        exhausted = pushback is not None and pushback_seconds(pushback) is None
    error = RpcError(Status(status), message, details)
    error.exhausted = exhausted
    return error
