"""``bascule gateway -c FILE`` as a process: the shop's own file, real requests over HTTP/2 and TLS, signals."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx
import pytest
from tests.integration.gateway_shop import Products, Users
from tests.integration.shop_processes import eventually

from bascule.rpc import Server
from bascule_shop._generated import user

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
FILE = ROOT / "python/bascule_shop/gateway.toml"
COMMAND = [sys.executable, "-c", "from bascule.cli import main; main()", "gateway", "-c", str(FILE)]


class Running:
    """A gateway process, and what it has logged."""

    def __init__(self, folder: Path, environment: dict[str, str], *arguments: str) -> None:
        self._log = folder / "gateway.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    def entries(self) -> list[dict[str, Any]]:
        lines = self._log.read_text().rpartition("\n")[0].splitlines()
        return [json.loads(line) if line.startswith("{") else {"text": line} for line in lines]

    async def until(self, event: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        async def said() -> bool:
            found[:] = [each for each in self.entries() if each.get("event") == event]
            assert found or self.process.poll() is None, self._log.read_text()
            return bool(found)

        await eventually(said, within=60.0)
        return found[0]


@contextmanager
def running(folder: Path, loop: str, **targets: str) -> Iterator[Running]:
    environment = {
        **os.environ,
        "PYTHONWARNINGS": "error",
        "SHOP_LISTEN": "127.0.0.1:0",
        "SHOP_OPERATIONS": "127.0.0.1:0",
        "SHOP_TLS_DEVELOPMENT": str(folder),
        "SHOP_AUTH_DEVELOPMENT": str(folder),
        **targets,
    }
    it = Running(folder, environment, f"--loop={loop}")
    try:
        yield it
    finally:
        it.process.kill()
        it.process.wait()


def token(folder: Path) -> str:
    ran = subprocess.run(
        [*COMMAND, "--token", "user-1"],
        env={
            **os.environ,
            "SHOP_TLS_DEVELOPMENT": str(folder),
            "SHOP_AUTH_DEVELOPMENT": str(folder),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return ran.stdout.strip()


class SlowUsers(Users):
    """Answers ``slow`` when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = anyio.Event()

    async def get_user(self, request: user.GetUserRequest) -> user.User:
        if request.id == "slow":
            self.begun.set()
            await self.go.wait()
        return await super().get_user(request)


async def test_the_shops_file_serves_and_ends_in_order(
    tmp_path: Path, anyio_backend_name: str
) -> None:
    """It starts without its services, serves them when they come, and leaves before it drains."""
    users = SlowUsers()
    async with Server([users, Products()], listen="127.0.0.1:0", grace=0.0) as server:
        (address,) = server.addresses
        away = f"unix:/{tmp_path}/none.sock"
        targets = {"SHOP_USER": f"static:///{address}", "SHOP_PRODUCT": away, "SHOP_ORDER": away}
        with running(tmp_path, anyio_backend_name, **targets) as it:
            (listening,) = (await it.until("serving"))["addresses"]
            operations = (await it.until("operations are served"))["address"]
            bearer = {"authorization": f"Bearer {await anyio.to_thread.run_sync(token, tmp_path)}"}
            trust = ssl.create_default_context(cafile=tmp_path / "localhost.pem")
            common = {"base_url": f"https://{listening}", "verify": trust, "trust_env": False}
            async with (
                httpx.AsyncClient(**common, http2=True, http1=False, timeout=60.0) as client,
                # httpx's HTTP/2 takes GOAWAY for the end of the connection, so that it misses answers.
                httpx.AsyncClient(**common, timeout=60.0) as drained,
            ):
                answer = await client.get("/api/v1/users/u-1", headers=bearer)
                assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
                assert answer.json()["id"] == "u-1"
                assert "ratelimit" in answer.headers
                assert users.metadata["x-bascule-subject"] == "user-1"
                made = await client.post("/api/v1/users", json={"email": "a@example.org"})
                assert (made.status_code, made.headers["location"]) == (
                    201,
                    "/api/v1/users/a%20b%2Fc",
                )
                assert (await client.get("/api/v1/users/u-1")).status_code == 401
                assert (await client.get("/api/v1/products")).status_code == 503
                assert (await client.get("/metrics")).status_code == 404, (
                    "it is for an inner address"
                )
                async with httpx.AsyncClient(
                    base_url=f"http://{operations}", trust_env=False
                ) as operator:
                    ready = await operator.get("/readyz")
                    assert (ready.status_code, ready.json()["phase"]) == (200, "serving")
                    assert set(ready.json()["upstreams"]) >= {"user.UserService"}
                    assert (await operator.get("/livez")).status_code == 200
                    metrics = (await operator.get("/metrics")).text
                    assert "http_requests_total{" in metrics
                    assert "\napp_ready 1.0" in metrics

                    slow: list[int] = []

                    async def ask_slowly() -> None:
                        slow.append(
                            (await drained.get("/api/v1/users/slow", headers=bearer)).status_code
                        )

                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(ask_slowly)
                        await users.begun.wait()
                        it.process.send_signal(signal.SIGTERM)
                        await it.until("leaving")
                        assert (await operator.get("/readyz")).status_code == 503
                        late = await client.get("/api/v1/users/u-2", headers=bearer)
                        assert late.status_code == 200, "load balancers do not know yet"
                        await it.until("draining")
                        users.go.set()
                    assert slow == [200], "what is in progress is answered"
            assert await anyio.to_thread.run_sync(it.process.wait, 60) == 0
            events = [each.get("event", each.get("text")) for each in it.entries()]
            assert [each for each in events if each != "request"] == [
                "starting",
                "operations are served",
                "serving",
                "ready",
                "told to stop",
                "leaving",
                "draining",
                "stopped",
                "ended",
            ]
