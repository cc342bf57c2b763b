"""Any bytes on the wire end in an error of a stream or of the connection, and in nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attacks.attacker import (
    BIDI,
    ECHO,
    PREFACE,
    SETTINGS,
    SLOW,
    Service,
    block,
    dial,
    frame,
    opening,
    request,
)
from tests.listener import listening

from bascule import _core
from bascule.rpc import Channel, RpcError, Server

if TYPE_CHECKING:
    from anyio.abc import SocketStream
    from hypothesis.strategies import SearchStrategy

NOW = 1_000_000_000_000

#: Conversations that are right, and attacks, byte by byte.
CORPUS = Path(__file__).parent / "corpus"

#: Machines are fast; whole links are not.
MANY = settings(max_examples=10 * settings.default.max_examples)
FEW = settings(max_examples=max(5, settings.default.max_examples // 20))

STREAM_IDS = st.one_of(st.sampled_from([0, 1, 2, 3, 5, 7]), st.integers(0, 2**32 - 1))
PAYLOADS = st.one_of(
    st.binary(max_size=40),
    st.just(block(ECHO.path)),
    st.just(block(BIDI.path)),
    st.sampled_from([bytes(4), bytes(5), bytes(8), b"\x7f\xff\xff\xff", b"\0\4\x7f\xff\xff\xff"]),
)
FRAMES = st.builds(frame, st.integers(0, 11), st.integers(0, 255), STREAM_IDS, PAYLOADS)
#: A conversation that is right, as client and as server.
CALLS = st.sampled_from(
    [frame(SETTINGS), request(1, ECHO.path), request(3, SLOW.path), opening(5, BIDI.path)]
)
ANSWERS = st.sampled_from(
    [
        frame(SETTINGS),
        frame(1, 4, 1, b"\x88" + block()[-40:]),
        frame(0, 0, 1, bytes(5)),
        frame(1, 5, 3, b"\x88"),
    ]
)


CHANGES = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)))


def conversations(right: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Right frames and wrong ones, with some bytes of the whole changed."""
    return st.builds(changed, st.lists(st.one_of(right, FRAMES), max_size=12), CHANGES)


def changed(frames: list[bytes], changes: list[tuple[int, int]]) -> bytes:
    data = bytearray(b"".join(frames))
    for at, value in changes:
        if at < len(data):
            data[at] = value
    return bytes(data)


def pieces(data: bytes, size: int) -> list[bytes]:
    """The same in reads of this size."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def from_client() -> SearchStrategy[bytes]:
    """What a server may have to read."""
    return st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(PREFACE.__add__),
        conversations(CALLS).map((PREFACE + frame(SETTINGS)).__add__),
    )


def from_server() -> SearchStrategy[bytes]:
    """What a client may have to read."""
    return st.one_of(st.binary(max_size=200), conversations(ANSWERS).map(frame(SETTINGS).__add__))


@MANY
@given(data=from_client(), size=st.integers(1, 400), http=st.booleans())
def test_a_server_machine_survives(data: bytes, size: int, http: bool) -> None:
    feed_server(data, size, http=http)


def feed_server(data: bytes, size: int, *, http: bool) -> None:
    """Have a server read these bytes, and check what must hold whatever they are."""
    table = _core.CallTable()
    for method, unary in ((ECHO, True), (SLOW, True), (BIDI, False)):
        table.register(method.path, unary)
    config = _core.ServerConfig(calls=table, http_max_body=100 if http else None)
    machine = _core.ServerConnection(config, NOW)
    events = []

    def handle(more: list[Any]) -> None:
        events.extend(more)
        for event in more:
            if event[0] == 5:  # a plain request, or what is wrong with one
                machine.respond_http(event[1], 400, [], b"", NOW)
        flushed, more = machine.flush()
        if flushed or more:
            handle(more)

    for piece in pieces(data, size):
        handle(machine.receive(piece, NOW))
    handle(machine.tick(NOW + 60_000_000_000))
    handle(machine.receive_eof(NOW))
    assert machine.finished
    begun = {event[1] for event in events if event[0] == 0}
    reset = [event[1] for event in events if event[0] == 4]
    assert len(reset) == len(set(reset))
    assert begun <= set(reset)
    assert sum(event[0] == 6 for event in events) == 1
    for stream in begun:
        machine.handler_ended(stream)
    assert machine.in_flight == 0


@MANY
@given(data=from_server(), size=st.integers(1, 400))
def test_a_client_machine_survives(data: bytes, size: int) -> None:
    feed_client(data, size)


def feed_client(data: bytes, size: int) -> None:
    """The same for a client."""
    table = _core.CallTable()
    for method, unary in ((ECHO, True), (BIDI, False)):
        table.register(method.path, unary)
    machine = _core.ClientConnection(table, "fuzz:1", NOW, user_agent="fuzz")
    calls = [
        machine.start(0, b"x", None, NOW + 50_000_000_000, True, NOW),
        machine.start(1, None, None, None, False, NOW),
    ]
    events = []
    for piece in pieces(data, size):
        events += machine.flush()[1]
        events += machine.receive(piece, NOW)
    events += machine.tick(NOW + 60_000_000_000)
    events += machine.receive_eof(NOW)
    while (flushed := machine.flush())[0]:
        events += flushed[1]
    assert machine.finished
    assert machine.in_flight == 0
    ended = [event[1] for event in events if event[0] in {0, 4}]
    assert sorted(ended) == calls
    assert sum(event[0] == 6 for event in events) == 1


@pytest.mark.parametrize("path", sorted(CORPUS.glob("server/*")), ids=lambda path: path.name)
def test_a_server_machine_survives_what_is_known(path: Path) -> None:
    for size in (1, 7, 1 << 20):
        for http in (False, True):
            feed_server(path.read_bytes(), size, http=http)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("client/*")), ids=lambda path: path.name)
def test_a_client_machine_survives_what_is_known(path: Path) -> None:
    for size in (1, 7, 1 << 20):
        feed_client(path.read_bytes(), size)


@pytest.mark.anyio
@FEW
@given(inputs=st.lists(from_client(), min_size=1, max_size=20))
async def test_a_server_goes_on_after_any_bytes(inputs: list[bytes]) -> None:
    async with Server([Service()], grace=0.0) as server:
        for data in inputs:
            async with await dial(server) as stream:
                await stream.send(data)
        async with Channel(server.addresses[0]) as channel:
            with anyio.fail_after(60):
                assert await channel.unary(ECHO, b"still here") == b"still here"


@pytest.mark.anyio
@FEW
@given(inputs=st.lists(from_server(), min_size=1, max_size=20))
async def test_a_channel_reports_any_bytes_as_an_error(inputs: list[bytes]) -> None:
    left = list(inputs)

    async def answer(stream: SocketStream) -> None:
        async with stream:
            if left:
                await stream.send(left.pop())

    async with listening(answer) as port:
        for _ in inputs:
            async with Channel(f"127.0.0.1:{port}") as channel:
                with pytest.raises(RpcError):
                    await channel.unary(ECHO, b"x", timeout=0.2)
