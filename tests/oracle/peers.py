"""Our connections on one side, the `h2` library on the other: two independent readings of RFC 9113.

Nothing here has a socket or a clock. `settle` carries bytes both ways until neither side has
anything to say.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import h2.settings
from hyperframe.frame import Frame

from bascule import _core

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The time that stands still unless a test moves it, in nanoseconds.
NOW = 1_000_000_000_000

PREFIX = 5

METHODS = {
    "/t.T/Unary": True,
    "/t.T/ServerStream": True,
    "/t.T/ClientStream": False,
    "/t.T/Bidi": False,
}

# The kinds of events of `_core.ServerConnection`.
CALL, MESSAGE, END, WRITABLE, RESET, HTTP, CLOSED = range(7)

# The kinds of events of `_core.ClientConnection`.
REPLY, REPLY_MESSAGE, REPLY_HEADERS, ROOM, REPLY_END, DRAINING, LOST = range(7)


def frame(message: bytes, flag: int = 0) -> bytes:
    """A gRPC message with its prefix."""
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def frames(data: bytes) -> list[Frame]:
    """The HTTP/2 frames of these bytes, which end with the last one."""
    found, rest = [], memoryview(data)
    while rest:
        parsed, length = Frame.parse_frame_header(rest[:9])
        parsed.parse_body(rest[9 : 9 + length])
        found.append(parsed)
        rest = rest[9 + length :]
    return found


def texts(headers: Iterable[Any]) -> list[tuple[str, str]]:
    """Header fields, which this configuration of the library decodes."""
    return [(name, value) for name, value in headers]


def table() -> tuple[_core.CallTable, dict[str, int]]:
    """The methods, and the index of each."""
    calls = _core.CallTable()
    return calls, {path: calls.register(path, unary) for path, unary in METHODS.items()}


@dataclass
class Seen:
    """What the `h2` library saw of one stream."""

    headers: list[list[tuple[str, str]]] = field(default_factory=list)
    data: bytes = b""
    trailers: list[tuple[str, str]] | None = None
    ended: bool = False
    reset: int | None = None

    @property
    def messages(self) -> list[bytes]:
        """The messages that `data` holds; it must hold nothing else."""
        rest, found = self.data, []
        while rest:
            size = int.from_bytes(rest[1:PREFIX], "big")
            assert rest[0] == 0
            assert len(rest) >= PREFIX + size
            found.append(rest[PREFIX : PREFIX + size])
            rest = rest[PREFIX + size :]
        return found

    @property
    def status(self) -> tuple[str, str | None]:
        """grpc-status and grpc-message as sent."""
        last = dict(self.headers[-1] if self.trailers is None else self.trailers)
        return last["grpc-status"], last.get("grpc-message")


class Peer:
    """The `h2` library on one end of a connection, and what it saw."""

    def __init__(
        self, *, client: bool, machine: Any, settings: dict[Any, int] | None = None
    ) -> None:
        config = h2.config.H2Configuration(
            client_side=client,
            header_encoding="utf-8",
            # It is our side that is to be tested with what no decent peer would send.
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.machine = machine
        self.streams: dict[int, Seen] = defaultdict(Seen)
        self.events: list[h2.events.Event] = []
        self.ours: list[tuple[Any, ...]] = []
        #: Whether data is acknowledged as it comes, so that windows never close.
        self.reads = True
        self.h2.local_settings = h2.settings.Settings(client=client, initial_values=settings or {})
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings(settings)

    def settle(self, chunk: int | None = None) -> None:
        """Carry bytes both ways until nothing moves.

        :param chunk: deliver to our side in pieces of this many bytes
        """
        while True:
            to_us = self.h2.data_to_send()
            for start in range(0, len(to_us), chunk or max(len(to_us), 1)):
                piece = to_us[start : start + (chunk or len(to_us))]
                self.take(self.machine.receive(piece, NOW))
            to_peer = self.flush()
            if to_peer:
                self.handle(self.h2.receive_data(to_peer))
            elif not to_us:
                return

    def flush(self) -> bytes:
        """What our side has to send."""
        sent = b""
        while True:
            data, events = self.machine.flush()
            self.take(events)
            if not data:
                return sent
            sent += data

    def take(self, events: list[tuple[Any, ...]]) -> None:
        """Note what our side saw, and react like an application."""
        self.ours += events

    def handle(self, events: list[h2.events.Event]) -> None:
        """Note what the `h2` library saw."""
        for event in events:
            self.events.append(event)
            match event:
                case h2.events.RequestReceived() | h2.events.ResponseReceived():
                    self.streams[event.stream_id].headers.append(texts(event.headers))
                case h2.events.TrailersReceived():
                    self.streams[event.stream_id].trailers = texts(event.headers)
                case h2.events.DataReceived():
                    self.streams[event.stream_id].data += event.data
                    if self.reads and event.flow_controlled_length:
                        self.h2.acknowledge_received_data(
                            event.flow_controlled_length, event.stream_id
                        )
                case h2.events.StreamEnded():
                    self.streams[event.stream_id].ended = True
                case h2.events.StreamReset():
                    self.streams[event.stream_id].reset = event.error_code
                case _:
                    pass

    def of_kind(self, kind: int, which: int | None = None) -> list[tuple[Any, ...]]:
        """Our events of a kind, of one stream or call if given."""
        return [e for e in self.ours if e[0] == kind and (which is None or e[1] == which)]

    def saw(self, kind: type[h2.events.Event]) -> list[Any]:
        """The library's events of a type."""
        return [event for event in self.events if isinstance(event, kind)]


