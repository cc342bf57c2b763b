"""The listener for plain HTTP, with real sockets, on both loops."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import h11
import httpx
import pytest

from bascule.net import HttpLimits, HttpRequest, HttpResponse, HttpServer, ServerTLS
from bascule.net._devcert import development_certificate
from bascule.net._link import LINGER
from bascule.net._tls import ClientTLS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import SocketStream

pytestmark = pytest.mark.anyio

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"


class Application:
    """Answers with what it was asked, or as a test says."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self.began = anyio.Event()
        self.cancelled = anyio.Event()
        self.release = anyio.Event()
        self.body = b""

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        if request.problem is not None:
            return HttpResponse(400, [("x-problem", request.problem)], request.problem.encode())
        if request.target == "/slow":
            self.began.set()
            try:
                await self.release.wait()
            except anyio.get_cancelled_exc_class():
                self.cancelled.set()
                raise
        if request.target == "/fail":
            raise LookupError(request.target)
        text = f"{request.method} {request.target} HTTP/{request.version} {request.scheme}"
        return HttpResponse(200, [("content-type", "text/plain")], text.encode() + self.body)


@asynccontextmanager
async def serve(
    limits: HttpLimits | None = None, *, grace: float = 5.0
) -> AsyncIterator[tuple[Application, HttpServer]]:
    application = Application()
    async with HttpServer(application, listen="127.0.0.1:0", limits=limits, grace=grace) as server:
        with anyio.fail_after(30):
            yield application, server


async def connect(server: HttpServer) -> SocketStream:
    host, port = server.addresses[0].rsplit(":", 1)
    return await anyio.connect_tcp(host, int(port))


