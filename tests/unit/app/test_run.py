"""What a process answers for: exit codes and messages of an app that cannot start, and its page for operators."""

from __future__ import annotations

import logging
import socket
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest
from tests.generated.echo_bascule import EchoBase

from bascule.app import App, ExitCode, Life, Resource, run
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def wrong_config() -> AsyncIterator[None]:
    message = "config: 'port' is 'many': expected a number"
    raise ConfigurationError(message)
    yield


def broken() -> list[EchoBase]:
    message = "the author made a mistake"
    raise RuntimeError(message)


def only_error(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    (record,) = (each for each in caplog.records if each.levelno == logging.ERROR)
    return record


async def test_wrong_configuration_ends_with_2(caplog: pytest.LogCaptureFixture) -> None:
    app = App("echo", [EchoBase()], config=wrong_config())
    assert await run(app) == ExitCode.MISCONFIGURED == 2
    record = only_error(caplog)
    assert record.reason == "ConfigurationError: config: 'port' is 'many': expected a number"
    assert record.exc_info is None, "a traceback would tell nothing about a wrong setting"


async def test_a_taken_address_ends_with_1_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert await run(App("echo", [EchoBase()], address)) == ExitCode.FAILED == 1
    assert address in only_error(caplog).reason


async def test_a_mistake_in_the_program_ends_with_1_and_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await run(App("echo", broken, "memory:broken")) == 1
    record = only_error(caplog)
    assert record.reason == "RuntimeError: the author made a mistake"
    assert record.exc_info is not None


@asynccontextmanager
async def away() -> AsyncIterator[None]:
    message = "nobody listens at\n10.0.0.1:3306"
    raise ConnectionRefusedError(message)
    yield


async def test_the_page_for_operators() -> None:
    """Readiness says what is missing, and why."""
    app = App(
        "echo",
        [EchoBase()],
        "127.0.0.1:0",
        resources=[Resource("database", away)],
        operations="127.0.0.1:0",
    )
    async with anyio.create_task_group() as tasks:
        life = await tasks.start(Life(app).live)
        async with httpx.AsyncClient(base_url=f"http://{life.operations}") as client:
            answers = {
                path: await client.get(path) for path in ("/livez", "/readyz", "/metrics", "/other")
            }
            answers["POST"] = await client.post("/readyz")
        life.hurry()
    codes = {path: answer.status_code for path, answer in answers.items()}
    assert codes == {"/livez": 200, "/readyz": 503, "/metrics": 200, "/other": 404, "POST": 405}
    status = answers["/readyz"].json()
    assert status["phase"] == "serving"
    assert status["missing"] == {
        "database": "ConnectionRefusedError: nobody listens at 10.0.0.1:3306"
    }
    assert "# TYPE grpc_requests_in_progress gauge" in answers["/metrics"].text
    assert 'resource_open{resource="database"} 0.0' in answers["/metrics"].text
