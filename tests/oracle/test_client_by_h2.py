"""Our client connection, judged by the `h2` library as its server."""

from __future__ import annotations

from typing import Any

import h2.events
import h2.settings
import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, PingFrame
from tests.oracle.peers import (
    DRAINING,
    LOST,
    NOW,
    PREFIX,
    REPLY_HEADERS,
    REPLY_MESSAGE,
    ROOM,
    ServerPeer,
    frame,
    frames,
)

WINDOW = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
HEADERS = h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE
STREAMS = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS

OK, CANCELLED, UNKNOWN, DEADLINE_EXCEEDED = 0, 1, 2, 4
PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNIMPLEMENTED = 7, 8, 12
INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 13, 14, 16


def all_kinds(peer: ServerPeer) -> list[int]:
    """One call of each kind, with their whole requests."""
    calls = [
        peer.start("/t.T/Unary", b"one"),
        peer.start("/t.T/ServerStream", b"two", unary_reply=False),
        peer.start("/t.T/ClientStream"),
        peer.start("/t.T/Bidi", unary_reply=False),
    ]
    for call in calls[2:]:
        for message in (b"a", b"", b"c"):
            peer.machine.send_message(call, message)
        peer.machine.end(call)
    return calls


def answer_all_kinds(peer: ServerPeer) -> None:
    """Answer the calls of `all_kinds`."""
    peer.respond(1, b"reply", initial=(("x-initial", "1"),), trailing=(("x-raw-bin", "AP8="),))
    peer.respond(3, b"x", b"", b"z")
    peer.respond(5, b"collected")
    peer.refuse(7, "5", ("grpc-message", "no %E2%98%83"), ("x-why", "not"))


def test_requests_look_as_grpc_says() -> None:
    peer = ServerPeer()
    peer.start(
        metadata=[("x-text", " one "), ("x-raw-bin", b"\0\xff"), ("X-Upper", "2")],
        deadline_ns=NOW + 1_500_000_000,
    )
    peer.settle()
    (request,) = peer.saw(h2.events.RequestReceived)
    assert list(request.headers)[:4] == [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "test:1"),
        (":path", "/t.T/Unary"),
    ]
    headers = dict(request.headers)
    assert headers["te"] == "trailers"
    assert headers["content-type"] == "application/grpc"
    assert headers["grpc-timeout"] == "1500000u"
    assert headers["user-agent"] == "tests"
    assert headers["x-text"] == "one"
    assert headers["x-raw-bin"] == "AP8"
    assert headers["x-upper"] == "2"
    assert peer.streams[1].messages == [b"request"]
    assert peer.streams[1].ended


def test_calls_of_all_kinds() -> None:
    peer = ServerPeer()
    unary, server_stream, client_stream, bidi = all_kinds(peer)
    peer.settle()
    assert [peer.streams[s].messages for s in (1, 3, 5, 7)] == [
        [b"one"],
        [b"two"],
        [b"a", b"", b"c"],
        [b"a", b"", b"c"],
    ]
    answer_all_kinds(peer)
    peer.settle()
    _, _, status, reply, message, headers, trailers, unprocessed = peer.ending(unary)
    assert (status, reply, message, unprocessed) == (OK, b"reply", None, False)
    assert headers.items() == [("x-initial", "1")]
    assert trailers.items() == [("x-raw-bin", b"\0\xff")]

    assert [event[2] for event in peer.of_kind(REPLY_MESSAGE, server_stream)] == [b"x", b"", b"z"]
    assert len(peer.of_kind(REPLY_HEADERS, server_stream)) == 1
    assert peer.ending(server_stream)[2:4] == (OK, None)

    assert peer.ending(client_stream)[2:4] == (OK, b"collected")

    _, _, status, message, trailers, unprocessed = peer.ending(bidi)
    assert (status, message, unprocessed) == (5, "no \u2603", False)
    assert ("x-why", "not") in trailers.items()
    assert peer.machine.in_flight == 0


def visible(events: list[tuple[Any, ...]]) -> dict[Any, list[Any]]:
    """What each call saw, with metadata as data."""
    calls: dict[Any, list[Any]] = {}
    for event in events:
        plain = [part.items() if hasattr(part, "items") else part for part in event]
        calls.setdefault(event[1] if len(event) > 1 else None, []).append(plain)
    return calls


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 9, 10, 16, 100])
def test_pieces_of_any_size_make_no_difference(chunk: int) -> None:
    seen = []
    for size in (None, chunk):
        peer = ServerPeer()
        all_kinds(peer)
        peer.settle(size)
        answer_all_kinds(peer)
        peer.settle(size)
        seen.append(visible(peer.ours))
    assert seen[0] == seen[1]


