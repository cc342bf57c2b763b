"""Our server connection, judged by the `h2` library as its client."""

from __future__ import annotations

import base64
from urllib.parse import unquote

import h2.errors
import h2.events
import h2.settings
import pytest
from hyperframe.frame import GoAwayFrame, PingFrame
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.peers import (
    CALL,
    CLOSED,
    END,
    MESSAGE,
    NOW,
    PREFIX,
    RESET,
    WRITABLE,
    ClientPeer,
    frame,
    frames,
)

WINDOW = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE


def all_kinds(peer: ClientPeer) -> list[int]:
    """One call of each kind, with their whole requests."""
    return [
        peer.request("/t.T/Unary", frame(b"one")),
        peer.request("/t.T/ServerStream", frame(b"two")),
        peer.request("/t.T/ClientStream", frame(b"a") + frame(b"") + frame(b"c")),
        peer.request("/t.T/Bidi", frame(b"d") + frame(b"e")),
    ]


def test_calls_of_all_kinds() -> None:
    peer = ClientPeer()
    unary, server_stream, client_stream, bidi = (peer.streams[s] for s in all_kinds(peer))
    peer.settle()
    assert unary.messages == [b"one"]
    assert server_stream.messages == [b"two"] * 3
    assert client_stream.messages == [b"a++c"]
    assert bidi.messages == [b"d", b"e"]
    for seen in (unary, server_stream, client_stream, bidi):
        headers = dict(seen.headers[0])
        assert headers[":status"] == "200"
        assert headers["content-type"].startswith("application/grpc")
        assert seen.status == ("0", None)
        assert seen.ended
        assert seen.reset is None
        assert len(seen.headers) == 1
    assert ("x-initial", "1") in server_stream.headers[0]
    assert server_stream.trailers is not None
    assert ("x-trailing-bin", "AP8") in server_stream.trailers
    assert peer.machine.in_flight == 0


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 9, 10, 16, 100])
def test_pieces_of_any_size_make_no_difference(chunk: int) -> None:
    whole, pieces = ClientPeer(), ClientPeer()
    for peer, size in ((whole, None), (pieces, chunk)):
        all_kinds(peer)
        peer.settle(size)
    assert pieces.streams == whole.streams


def test_a_cut_at_any_byte_makes_no_difference() -> None:
    whole = ClientPeer()
    all_kinds(whole)
    sent = whole.h2.data_to_send()
    whole.take(whole.machine.receive(sent, NOW))
    whole.handle(whole.h2.receive_data(whole.flush()))
    whole.settle()
    for cut in range(len(sent) + 1):
        peer = ClientPeer()
        all_kinds(peer)
        assert peer.h2.data_to_send() == sent
        peer.take(peer.machine.receive(sent[:cut], NOW))
        peer.take(peer.machine.receive(sent[cut:], NOW))
        peer.handle(peer.h2.receive_data(peer.flush()))
        peer.settle()
        assert peer.streams == whole.streams


def test_a_connection_lost_at_any_byte_leaves_nothing_running() -> None:
    peer = ClientPeer(answers=False)
    all_kinds(peer)
    sent = peer.h2.data_to_send()
    for cut in range(len(sent)):
        peer = ClientPeer(answers=False)
        peer.take(peer.machine.receive(sent[:cut], NOW))
        begun = len(peer.of_kind(CALL))
        peer.take(peer.machine.receive_eof(NOW))
        assert len(peer.of_kind(RESET)) == begun, f"cut at {cut}"
        assert len(peer.of_kind(CLOSED)) == 1, f"cut at {cut}"
        assert peer.running == {}
        peer.flush()
        assert peer.machine.finished
        assert peer.machine.in_flight == 0


