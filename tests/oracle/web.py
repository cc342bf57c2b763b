"""Requests of browsers to our server over both versions of HTTP, read back by `h2` and `h11`."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h11
from tests.oracle.peers import CALL, END, MESSAGE, METHODS, NOW, PREFIX, RESET, ClientPeer, table

from bascule import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The kind of a call whose messages are JSON.
JSON_CALL = 8

UNARY, SERVER_STREAM, CLIENT_STREAM, BIDI = METHODS

#: Every content type, and what its messages are wrapped in.
GRPC_WEB = ("application/grpc-web", "application/grpc-web+proto", "application/grpc-web+json")
TEXT = ("application/grpc-web-text", "application/grpc-web-text+proto")
CONNECT_UNARY = ("application/proto", "application/json")
CONNECT_STREAM = ("application/connect+proto", "application/connect+json")


#: Asked for by the tests of compression.
ACCEPT = {
    "accept-encoding": "gzip",
    "connect-accept-encoding": "gzip",
    "grpc-accept-encoding": "gzip",
}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def envelopes(self) -> list[tuple[int, bytes]]:
        """Flags and content of each envelope; there must be nothing else."""
        return list(envelopes(self.body))

    @property
    def trailers(self) -> dict[str, str]:
        """The trailers of gRPC-Web."""
        flags, block = list(envelopes(plain(self)))[-1]
        assert flags == 0x80
        return dict(line.split(": ", 1) for line in block.decode().split("\r\n") if line)

    @property
    def messages(self) -> list[bytes]:
        """All but the end."""
        found = list(envelopes(plain(self)))
        assert all(flags == 0 for flags, _ in found[:-1])
        return [content for _, content in found[:-1]]

    @property
    def end(self) -> dict[str, Any]:
        """The end of a Connect stream."""
        flags, content = self.envelopes()[-1]
        assert flags == 2
        found: dict[str, Any] = json.loads(content)
        return found

    @property
    def error(self) -> dict[str, Any]:
        """The error of a unary Connect call."""
        assert self.headers["content-type"] == "application/json"
        found: dict[str, Any] = json.loads(self.body)
        return found


def envelopes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        size = int.from_bytes(data[1:PREFIX], "big")
        assert len(data) >= PREFIX + size
        yield data[0], data[PREFIX : PREFIX + size]
        data = data[PREFIX + size :]


def plain(answer: Answer) -> bytes:
    """The body without base64, each run of which may be padded."""
    if "text" not in answer.headers["content-type"]:
        return answer.body
    quanta = [answer.body[at : at + 4] for at in range(0, len(answer.body), 4)]
    return b"".join(base64.b64decode(quantum, validate=True) for quantum in quanta)


def code_of(answer: Answer) -> str:
    """The status of a call, by the name that Connect gives it or by gRPC's number."""
    kind = answer.headers["content-type"]
    if "grpc-web" in kind:
        return answer.trailers["grpc-status"]
    if "connect" in kind:
        return str(answer.end.get("error", {"code": "ok"})["code"])
    return "ok" if answer.status == 200 else str(answer.error["code"])


class Application:
    """Handlers that echo; it is told every event."""

    def __init__(self, machine: Any, methods: dict[str, int]) -> None:
        self.machine = machine
        self.running: dict[int, int] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.resets: list[int] = []
        self._requests: dict[int, list[bytes]] = defaultdict(list)
        self._methods = methods

    def answer(self, event: tuple[Any, ...]) -> None:
        kind, machine = event[0], self.machine
        if kind in (CALL, JSON_CALL):
            self._begin(event)
        elif kind == MESSAGE:
            stream = event[1]
            machine.consume(stream, PREFIX + len(event[2]))
            self._requests[stream].append(event[2])
        elif kind == END:
            stream = event[1]
            requests = self._requests.pop(stream, [])
            if self.running.pop(stream) == self._methods[CLIENT_STREAM]:
                machine.respond(stream, b"+".join(requests), None, None, NOW)
                return
            for request in requests:
                machine.send_message(stream, request)
            machine.finish(stream, 0, None, None, None, NOW)
        elif kind == RESET:
            del self.running[event[1]]
            self.resets.append(event[1])
            machine.handler_ended(event[1])

    def _begin(self, event: tuple[Any, ...]) -> None:
        _, stream, method, _, _, message = event
        self.calls.append(event)
        machine, trailing = self.machine, [("x-trailing-bin", b"\0\xff")]
        if method == self._methods[UNARY]:
            machine.send_headers(stream, [("x-initial", "1")])
            machine.respond(stream, message, None, trailing, NOW)
        elif method == self._methods[SERVER_STREAM]:
            machine.send_headers(stream, [("x-initial", "1")])
            for _ in range(3):
                machine.send_message(stream, message)
            machine.finish(stream, 0, None, None, trailing, NOW)
        else:
            self.running[stream] = method


