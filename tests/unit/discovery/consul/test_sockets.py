"""The same over real sockets, in real time: what the network does, and what stands where Consul should."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.abc
import pytest
from tests.certificates import Certificates
from tests.unit.discovery.consul.fake import FakeConsul, listening, speaking
from tests.unit.discovery.consul.test_faults import instances, watching

from bascule.discovery.consul import (
    ConsulAnswerError,
    ConsulClient,
    ConsulDeniedError,
    ConsulError,
    ConsulResolver,
    ConsulSettings,
    ConsulStatusError,
    ConsulUnavailableError,
    ListSource,
    _http,
)
from bascule.errors import ClosedError
from bascule.net import ClientTLS, HttpRequest, HttpResponse, HttpServer, ServerTLS

pytestmark = pytest.mark.anyio

A, B, C = (f"10.0.0.{host}:50051" for host in (1, 2, 3))


@pytest.mark.parametrize("fault", ["cut", "dropped", "garbage", "error"])
async def test_a_fault_on_the_wire(fault: str) -> None:
    consul = FakeConsul()
    consul.set("users", *instances(A, B))
    async with listening(consul) as url, watching(url) as seen:
        await seen.until(A, B)
        consul.begin(fault)
        consul.set("users", *instances(B, C))
        await seen.until_problem()
        assert seen.addresses() == {A, B}
        consul.recover()
        with anyio.fail_after(1.5):
            await seen.until(B, C)


async def test_an_agent_that_restarts() -> None:
    consul = FakeConsul()
    consul.set("users", *instances(A))
    async with listening(consul) as url:
        port = int(url.rpartition(":")[2])
    async with watching(url) as seen:
        await seen.until_problem()
        assert seen.source is ListSource.NONE
        for instance in (A, B, C):
            consul.set("users", *instances(instance, "10.0.0.9:1"))
            async with listening(consul, port):
                with anyio.fail_after(1.5):
                    await seen.until(instance, "10.0.0.9:1")


@pytest.mark.parametrize("fault", ["hang", "restart"])
async def test_the_disk_helps_at_the_start(fault: str, tmp_path: Path) -> None:
    """What it says is used after a second without an answer, as well as after a refusal."""
    consul = FakeConsul()
    consul.set("users", *instances(A, B))
    async with listening(consul) as url:
        async with watching(url, cache=tmp_path) as seen:
            await seen.until(A, B)
            with anyio.fail_after(5):
                while not list(tmp_path.glob("users-*.json")):  # noqa: ASYNC110, ASYNC240
                    await anyio.sleep(0.01)
        consul.begin(fault)
        async with watching(url, cache=tmp_path) as seen:
            await seen.until(A, B)
            assert seen.source is ListSource.DISK
            assert seen.problem is not None
            consul.set("users", *instances(B, C))
            consul.recover()
            with anyio.fail_after(1.5):
                await seen.until(B, C)
            assert seen.source is ListSource.LIVE
    (file,) = list(tmp_path.iterdir())  # noqa: ASYNC240
    assert file.stat().st_mode & 0o077 == 0


async def test_a_body_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its connection with it, in bounded memory."""
    monkeypatch.setattr(_http, "LARGEST", 100_000)
    sent = 0

    async def speak(stream: anyio.abc.SocketStream) -> None:
        nonlocal sent
        await stream.receive()
        await stream.send(b"HTTP/1.1 200 OK\r\nx-consul-index: 1\r\n\r\n[")
        while True:
            await stream.send(b" " * 10_000)
            sent += 10_000

    async with speaking(speak) as url, ConsulClient(url) as client:
        with anyio.fail_after(5), pytest.raises(ConsulAnswerError, match="more than 100000 bytes"):
            await client.kv.get("a")
    assert sent < 50_000_000


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", ConsulUnavailableError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n[]", ConsulUnavailableError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", ConsulAnswerError),
        (b'HTTP/1.1 200 OK\r\n\r\n[{"Key": 1}]', ConsulAnswerError),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000, ConsulAnswerError),
        (b"HTTP/1.1 200 OK\r\nx-consul-index: ten\r\n\r\n[]", ConsulAnswerError),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n\x1f\x8b", ConsulAnswerError),
        (b"HTTP/1.1 403 Forbidden\r\n\r\nPermission denied", ConsulDeniedError),
        (b"HTTP/1.1 429 Too Many\r\n\r\n", ConsulStatusError),
        (b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\n\r\n", ConsulStatusError),
        (b"", ConsulUnavailableError),
    ],
)
async def test_what_is_not_consul(said: bytes, error: type[ConsulError]) -> None:
    async def speak(stream: anyio.abc.SocketStream) -> None:
        await stream.receive()
        await stream.send(said)

    async with speaking(speak) as url, ConsulClient(url) as client:
        with anyio.fail_after(5), pytest.raises(error) as caught:
            await client.kv.get("a")
        assert caught.value.retryable is not isinstance(caught.value, ConsulStatusError) or (
            caught.value.retryable is (b"429" in said)
        )
        assert "GET /v1/kv/a" in str(caught.value)


