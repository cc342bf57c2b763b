"""``bascule bench``: every program under test does its work, and what it took is written."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest
from tests.generated.echo_bascule import EchoBase
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from typer.testing import CliRunner

from bascule.cli._main import app
from bascule.cli.bench._load import LoadSettings, run_load
from bascule.cli.bench._suite import BenchError, Plan, measure_all, subjects
from bascule.errors import BasculeError, RpcError, Status
from bascule.rpc import ReflectionService, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.mark.parametrize("stack", ["grpclib", "grpcio"])
def test_peers_are_measured_alike(stack: str) -> None:
    results = measure_all(Plan([(stack, "asyncio")], 1, 0.1), lambda _: None)

    assert {each.subject for each in results.figures.values()} == {stack}
    assert len(results.figures) == 6


def test_what_fails_is_said_with_its_last_words() -> None:
    with pytest.raises(BenchError, match="KeyError: 'nobody'"):
        measure_all(Plan([("nobody", "asyncio")], 1, 0.1), lambda _: None)


def test_subjects_are_those_that_are_installed() -> None:
    everything = subjects()

    assert {("bascule", "asyncio"), ("bascule", "trio"), ("grpclib", "asyncio")} <= set(everything)
    assert subjects(["trio"]) == [("bascule", "trio")]


class Echo(EchoBase):
    """Counts its calls; of odd ones, every fourth has no answer."""

    def __init__(self) -> None:
        self.calls = 0

    async def unary(self, request: EchoRequest) -> EchoReply:
        self.calls += 1
        if request.text == "odd" and self.calls % 4 == 0:
            raise RpcError(Status.NOT_FOUND, "every fourth")
        return EchoReply(text=request.text)


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Echo, str]]:
    echo = Echo()
    services = [echo, ReflectionService([echo])]
    async with Server(services, listen="127.0.0.1:0", grace=0.0) as server:
        yield echo, server.addresses[0]


@pytest.mark.anyio
async def test_so_many_calls_are_made_as_were_asked_for() -> None:
    async with echoing() as (echo, address):
        found = await run_load(
            LoadSettings(
                target=address,
                method="Echo/Unary",
                source='{"text": "odd"}',
                calls=101,
                in_flight=7,
                connections=2,
            )
        )

    assert echo.calls == found.calls == 101
    assert found.statuses == {"OK": 76, "NOT_FOUND": 25}
    assert sum(count for _, count in found.bars) == 76
    assert found.fastest is not None
    assert found.slowest is not None
    assert found.fastest <= found.percentiles["50"] <= found.percentiles["99.9"] <= found.slowest
    assert found.bars[-1][0] == found.slowest


@pytest.mark.anyio
async def test_load_ends_with_its_time() -> None:
    async with echoing() as (echo, address):
        found = await run_load(
            LoadSettings(target=address, method="Echo/Unary", seconds=0.2, in_flight=3)
        )

    assert found.seconds >= 0.2
    assert found.statuses == {"OK": echo.calls}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "source", "said"),
    [
        ("Echo/Nothing", "{}", "Nothing"),
        ("Echo/Bidi", "{}", "it streams|streams: name"),
        ("Echo/Unary", '{"txt": "a"}', "no field 'txt'"),
        ("Echo/Unary", "{} {}", "takes one message"),
    ],
)
async def test_what_cannot_be_called_is_said_before_anything_is(
    method: str, source: str, said: str
) -> None:
    async with echoing() as (echo, address):
        with pytest.raises(BasculeError, match=said):
            await run_load(LoadSettings(target=address, method=method, source=source))

    assert echo.calls == 0


@pytest.mark.anyio
async def test_the_command_prints_load_and_tells_by_its_exit_code(anyio_backend_name: str) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        ran = CliRunner().invoke(app, ["bench", *arguments, "--loop", anyio_backend_name])
        return ran.exit_code, ran.output

    async with echoing() as (_, address):
        good = await anyio.to_thread.run_sync(run, address, "Echo/Unary", "{}", "-n", "20")
        lines = await anyio.to_thread.run_sync(run, address, "Echo/Unary", "-n", "20", "--json")
        wrong = await anyio.to_thread.run_sync(run, address)

    assert (good[0], lines[0], wrong[0]) == (0, 0, 2)
    assert "20 calls in" in good[1]
    assert json.loads(lines[1])["statuses"] == {"OK": 20}
    assert "give the METHOD" in wrong[1]


def test_the_whole_suite_needs_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    ran = CliRunner().invoke(app, ["bench", "--full"])

    assert ran.exit_code == 2
    assert "in a checkout" in ran.stderr
