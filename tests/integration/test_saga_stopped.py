"""A real process that is stopped for longer than its lease, and goes on when others have taken over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec
import pytest
import sqlalchemy as sa
from anyio.streams.text import TextReceiveStream

from bascule.saga import (
    Saga,
    SagaCoordinator,
    SagaFencedError,
    SagaState,
    SagaWorker,
    SqlSagaLog,
    StepCall,
    saga_tables,
)
from bascule.sql import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


class Context(msgspec.Struct, frozen=True):
    pass


def saga(who: str, notes: Path) -> Saga[Context]:
    """Three steps that write down who has done what; the stopped process waits in the second one."""

    def note(text: str) -> None:
        with notes.open("a") as file:
            file.write(f"{who} {text}\n")

    async def act(_context: Context, call: StepCall) -> None:
        if who == "stopped" and call.step == "b":
            os.write(1, b"waiting\n")
            await anyio.sleep(1.0)
        note(call.step)

    async def undo(_context: Context, call: StepCall) -> None:
        note(f"-{call.step}")

    return Saga("stopped", Context).step("a", act, undo).step("b", act, undo).step("c", act, undo)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[SagaCoordinator]:
    metadata = sa.MetaData()
    tables = saga_tables(metadata)
    async with Database(f"sqlite:///{folder / 'log.db'}", metadata) as database:
        yield SagaCoordinator(SqlSagaLog(database, tables), lease=0.6)


async def be_stopped(folder: Path) -> None:
    async with opened(folder) as coordinator:
        try:
            await coordinator.run(saga("stopped", folder / "notes"), Context(), saga_id="s1")
        except SagaFencedError:
            os.write(1, b"fenced\n")


async def test_a_process_that_was_stopped_past_its_lease_is_fenced(
    tmp_path: Path, anyio_backend_name: str
) -> None:
    program = (
        "import sys, anyio; from pathlib import Path;"
        "from tests.integration.test_saga_stopped import be_stopped;"
        "anyio.run(be_stopped, Path(sys.argv[1]), backend=sys.argv[2])"
    )
    command = [sys.executable, "-c", program, str(tmp_path), anyio_backend_name]
    async with await anyio.open_process(command, cwd=ROOT, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        output = TextReceiveStream(process.stdout)
        assert await output.receive() == "waiting\n"
        process.send_signal(signal.SIGSTOP)
        async with opened(tmp_path) as coordinator:
            with anyio.fail_after(30):
                async with SagaWorker(coordinator, saga("worker", tmp_path / "notes"), poll=0.05):
                    run = None
                    while run is None or run.state is not SagaState.UNDONE:
                        await anyio.sleep(0.02)
                        run = await coordinator.log.load("s1")
            process.send_signal(signal.SIGCONT)
            with anyio.fail_after(30):
                assert "".join([text async for text in output]) == "fenced\n"
                assert await process.wait() == 0
            assert await coordinator.log.load("s1") == run
    done = (tmp_path / "notes").read_text().splitlines()
    assert [line for line in done if line.startswith("worker")] == ["worker -b", "worker -a"]
    # Its action may have gone on for a moment; it has undone nothing, and begun nothing more.
    assert [line for line in done if line.startswith("stopped")] in (
        ["stopped a"],
        ["stopped a", "stopped b"],
    )
