"""What compression puts on the wire, and what of it is refused, with Python's own zlib as judge."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.peers import (
    CALL,
    MESSAGE,
    NOW,
    PREFIX,
    REPLY_MESSAGE,
    RESET,
    ClientPeer,
    ServerPeer,
    frame,
)

from bascule import _core
from bascule.rpc import Status

if TYPE_CHECKING:
    from collections.abc import Callable

#: Compressible, and not small.
TEXT = b"compress me, " * 500

PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
UNPACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}

INTERNAL, EXHAUSTED = str(Status.INTERNAL.value), str(Status.RESOURCE_EXHAUSTED.value)


def announce(encoding: str) -> tuple[tuple[str, str], ...]:
    return (("grpc-encoding", encoding),)


def accept(*encodings: str) -> tuple[tuple[str, str], ...]:
    return (("grpc-accept-encoding", ", ".join(encodings)),)


def only(data: bytes) -> tuple[int, bytes]:
    """The flag and the content of the one message in ``data``."""
    assert int.from_bytes(data[1:PREFIX], "big") == len(data) - PREFIX
    return data[0], data[PREFIX:]


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("message", [b"", b"small", TEXT])
def test_a_server_reads_what_zlib_has_compressed(encoding: str, message: bytes) -> None:
    peer = ClientPeer()
    stream = peer.request(body=frame(PACK[encoding](message), 1), extra=announce(encoding))
    peer.settle(chunk=7)
    assert peer.of_kind(CALL)[0][5] == message
    assert peer.streams[stream].messages == [message], "nobody asked for a compressed reply"


@pytest.mark.parametrize("encoding", PACK)
def test_zlib_reads_what_a_server_has_compressed(encoding: str) -> None:
    peer = ClientPeer(compression=encoding)
    stream = peer.request(body=frame(TEXT), extra=accept("br", encoding))
    deaf = peer.request(body=frame(TEXT), extra=accept("br", "identity"))
    silent = peer.request(body=frame(TEXT))
    small = peer.request(body=frame(b"small"), extra=accept(encoding))
    peer.settle()
    flag, packed = only(peer.streams[stream].data)
    assert flag == 1
    assert len(packed) < len(TEXT) / 10
    assert UNPACK[encoding](packed) == TEXT
    assert dict(peer.streams[stream].headers[0])["grpc-encoding"] == encoding
    for plain in (deaf, silent):
        assert peer.streams[plain].messages == [TEXT]
        assert "grpc-encoding" not in dict(peer.streams[plain].headers[0])
    assert peer.streams[small].messages == [b"small"]


def test_a_server_tells_what_it_takes_once_a_connection() -> None:
    peer = ClientPeer()
    streams = [peer.request(body=frame(b"x")) for _ in range(2)]
    peer.settle()
    told = [dict(peer.streams[each].headers[0]).get("grpc-accept-encoding") for each in streams]
    assert told == ["identity, deflate, gzip, zstd", None]


def test_an_unknown_encoding_is_refused_with_those_that_are_known() -> None:
    peer = ClientPeer()
    peer.request(body=frame(b"x"))
    stream = peer.request(body=frame(b"x", 1), extra=announce("br"))
    peer.settle()
    seen = peer.streams[stream]
    assert seen.status[0] == str(Status.UNIMPLEMENTED.value)
    assert dict(seen.headers[0])["grpc-accept-encoding"] == "identity, deflate, gzip, zstd"


def test_a_handler_chooses_for_the_messages_that_follow() -> None:
    peer = ClientPeer(answers=False)
    stream = peer.request("/t.T/Bidi", end=False)
    peer.settle()
    machine = peer.machine
    for name, possible in [("gzip", True), ("identity", True), ("gzip", True), ("zstd", False)]:
        assert machine.set_compression(stream, name, "gzip, zstd") is possible
        machine.send_message(stream, TEXT)
    machine.set_compression(stream, "gzip", "identity")
    machine.send_message(stream, TEXT)
    peer.settle()
    data, flags = peer.streams[stream].data, []
    while data:
        size = PREFIX + int.from_bytes(data[1:PREFIX], "big")
        flags.append(data[0])
        data = data[size:]
    assert flags == [1, 0, 1, 1, 0], "what was not possible has changed nothing"
    with pytest.raises(ValueError, match="expected one of identity, deflate, gzip, zstd"):
        machine.set_compression(stream, "br", "br")


@pytest.mark.parametrize("encoding", PACK)
def test_a_client_compresses_and_reads_what_was_compressed(encoding: str) -> None:
    peer = ServerPeer(compression=encoding)
    call = peer.start(request=TEXT)
    peer.settle()
    headers = dict(peer.streams[1].headers[0])
    assert headers["grpc-encoding"] == encoding
    assert headers["grpc-accept-encoding"] == "identity, deflate, gzip, zstd"
    flag, packed = only(peer.streams[1].data)
    assert (flag, UNPACK[encoding](packed)) == (1, TEXT)
    peer.respond_raw(1, frame(PACK[encoding](b"reply"), 1), initial=announce(encoding))
    peer.settle()
    assert peer.ending(call)[2:4] == (0, b"reply")


def test_a_call_chooses_for_itself() -> None:
    peer = ServerPeer(compression="gzip")
    for encoding in ("deflate", "identity"):
        peer.start(request=TEXT, metadata=[("x-a", "b"), ("grpc-encoding", encoding)])
    with pytest.raises(ValueError, match='"br"'):
        peer.start(request=TEXT, metadata=[("grpc-encoding", "br")])
    peer.settle()
    assert only(peer.streams[1].data)[0] == 1
    assert zlib.decompress(only(peer.streams[1].data)[1]) == TEXT
    assert peer.streams[3].messages == [TEXT]
    assert "grpc-encoding" not in dict(peer.streams[3].headers[0])


def test_an_encoding_that_no_client_asked_for_is_an_error() -> None:
    peer = ServerPeer()
    call = peer.start()
    peer.settle()
    peer.respond_raw(1, frame(b"x", 1), initial=announce("br"))
    peer.settle()
    assert peer.ending(call)[2] == Status.INTERNAL.value


@given(st.sampled_from(sorted(PACK)), st.data())
def test_a_stream_that_is_cut_short_is_an_error(encoding: str, data: st.DataObject) -> None:
    packed = PACK[encoding](TEXT)
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    peer = ClientPeer()
    stream = peer.request(body=frame(cut, 1), extra=announce(encoding))
    peer.settle()
    assert peer.streams[stream].status[0] == INTERNAL
    assert peer.of_kind(CALL) == []


@given(st.sampled_from(_core.ENCODINGS), st.lists(st.binary(max_size=3000) | st.just(TEXT)))
def test_messages_survive_both_ways(encoding: str, messages: list[bytes]) -> None:
    server = ClientPeer(compression=encoding)
    client = ServerPeer(compression=encoding)
    call = client.start("/t.T/Bidi", unary_reply=False)
    for message in messages:
        client.machine.send_message(call, message)
    client.settle()
    sent = client.streams[1].data
    stream = server.request("/t.T/Bidi", sent, extra=(*announce(encoding), *accept(encoding)))
    server.settle(chunk=1000)
    assert [event[2] for event in server.of_kind(MESSAGE)] == messages
    client.respond_raw(1, server.streams[stream].data, initial=announce(encoding))
    client.settle()
    assert [event[2] for event in client.of_kind(REPLY_MESSAGE)] == messages


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("over", [0, 1])
def test_the_limit_is_that_of_the_decompressed_message(encoding: str, over: int) -> None:
    limit = 100_000
    packed = PACK[encoding](bytes(limit + over))
    server = ClientPeer(max_message=limit)
    stream = server.request(body=frame(packed, 1), extra=announce(encoding))
    server.settle()
    assert (server.streams[stream].status[0] == EXHAUSTED) == bool(over)
    client = ServerPeer(max_message=limit)
    call = client.start()
    client.settle()
    client.respond_raw(1, frame(packed, 1), initial=announce(encoding))
    client.settle()
    assert client.ending(call)[2] == (Status.RESOURCE_EXHAUSTED.value if over else 0)


@pytest.mark.parametrize("side", ["server", "client"])
def test_messages_that_wait_are_not_decompressed(side: str) -> None:
    # What fits into the window of a stream would be a hundred times as much.
    message = bytes(1 << 20)
    bombs = frame(gzip.compress(message), 1) * 50
    peer: Any
    if side == "server":
        peer = ClientPeer(answers=False)
        peer.settle()
        which = peer.request("/t.T/Bidi", extra=announce("gzip"), end=False)
        while bombs:
            peer.h2.send_data(which, bombs[:16384], end_stream=len(bombs) <= 16384)
            bombs = bombs[16384:]
        kind, ended = MESSAGE, lambda: peer.of_kind(2)
    else:
        peer = ServerPeer()
        peer.consumes = False
        which = peer.start("/t.T/Bidi", unary_reply=False)
        peer.settle()
        peer.respond_raw(1, bombs, initial=announce("gzip"))
        kind, ended = REPLY_MESSAGE, lambda: peer.of_kind(4)
    peer.settle()
    taken = 0
    while taken < 50:
        assert len(peer.of_kind(kind)) == taken + 1
        assert not ended()
        peer.machine.consume(which, PREFIX + len(message))
        peer.settle()
        taken += 1
    assert len(peer.of_kind(kind)) == 50
    assert len(ended()) == 1
    if side == "server":
        assert not peer.of_kind(RESET)
        peer.machine.finish(which, 0, None, None, None, NOW)
        peer.settle()
        assert peer.streams[which].status == ("0", None)
