"""The shop's services as processes of their own, as an operator would start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

ROOT = Path(__file__).parents[2]

#: What a service tells of its end when it was asked to end.
FAREWELL = ["told to stop", "leaving", "deregistered", "draining", "stopped", "ended"]


async def eventually(true: Callable[[], Awaitable[bool]], within: float = 20.0) -> None:
    """Wait until something holds that other processes bring about."""
    with anyio.fail_after(within):
        while not await true():  # noqa: ASYNC110 - they set no event
            await anyio.sleep(0.05)


class ServiceProcess:
    """``python -m bascule_shop serve NAME``, and what it has logged. Use it with ``with``."""

    def __init__(self, name: str, folder: Path, loop: str, *arguments: str, **options: str) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        settings = {
            "listen": "127.0.0.1:0",
            "operations": "127.0.0.1:0",
            "loop": loop,
            "propagation": "0.3",
            **options,
        }
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "bascule_shop", "serve", name),
                    *(f"--{option}={value}" for option, value in settings.items()),
                    *arguments,
                ],
                cwd=ROOT,
                env={**os.environ, "PYTHONWARNINGS": "error"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        """All that it wrote."""
        return self._log.read_text()

    def entries(self) -> list[dict[str, Any]]:
        """What it has logged; a line that is no JSON is an entry without an event."""
        lines = self.log.rpartition("\n")[0].splitlines()
        return [json.loads(line) if line.startswith("{") else {"text": line} for line in lines]

    def events(self) -> list[str]:
        return [entry.get("event", entry.get("text", "")) for entry in self.entries()]

    async def until(self, event: str, within: float = 90.0) -> dict[str, Any]:
        """Wait until it has logged an event; give the first one."""
        with anyio.move_on_after(within):
            while True:
                for entry in self.entries():
                    if entry.get("event") == event:
                        return entry
                assert self.process.poll() is None, f"{self.name} ended: {self.log}"
                await anyio.sleep(0.05)
        raise AssertionError(f"{self.name} did not say {event!r} in {within} s: {self.log}")

    async def readiness(self) -> httpx.Response:
        """Ask it whether it is ready, as an operator does."""
        address = (await self.until("operations are served"))["address"]
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
            return await client.get("/readyz")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self, within: float = 30.0) -> int:
        """Wait for its end; give the exit code."""
        return await anyio.to_thread.run_sync(self.process.wait, within)
