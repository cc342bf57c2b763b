"""One call of a server, and the connection that carries it."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import anyio
from grpclib.exceptions import GRPCError, ProtocolError

from bascule import _core
from bascule.errors import DecodeError, RejectedError, RpcError, Status
from bascule.net._user_timeout import give_up_after
from bascule.rpc._compression import ACCEPT_ENCODING
from bascule.rpc._context import CallContext, _current, pairs
from bascule.rpc._details import DETAILS_KEY, encode_details
from bascule.rpc._retry import PUSHBACK_KEY, gave_up
from bascule.rpc._streams import MessageQueue, Room

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from bascule.net._link import Driver, Event, Link, Timer
    from bascule.rpc._binding import Binding
    from bascule.rpc._context import MetadataLike
    from bascule.rpc._server import Server

__all__ = ["ServerCall", "ServerSession"]

logger = logging.getLogger("bascule.rpc")

#: HTTP/2's RST_STREAM code CANCEL (RFC 9113, 7).
CANCEL = 8

#: Bytes of a status message that are sent; three times as many at worst, as it is
#: percent-encoded. gRPC's clients take 8 KiB of headers by default, and some end the whole
#: connection if there are more.
MESSAGE_LIMIT = 2048

#: Bytes of initial, and of trailing metadata, details included: what a channel of ours takes.
#: Four times as much would end its connection.
METADATA_LIMIT = 16 * 1024

#: What of that the protocol's own fields may need, the message not counted.
OWN_FIELDS = 256

#: Bytes of a message that are sent as they are; any other takes three.
PLAIN = frozenset(range(0x21, 0x7F)) - {ord("%")}


class ServerCall(CallContext):
    """One call from its first event to its status."""

    queue: MessageQueue
    gone = False
    headers_sent = False
    _room: Room | None = None
    #: What the server's :class:`Admission` has given, if it was asked.
    admitted: tuple[int, int] | None = None

    def __init__(self, session: ServerSession, binding: Binding, event: Event) -> None:
        _, stream, _, headers, timeout_ns, request = event
        # What the base class does: calling it is as dear as all that is done here.
        link = session.link
        self.method = binding.path
        self.peer = link.peer
        self._headers = headers
        self._tls = link.tls
        self.session = session
        self.stream = stream
        self.binding = binding
        self.timeout_ns = timeout_ns
        self.request = b"" if request is None else request
        # Of what most calls set later: were these missing in the first calls of a class, Python
        # would keep the attributes of all that follow in a dictionary each.
        self.scope: anyio.CancelScope | None = None
        self.reply: bytes | None = None
        self.error: GRPCError | None = None
        if timeout_ns is not None:
            self.deadline = (session.driver.now_ns() + timeout_ns) / 1e9
        if not (binding.unary_request and binding.unary_reply):
            self.queue = MessageQueue()
            if request is not None:
                self.queue.put(request)
                self.queue.end()

    async def send_initial_metadata(self, metadata: MetadataLike | None = None) -> None:
        if self.headers_sent:
            text = "initial metadata was already sent"
            raise ProtocolError(text)
        initial = pairs(metadata)
        if initial is not None:
            _check_size(initial, None)
        self.session.machine.send_headers(self.stream, initial)
        self.headers_sent = True
        self.session.link.flush_soon()

    def _compress(self, name: str) -> None:
        accepted = None if self._headers is None else self._headers.get(ACCEPT_ENCODING)
        if not self.session.machine.set_compression(self.stream, name, accepted):
            text = f"the headers were sent and announce no {name}: choose it before"
            raise ProtocolError(text)

    def start(self, scope: anyio.CancelScope) -> Coroutine[Any, Any, None]:
        """Run the handler."""
        _current.set(self)
        self.scope = scope
        if self.gone or self.timeout_ns == 0 or self.error is not None:
            scope.cancel()
            return anyio.lowlevel.checkpoint()
        return self.binding.serve(self)

    def end(self, error: Exception | None, returned: bool) -> None:
        """Answer, whatever happened."""
        self.scope = None
        if error is not None:
            self.error = self._status_of(error)
            if gave_up(error):
                # One tier repeats what the tiers below it could not do, not each of them.
                self.trailing_metadata.setdefault(PUSHBACK_KEY, "-1")
        session, stream = self.session, self.stream
        if self.admitted is not None and session.admission is not None:
            session.admission.end(self, self.admitted, returned)
        present = session.calls.pop(stream, None) is not None
        if session.ended and not session.calls:
            session.forget()
        reply = self.reply
        if self.gone:
            self.error = None
            if present:
                session.machine.handler_ended(stream)
        elif (
            returned
            and reply is not None
            and self.error is None
            and self._trailing_metadata is None
        ):
            session.machine.respond(stream, reply, None, None, session.driver.now_ns())
        else:
            self._finish(returned)
        if session.calls:
            session.link.flush_part(len(session.calls))
        else:
            session.link.flush_now()

    def put(self, message: bytes) -> None:
        """A request message came."""
        self.queue.put(message)

    def reset(self) -> None:
        """The peer gave up."""
        self.gone = True
        if self.scope is not None:
            self.scope.cancel()
        # After the cancellation, which is what ends a wait; a handler that shields itself
        # from it must not wait for ever.
        if not (self.binding.unary_request and self.binding.unary_reply):
            self.queue.end()
            self.set_writable()

    def expire(self) -> None:
        """The deadline has come; a handler that has not begun never will."""
        self.timeout_ns = 0
        if self.scope is not None:
            self.scope.cancel()

    def set_writable(self) -> None:
        """There is room to send."""
        if self._room is not None:
            self._room.wake()

    def room(self) -> Room:
        """Where to wait for room to send."""
        if self._room is None:
            self._room = Room()
        return self._room

    def abort(self) -> None:
        """Reset the call from this side."""
        if not self.gone:
            session = self.session
            session.machine.reset(self.stream, CANCEL, session.driver.now_ns())
            # The machine counts the handler as ended now; `_finish` must not again.
            session.calls.pop(self.stream, None)
            session.link.flush_soon()
            self.reset()

    def cancel(self) -> None:
        """The server ends."""
        if self.error is None:
            self.error = RpcError(Status.UNAVAILABLE, "the server is shutting down")
        if self.scope is not None:
            self.scope.cancel()

    def _finish(self, returned: bool) -> None:
        machine, now_ns = self.session.machine, self.session.driver.now_ns()
        trailing = list(self._trailing_metadata.items()) if self._trailing_metadata else None
        # The error's traceback leads back here: kept, it would hold the whole call
        # until the collector comes.
        error, self.error = self.error, None
        if error is not None:
            self._finish_with(error, trailing, now_ns)
        elif not returned:
            # Cancelled by nobody but the deadline, or by the end of the loop.
            # By the clock that made it: uvloop's own stands still for a turn.
            late = self.timeout_ns == 0 or self.deadline * 1e9 <= now_ns
            text = "the deadline has passed" if late else "the handler was cancelled"
            status = Status.DEADLINE_EXCEEDED if late else Status.CANCELLED
            self._finish_with(RpcError(status, text), trailing, now_ns)
        elif self.reply is None and self.binding.unary_reply:
            error = RpcError(Status.INTERNAL, "the handler returned without a reply")
            self._finish_with(error, trailing, now_ns)
        else:
            try:
                if trailing:
                    _check_size(trailing, None)
                if self.reply is None:
                    machine.finish(self.stream, 0, None, None, trailing, now_ns)
                else:
                    machine.respond(self.stream, self.reply, None, trailing, now_ns)
            except (TypeError, ValueError) as bad:
                self._finish_with(self._status_of(bad), None, now_ns)

    def _finish_with(
        self, error: GRPCError, trailing: list[tuple[str, Any]] | None, now_ns: int
    ) -> None:
        # Whatever a handler has put into its error, or forgotten to: no other call may suffer.
        machine = self.session.machine
        status, message = self._sendable(error)
        try:
            if error.details:
                details = encode_details(status, message, error.details)
                trailing = [*(trailing or ()), (DETAILS_KEY, details)]
            if trailing:
                _check_size(trailing, message)
            machine.finish(self.stream, status.value, message, None, trailing, now_ns)
        except Exception:
            logger.exception("%s: the status cannot be sent as it is", self.method)
            machine.finish(self.stream, status.value, message, None, None, now_ns)

    def _sendable(self, error: GRPCError) -> tuple[Status, str | None]:
        """The status and the message of an error as the wire can carry them."""
        try:
            status, message = Status(error.status), error.message
            if message is not None:
                # Lone surrogates, which JSON and file names may hold, have no encoding.
                encoded = str(message).encode(errors="replace")
                message = encoded[:MESSAGE_LIMIT].decode(errors="ignore")
        except Exception:
            logger.exception("handler of %s failed with an error that has no status", self.method)
            return Status.UNKNOWN, "internal error"
        return status, message

    def _status_of(self, error: Exception) -> GRPCError:
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]  # what the one failing task of a task group raised
        if isinstance(error, GRPCError):
            return error
        if isinstance(error, RejectedError):
            return RpcError(Status.UNAVAILABLE, str(error))
        if isinstance(error, DecodeError):
            return RpcError(Status.INTERNAL, f"cannot decode the request: {error}")
        # The client learns nothing of our insides; the log has it all.
        logger.error("handler of %s failed", self.method, exc_info=error)
        return RpcError(Status.UNKNOWN, "internal error")


class ServerSession:
    """One connection of a server."""

    def __init__(self, server: Server, driver: Driver, link: Link) -> None:
        alpn = None if link.tls is None else link.tls.selected_alpn_protocol()
        self.machine = _core.ServerConnection(server.config, driver.now_ns(), alpn)
        self.driver = driver
        self.link = link
        if server.keepalive is not None:
            give_up_after(link, server.keepalive.timeout)
        self.calls: dict[int, ServerCall] = {}
        self._bindings = server.bindings
        self._json_bindings = server.json_bindings
        self.admission = server.admission
        self._lost = server.serving.lost
        #: The link is gone; handlers may still clean up after their calls.
        self.ended = False
        self._timer: Timer | None = None
        self._timer_at = math.inf

    def handle_events(self, events: list[Event]) -> None:
        """React to what the machine reports; kinds are those of ``_core.ServerConnection``."""
        calls = self.calls
        for event in events:
            kind = event[0]
            if kind == 0:
                call = ServerCall(self, self._bindings[event[2]], event)
                if self.admission is not None and not self.admission.admit(call, event[2]):
                    continue
                calls[event[1]] = call
                if call.deadline < self._timer_at:
                    self._arm(call.deadline)
                self.driver.spawn_job(call)
            elif kind == 1:
                waiting = calls.get(event[1])
                if waiting is not None:
                    waiting.put(event[2])
            elif kind == 2:
                waiting = calls.get(event[1])
                if waiting is not None:
                    waiting.queue.end()
            elif kind == 3:
                waiting = calls.get(event[1])
                if waiting is not None:
                    waiting.set_writable()
            elif kind == 4:
                waiting = calls.get(event[1])
                if waiting is not None:
                    waiting.reset()
            elif kind == 8:
                call = ServerCall(self, self._json_bindings[event[2]], event)
                if self.admission is not None and not self.admission.admit(call, event[2]):
                    continue
                calls[event[1]] = call
                if call.deadline < self._timer_at:
                    self._arm(call.deadline)
                self.driver.spawn_job(call)
            elif kind == 6 and event[1] is not None:
                logger.info("connection from %s ended: %s", self.link.peer, event[1])

    def handle_lost(self) -> None:
        """The socket is gone; the machine has reported every call as reset."""
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.calls:
            self.forget()

    def forget(self) -> None:
        """Nothing is left of this connection: the server need not wait for it."""
        self._lost(self)

    def _arm(self, deadline: float) -> None:
        """See to it that calls end at their deadlines: one timer serves them all."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self.driver.call_at(math.ceil(deadline * 1e9), self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now = self.driver.now_ns() / 1e9
        following = math.inf
        for call in self.calls.values():
            if call.deadline > now:
                following = min(following, call.deadline)
            else:
                call.expire()
        if following < math.inf:
            self._arm(following)

    def cancel_calls(self) -> None:
        """Cancel every handler that runs."""
        for call in tuple(self.calls.values()):
            call.cancel()


def _check_size(metadata: list[tuple[str, Any]], message: str | None) -> None:
    """:raises ValueError: if a client could not take so much"""
    size = OWN_FIELDS
    if message is not None:
        encoded = message.encode()
        size += len(encoded) + 2 * sum(each not in PLAIN for each in encoded)
    for name, value in metadata:
        length = len(value) * 4 // 3 if isinstance(value, bytes) else len(value)
        size += len(name) + length + 32  # RFC 9113, 6.5.2
    if size > METADATA_LIMIT:
        text = f"metadata of {size} bytes is larger than the {METADATA_LIMIT} that clients take"
        raise ValueError(text)