def test_metadata_comes_as_it_was_sent() -> None:
    peer = ClientPeer(answers=False)
    padded = base64.b64encode(b"\0\1\xfe\xff").decode()
    peer.request(
        body=frame(b""),
        extra=(
            ("x-text", "one"),
            ("x-text", "two, three"),
            ("x-raw-bin", padded),
            ("x-raw-bin", padded.rstrip("=")),
            ("x-list-bin", "AA==,AQ"),
            ("grpc-timeout", "250m"),
            ("grpc-accept-encoding", "identity,gzip"),
        ),
    )
    peer.settle()
    _, _, _, headers, timeout_ns, message = peer.of_kind(CALL)[0]
    assert headers.items() == [
        ("x-text", "one"),
        ("x-text", "two, three"),
        ("x-raw-bin", b"\0\1\xfe\xff"),
        ("x-raw-bin", b"\0\1\xfe\xff"),
        ("x-list-bin", b"\0"),
        ("x-list-bin", b"\1"),
    ]
    assert timeout_ns == 250_000_000
    assert message == b""


def test_an_error_is_one_frame_and_its_message_is_encoded() -> None:
    peer = ClientPeer(answers=False)
    stream = peer.request(body=frame(b""))
    peer.settle()
    peer.machine.finish(stream, 5, "50 % of é\n", [("x-initial", "1")], [("x-trailing", "2")], NOW)
    peer.settle()
    seen = peer.streams[stream]
    assert seen.status == ("5", "50 %25 of %C3%A9%0A")
    assert seen.trailers is None
    assert seen.ended
    assert {("x-initial", "1"), ("x-trailing", "2")} <= set(seen.headers[0])


@given(st.text())
def test_any_message_survives(text: str) -> None:
    peer = ClientPeer(answers=False)
    stream = peer.request(body=frame(b""))
    peer.settle()
    text = text.encode(errors="replace").decode()
    peer.machine.finish(stream, 13, text, None, None, NOW)
    peer.settle()
    encoded = peer.streams[stream].status[1]
    assert encoded is not None
    assert encoded.isascii()
    assert unquote(encoded) == text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({":path": "/t.T/Nope"}, "12"),
        ({":path": "/"}, "12"),
        ({"grpc-timeout": "1"}, "13"),
        ({"grpc-timeout": "123456789S"}, "13"),
        ({"grpc-encoding": "br"}, "12"),
    ],
)
def test_what_is_not_served_is_refused_by_status(headers: dict[str, str], status: str) -> None:
    peer = ClientPeer()
    stream = peer.request(body=frame(b""), replace=headers)
    peer.settle()
    assert peer.streams[stream].status[0] == status
    assert peer.of_kind(CALL) == []
    fine = peer.request(body=frame(b"x"))
    peer.settle()
    assert peer.streams[fine].messages == [b"x"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({":method": "GET"}, "405"),
        ({"content-type": "application/json"}, "415"),
        ({"content-type": "application/grpcx"}, "415"),
    ],
)
def test_what_is_no_grpc_is_refused_by_http_status(headers: dict[str, str], status: str) -> None:
    peer = ClientPeer()
    stream = peer.request(body=frame(b""), replace=headers)
    peer.settle()
    seen = peer.streams[stream]
    assert dict(seen.headers[0])[":status"] == status
    assert b"gRPC is served here" in seen.data
    assert seen.ended


NO_GRPC = {"content-type": "text/plain"}


def test_a_refusal_waits_for_the_end_of_the_request_within_limits() -> None:
    peer = ClientPeer()
    whole = peer.request(body=b"begun", replace=NO_GRPC, end=False)
    endless = peer.request(body=b"begun", replace=NO_GRPC, end=False)
    abandoned = peer.request(body=b"begun", replace=NO_GRPC, end=False)
    slow = peer.request(body=b"begun", replace=NO_GRPC, end=False)
    peer.settle()
    assert not any(seen.headers for seen in peer.streams.values())
    assert peer.machine.in_flight == 4

    peer.h2.end_stream(whole)
    for _ in range(7):
        peer.h2.send_data(endless, bytes(10_000))
    peer.h2.reset_stream(abandoned)
    peer.settle()
    assert peer.streams[whole].ended
    assert peer.streams[endless].ended
    assert not peer.streams[slow].headers
    assert peer.machine.in_flight == 1

    peer.take(peer.machine.tick(NOW + 20_000_000_000))
    peer.settle()
    assert peer.streams[slow].ended
    assert peer.machine.in_flight == 0