def test_a_cut_or_a_loss_at_any_byte_ends_each_call_once() -> None:
    cut, length = 0, 1
    while cut <= length:
        whole, lost = ServerPeer(), ServerPeer()
        for peer in (whole, lost):
            calls = all_kinds(peer)
            peer.settle()
            answer_all_kinds(peer)
            answer = peer.h2.data_to_send()
            length = len(answer)
            peer.take(peer.machine.receive(answer[:cut], NOW))
            if peer is whole:
                peer.take(peer.machine.receive(answer[cut:], NOW))
                assert [peer.ending(call)[2] for call in calls] == [OK, OK, OK, 5]
            else:
                peer.take(peer.machine.receive_eof(NOW))
                for call, fine in zip(calls, (OK, OK, OK, 5), strict=True):
                    assert peer.ending(call)[2] in {fine, UNAVAILABLE}, f"cut at {cut}"
                assert len(peer.of_kind(LOST)) == 1
                peer.flush()
                assert peer.machine.finished
                assert peer.machine.in_flight == 0
        cut += 1


@pytest.mark.parametrize(
    ("status", "expected"),
    [("16", UNAUTHENTICATED), ("17", UNKNOWN), ("x", UNKNOWN), ("-1", UNKNOWN), ("", UNKNOWN)],
)
def test_any_status_is_understood(status: str, expected: int) -> None:
    peer = ServerPeer()
    first, second = peer.start(), peer.start()
    peer.settle()
    peer.refuse(1, status)
    peer.respond(3, b"x", status=status)
    peer.settle()
    assert peer.ending(first)[2] == expected
    assert peer.ending(second)[2] == expected


@pytest.mark.parametrize(
    ("http_status", "expected"),
    [
        ("400", INTERNAL),
        ("401", UNAUTHENTICATED),
        ("403", PERMISSION_DENIED),
        ("404", UNIMPLEMENTED),
        ("429", UNAVAILABLE),
        ("502", UNAVAILABLE),
        ("503", UNAVAILABLE),
        ("504", UNAVAILABLE),
        ("418", UNKNOWN),
        ("500", UNKNOWN),
    ],
)
def test_an_answer_without_grpc_is_mapped_from_http(http_status: str, expected: int) -> None:
    peer = ServerPeer()
    with_body, without = peer.start(), peer.start()
    peer.settle()
    headers = [(":status", http_status), ("content-type", "text/html")]
    peer.h2.send_headers(1, headers)
    peer.h2.send_data(1, b"<html>", end_stream=True)
    peer.h2.send_headers(3, headers, end_stream=True)
    peer.settle()
    for call in (with_body, without):
        assert peer.ending(call)[2] == expected
        assert http_status in peer.ending(call)[4]
        assert 'with content-type "text/html": expected gRPC' in peer.ending(call)[4]
    assert peer.machine.in_flight == 0


def test_ok_of_another_content_type_is_no_answer() -> None:
    peer = ServerPeer()
    call = peer.start()
    peer.settle()
    peer.h2.send_headers(1, [(":status", "200"), ("content-type", "text/html")], end_stream=True)
    peer.settle()
    assert peer.ending(call)[2] == UNKNOWN


def test_interim_answers_are_passed_over() -> None:
    peer = ServerPeer()
    call = peer.start()
    peer.settle()
    peer.h2.send_headers(1, [(":status", "103"), ("link", "</a>")])
    peer.respond(1, b"final")
    peer.settle()
    assert peer.ending(call)[2:4] == (OK, b"final")


