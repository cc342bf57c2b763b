"""One call of a channel with one request and one reply, and how calls end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from bascule.errors import DecodeError, RpcError, Status
from bascule.rpc._details import DETAILS_KEY, decode_details

if TYPE_CHECKING:
    from bascule._core import Headers
    from bascule.net._link import Event
    from bascule.rpc._channel import Channel
    from bascule.rpc._method import Method
    from bascule.rpc._subchannel import Connection

#: Outcomes as ``_core.CallPolicy`` counts them.
SUCCESS, FAILURE, ABANDONED = 0, 1, 2

#: Statuses by which an endpoint shows that it is unwell. Others are answers.
FAILURES = frozenset(
    {
        Status.UNKNOWN.value,
        Status.DEADLINE_EXCEEDED.value,
        Status.RESOURCE_EXHAUSTED.value,
        Status.INTERNAL.value,
        Status.UNAVAILABLE.value,
        Status.DATA_LOSS.value,
    }
)


class Slot:
    """What a call holds while it runs: its connection and its permit."""

    __slots__ = ("connection", "endpoint", "permit")

    def __init__(self, connection: Connection, endpoint: int, permit: int) -> None:
        self.connection = connection
        self.endpoint = endpoint
        self.permit = permit


async def unary(
    channel: Channel,
    method: Method[Any, Any],
    request: Any,
    timeout: float | None,
    metadata: list[tuple[str, Any]] | None,
) -> tuple[Any, str, Headers | None]:
    """Call a method with one request and one reply: the reply, the peer, its trailers."""
    index, encode, decode, _ = channel.prepare(method)
    data = encode(request)
    if len(data) > channel.max_message:
        text = f"request of {len(data)} bytes is larger than the limit of {channel.max_message}"
        raise RpcError(Status.RESOURCE_EXHAUSTED, text)
    deadline_ns, of_scope = channel.limit(timeout)
    if deadline_ns == 0:
        await anyio.lowlevel.checkpoint()
    retried = False
    while True:
        slot = await channel.admit(None if of_scope else deadline_ns)
        event = await _exchange(channel, slot, index, data, metadata, deadline_ns, of_scope)
        if event is REFUSED:
            await refused(channel, slot)
            continue
        _, _, status, reply, message, _, trailers, unprocessed = event
        if status == 0:
            channel.complete(slot, SUCCESS)
            try:
                return decode(reply), slot.connection.link.peer, trailers
            except DecodeError as error:
                text = f"cannot decode the reply of {method.path}: {error}"
                raise RpcError(Status.INTERNAL, text) from error
        # gRFC A6: what the server has not processed is retried once, transparently.
        if unprocessed and not retried:
            channel.complete(slot, ABANDONED)
            retried = True
            continue
        channel.complete(slot, FAILURE if status in FAILURES else SUCCESS)
        raise error_of(status, message, trailers)


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
        raise
    if call is None:
        return REFUSED
    future = connection.replies[call] = driver.future()
    if len(connection.replies) == 1:
        connection.link.flush_now()
    else:
        connection.link.flush_soon()
    if deadline_ns is not None and not of_scope:
        connection.arm(deadline_ns)
    try:
        event: Event = await future
        if of_scope and event[2] == Status.DEADLINE_EXCEEDED.value:
            await leave_to_scope(deadline_ns)
        return event
    except BaseException:
        # An answer that came in the same turn is not worth a wrong count: abandoned.
        connection.replies.pop(call, None)
        machine.cancel(call, driver.now_ns())
        connection.link.flush_soon()
        channel.complete(slot, ABANDONED)
        raise


async def refused(channel: Channel, slot: Slot) -> None:
    """Give the permit of a call back that its connection did not take; another one may.

    :raises RpcError: UNAVAILABLE if the connection is well but overcharged
    """
    channel.complete(slot, ABANDONED)
    await anyio.lowlevel.checkpoint()
    if not slot.connection.machine.draining:
        text = f"too many calls wait for their turn on the connection to {channel.target}"
        raise RpcError(Status.UNAVAILABLE, text)
    slot.connection.drain()


#: Instead of an answer: the connection did not take the call.
REFUSED: Event = ()


async def leave_to_scope(deadline_ns: int | None) -> None:
    """The server was faster to see the deadline of a cancel scope around the
    call: what ends the call is still that scope.
    """
    if deadline_ns is not None:
        await anyio.sleep_until(deadline_ns / 1e9)
        await anyio.lowlevel.checkpoint()


def error_of(status: int, message: str | None, trailers: Headers | None) -> RpcError:
    """The error of a call that ended with a status other than OK."""
    details: Any = None
    if trailers is not None:
        packed = dict(trailers.items()).get(DETAILS_KEY)
        if isinstance(packed, bytes):
            details = decode_details(packed)
    return RpcError(Status(status), message, details)