def test_a_malformed_request_is_no_refusal() -> None:
    peer = ClientPeer()
    stream = peer.request(body=b"four", replace={**NO_GRPC, "content-length": "5"})
    peer.settle()
    assert peer.streams[stream].reset == h2.errors.ErrorCodes.PROTOCOL_ERROR
    assert not peer.streams[stream].headers
    assert peer.machine.in_flight == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", "13"),
        (b"\0\0\0", "13"),
        (frame(b"whole") + frame(b"part")[:-1], "13"),
        (frame(b"one") + frame(b"two"), "13"),
        (frame(b"x", flag=1), "13"),
        (frame(b"x", flag=2), "13"),
        (frame(bytes(1001)), "8"),
        (b"\0\xff\xff\xff\xff", "8"),
    ],
)
def test_a_malformed_unary_request_never_reaches_a_handler(body: bytes, status: str) -> None:
    peer = ClientPeer(max_message=1000)
    stream = peer.request(body=body)
    peer.settle()
    assert peer.streams[stream].status[0] == status
    assert peer.of_kind(CALL) == []
    assert peer.machine.in_flight == 0
    fine = peer.request(body=frame(bytes(1000)))
    peer.settle()
    assert peer.streams[fine].status == ("0", None)


def test_an_oversized_request_is_answered_before_it_ends() -> None:
    peer = ClientPeer(max_message=1000)
    stream = peer.request(body=frame(bytes(1001)), end=False)
    peer.settle()
    seen = peer.streams[stream]
    assert seen.status[0] == "8"
    assert seen.ended
    # RFC 9113, 8.1: the answer is complete, the rest of the request is not wanted.
    assert seen.reset == h2.errors.ErrorCodes.NO_ERROR


def test_a_malformed_streaming_request_resets_its_handler() -> None:
    peer = ClientPeer(answers=False)
    stream = peer.request("/t.T/Bidi", frame(b"fine") + frame(b"bad", flag=1), end=False)
    peer.settle()
    assert len(peer.of_kind(MESSAGE)) == 1
    assert len(peer.of_kind(RESET, stream)) == 1
    assert peer.streams[stream].status[0] == "13"
    assert peer.machine.in_flight == 0


def test_a_reset_cancels_the_handler_and_silences_its_answer() -> None:
    peer = ClientPeer(answers=False)
    stream = peer.request("/t.T/Bidi", frame(b"x"), end=False)
    peer.settle()
    peer.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    sent = peer.h2.data_to_send()
    peer.ours += peer.machine.receive(sent, NOW)
    assert len(peer.of_kind(RESET, stream)) == 1
    assert peer.machine.in_flight == 1, "the handler has not ended"
    assert peer.machine.send_message(stream, b"late")
    peer.machine.finish(stream, 0, None, None, None, NOW)
    assert peer.machine.in_flight == 0
    assert peer.flush() == b""


def test_a_reset_by_the_handler_carries_its_code() -> None:
    peer = ClientPeer(answers=False)
    stream = peer.request(body=frame(b"x"))
    peer.settle()
    peer.machine.reset(stream, 8, NOW)
    peer.settle()
    assert peer.streams[stream].reset == h2.errors.ErrorCodes.CANCEL
    assert peer.machine.in_flight == 0


@pytest.mark.parametrize("window", [0, 1, 5, 100, 65_535])
def test_the_clients_window_is_never_exceeded(window: int) -> None:
    peer = ClientPeer(settings={WINDOW: window})
    peer.reads = False
    stream = peer.request(body=frame(bytes(1000)))
    peer.settle()
    total = PREFIX + 1000
    while not peer.streams[stream].ended:
        got = len(peer.streams[stream].data)
        assert got == min(window, total)
        # `h2` raises FlowControlError if we send more than it allowed.
        peer.h2.increment_flow_control_window(7, stream)
        window += 7
        peer.settle()
    assert peer.streams[stream].messages == [bytes(1000)]


