"""Sockets that are bound and their files, and what outlives neither a server nor a driver."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoRequest
from tests.unit.rpc.services import Echo

from bascule.errors import ClosedError, TransportError
from bascule.net import (
    ClientTLS,
    HttpRequest,
    HttpResponse,
    HttpServer,
    ServerTLS,
    _serving,
    development_certificate,
)
from bascule.net._link import open_driver
from bascule.rpc import Channel, Server

pytestmark = pytest.mark.anyio

ASYNCIO_ONLY = pytest.mark.parametrize("anyio_backend", ["asyncio"])


async def _answers(address: str) -> bool:
    async with Channel(address) as channel:
        return (await EchoStub(channel).unary(EchoRequest(text="here"))).text == "here"


def _bind(path: os.PathLike[str]) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(path))


async def test_a_socket_file_of_a_dead_server_is_replaced(tmp_path) -> None:
    path = tmp_path / "socket"
    _bind(path)
    async with Server([Echo()], listen=f"unix:{path}") as server:
        assert await _answers(server.addresses[0])
    assert not path.exists()


async def test_a_socket_file_of_a_living_server_is_left_alone(tmp_path) -> None:
    path = tmp_path / "socket"
    async with Server([Echo()], listen=f"unix:{path}") as server:
        with pytest.raises(TransportError, match="in use"):
            async with Server([Echo()], listen=f"unix:{path}"):
                raise AssertionError("the body must not run")
        assert await _answers(server.addresses[0])


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(TransportError, match="in use"):
        async with Server([Echo()], listen=f"unix:{path}"):
            raise AssertionError("the body must not run")
    assert path.read_text() == "mine"


async def test_a_server_removes_no_file_but_its_own(tmp_path) -> None:
    path = tmp_path / "socket"
    async with Server([Echo()], listen=f"unix:{path}"):
        path.rename(tmp_path / "old")  # its inode lives on: it cannot be used again
        _bind(path)
    assert path.exists()


async def test_every_address_of_a_host_name_is_listed() -> None:
    async with Server([Echo()], listen="localhost:0") as server:
        found = await anyio.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)
        assert len(server.addresses) == len({each[4] for each in found})
        for address in server.addresses:
            assert await _answers(address)


async def test_a_handshake_that_never_ends_does_not_outlive_the_server(tmp_path) -> None:
    certificate, key = development_certificate(tmp_path)
    async with anyio.create_task_group() as group:
        async with Server([Echo()], tls=ServerTLS(certificate, key)) as server:
            host, port = server.addresses[0].rsplit(":", 1)
            stream = await anyio.connect_tcp(host, int(port))
            # An answer to the beginning of a handshake shows that the server has begun it.
            await stream.send(b"\x16\x03\x01")
            await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(5), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await stream.receive()
        await stream.aclose()
        group.cancel_scope.cancel()


async def test_a_server_serves_once() -> None:
    server = Server([Echo()])
    async with server:
        pass
    with pytest.raises(ClosedError, match="once"):
        await server.__aenter__()


async def test_a_task_that_was_just_spawned_cleans_up() -> None:
    log = []

    async def task() -> None:
        log.append("begun")
        try:
            await anyio.sleep_forever()
        finally:
            log.append("ended")

    async with open_driver() as driver:
        driver.spawn(task)
    assert log == ["begun", "ended"]


@ASYNCIO_ONLY
async def test_a_failure_leaves_its_host_uncancelled() -> None:
    async def fail() -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        async with open_driver() as driver:
            driver.spawn(fail)
            await anyio.sleep_forever()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await anyio.lowlevel.checkpoint()


@ASYNCIO_ONLY
async def test_a_task_that_cleans_up_may_wait_while_its_host_is_cancelled() -> None:
    cleaned = []

    async def task() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            cleaned.append(True)

    with anyio.CancelScope() as scope:
        async with open_driver() as driver:
            driver.spawn(task)
            await anyio.lowlevel.checkpoint()
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert cleaned == [True]


async def test_a_client_that_does_not_read_is_dropped(monkeypatch) -> None:
    monkeypatch.setattr(_serving, "TICK", 0.001)
    monkeypatch.setattr(_serving, "BLOCKED_TICKS", 3)
    answered = anyio.Event()

    async def handler(request: HttpRequest) -> HttpResponse:
        answered.set()
        return HttpResponse(200, [], bytes(32 * 1024 * 1024))

    async with HttpServer(handler, listen="127.0.0.1:0") as server:
        host, port = server.addresses[0].rsplit(":", 1)
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            await answered.wait()
            with anyio.fail_after(5):
                await server.serving._wait_gone()


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
async def test_tls_is_served_on_uvloop(tmp_path) -> None:
    certificate, key = development_certificate(tmp_path)
    async with (
        Server([Echo()], tls=ServerTLS(certificate, key)) as server,
        Channel(server.addresses[0], tls=ClientTLS(certificate)) as channel,
    ):
        assert (await EchoStub(channel).unary(EchoRequest(text="tls"))).text == "tls"


@pytest.mark.parametrize("turns", range(4))
async def test_who_comes_as_the_server_closes_is_not_forgotten(turns: int) -> None:
    """Whichever turn of the loop it is: accepted, and told to go; or refused."""
    with socket.socket() as client:
        async with Server([Echo()], listen="127.0.0.1:0", grace=0.1) as server:
            host, _, port = server.addresses[0].rpartition(":")
            client.connect((host, int(port)))
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
        client.settimeout(5)
        with suppress(ConnectionResetError):
            while client.recv(4096):
                pass
    gc.collect()  # What was left open says so, and fails the test.
