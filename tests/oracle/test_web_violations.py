"""What browsers' calls are told when a request breaks a rule after the answer has begun."""

from __future__ import annotations

import h11
import pytest
from tests.oracle.peers import NOW, RESET, ClientPeer, frame, table
from tests.oracle.web import BIDI, GRPC_WEB, Answer, Http1, code_of, read, settings

KINDS = [(GRPC_WEB[0], "8"), ("application/connect+proto", "resource_exhausted")]

LARGE = frame(b"x" * 101)


@pytest.mark.parametrize(("kind", "code"), KINDS)
def test_over_http1_the_status_follows_what_was_sent(kind: str, code: str) -> None:
    carrier = Http1(answers=False, max_message=100)
    head = f"POST {BIDI} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\n"
    carrier.feed(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
    stream = carrier.events[-1][1]
    carrier.machine.send_message(stream, b"first")
    carrier.settle()
    carrier.feed(f"{len(LARGE):x}\r\n".encode() + LARGE + b"\r\n")
    assert carrier.events[-1] == (RESET, stream)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target=BIDI, headers=[("host", "a")]))
    answer = read(client, carrier.sent)
    assert answer.envelopes()[0] == (0, b"first")
    assert code_of(answer) == code
    carrier.machine.handler_ended(stream)
    assert carrier.machine.in_flight == 0


@pytest.mark.parametrize(("kind", "code"), KINDS)
def test_over_http2_the_status_follows_what_was_sent(kind: str, code: str) -> None:
    _, methods = table()
    peer = ClientPeer(answers=False, web=settings(methods), max_message=100)
    headers = {":method": "POST", ":scheme": "http", ":path": BIDI, ":authority": "test"}
    peer.h2.send_headers(1, list((headers | {"content-type": kind}).items()))
    peer.settle()
    peer.machine.send_message(1, b"first")
    peer.settle()
    peer.h2.send_data(1, LARGE)
    peer.settle()
    seen = peer.streams[1]
    assert seen.ended
    head = dict(seen.headers[0])
    answer = Answer(int(head.pop(":status")), head, seen.data)
    assert answer.envelopes()[0] == (0, b"first")
    assert code_of(answer) == code
    peer.machine.finish(1, 0, None, None, None, NOW)
    assert peer.machine.in_flight == 0
