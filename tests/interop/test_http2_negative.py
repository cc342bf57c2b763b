"""bascule's client keeps its head with servers that do not behave, and repeats what may be repeated, once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
from h2.errors import ErrorCodes
from tests.generated.interop.testing_bascule import TestServiceStub as Stub
from tests.interop.cases import large, large_unary
from tests.interop.http2_server import Request, http2_server

from bascule.rpc import Channel, RpcError, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Behaviour = Callable[[Request], Awaitable[None]]

pytestmark = pytest.mark.anyio


async def failure(channel: Channel) -> Status:
    """How a call fails, which does not hang."""
    with anyio.fail_after(30), pytest.raises(RpcError) as raised:
        await Stub(channel).unary_call(large())
    return raised.value.status


async def rst_after_header(request: Request) -> None:
    await request.send_headers()
    await request.reset()


async def rst_during_data(request: Request) -> None:
    await request.send_headers()
    await request.send_data(request.reply[: len(request.reply) // 2])
    await request.reset()


async def rst_after_data(request: Request) -> None:
    await request.send_headers()
    await request.send_data(request.reply)
    await request.reset()


async def test_goaway() -> None:
    async def behave(request: Request) -> None:
        if request.number == 0:
            await request.goaway(request.stream)
        await request.answer()

    async with http2_server(behave) as server, Channel(server.address) as channel:
        await large_unary(channel)
        await large_unary(channel)
    first, second = server.requests
    assert first.connection is not second.connection


@pytest.mark.parametrize("behave", [rst_after_header, rst_during_data, rst_after_data])
async def test_rst(behave: Behaviour) -> None:
    async with http2_server(behave) as server, Channel(server.address) as channel:
        # RFC 9113 gives NO_ERROR no meaning before the end; gRPC makes it INTERNAL.
        assert await failure(channel) is Status.INTERNAL
    assert len(server.requests) == 1


async def test_ping() -> None:
    async def behave(request: Request) -> None:
        ping = request.connection.ping
        await ping()
        await request.send_headers()
        await ping()
        await request.send_data(request.reply)
        await ping()
        await request.send_trailers()
        await ping()

    async with http2_server(behave) as server, Channel(server.address) as channel:
        for _ in range(5):
            await large_unary(channel)
        with anyio.fail_after(30):
            await server.connections[0].quiet()
    assert len(server.connections) == 1


async def test_max_streams() -> None:
    async def behave(request: Request) -> None:
        if request.number == 0:
            await request.connection.limit_streams(1)
        await request.answer()

    async with http2_server(behave) as server, Channel(server.address) as channel:
        await large_unary(channel)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                for _ in range(15):
                    group.start_soon(large_unary, channel)
    assert (len(server.requests), len(server.connections), server.most_streams) == (16, 1, 1)


@pytest.mark.parametrize("padding", [None, 255], ids=["no_df_padding_sanity_test", "padding"])
async def test_data_frame_padding(padding: int | None) -> None:
    async with (
        http2_server(partial(Request.answer, chunk=1000, padding=padding)) as server,
        Channel(server.address) as channel,
    ):
        # The padding alone is more than a window: it has to be credited.
        with anyio.fail_after(60):
            for _ in range(20):
                await large_unary(channel)
    assert len(server.connections) == 1


async def unprocessed_goaway(request: Request) -> None:
    await request.goaway(request.stream - 1)


async def unprocessed_and_gone(request: Request) -> None:
    await request.goaway(request.stream - 1)
    await request.connection.close()


async def refused(request: Request) -> None:
    await request.reset(ErrorCodes.REFUSED_STREAM)


@pytest.mark.parametrize("behave", [unprocessed_goaway, unprocessed_and_gone, refused])
@pytest.mark.parametrize("times", [1, 2])
async def test_what_was_not_processed_is_repeated_once(behave: Behaviour, times: int) -> None:
    async def behave_in_the_end(request: Request) -> None:
        await (behave(request) if request.number < times else request.answer())

    async with http2_server(behave_in_the_end) as server, Channel(server.address) as channel:
        if times == 1:
            with anyio.fail_after(30):
                await large_unary(channel)
        else:
            assert await failure(channel) is Status.UNAVAILABLE
        assert len(server.requests) == 2


async def processed_goaway(request: Request) -> None:
    await request.goaway(request.stream)
    await request.connection.close()


async def lost(request: Request) -> None:
    await request.connection.close()


async def cancelled(request: Request) -> None:
    await request.reset(ErrorCodes.CANCEL)


async def calmed(request: Request) -> None:
    await request.reset(ErrorCodes.ENHANCE_YOUR_CALM)


async def refused_after_header(request: Request) -> None:
    await request.send_headers()
    await request.reset(ErrorCodes.REFUSED_STREAM)


async def refused_during_data(request: Request) -> None:
    await request.send_headers()
    await request.send_data(request.reply[:100_000])
    await request.reset(ErrorCodes.REFUSED_STREAM)


@pytest.mark.parametrize(
    ("behave", "status"),
    [
        (processed_goaway, Status.UNAVAILABLE),
        (lost, Status.UNAVAILABLE),
        (cancelled, Status.CANCELLED),
        (calmed, Status.RESOURCE_EXHAUSTED),
        (refused_after_header, Status.UNAVAILABLE),
        (refused_during_data, Status.UNAVAILABLE),
    ],
)
async def test_what_may_have_been_processed_is_never_repeated(
    behave: Behaviour, status: Status
) -> None:
    async with http2_server(behave) as server, Channel(server.address) as channel:
        assert await failure(channel) is status
    assert len(server.requests) == 1