def test_a_client_that_does_not_read_stops_the_handler() -> None:
    peer = ClientPeer(answers=False, settings={WINDOW: 20_000})
    peer.reads = False
    stream = peer.request("/t.T/Bidi", frame(b"x"), end=False)
    peer.settle()
    sent = 0
    while peer.machine.send_message(stream, bytes(1000 - PREFIX)):
        sent += 1000
        peer.settle()
        assert sent < 200_000
    assert len(peer.streams[stream].data) == 20_000
    assert peer.of_kind(WRITABLE) == []
    peer.h2.increment_flow_control_window(60_000)
    peer.h2.increment_flow_control_window(60_000, stream)
    peer.settle()
    assert len(peer.of_kind(WRITABLE, stream)) == 1
    assert len(peer.streams[stream].data) == 80_000


def test_a_handler_that_does_not_read_stops_the_client() -> None:
    peer = ClientPeer(answers=False)
    stream = peer.request("/t.T/Bidi", frame(b""), end=False)
    peer.settle()
    window = peer.h2.local_flow_control_window(stream)
    assert window > 65_535, "the server's own choice"
    sent = PREFIX
    while peer.h2.local_flow_control_window(stream) >= 10_000:
        peer.h2.send_data(stream, frame(bytes(10_000 - PREFIX)))
        sent += 10_000
        peer.settle()
    assert sent > 250_000
    stuck = peer.h2.local_flow_control_window(stream)
    for event in peer.of_kind(MESSAGE):
        peer.machine.consume(stream, PREFIX + len(event[2]))
    peer.settle()
    assert peer.h2.local_flow_control_window(stream) >= stuck + sent - 10_000


def test_all_calls_share_the_connections_window_fairly_enough_to_finish() -> None:
    peer = ClientPeer(answers=False)
    streams = [peer.request("/t.T/Bidi", frame(b""), end=False) for _ in range(10)]
    peer.settle()
    # Nine handlers read nothing and hold what they can; the tenth reads.
    for stream in streams[:9]:
        for _ in range(10):
            size = min(10_000, peer.h2.local_flow_control_window(stream))
            peer.h2.send_data(stream, frame(bytes(size - PREFIX)))
        peer.settle()
    for _ in range(1000):
        size = min(10_000, peer.h2.local_flow_control_window(streams[9]))
        assert size > PREFIX
        peer.h2.send_data(streams[9], frame(bytes(size - PREFIX)))
        peer.settle()
        for event in peer.of_kind(MESSAGE, streams[9]):
            peer.machine.consume(streams[9], PREFIX + len(event[2]))
        peer.ours.clear()


def test_ping_is_answered_with_its_payload() -> None:
    peer = ClientPeer()
    peer.h2.ping(b"12345678")
    peer.settle()
    assert [event.ping_data for event in peer.saw(h2.events.PingAckReceived)] == [b"12345678"]


def test_the_server_leaves_after_its_last_call() -> None:
    peer = ClientPeer(answers=False)
    stream = peer.request("/t.T/Bidi", frame(b"x"), end=False)
    peer.settle()
    peer.machine.shutdown()
    # RFC 9113, 6.8: first a GOAWAY that allows what is under way, then the real one.
    first, ping = frames(peer.flush())
    assert isinstance(first, GoAwayFrame)
    assert (first.last_stream_id, first.error_code) == (2**31 - 1, 0)
    assert isinstance(ping, PingFrame)
    ack = PingFrame(0, ping.opaque_data, flags=["ACK"]).serialize()
    peer.take(peer.machine.receive(ack, NOW))
    (second,) = frames(peer.flush())
    assert isinstance(second, GoAwayFrame)
    assert (second.last_stream_id, second.error_code) == (stream, 0)
    assert peer.of_kind(RESET) == []
    assert not peer.machine.finished
    peer.h2.end_stream(stream)
    peer.take(peer.machine.receive(peer.h2.data_to_send(), NOW))
    peer.machine.respond(stream, b"answer", None, None, NOW)
    sent = [type(each).__name__ for each in frames(peer.flush())]
    assert sent == ["HeadersFrame", "DataFrame", "HeadersFrame"]
    assert peer.machine.finished


