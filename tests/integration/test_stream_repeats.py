"""A stream that its server has not processed is sent again, whole and at most once, and blames nobody."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import h2.config
import h2.connection
import h2.events
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame
from tests.listener import listening

from bascule.resilience import BreakerSettings
from bascule.rpc import Cardinality, Channel, Method, RpcError, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import SocketStream

pytestmark = pytest.mark.anyio

SERVER: Method[bytes, bytes] = Method("/t.T/S", Cardinality.UNARY_STREAM, bytes, bytes)
CLIENT: Method[bytes, bytes] = Method("/t.T/C", Cardinality.STREAM_UNARY, bytes, bytes)
BIDI: Method[bytes, bytes] = Method("/t.T/B", Cardinality.STREAM_STREAM, bytes, bytes)

METHODS = [SERVER, CLIENT, BIDI]
HEADERS = [(":status", "200"), ("content-type", "application/grpc")]


class Unwilling:
    """A server that refuses the first streams, at some point, and echoes the bytes of the others.

    :param refusals: streams to refuse
    :param at: when: ``headers``, ``data`` (the first of it), ``end``
    :param how: ``refuse`` (REFUSED_STREAM), or ``goaway`` (of the streams before it)
    :param most: streams at once on a connection
    """

    def __init__(
        self, refusals: int, at: str = "headers", how: str = "refuse", most: int = 100
    ) -> None:
        self.most = most
        self.refusals = refusals
        self.at = at
        self.how = how
        self.streams = 0
        self.connections = 0

    async def serve(self, stream: SocketStream) -> None:
        self.connections += 1
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: self.most})
        refused: set[int] = set()
        bodies: dict[int, bytes] = {}
        async with stream:
            try:
                while True:
                    await stream.send(connection.data_to_send())
                    for event in connection.receive_data(await stream.receive()):
                        number = getattr(event, "stream_id", 0)
                        match event:
                            case h2.events.RequestReceived():
                                self.streams += 1
                                bodies[number] = b""
                                if self.streams <= self.refusals:
                                    refused.add(number)
                                at = "headers"
                            case h2.events.DataReceived():
                                connection.acknowledge_received_data(
                                    event.flow_controlled_length, number
                                )
                                if number in bodies:
                                    bodies[number] += event.data
                                at = "data"
                            case h2.events.StreamEnded():
                                at = "end"
                            case _:
                                continue
                        if number in refused:
                            if at == self.at and bodies.pop(number, None) is not None:
                                if self.how == "goaway":
                                    await stream.send(
                                        GoAwayFrame(last_stream_id=number - 1).serialize()
                                    )
                                    return
                                connection.reset_stream(number, ErrorCodes.REFUSED_STREAM)
                        elif at == "end":
                            connection.send_headers(number, HEADERS)
                            connection.send_data(number, bodies.pop(number))
                            connection.send_headers(number, [("grpc-status", "0")], end_stream=True)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass


@asynccontextmanager
async def unwilling(server: Unwilling) -> AsyncIterator[str]:
    async with listening(server.serve) as port:
        with anyio.fail_after(20):
            yield f"127.0.0.1:{port}"


async def call(channel: Channel, method: Method[bytes, bytes]) -> list[bytes]:
    """What a call with one message echoes."""
    async with channel.stream(method) as stream:
        await stream.send_message(b"x", end=True)
        replies = [each async for each in stream]
        await stream.recv_trailing_metadata()
        return replies


@pytest.mark.parametrize("method", METHODS, ids=["server", "client", "bidi"])
@pytest.mark.parametrize("at", ["headers", "data", "end"])
@pytest.mark.parametrize("how", ["refuse", "goaway"])
async def test_a_refused_stream_is_sent_again_once(
    method: Method[bytes, bytes], at: str, how: str
) -> None:
    for refusals in (1, 2):
        server = Unwilling(refusals, at, how)
        async with unwilling(server) as target, Channel(target) as channel:
            if refusals == 1:
                assert await call(channel, method) == [b"x"]
            else:
                with pytest.raises(RpcError) as raised:
                    await call(channel, method)
                assert raised.value.status is Status.UNAVAILABLE
            assert server.streams == 2
            assert channel.attempts.transparent == 1
            assert channel.attempts.buffered == 0
            if refusals == 1:
                assert await call(channel, method) == [b"x"]
                assert server.streams == 3


async def test_what_is_sent_before_and_after_the_refusal_arrives_once_and_in_order() -> None:
    server = Unwilling(1, "data")
    async with unwilling(server) as target, Channel(target) as channel:
        sent = [bytes([n]) * 500 for n in range(20)]
        async with channel.stream(BIDI) as stream, anyio.create_task_group() as tasks:
            replies: list[bytes] = []

            async def receive() -> None:
                replies.extend([each async for each in stream])

            tasks.start_soon(receive)
            for each in sent:
                await stream.send_message(each)
                await anyio.lowlevel.checkpoint()
                if each is sent[3]:
                    while server.streams < 2:
                        await anyio.lowlevel.checkpoint()
            await stream.end()
        assert replies == sent
        assert channel.attempts.transparent == 1


@pytest.mark.parametrize("at", ["headers", "data"])
async def test_a_sender_alone_sends_again(at: str) -> None:
    """No task receives: what the sender does next begins again."""
    server = Unwilling(1, at)
    async with unwilling(server) as target, Channel(target) as channel:
        async with channel.stream(CLIENT) as stream:
            await stream.send_request()
            sent = 0
            while server.streams < 2:
                await stream.send_message(b"again")
                await anyio.sleep(0.001)
                sent += 1
            await stream.end()
            assert [each async for each in stream] == [b"again"] * sent


async def test_a_cancelled_repetition_is_taken_up_by_whoever_comes_next() -> None:
    server = Unwilling(1, "end", "goaway")
    async with unwilling(server) as target, Channel(target) as channel:
        async with channel.stream(SERVER) as stream:
            await stream.send_message(b"x", end=True)
            replies: list[bytes | None] = []
            for _ in range(1000):
                with anyio.move_on_after(0):
                    replies.append(await stream.recv_message())
                    break
                await anyio.lowlevel.checkpoint()
            else:
                replies.append(await stream.recv_message())
            assert replies == [b"x"]
        assert server.streams == 2


async def test_a_stream_that_is_too_large_to_keep_is_not_sent_again() -> None:
    server = Unwilling(1, "end")
    async with unwilling(server) as target, Channel(target) as channel:
        async with channel.stream(CLIENT) as stream:
            for _ in range(5):
                await stream.send_message(bytes(60_000))
            with pytest.raises(RpcError) as raised:
                await stream.end()
                await stream.recv_message()
        assert raised.value.status is Status.UNAVAILABLE
        assert (server.streams, channel.attempts.transparent) == (1, 0)
        assert channel.attempts.buffered == 0


async def test_refusals_are_no_failures_of_the_endpoint() -> None:
    server = Unwilling(100)
    breaker = BreakerSettings(failure_threshold=1)
    async with unwilling(server) as target, Channel(target, breaker=breaker) as channel:
        for method in METHODS:
            with pytest.raises(RpcError):
                await call(channel, method)
        (endpoint,) = channel.snapshot().subchannels
        assert (endpoint.failures, endpoint.in_flight) == (0, 0)
        assert server.streams == 6


async def test_leaving_a_stream_that_was_refused_does_not_send_it_again() -> None:
    server = Unwilling(1)
    async with unwilling(server) as target, Channel(target) as channel:
        async with channel.stream(BIDI) as stream:
            await stream.send_message(b"x")
            while not channel.attempts.transparent:
                await anyio.lowlevel.checkpoint()
        assert (server.streams, channel.attempts.buffered) == (1, 0)


async def test_what_was_never_sent_has_not_used_its_one_chance() -> None:
    server = Unwilling(0, "data", "goaway", most=1)
    async with unwilling(server) as target, Channel(target) as channel:
        await call(channel, SERVER)  # which tells how many streams are allowed
        server.refusals = 3
        replies: list[bytes] = []

        async def wait_for_a_turn() -> None:
            replies.extend(await call(channel, SERVER))

        async with anyio.create_task_group() as tasks:
            async with channel.stream(BIDI) as first:
                await first.send_request()
                tasks.start_soon(wait_for_a_turn)
                while channel.snapshot().subchannels[0].in_flight < 2:
                    await anyio.lowlevel.checkpoint()
                # The connection ends by it: the other call was never sent, and then is refused once.
                await first.send_message(b"x")
                while not replies:
                    await anyio.lowlevel.checkpoint()
        assert replies == [b"x"]
        assert (server.streams, channel.attempts.transparent) == (4, 3)