class ClientPeer(Peer):
    """The `h2` library as a client of our server, which answers like an echo."""

    def __init__(
        self,
        *,
        answers: bool = True,
        settings: dict[Any, int] | None = None,
        **limits: Any,
    ) -> None:
        calls, self.methods = table()
        #: Whether handlers answer by themselves, or the test answers for them.
        self.answers = answers
        self.requests: dict[int, list[bytes]] = defaultdict(list)
        self.running: dict[int, int] = {}
        config = _core.ServerConfig(calls=calls, **limits)
        machine = _core.ServerConnection(config, NOW)
        super().__init__(client=True, machine=machine, settings=settings)

    def request(
        self,
        path: str = "/t.T/Unary",
        body: bytes | None = None,
        *,
        extra: tuple[tuple[str, str], ...] = (),
        replace: dict[str, str] | None = None,
        end: bool = True,
    ) -> int:
        """Send a request; answer its stream."""
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc+proto",
        } | (replace or {})
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [*headers.items(), *extra], end_stream=end and body is None)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=end)
        return stream

    def take(self, events: list[tuple[Any, ...]]) -> None:
        super().take(events)
        for event in events:
            kind, stream = event[0], event[1]
            if kind == CALL:
                self.running[stream] = event[2]
            elif kind == RESET:
                del self.running[stream]
                self.machine.handler_ended(stream)
            if self.answers:
                self.answer(event)

    def answer(self, event: tuple[Any, ...]) -> None:
        """What a handler would do."""
        kind, stream, machine = event[0], event[1], self.machine
        if kind == CALL and event[2] == self.methods["/t.T/Unary"]:
            self.end(stream)
            machine.respond(stream, event[5], None, None, NOW)
        elif kind == CALL and event[2] == self.methods["/t.T/ServerStream"]:
            self.end(stream)
            machine.send_headers(stream, [("x-initial", "1")])
            for _ in range(3):
                machine.send_message(stream, event[5])
            machine.finish(stream, 0, None, None, [("x-trailing-bin", b"\0\xff")], NOW)
        elif kind == MESSAGE:
            machine.consume(stream, PREFIX + len(event[2]))
            self.requests[stream].append(event[2])
            if self.running[stream] == self.methods["/t.T/Bidi"]:
                machine.send_message(stream, event[2])
        elif kind == END:
            if self.end(stream) == self.methods["/t.T/Bidi"]:
                machine.finish(stream, 0, None, None, None, NOW)
            else:
                machine.respond(stream, b"+".join(self.requests[stream]), None, None, NOW)

    def end(self, stream: int) -> int:
        """The handler ends; answer its method."""
        return self.running.pop(stream)


class ServerPeer(Peer):
    """The `h2` library as a server of our client; the test answers."""

    def __init__(self, settings: dict[Any, int] | None = None, **limits: Any) -> None:
        calls, self.methods = table()
        machine = _core.ClientConnection(calls, "test:1", NOW, user_agent="tests", **limits)
        super().__init__(client=False, machine=machine, settings=settings)
        #: Whether our side's application takes messages as they come.
        self.consumes = True

    def take(self, events: list[tuple[Any, ...]]) -> None:
        super().take(events)
        for event in events:
            if event[0] == REPLY_MESSAGE and self.consumes:
                self.machine.consume(event[1], PREFIX + len(event[2]))

    def start(
        self,
        path: str = "/t.T/Unary",
        request: bytes | None = b"request",
        *,
        metadata: list[tuple[str, str | bytes]] | None = None,
        deadline_ns: int | None = None,
        unary_reply: bool = True,
    ) -> int:
        """Start a call from our side; answer its id."""
        call = self.machine.start(
            self.methods[path],
            request if METHODS[path] else None,
            metadata,
            deadline_ns,
            unary_reply,
            NOW,
        )
        assert isinstance(call, int)
        return call

    def respond(
        self,
        stream: int,
        *messages: bytes,
        status: str = "0",
        initial: tuple[tuple[str, str], ...] = (),
        trailing: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Answer a stream with headers, messages and trailers."""
        data = b"".join(frame(message) for message in messages)
        self.respond_raw(stream, data, status=status, initial=initial, trailing=trailing)

    def respond_raw(
        self,
        stream: int,
        data: bytes,
        *,
        status: str = "0",
        initial: tuple[tuple[str, str], ...] = (),
        trailing: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Answer a stream with what need not be whole messages."""
        headers = [(":status", "200"), ("content-type", "application/grpc"), *initial]
        self.h2.send_headers(stream, headers)
        while data:
            size = self.h2.max_outbound_frame_size
            self.h2.send_data(stream, data[:size])
            data = data[size:]
        self.h2.send_headers(stream, [("grpc-status", status), *trailing], end_stream=True)

    def refuse(self, stream: int, status: str, *extra: tuple[str, str]) -> None:
        """Answer a stream with trailers only."""
        headers = [(":status", "200"), ("content-type", "application/grpc")]
        self.h2.send_headers(stream, [*headers, ("grpc-status", status), *extra], end_stream=True)

    def ending(self, call: int) -> tuple[Any, ...]:
        """The one event with which a call ended."""
        ends = self.of_kind(REPLY, call) + self.of_kind(REPLY_END, call)
        assert len(ends) == 1, ends
        return ends[0]
