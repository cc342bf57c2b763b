"""A gateway's life: what ends it, and with which exit code."""

from __future__ import annotations

import logging
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from bascule.app import ExitCode, GatewayApp, GatewayLife, Phase, run
from bascule.errors import ClosedError
from bascule.gateway import Exchange, Gateway, GatewayConfig, HandlerEndpoint, RouteConfig
from bascule.net import HttpResponse, ServerTLS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

PATIENCE = 30.0


class Slow:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.begun, self.go, self.cancelled = anyio.Event(), anyio.Event(), anyio.Event()

    async def answer(self, exchange: Exchange) -> HttpResponse:
        self.begun.set()
        try:
            await self.go.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled.set()
            raise
        return HttpResponse(200, [("content-type", "text/plain")], b"at last")


def made(
    slow: Slow | None = None, *, listen: str = "127.0.0.1:0", **settings: object
) -> GatewayApp:
    gateway = Gateway(GatewayConfig({}, listen=listen, **settings), b"")  # type: ignore[arg-type]
    if slow is not None:
        gateway.router.get("/slow", HandlerEndpoint(slow.answer, RouteConfig(public=True)))
    return GatewayApp(gateway, operations="127.0.0.1:0", propagation=0.01)


async def test_what_is_in_progress_is_answered_before_it_ends() -> None:
    slow = Slow()
    codes: list[int] = []
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            life: GatewayLife = await tasks.start(GatewayLife(made(slow)).live)
            assert (life.ready, life.status().phase) == (True, Phase.SERVING)
            (address,) = life.status().addresses

            async def ask() -> None:
                async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
                    codes.append((await client.get(f"http://{address}/slow")).status_code)

            tasks.start_soon(ask)
            await slow.begun.wait()
            life.stop()
            assert life.status().addresses == (address,), "it listens until load balancers know"
            while life.phase is not Phase.DRAINING:  # noqa: ASYNC110 - it sets no event
                await anyio.sleep(0.005)
            assert not life.ready
            slow.go.set()
    assert (codes, life.phase) == ([200], Phase.STOPPED)
    with pytest.raises(ClosedError):
        await life.live()


async def test_hurry_cancels_what_is_in_progress() -> None:
    slow = Slow()
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            life: GatewayLife = await tasks.start(GatewayLife(made(slow)).live)

            async def ask() -> None:
                async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
                    with pytest.raises(httpx.HTTPError):
                        await client.get(f"http://{life.status().addresses[0]}/slow")

            tasks.start_soon(ask)
            await slow.begun.wait()
            life.stop()
            life.hurry()
            await slow.cancelled.wait()
    assert life.phase is Phase.STOPPED


async def test_it_is_told_to_stop_before_it_serves() -> None:
    life = GatewayLife(made())
    life.stop()
    with anyio.fail_after(PATIENCE):
        await life.live()
    assert (life.phase, life.status().addresses) == (Phase.STOPPED, ())


async def test_exit_codes_tell_what_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert await run(made(listen=address)) == ExitCode.FAILED
    tls = ServerTLS(tmp_path / "none.pem", tmp_path / "none.key")
    assert await run(made(tls=tls)) == ExitCode.MISCONFIGURED
    one, other = (each for each in caplog.records if each.levelno == logging.ERROR)
    assert address in one.reason
    assert "none.pem" in other.reason