class Http1:
    """A connection of HTTP/1.1."""

    def __init__(self, *, answers: bool = True, **config: Any) -> None:
        calls, self.methods = table()
        web = config.pop("web", None) or settings(self.methods)
        self.machine = _core.ServerConnection(
            _core.ServerConfig(calls=calls, web=web, **config), NOW
        )
        self.application = Application(self.machine, self.methods)
        self.answers = answers
        self.events: list[tuple[Any, ...]] = []
        self.sent = b""

    def feed(self, data: bytes, chunk: int | None = None) -> None:
        for start in range(0, len(data), chunk or max(len(data), 1)):
            piece = data[start : start + (chunk or len(data))]
            self.take(self.machine.receive(piece, NOW))
            self.settle()

    def take(self, events: list[tuple[Any, ...]]) -> None:
        self.events += events
        for event in events:
            if self.answers:
                self.application.answer(event)

    def settle(self) -> None:
        while True:
            data, events = self.machine.flush()
            self.take(events)
            if not data and not events:
                return
            self.sent += data or b""

    def send(
        self,
        target: str,
        kind: str | None,
        body: bytes = b"",
        *,
        verb: str = "POST",
        extra: dict[str, str] | None = None,
        chunk: int | None = None,
        chunked: bool = False,
    ) -> Answer:
        """Send a request, whole or in pieces, and read the answer to it."""
        headers = {"host": "test"} | ({} if kind is None else {"content-type": kind})
        headers |= extra or {}
        if chunked:
            headers["transfer-encoding"] = "chunked"
        elif verb == "POST":
            headers["content-length"] = str(len(body))
        client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        wire = client.send(h11.Request(method=verb, target=target, headers=list(headers.items())))
        assert wire is not None
        if body:
            wire += client.send(h11.Data(data=body)) or b""
        wire += client.send(h11.EndOfMessage()) or b""
        self.sent = b""
        self.feed(wire, chunk)
        return read(client, self.sent)


def read(client: h11.Connection, data: bytes) -> Answer:
    """The one answer that `data` holds."""
    client.receive_data(data)
    answer = Answer(0, {}, b"")
    while True:
        event = client.next_event()
        match event:
            case h11.Response():
                answer.status = event.status_code
                answer.headers = {name.decode(): value.decode() for name, value in event.headers}
            case h11.Data():
                answer.body += event.data
            case h11.EndOfMessage():
                assert client.trailing_data == (b"", False)
                return answer
            case _:
                raise AssertionError(f"{event} after {answer}, in {data!r}")


class Http2:
    """A connection of HTTP/2."""

    def __init__(self, **config: Any) -> None:
        _, methods = table()
        web = config.pop("web", None) or settings(methods)
        self.peer = ClientPeer(answers=False, web=web, **config)
        self.application = Application(self.peer.machine, methods)
        note = self.peer.take

        def take(events: list[tuple[Any, ...]]) -> None:
            note([event for event in events if event[0] != RESET])
            for event in events:
                self.application.answer(event)

        self.peer.take = take  # type: ignore[method-assign]

    def send(
        self,
        target: str,
        kind: str | None,
        body: bytes = b"",
        *,
        verb: str = "POST",
        extra: dict[str, str] | None = None,
        chunk: int | None = None,
        chunked: bool = False,
    ) -> Answer:
        """Send a request, whole or in pieces, and read the answer to it."""
        del chunked
        headers = {":method": verb, ":scheme": "http", ":path": target, ":authority": "test"}
        headers |= {} if kind is None else {"content-type": kind}
        headers |= extra or {}
        stream = self.peer.h2.get_next_available_stream_id()
        has_body = verb == "POST"
        self.peer.h2.send_headers(stream, list(headers.items()), end_stream=not has_body)
        if has_body:
            self.peer.h2.send_data(stream, body, end_stream=True)
        self.peer.settle(chunk)
        seen = self.peer.streams[stream]
        assert seen.ended, seen
        head = dict(seen.headers[0])
        return Answer(int(head.pop(":status")), head, seen.data)


VERSIONS: dict[str, Any] = {"1.1": Http1, "2": Http2}


def settings(methods: dict[str, int], **changes: Any) -> _core.WebConfig:
    """Both dialects for the methods of `peers`; the unary one is without side effects."""
    defaults: dict[str, Any] = {
        "origins": [],
        "credentials": False,
        "max_age_ns": 60 * 10**9,
        "unary": [methods[UNARY]],
        "safe": [],
    }
    return _core.WebConfig(**(defaults | changes))