def test_a_client_that_leaves_gets_its_answers() -> None:
    peer = ClientPeer(answers=False)
    stream = peer.request(body=frame(b"x"))
    peer.settle()
    peer.h2.close_connection()
    goodbye = peer.h2.data_to_send()
    peer.take(peer.machine.receive(goodbye, NOW))
    assert peer.of_kind(RESET) == [], "the call may still end"
    peer.machine.respond(stream, b"answer", None, None, NOW)
    assert frame(b"answer") in peer.flush()
    assert peer.machine.in_flight == 0


@pytest.mark.parametrize(
    "preface", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX"]
)
def test_what_is_no_http2_ends_the_connection(preface: bytes) -> None:
    peer = ClientPeer()
    peer.take(peer.machine.receive(preface, NOW))
    peer.flush()
    assert peer.machine.finished
    (closed,) = peer.of_kind(CLOSED)
    assert closed[1]


def test_silence_instead_of_a_preface_ends_the_connection() -> None:
    peer = ClientPeer(handshake_timeout_ns=10)
    assert peer.machine.tick(NOW + 10) == []
    assert peer.machine.tick(NOW + 11)[0][0] == CLOSED


def test_idleness_ends_the_connection_by_agreement() -> None:
    peer = ClientPeer(idle_timeout_ns=1000)
    peer.request(body=frame(b"x"))
    peer.settle()
    peer.take(peer.machine.tick(NOW + 1000))
    assert peer.flush() == b""
    peer.take(peer.machine.tick(NOW + 1001))
    goaway, ping = frames(peer.flush())
    assert isinstance(goaway, GoAwayFrame)
    assert goaway.error_code == 0
    assert isinstance(ping, PingFrame)
    ack = PingFrame(0, ping.opaque_data, flags=["ACK"]).serialize()
    peer.take(peer.machine.receive(ack, NOW))
    peer.flush()
    assert peer.machine.finished


def test_a_unary_request_that_does_not_arrive_is_given_up() -> None:
    peer = ClientPeer(answers=False)
    slow = peer.request(body=frame(b"slow")[:-1], end=False)
    streaming = peer.request("/t.T/Bidi", frame(b"x"), end=False)
    peer.settle()
    peer.take(peer.machine.tick(NOW + 15_000_000_000))
    peer.settle()
    assert not peer.streams[slow].ended
    peer.take(peer.machine.tick(NOW + 15_000_000_001))
    peer.settle()
    assert peer.streams[slow].status == ("4", "the request took too long to arrive")
    assert peer.streams[slow].reset == h2.errors.ErrorCodes.NO_ERROR
    assert [event[1] for event in peer.of_kind(CALL)] == [streaming]
    assert peer.machine.in_flight == 1


def test_trailers_of_a_request_are_tolerated() -> None:
    peer = ClientPeer()
    stream = peer.request(body=frame(b"x"), end=False)
    peer.h2.send_headers(stream, [("x-late", "1")], end_stream=True)
    peer.settle()
    assert peer.streams[stream].messages == [b"x"]


def test_padding_is_no_content_and_costs_no_credit() -> None:
    peer = ClientPeer()
    stream = peer.request("/t.T/Bidi", None, end=False)
    peer.settle()
    for _ in range(3000):
        peer.h2.send_data(stream, frame(b"x"), pad_length=255)
        peer.settle()
    peer.h2.end_stream(stream)
    peer.settle()
    assert peer.streams[stream].messages == [b"x"] * 3000
    assert len(peer.of_kind(END)) == 1