@pytest.mark.parametrize(
    ("code", "expected", "unprocessed"),
    [
        (0, INTERNAL, False),
        (1, INTERNAL, False),
        (2, INTERNAL, False),
        (3, INTERNAL, False),
        (7, UNAVAILABLE, True),
        (8, CANCELLED, False),
        (11, RESOURCE_EXHAUSTED, False),
        (12, PERMISSION_DENIED, False),
        (99, INTERNAL, False),
    ],
)
def test_resets_are_mapped_by_their_code(code: int, expected: int, unprocessed: bool) -> None:
    peer = ServerPeer()
    call = peer.start()
    peer.settle()
    peer.h2.reset_stream(1, code)
    peer.settle()
    ending = peer.ending(call)
    assert (ending[2], ending[7]) == (expected, unprocessed)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("code", "late_ns", "expected"),
    [
        (8, 0, DEADLINE_EXCEEDED),
        (8, 1_000, DEADLINE_EXCEEDED),
        (8, -1, CANCELLED),
        (2, 1_000, INTERNAL),
    ],
)
def test_a_server_that_resets_what_is_late_means_the_deadline(
    code: int, late_ns: int, expected: int, begun: bool
) -> None:
    """Its timer may come before ours, and grpc-go's ends a call like this."""
    peer = ServerPeer()
    call = peer.start("/t.T/Bidi", deadline_ns=NOW + 5_000_000, unary_reply=False)
    peer.settle()
    if begun:
        peer.h2.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
        peer.settle()
    peer.h2.reset_stream(1, code)
    peer.take(peer.machine.receive(peer.h2.data_to_send(), NOW + 5_000_000 + late_ns))
    assert peer.ending(call)[2] == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", INTERNAL),
        (frame(b"one") + frame(b"two"), INTERNAL),
        (frame(b"x", flag=1), INTERNAL),
        (frame(b"x", flag=2), INTERNAL),
        (frame(b"part")[:-1], INTERNAL),
        (b"\0\0\0", INTERNAL),
        (frame(bytes(1001)), RESOURCE_EXHAUSTED),
        (b"\0\xff\xff\xff\xff", RESOURCE_EXHAUSTED),
        (frame(bytes(1000)), OK),
    ],
)
def test_a_malformed_reply_is_an_error(data: bytes, expected: int) -> None:
    peer = ServerPeer(max_message=1000)
    call = peer.start()
    peer.settle()
    peer.h2.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
    peer.h2.send_data(1, data)
    peer.h2.send_headers(1, [("grpc-status", "0")], end_stream=True)
    peer.settle()
    assert peer.ending(call)[2] == expected
    assert peer.machine.in_flight == 0
    fine = peer.start()
    peer.settle()
    peer.respond(3, b"fine")
    peer.settle()
    assert peer.ending(fine)[2:4] == (OK, b"fine")


def test_an_answer_without_status_is_an_error() -> None:
    peer = ServerPeer()
    call = peer.start()
    peer.settle()
    peer.h2.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
    peer.h2.send_data(1, frame(b"x"), end_stream=True)
    peer.settle()
    assert peer.ending(call)[2] in {INTERNAL, UNKNOWN}


def test_an_early_answer_stops_the_request() -> None:
    peer = ServerPeer()
    call = peer.start("/t.T/ClientStream")
    peer.machine.send_message(call, b"first")
    peer.settle()
    peer.refuse(1, "7", ("grpc-message", "no more"))
    peer.h2.reset_stream(1, 0)
    peer.settle()
    assert peer.ending(call)[2:5] == (PERMISSION_DENIED, None, "no more")
    assert peer.machine.send_message(call, b"late"), "nobody waits for ever"
    peer.machine.end(call)
    assert DataFrame not in {type(f) for f in frames(peer.flush())}


def test_cancelling_resets_the_stream_and_is_silent() -> None:
    peer = ServerPeer()
    call = peer.start("/t.T/Bidi", unary_reply=False)
    peer.settle()
    peer.machine.cancel(call, NOW)
    peer.settle()
    assert peer.streams[1].reset == 8
    assert [event for event in peer.ours if len(event) > 1 and event[1] == call] == []
    assert peer.machine.in_flight == 0
    # What was on its way is no error.
    late = frames(peer.flush())
    assert late == []


def test_a_deadline_resets_the_stream() -> None:
    peer = ServerPeer()
    call = peer.start(deadline_ns=NOW + 5_000_000)
    other = peer.start(deadline_ns=NOW + 6_000_000)
    peer.settle()
    assert dict(peer.streams[1].headers[0])["grpc-timeout"] == "5000000n"
    assert peer.machine.next_timeout() == NOW + 5_000_000
    peer.take(peer.machine.tick(NOW + 5_000_000))
    peer.settle()
    assert peer.ending(call)[2] == DEADLINE_EXCEEDED
    assert peer.streams[1].reset == 8
    assert peer.machine.next_timeout() == NOW + 6_000_000
    peer.respond(3, b"in time")
    peer.settle()
    assert peer.ending(other)[2] == OK
    assert peer.machine.next_timeout() is None


@pytest.mark.parametrize("window", [0, 1, 5, 100, 65_535])
def test_the_servers_window_is_never_exceeded(window: int) -> None:
    peer = ServerPeer(settings={WINDOW: window})
    peer.reads = False
    peer.settle()
    peer.start(request=bytes(1000))
    peer.settle()
    while not peer.streams[1].ended:
        # `h2` raises FlowControlError if we send more than it allowed.
        assert len(peer.streams[1].data) == min(window, PREFIX + 1000)
        peer.h2.increment_flow_control_window(7, 1)
        window += 7
        peer.settle()
    assert peer.streams[1].messages == [bytes(1000)]


