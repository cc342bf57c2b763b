"""Our HTTP/1.1 server connection, judged by the `h11` library: as its client, and as a second reader."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tests.oracle.peers import CLOSED, HTTP, NOW

from bascule import _core

Request = tuple[str, str, list[tuple[str, str]], bytes]


class Server:
    """Our connection with a handler that tells what it got."""

    def __init__(self, *, max_body: int = 1000) -> None:
        config = _core.ServerConfig(http_max_body=max_body, max_header_bytes=4096)
        self.machine = _core.ServerConnection(config, NOW)
        self.requests: list[Request] = []
        self.problems: list[str] = []
        self.closed = False
        self.sent = b""

    def take(self, data: bytes) -> None:
        """Read, handle and answer until nothing is left to do."""
        events = self.machine.receive(data, NOW)
        while True:
            for event in events:
                self.handle(event)
            output, events = self.machine.flush()
            self.sent += output or b""
            if not output and not events:
                return

    def handle(self, event: tuple[Any, ...]) -> None:
        """Note a request and answer it."""
        if event[0] == CLOSED:
            self.closed = True
            return
        assert event[0] == HTTP
        stream, method, target, headers, body, problem = event[1:7]
        if problem is None:
            self.requests.append((method, target, headers, body))
            answer = [("x-target", target), ("content-type", "text/plain")]
            self.machine.respond_http(stream, 200, answer, body, NOW)
        else:
            self.problems.append(problem)
            self.machine.respond_http(stream, 400, [], problem.encode(), NOW)


#: Names as HTTP allows them.
TOKEN = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8)

#: Field values; what is not ASCII travels as Latin-1.
VALUE = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=20
).map(str.strip)

RESERVED = {
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "expect",
    "te",
    "trailer",
    "upgrade",
}


METHOD = TOKEN.filter(lambda text: text != "CONNECT")
TARGET = st.text("abz09-._~%/?&=:@!$'()*+,;{}|^\"\\[]", max_size=20).map("/".__add__)
FIELDS = st.lists(
    st.tuples(TOKEN.filter(lambda text: text.lower() not in RESERVED), VALUE), max_size=6
)
CHUNKS = st.none() | st.lists(st.binary(max_size=60), max_size=5)
BODY = st.binary(max_size=200)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Request, list[bytes] | None]:
    """A request, and the chunks of its body if it comes in chunks."""
    fields = draw(FIELDS)
    method, target, chunks = draw(METHOD), draw(TARGET), draw(CHUNKS)
    body = b"".join(chunks) if chunks is not None else draw(BODY)
    return (method, target, [("host", "a.example:80"), *fields], body), chunks


def written(request: Request, chunks: list[bytes] | None) -> bytes:
    """The request as `h11` writes it."""
    method, target, fields, body = request
    client = h11.Connection(h11.CLIENT)
    headers = [(name.encode(), text.encode("latin-1")) for name, text in fields]
    if chunks is not None:
        headers.append((b"transfer-encoding", b"chunked"))
    elif body:
        headers.append((b"content-length", str(len(body)).encode()))
    data = client.send(h11.Request(method=method, target=target, headers=headers)) or b""
    for chunk in chunks if chunks is not None else [body]:
        data += client.send(h11.Data(data=chunk)) or b""
    return data + (client.send(h11.EndOfMessage()) or b"")


@given(st.lists(requests(), min_size=1, max_size=4), st.lists(st.integers(1, 80), max_size=20))
def test_what_h11_writes_is_read_as_meant(
    conversation: list[tuple[Request, list[bytes] | None]], sizes: list[int]
) -> None:
    data = b"".join(written(request, chunks) for request, chunks in conversation)
    server = Server()
    for size in sizes:
        server.take(data[:size])
        data = data[size:]
    server.take(data)
    assert server.problems == []
    assert len(server.requests) == len(conversation)
    reader = h11.Connection(h11.CLIENT)
    answers = server.sent
    for (request, _), seen in zip(conversation, server.requests, strict=True):
        method, target, fields, body = request
        assert (seen[0], seen[1], seen[3]) == (method, target, body)
        # Values of one name keep their order; names among each other need not.
        names = {name.lower() for name, _ in fields}
        for name in names:
            meant = [text for key, text in fields if key.lower() == name]
            assert [text for key, text in seen[2] if key == name] == meant

        head = h11.Request(method=method, target=target, headers=[("host", "a")])
        reader.send(head)
        reader.send(h11.EndOfMessage())
        if answers:  # nothing at all would mean the end of the connection
            reader.receive_data(answers)
            answers = b""
        response = reader.next_event()
        assert isinstance(response, h11.Response)
        assert response.status_code == 200
        assert (b"x-target", target.encode()) in response.headers
        got = b""
        while isinstance(event := reader.next_event(), h11.Data):
            got += event.data
        assert isinstance(event, h11.EndOfMessage)
        assert got == (b"" if method == "HEAD" else body)
        reader.start_next_cycle()
    assert reader.trailing_data == (b"", False)


def read_by_h11(data: bytes, most: int) -> list[Request]:
    """The first requests that `h11` reads in `data`."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    found: list[Request] = []
    while len(found) < most:
        head = server.next_event()
        assert isinstance(head, h11.Request)
        body = b""
        while isinstance(event := server.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        fields = [(name.decode(), text.decode("latin-1")) for name, text in head.headers]
        found.append((head.method.decode(), head.target.decode(), fields, body))
        server.send(h11.Response(status_code=204, headers=[]))
        server.send(h11.EndOfMessage())
        if server.states[h11.CLIENT] is not h11.DONE:
            assert len(found) == most
            break
        server.start_next_cycle()
    return found


FRAGMENTS = [
    "GET ",
    "POST ",
    "/",
    "/a?b",
    " HTTP/1.1\r\n",
    "Host: a\r\n",
    "host: b\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 03\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 3, 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: CHUNKED\r\n",
    "Transfer-Encoding:chunked \t\r\n",
    "Transfer-Encoding\t: chunked\r\n",
    "transfer-encoding: identity\r\n",
    "x: y\r\n",
    "x:\r\n",
    " folded\r\n",
    "\r\n",
    "\n",
    "\r",
    "3\r\nabc\r\n",
    "3;x=y\r\nabc\r\n",
    '3;x="\r\nabc\r\n',
    "3 \r\nabc\r\n",
    "03\r\nabc\r\n",
    "0\r\n",
    "0\r\n\r\n",
    "abc",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\n",
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map(lambda parts: "".join(parts).encode()))
@example(
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\n0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"
)
def test_what_we_accept_h11_reads_the_same_way(data: bytes) -> None:
    """No request is smuggled past one of the two: where we see requests, `h11` sees the same."""
    server = Server()
    server.take(data)
    # `h11` does not forgive the empty line before a request that RFC 9112, 2.2 forgives.
    assume(not data.startswith(b"\r\n"))
    if not server.requests:
        return
    try:
        others = read_by_h11(data, len(server.requests))
    except h11.RemoteProtocolError as error:
        if "no request line received" not in str(error):  # an empty line between two requests
            raise
        return
    assert len(others) == len(server.requests)
    for ours, theirs in zip(server.requests, others, strict=True):
        assert (ours[0], ours[1], ours[3]) == (theirs[0], theirs[1], theirs[3])
        assert sorted(ours[2]) == sorted(theirs[2])


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_a_refusal_is_an_answer_that_h11_reads(size: int) -> None:
    server = Server()
    data = b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for start in range(0, len(data), size):
        server.take(data[start : start + size])
    assert server.problems == ["malformed"]
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(server.sent)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    assert (response.status_code, (b"connection", b"close") in response.headers) == (400, True)


def test_continue_comes_before_the_answer() -> None:
    server = Server()
    client = h11.Connection(h11.CLIENT)
    head = h11.Request(
        method="POST",
        target="/",
        headers=[("host", "a"), ("content-length", "2"), ("expect", "100-continue")],
    )
    server.take(client.send(head) or b"")
    assert client.they_are_waiting_for_100_continue is False
    client.receive_data(server.sent)
    server.sent = b""
    interim = client.next_event()
    assert isinstance(interim, h11.InformationalResponse)
    assert interim.status_code == 100
    server.take(client.send(h11.Data(data=b"ok")) or b"")
    client.send(h11.EndOfMessage())
    client.receive_data(server.sent)
    assert isinstance(client.next_event(), h11.Response)
    assert isinstance(body := client.next_event(), h11.Data)
    assert bytes(body.data) == b"ok"


def test_shutdown_says_that_the_connection_ends() -> None:
    server = Server()
    server.take(b"GET / HTTP/1.1\r\n")
    server.machine.shutdown()
    server.take(b"Host: a\r\n\r\n")
    assert b"connection: close\r\n" in server.sent
    assert server.closed
    assert server.machine.finished