async def test_whether_it_was_sent() -> None:
    async def hang_up(stream: anyio.abc.SocketStream) -> None:
        await stream.receive()

    async with speaking(hang_up) as url, ConsulClient(url) as client:
        with pytest.raises(ConsulUnavailableError) as caught:
            await client.kv.put("a", b"")
        assert caught.value.sent
    async with ConsulClient(url) as client:
        with pytest.raises(ConsulUnavailableError) as caught:
            await client.kv.put("a", b"")
        assert not caught.value.sent
        assert isinstance(caught.value, OSError)


async def test_outside_of_its_block() -> None:
    client = ConsulClient("http://127.0.0.1:1")
    with pytest.raises(ClosedError):
        await client.kv.get("a")
    async with client:
        with pytest.raises(ClosedError):
            await client.__aenter__()


@pytest.mark.parametrize("key", ["/a", "a/../b", ".", "a/.."])
async def test_keys_that_would_be_other_ones(key: str) -> None:
    async with ConsulClient("http://127.0.0.1:1") as client:
        with pytest.raises(ValueError, match="key"):
            await client.kv.get(key)


async def test_mutual_tls(certificates: Certificates) -> None:
    """With the server's certificate checked, and the token sent; without an identity, it is refused."""
    tokens: list[str | None] = []

    async def answer(request: HttpRequest) -> HttpResponse:
        tokens.append(dict(request.headers).get("x-consul-token"))
        return HttpResponse(200, [("x-consul-index", "7")], b"[]")

    authorities = str(certificates.ca)
    server = ServerTLS(certificates.certificate, certificates.key, client_ca=authorities)
    async with HttpServer(answer, listen="127.0.0.1:0", tls=server) as listening_:
        url = f"https://localhost:{listening_.addresses[0].rpartition(':')[2]}"
        tls = ClientTLS(authorities, certificates.certificate, certificates.key)
        async with ConsulClient(url, token="secret", tls=tls) as client:
            assert await client.kv.list("a") == ()
        assert tokens == ["secret"]
        for wrong in (ClientTLS(authorities), ClientTLS()):
            async with ConsulClient(url, tls=wrong) as client:
                with pytest.raises(ConsulUnavailableError):
                    await client.kv.list("a")


async def test_resolvers_share_a_client() -> None:
    """Those with the same settings, in one event loop; the last one that leaves closes it."""
    consul = FakeConsul()
    consul.set("users", *instances(A))
    async with listening(consul) as url:
        settings = ConsulSettings.read(url, environment={})
        first = ConsulResolver("users", settings=settings).watch()
        states = await first.__aenter__()
        await anext(states)
        async with ConsulResolver("users", settings=settings).watch() as others:
            await anext(others)
            # The first one leaves before: entered and left by different tasks need not nest.
            await first.__aexit__(None, None, None)
            consul.set("users", *instances(B, C))
            with anyio.fail_after(5):
                state = await anext(others)
        assert {each.address for each in state.endpoints} == {A, B, C} or len(state.endpoints) == 2