class Reader:
    """Reads answers by `h11`, as to GET requests."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self.h11 = h11.Connection(h11.CLIENT)

    async def answer(self) -> tuple[h11.Response, bytes]:
        """The next answer."""
        if self.h11.our_state is h11.DONE:
            self.h11.start_next_cycle()
        self.h11.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
        self.h11.send(h11.EndOfMessage())
        response: h11.Response | None = None
        body = b""
        while True:
            event = self.h11.next_event()
            if event is h11.NEED_DATA:
                self.h11.receive_data(await self.stream.receive())
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert response is not None
                return response, body

    async def end(self) -> None:
        """The server ends the connection and has nothing more to say."""
        with pytest.raises(anyio.EndOfStream):
            await self.stream.receive()


async def test_a_connection_is_kept_and_a_pipeline_answered_in_order() -> None:
    async with serve() as (application, server), await connect(server) as stream:
        reader = Reader(stream)
        await stream.send(GET % 1)
        assert (await reader.answer())[1] == b"GET /1 HTTP/1.1 http"
        await stream.send(b"".join(GET % n for n in range(2, 50)))
        for n in range(2, 50):
            assert (await reader.answer())[1] == b"GET /%d HTTP/1.1 http" % n
        assert len(application.requests) == 49
        assert application.requests[0].headers == [("host", "a")]
        assert application.requests[0].peer.startswith("127.0.0.1:")


async def test_a_handler_that_fails_costs_its_answer_only(caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as (_, server), await connect(server) as stream:
        reader = Reader(stream)
        await stream.send(b"GET /fail HTTP/1.1\r\nHost: a\r\n\r\n" + GET % 1)
        assert (await reader.answer())[0].status_code == 500
        assert (await reader.answer())[0].status_code == 200
    assert "handler of GET /fail failed" in caplog.text


async def test_a_peer_that_leaves_cancels_the_handler() -> None:
    async with serve() as (application, server):
        stream = await connect(server)
        await stream.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await application.began.wait()
        await stream.aclose()
        await application.cancelled.wait()


async def test_a_refusal_reaches_a_peer_that_is_still_sending() -> None:
    async with serve(HttpLimits(max_body=1000)) as (application, server):
        async with await connect(server) as stream, anyio.create_task_group() as tasks:
            size = 1 << 25

            async def upload() -> None:
                # The server may stop reading at any time; what counts is its answer.
                try:
                    for _ in range(size >> 16):
                        await stream.send(bytes(1 << 16))
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass

            await stream.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            tasks.start_soon(upload)
            response, body = await Reader(stream).answer()
            tasks.cancel_scope.cancel()
        assert response.status_code == 400
        assert body == b"body_too_large"
        assert len(application.requests) == 1


async def test_a_body_a_little_too_large_keeps_the_connection() -> None:
    async with serve(HttpLimits(max_body=1000)) as (_, server), await connect(server) as stream:
        reader = Reader(stream)
        await stream.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n" + bytes(2000)
        )
        await stream.send(GET % 2)
        assert (await reader.answer())[1] == b"body_too_large"
        assert (await reader.answer())[1] == b"GET /2 HTTP/1.1 http"


@pytest.mark.parametrize(
    ("start", "problem"),
    [
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", b"malformed"),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nx: " + bytes(40_000).replace(b"\0", b"x"),
            b"headers_too_large",
        ),
        (b"GET / HTTP/1.1\r\n", b"timeout"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx", b"timeout"),
    ],
)
async def test_problems_are_answered_and_end_the_connection(start: bytes, problem: bytes) -> None:
    limits = HttpLimits(header_timeout=0.01, body_timeout=0.01)
    async with serve(limits) as (_, server), await connect(server) as stream:
        reader = Reader(stream)
        await stream.send(start)
        response, body = await reader.answer()
        assert body == problem
        assert (b"connection", b"close") in response.headers
        await reader.end()


async def test_a_peer_that_does_not_read_gets_no_further_requests_handled() -> None:
    async with serve() as (application, server):
        application.body = bytes(1 << 20)
        host, port = server.addresses[0].rsplit(":", 1)
        with socket.create_connection((host, int(port))) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.sendall(b"".join(GET % n for n in range(200)))
            async with await connect(server) as other:
                # Others are served meanwhile, and give the server time to do wrong.
                for n in range(50):
                    await other.send(GET % n)
                    assert (await Reader(other).answer())[0].status_code == 200
            handled = len(application.requests) - 50
            assert 0 < handled < 30


async def test_leaving_answers_what_is_under_way() -> None:
    application = Application()
    async with anyio.create_task_group() as tasks:
        stopped = anyio.Event()
        addresses: list[str] = []

        async def run(*, task_status: anyio.abc.TaskStatus[HttpServer]) -> None:
            async with HttpServer(application, listen="127.0.0.1:0", grace=10.0) as server:
                addresses.extend(server.addresses)
                task_status.started(server)
                await application.began.wait()
            stopped.set()

        server = await tasks.start(run)
        with anyio.fail_after(10):
            async with await connect(server) as idle, await connect(server) as stream:
                await stream.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
                await Reader(idle).end()
                application.release.set()
                reader = Reader(stream)
                response, body = await reader.answer()
                assert body == b"GET /slow HTTP/1.1 http"
                assert (b"connection", b"close") in response.headers
                await reader.end()
            await stopped.wait()


@pytest.mark.parametrize("http2", [False, True])
async def test_tls_serves_both_versions_by_alpn(tmp_path: Path, *, http2: bool) -> None:
    certificate, key = development_certificate(tmp_path)
    application = Application()
    async with HttpServer(
        application, listen="127.0.0.1:0", tls=ServerTLS(certificate, key)
    ) as server:
        trust = ClientTLS(ca=certificate).context([])
        async with httpx.AsyncClient(verify=trust, http2=http2, http1=not http2) as client:
            for n in range(3):
                answer = await client.post(f"https://{server.addresses[0]}/{n}", content=b"x" * n)
                version = "2" if http2 else "1.1"
                assert answer.text == f"POST /{n} HTTP/{version} https"
                assert application.requests[-1].body == b"x" * n


async def test_a_peer_that_does_not_read_the_end_of_tls_holds_nothing_up(tmp_path: Path) -> None:
    """Pools of idle connections do not: asyncio would wait 30 s for each, or as long as the grace."""
    certificate, key = development_certificate(tmp_path)
    trust = ssl.create_default_context(cafile=certificate)
    server = HttpServer(
        Application(), listen="127.0.0.1:0", tls=ServerTLS(certificate, key), grace=3600.0
    )
    async with server:
        host, _, port = server.addresses[0].rpartition(":")
        client = await anyio.connect_tcp(
            host,
            int(port),
            ssl_context=trust,
            tls_hostname="localhost",
            tls_standard_compatible=False,
        )
        async with client:
            await client.send(GET % 1)
            assert (await client.receive()).startswith(b"HTTP/1.1 200")
            with anyio.fail_after(20):
                await server.drain()


async def test_a_peer_that_reads_slowly_gets_all_of_the_last_answer(tmp_path: Path) -> None:
    certificate, key = development_certificate(tmp_path)
    application = Application()
    application.body = b"x" * 8_000_000  # more than the system's buffers take
    tls = ServerTLS(certificate, key)
    async with HttpServer(application, listen="127.0.0.1:0", tls=tls) as server:
        host, _, port = server.addresses[0].rpartition(":")
        client = await anyio.connect_tcp(
            host,
            int(port),
            ssl_context=ssl.create_default_context(cafile=certificate),
            tls_hostname="localhost",
            tls_standard_compatible=False,
        )
        async with client:
            await client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            got = len(await client.receive(1))
            # What lingers is given up after a while: this waits for several of these.
            await anyio.sleep(3 * LINGER)
            with anyio.fail_after(60):
                try:
                    while True:
                        got += len(await client.receive())
                except anyio.EndOfStream:
                    pass
    assert got > len(application.body)
