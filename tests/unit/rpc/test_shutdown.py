"""How servers end: at once where they may, and whatever their handlers and peers do."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.unit.rpc.services import Echo

from bascule.errors import RpcError, Status
from bascule.net import HttpRequest, HttpResponse, HttpServer
from bascule.rpc import Channel, Server
from bascule.testing import memory_channel

pytestmark = pytest.mark.anyio

#: Seconds that nothing here takes, and less than a server gives handlers to clean up.
SOON = 3


@pytest.mark.parametrize("address", ["127.0.0.1:0", "memory:idle"])
async def test_idle_clients_do_not_delay_a_cancelled_server(address) -> None:
    async with anyio.create_task_group() as group:
        with anyio.fail_after(SOON), anyio.CancelScope() as scope:
            async with Server([Echo()], listen=address) as server:
                channel = Channel(server.addresses[0])
                await EchoStub(await _entered(group, channel)).unary(EchoRequest())
                scope.cancel()
                await server.serve_forever()
        assert scope.cancelled_caught
        group.cancel_scope.cancel()


async def _entered(group, channel: Channel) -> Channel:
    async def hold(*, task_status) -> None:
        async with channel:
            task_status.started()
            await anyio.sleep_forever()

    await group.start(hold)
    return channel


async def test_two_drains_both_end() -> None:
    echo = Echo()
    async with Channel("memory:drains") as channel, anyio.create_task_group() as group:
        with anyio.fail_after(SOON):
            async with anyio.create_task_group() as drains:
                async with Server([echo], listen="memory:drains", grace=1000.0) as server:
                    call = EchoStub(channel).bidi()
                    async with call:
                        await call.send_message(EchoRequest(text="x", replies=1))
                        assert await call.recv_message() is not None
                        drains.start_soon(server.drain)
                        drains.start_soon(server.drain)
                        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_native_cancellation_of_a_shutdown_leaves_no_task() -> None:
    begun = anyio.Event()
    ended = []

    class Stubborn(EchoBase):
        async def unary(self, request: EchoRequest) -> EchoReply:
            begun.set()
            with anyio.CancelScope(shield=True):
                try:
                    await anyio.sleep_forever()
                finally:
                    ended.append(True)
            raise AssertionError("unreachable")

    before = asyncio.all_tasks()

    async def serve() -> None:
        async with (
            Server([Stubborn()], listen="memory:native", grace=0.0),
            Channel("memory:native") as channel,
            anyio.create_task_group() as group,
        ):
            group.start_soon(EchoStub(channel).unary, EchoRequest())
            await begun.wait()
            group.cancel_scope.cancel()

    task = asyncio.create_task(serve())
    await begun.wait()
    await anyio.wait_all_tasks_blocked()
    for _ in range(3):  # in its drain, in its clean-up, and once more
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]
    assert asyncio.all_tasks() == before


async def _fail_when_cancelled() -> None:
    try:
        await anyio.sleep_forever()
    finally:
        raise ValueError("while cleaning up")


async def test_a_handler_that_fails_while_it_is_cancelled_fails_alone() -> None:
    class Clumsy(Echo):
        async def unary(self, request: EchoRequest) -> EchoReply:
            if request.hang:
                async with anyio.create_task_group() as group:
                    group.start_soon(_fail_when_cancelled)
                    await super().unary(request)
            return EchoReply(text=request.text)

    echo = Clumsy()
    async with memory_channel(echo) as channel:
        with pytest.raises(RpcError):
            await EchoStub(channel).unary(EchoRequest(hang=True), timeout=0.05)
        await echo.until(cancelled=1)
        assert (await EchoStub(channel).unary(EchoRequest(text="alive"))).text == "alive"


async def test_a_plain_handler_that_fails_while_it_is_cancelled_fails_alone() -> None:
    ended = anyio.Event()

    async def handler(request: HttpRequest) -> HttpResponse:
        if request.target == "/hang":
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(_fail_when_cancelled)
                    hanging.set()
                    await anyio.sleep_forever()
            finally:
                ended.set()
        return HttpResponse(204)

    hanging = anyio.Event()
    async with HttpServer(handler, listen="127.0.0.1:0") as server:
        host, port = server.addresses[0].rsplit(":", 1)
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(b"GET /hang HTTP/1.1\r\nhost: a\r\n\r\n")
            await hanging.wait()
        await ended.wait()
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (await stream.receive()).startswith(b"HTTP/1.1 204")


async def test_a_shielded_handler_does_not_wait_for_a_client_that_is_gone() -> None:
    seen = []
    over = anyio.Event()

    class Shielded(EchoBase):
        async def client_stream(self, requests) -> EchoReply:
            with anyio.CancelScope(shield=True):
                try:
                    async for request in requests:
                        seen.append(request.text)  # noqa: PERF401 - seen as they come
                    seen.append("taken for the end")
                except RpcError as error:
                    seen.append(error.status)
                over.set()
            return EchoReply()

    async with memory_channel(Shielded()) as channel:
        async with EchoStub(channel).client_stream() as call:
            await call.send_message(EchoRequest(text="one"))
            while not seen:
                await anyio.lowlevel.checkpoint()
            await call.cancel()
        with anyio.fail_after(SOON):
            await over.wait()
    assert seen == ["one", Status.CANCELLED]


async def test_a_shielded_handler_does_not_send_for_ever_to_a_client_that_is_gone() -> None:
    over = anyio.Event()
    sent = [0]

    class Shielded(EchoBase):
        async def server_stream(self, request: EchoRequest):
            try:
                with anyio.CancelScope(shield=True):
                    for number in range(1000):
                        sent[0] = number
                        yield EchoReply(payload=bytes(10_000))
            finally:
                over.set()

    async with memory_channel(Shielded()) as channel:
        async with EchoStub(channel).server_stream(EchoRequest()) as call:
            assert await call.recv_message() is not None
            before = -1
            while sent[0] != before:
                before = sent[0]
                await anyio.wait_all_tasks_blocked()
            await call.cancel()
        with anyio.fail_after(SOON):
            await over.wait()