def test_a_server_that_does_not_read_stops_the_caller() -> None:
    peer = ServerPeer(settings={WINDOW: 20_000})
    peer.reads = False
    peer.settle()
    call = peer.start("/t.T/Bidi", unary_reply=False)
    sent = 0
    while peer.machine.send_message(call, bytes(1000 - PREFIX)):
        sent += 1000
        peer.settle()
        assert sent < 200_000
    assert len(peer.streams[1].data) == 20_000
    assert peer.of_kind(ROOM) == []
    peer.h2.increment_flow_control_window(60_000)
    peer.h2.increment_flow_control_window(60_000, 1)
    peer.settle()
    assert len(peer.of_kind(ROOM, call)) == 1
    assert len(peer.streams[1].data) == 80_000


def test_a_caller_that_does_not_read_stops_the_server() -> None:
    peer = ServerPeer()
    peer.consumes = False
    call = peer.start("/t.T/Bidi", unary_reply=False)
    peer.settle()
    peer.h2.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
    sent = 0
    while peer.h2.local_flow_control_window(1) >= 10_000:
        peer.h2.send_data(1, frame(bytes(10_000 - PREFIX)))
        sent += 10_000
        peer.settle()
    assert 200_000 < sent < 300_000
    stuck = peer.h2.local_flow_control_window(1)
    for event in peer.of_kind(REPLY_MESSAGE, call):
        peer.machine.consume(call, PREFIX + len(event[2]))
    peer.settle()
    assert peer.h2.local_flow_control_window(1) >= stuck + sent - 10_000


def test_calls_wait_for_a_stream() -> None:
    peer = ServerPeer(settings={STREAMS: 1})
    peer.settle()
    calls = [peer.start(), peer.start(), peer.start("/t.T/Bidi", unary_reply=False)]
    peer.machine.send_message(calls[2], b"queued")
    peer.machine.end(calls[2])
    for stream in (1, 3, 5):
        peer.settle()
        assert max(peer.streams) == stream
        peer.respond(stream, b"x")
    peer.settle()
    assert peer.streams[5].messages == [b"queued"]
    assert [peer.ending(call)[2] for call in calls] == [OK] * 3


def test_a_waiting_call_can_be_cancelled_or_run_out_of_time() -> None:
    peer = ServerPeer(settings={STREAMS: 1})
    peer.settle()
    peer.start()
    late, given_up = peer.start(deadline_ns=NOW + 10), peer.start()
    peer.settle()
    peer.machine.cancel(given_up, NOW)
    peer.take(peer.machine.tick(NOW + 10))
    assert peer.ending(late)[2] == DEADLINE_EXCEEDED
    peer.respond(1, b"x")
    peer.settle()
    assert list(peer.streams) == [1]
    assert peer.machine.in_flight == 0


def test_a_waiting_call_was_never_sent() -> None:
    peer = ServerPeer(settings={STREAMS: 1})
    peer.settle()
    sent, waiting = peer.start(), peer.start()
    streaming = peer.start("/t.T/Bidi", unary_reply=False)
    peer.settle()
    peer.take(peer.machine.receive(raw(GoAwayFrame(0, last_stream_id=1, error_code=0)), NOW))
    assert (peer.ending(waiting)[7], peer.ending(streaming)[5]) == (2, 2)
    peer.respond(1, b"x")
    peer.settle()
    assert peer.ending(sent)[2] == OK


@pytest.mark.parametrize("limit", [1_000, 20_000])
def test_the_servers_limit_of_headers_is_heeded(limit: int) -> None:
    peer = ServerPeer(settings={HEADERS: limit})
    peer.start()
    peer.settle()
    own = sum(len(name) + len(value) + 32 for name, value in peer.streams[1].headers[0])
    room = limit - own - len("a") - 32
    # What the call has not, but could have of its own, counts as well.
    peer.start(metadata=[("a", "b" * (room - 150))])
    larger = peer.start(metadata=[("a", "b" * (room + 1))])
    peer.settle()
    assert list(peer.streams) == [1, 3]
    assert peer.ending(larger)[2] == RESOURCE_EXHAUSTED
    assert f"the server takes no more than {limit}" in peer.ending(larger)[4]
    assert peer.machine.in_flight == 2


