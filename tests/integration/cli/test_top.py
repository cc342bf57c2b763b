"""``bascule top`` on the shop: its numbers are the traffic that was."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from typer.testing import CliRunner

from bascule.app._operations import operations_server
from bascule.cli._http import http_client
from bascule.cli._main import app
from bascule.cli.top._frame import History
from bascule.cli.top._live import watch
from bascule.cli.top._scrape import metrics_url, scrape_all
from bascule.errors import RpcError
from bascule.net import HttpRequest, HttpResponse, HttpServer
from bascule.observe import Metrics
from bascule.rpc import Channel
from bascule_shop._generated.product import GetProductRequest
from bascule_shop._generated.product.services import ProductServiceStub
from bascule_shop.app import Shop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bascule.cli.top._frame import Frame

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
GOOD, MISSING = 30, 10


async def test_what_is_shown_is_what_was_called(tmp_path: Path) -> None:
    async with (
        Shop(tmp_path, grace=0.0) as shop,
        operations_server("127.0.0.1:0", shop.metrics, lambda: True, dict) as operations,
        http_client(timeout=30.0) as client,
        Channel(shop.servers["product"].address) as channel,
    ):
        url = metrics_url(operations.addresses[0])
        history = History([url])
        products = ProductServiceStub(channel)
        before = await scrape_all(client, [url], timeout=30.0)
        history.take(before, at=time.time())

        began = time.monotonic()
        for index in range(GOOD + MISSING):
            name = "prd_060" if index < GOOD else "prd_none"
            try:
                await products.get_product(GetProductRequest(id=name))
            except RpcError:
                assert index >= GOOD
        seconds = time.monotonic() - began

        after = await scrape_all(client, [url], timeout=30.0)
        frame = history.take(after, at=time.time())

    (calls,) = [row for row in frame.served if row.rate]
    assert (calls.name, calls.method) == ("product.ProductService", "GetProduct")
    assert calls.rate is not None
    assert calls.rate * (after[url].at - before[url].at) == pytest.approx(GOOD + MISSING)
    assert (calls.faults, calls.refused) == (0.0, pytest.approx(MISSING / (GOOD + MISSING)))
    assert calls.p50 is not None
    assert calls.p99 is not None
    assert 0.0 < calls.p50 <= calls.p99
    assert calls.p50 <= 2 * seconds / (GOOD + MISSING) * 2  # within a bucket of the true one
    assert {"user", "order"} <= set(frame.outboxes)
    assert frame.answering == 1


async def test_who_leaves_is_shown_as_down_and_comes_back(free_tcp_port: int) -> None:
    """Those that answer are shown meanwhile."""
    frames: list[Frame] = []
    looked = anyio.Event()
    metrics = Metrics()
    here = f"127.0.0.1:{free_tcp_port}"

    def show(frame: Frame) -> None:
        nonlocal looked
        frames.append(frame)
        looked.set()
        looked = anyio.Event()

    async def until(answering: int) -> None:
        with anyio.fail_after(30):
            while not frames or frames[-1].answering != answering:
                await looked.wait()

    async with operations_server("127.0.0.1:0", metrics, lambda: True, dict) as stays:
        urls = [metrics_url(stays.addresses[0]), metrics_url(here)]

        async def look() -> None:
            await watch(urls, show, interval=0.05, timeout=10.0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            await until(1)
            for _ in range(2):
                async with operations_server(here, metrics, lambda: True, dict):
                    await until(2)
                await until(1)
            tasks.cancel_scope.cancel()

    assert not frames[-1].processes[0].problem
    assert frames[-1].processes[1].problem
    assert frames[-1].processes[1].silent is not None


@pytest.mark.parametrize("answer", [HttpResponse(500), HttpResponse(200, [], b"<html>\x00{")])
async def test_who_answers_something_else_is_down(answer: HttpResponse) -> None:
    async def handle(_: HttpRequest) -> HttpResponse:
        return answer

    async with (
        HttpServer(handle, listen="127.0.0.1:0", grace=0.0) as server,
        http_client(timeout=30.0) as client,
    ):
        url = metrics_url(server.addresses[0])
        found = await scrape_all(client, [url], timeout=30.0)

    assert found[url].problem


async def test_who_is_silent_does_not_hold_up_the_others() -> None:
    release = anyio.Event()

    async def hang(_: HttpRequest) -> HttpResponse:
        await release.wait()
        return HttpResponse(200)

    async with (
        HttpServer(hang, listen="127.0.0.1:0", grace=0.0) as silent,
        operations_server("127.0.0.1:0", Metrics(), lambda: True, dict) as good,
        http_client(timeout=30.0) as client,
    ):
        urls = [metrics_url(each.addresses[0]) for each in (silent, good)]
        found = await scrape_all(client, urls, timeout=1.0)
        release.set()

    assert [bool(found[url].problem) for url in urls] == [True, False]


async def test_the_command_prints_one_frame_and_tells_by_its_exit_code(
    anyio_backend_name: str, free_tcp_port: int
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        ran = CliRunner().invoke(app, ["top", "-i", "0.1", "--once", *arguments])
        return ran.exit_code, ran.stdout

    gone = f"127.0.0.1:{free_tcp_port}"
    loop = ("--loop", anyio_backend_name)
    async with operations_server("127.0.0.1:0", Metrics(), lambda: True, dict) as server:
        here = server.addresses[0]
        code, text = await anyio.to_thread.run_sync(run, here, gone, *loop)
        json_code, line = await anyio.to_thread.run_sync(run, here, "--json", *loop)
    none_code, _ = await anyio.to_thread.run_sync(run, gone, *loop)

    assert (code, json_code, none_code) == (0, 0, 1)
    assert "1 of 2 answer" in text
    assert json.loads(line)["processes"][0]["url"] == f"http://{here}/metrics"


class Terminal:
    """A pseudo terminal with a command in it, and what that has written so far."""

    def __init__(self, *command: str) -> None:
        self.here, there = pty.openpty()
        self.resize(40, 120)
        self.before = termios.tcgetattr(there)
        self.there = there
        self.process = subprocess.Popen(
            command, stdin=there, stdout=there, stderr=there, start_new_session=True, cwd=ROOT
        )
        self.written = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.here, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def until(self, text: bytes) -> None:
        """Wait until the command has written something, from now on."""
        self.written = b""
        with anyio.fail_after(60):
            while text not in self.written:
                await anyio.wait_readable(self.here)
                self.written += os.read(self.here, 65536)

    async def end(self) -> int:
        """Read what is left, and give the exit code."""
        with anyio.fail_after(60):
            while self.process.poll() is None:
                with anyio.move_on_after(0.1):
                    await anyio.wait_readable(self.here)
                    self.written += os.read(self.here, 65536)
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.here)
        os.close(self.there)


@pytest.fixture
def terminal(anyio_backend_name: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    opened: list[Terminal] = []

    def run(*arguments: str) -> Terminal:
        command = "from bascule.cli import main; main()"
        loop = ("--loop", anyio_backend_name)
        opened.append(Terminal(sys.executable, "-c", command, *arguments, *loop))
        return opened[-1]

    yield run
    for each in opened:
        each.close()


async def test_it_lives_in_a_terminal_until_q(terminal: Any) -> None:
    """It follows what is measured and the size of the terminal, and leaves that as it was."""
    async with operations_server("127.0.0.1:0", Metrics(), lambda: True, dict) as server:
        top = terminal("top", server.addresses[0], "-i", "0.2")
        await top.until(b"1 of 1 answer")
        assert termios.tcgetattr(top.there) != top.before  # keys come one by one
        top.resize(8, 30)
        os.kill(top.process.pid, signal.SIGWINCH)
        await top.until(b"bascule top")
        os.write(top.here, b"xq")
        assert await top.end() == 0
    assert termios.tcgetattr(top.there) == top.before
    assert b"\x1b[?1049l" in top.written  # back on the usual screen


async def test_ctrl_c_leaves_it_in_order(terminal: Any) -> None:
    async with operations_server("127.0.0.1:0", Metrics(), lambda: True, dict) as server:
        top = terminal("top", server.addresses[0], "-i", "0.2")
        await top.until(b"1 of 1 answer")
        os.kill(top.process.pid, signal.SIGINT)
        assert await top.end() == 0
    assert termios.tcgetattr(top.there) == top.before
    assert b"Traceback" not in top.written
