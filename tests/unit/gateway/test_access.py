"""The access log: one line a request, in batches, and bounded."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import anyio
import pytest

from bascule.gateway import AccessEntry, LineLog
from bascule.gateway import _access as access

pytestmark = pytest.mark.anyio


def entry(target: str = "/", method: str = "GET") -> AccessEntry:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return AccessEntry(
        now, method, target, 200, 0.001, "127.0.0.1:1", "id", "trace", "2", "/", "user-1", 17
    )


async def test_what_was_recorded_is_written_at_the_end() -> None:
    stream = io.BytesIO()
    log = LineLog(stream)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(log.run)
        log.record(entry("/a"))
        await anyio.wait_all_tasks_blocked()
        log.record(entry("/b"))
        tasks.cancel_scope.cancel()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["target"] for line in lines] == ["/a", "/b"]
    assert lines[0]["timestamp"] == "2026-01-02T03:04:05Z"
    assert lines[0]["subject"] == "user-1"


class Told(io.BytesIO):
    """A stream that tells when somebody writes to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = anyio.Event()

    def flush(self) -> None:
        super().flush()
        anyio.from_thread.run_sync(self.written.set)


async def test_a_batch_is_written_while_the_gateway_runs() -> None:
    stream = Told()
    log = LineLog(stream)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(log.run)
        await anyio.wait_all_tasks_blocked()
        for n in range(100):
            log.record(entry(f"/{n}"))
        await stream.written.wait()
        tasks.cancel_scope.cancel()
    assert stream.getvalue().count(b"\n") == 100


@pytest.mark.parametrize(
    "hostile", ["/a\r\nGET /b", "/\x1b[2J", "/\x9b1m", "/\u2028", "/\x7f\u202e", '/"', "/\x00"]
)
async def test_one_line_whatever_the_target(hostile: str) -> None:
    stream = io.BytesIO()
    log = LineLog(stream)
    log.record(entry(hostile, method=hostile))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await log.run()
    text = stream.getvalue().decode()
    assert text.count("\n") == 1
    assert len(text.splitlines()) == 1
    assert json.loads(text)["status"] == 200
    assert not set(text) & set("\r\x1b\x9b\u2028\x00")


async def test_a_log_that_nobody_reads_loses_lines_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access, "_MOST_PENDING", 2)
    stream = io.BytesIO()
    log = LineLog(stream)
    for _ in range(5):
        log.record(entry())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await log.run()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["request", "request", "access log overflow"]
    assert lines[-1]["lost"] == 3


async def test_a_stream_that_fails_stops_nothing() -> None:
    class Broken(io.BytesIO):
        def write(self, data: object, /) -> int:
            raise BrokenPipeError

    log = LineLog(Broken())
    log.record(entry())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await log.run()