def test_what_may_be_too_much_waits_until_the_server_has_told_its_limit() -> None:
    peer = ServerPeer(settings={HEADERS: 16_384})
    peer.start()
    peer.start(metadata=[("a", "b" * 15_000)])
    too_large = peer.start(metadata=[("a", "b" * 17_000)])
    peer.settle()
    assert list(peer.streams) == [1, 3]
    assert peer.ending(too_large)[2] == RESOURCE_EXHAUSTED


def test_ping_is_answered_with_its_payload() -> None:
    peer = ServerPeer()
    peer.settle()
    peer.h2.ping(b"12345678")
    peer.settle()
    assert [event.ping_data for event in peer.saw(h2.events.PingAckReceived)] == [b"12345678"]


def raw(*parts: Frame) -> bytes:
    """Frames that the `h2` library would not send."""
    return b"".join(part.serialize() for part in parts)


def test_goaway_ends_what_it_excludes_and_nothing_else() -> None:
    peer = ServerPeer()
    kept, excluded = peer.start(), peer.start()
    streaming = peer.start("/t.T/Bidi", unary_reply=False)
    peer.settle()
    goaway = raw(GoAwayFrame(0, last_stream_id=1, error_code=0))
    peer.take(peer.machine.receive(goaway, NOW))
    assert len(peer.of_kind(DRAINING)) == 1
    assert peer.machine.draining
    for call, unprocessed in ((excluded, 7), (streaming, 5)):
        ending = peer.ending(call)
        assert (ending[2], ending[unprocessed]) == (UNAVAILABLE, True)
        assert "the server has shut the connection down (GOAWAY)" in ending
    assert peer.machine.start(0, b"x", None, None, True, NOW) is None
    peer.respond(1, b"kept")
    peer.take(peer.machine.receive(peer.h2.data_to_send(), NOW))
    assert peer.ending(kept)[2:4] == (OK, b"kept")
    peer.flush()
    assert peer.machine.finished


def test_goaway_in_two_steps_loses_nothing() -> None:
    peer = ServerPeer()
    call = peer.start()
    peer.settle()
    ping = PingFrame(0, b"goodbye!")
    first = raw(GoAwayFrame(0, last_stream_id=2**31 - 1, error_code=0), ping)
    peer.take(peer.machine.receive(first, NOW))
    assert peer.machine.draining
    assert peer.of_kind(LOST) == []
    acks = [f for f in frames(peer.flush()) if isinstance(f, PingFrame)]
    assert [ack.opaque_data for ack in acks] == [b"goodbye!"]
    second = raw(GoAwayFrame(0, last_stream_id=1, error_code=0))
    peer.take(peer.machine.receive(second, NOW))
    peer.respond(1, b"kept")
    peer.take(peer.machine.receive(peer.h2.data_to_send(), NOW))
    assert peer.ending(call)[2] == OK


def test_goaway_with_an_error_tells_why() -> None:
    peer = ServerPeer()
    call = peer.start()
    peer.settle()
    goaway = raw(GoAwayFrame(0, last_stream_id=0, error_code=11, additional_data=b"too_many_pings"))
    peer.take(peer.machine.receive(goaway, NOW))
    assert (peer.ending(call)[2], peer.ending(call)[7]) == (UNAVAILABLE, True)


def test_leaving_waits_for_the_calls() -> None:
    peer = ServerPeer()
    call = peer.start()
    peer.settle()
    peer.machine.shutdown()
    assert peer.of_kind(LOST) == []
    peer.respond(1, b"x")
    peer.settle()
    assert peer.ending(call)[2] == OK
    peer.flush()
    assert peer.machine.finished


def test_a_server_that_breaks_http2_is_left() -> None:
    for broken in (
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        raw(DataFrame(9, b"x")),
        b"\0\0\1\0\0\0\0\0\0x",  # DATA of no stream
        b"\0\0\4\3\0\0\0\0\0\0\0\0\10",  # RST_STREAM of no stream
        b"\xff\xff\xff\0\0\0\0\0\1",  # longer than any frame may be
    ):
        peer = ServerPeer()
        call = peer.start()
        peer.settle()
        peer.take(peer.machine.receive(broken, NOW))
        peer.take(peer.machine.receive_eof(NOW))
        peer.flush()
        assert peer.ending(call)[2] == UNAVAILABLE
        assert peer.machine.finished


def test_frames_of_unknown_kinds_are_passed_over() -> None:
    peer = ServerPeer()
    call = peer.start()
    peer.settle()
    peer.take(peer.machine.receive(b"\0\0\4\xfa\xff\0\0\0\1abcd", NOW))
    peer.take(peer.machine.receive(b"\0\0\0\xfa\0\0\0\0\0", NOW))
    peer.respond(1, b"x")
    peer.settle()
    assert peer.ending(call)[2] == OK
