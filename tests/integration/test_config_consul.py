"""Configuration in a real Consul: layers, changes that meet, history, outages, the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import anyio.to_thread
import msgspec
import pytest
from typer.testing import CliRunner

from bascule.cli._main import app
from bascule.config import MISSING, Config, ConsulSource, MemorySource
from bascule.discovery.consul import ConsulClient, ConsulSettings

if TYPE_CHECKING:
    from bascule.testing.servers import ConsulServer

pytestmark = pytest.mark.anyio

COMMAND = [sys.executable, "-c", "from bascule.cli import main; main()", "config"]


class Settings(msgspec.Struct, frozen=True):
    port: int = 0
    names: list[str] = []


@pytest.fixture
def prefix() -> str:
    return f"config/{uuid4().hex}"


def source(server: ConsulServer, prefix: str) -> ConsulSource:
    return ConsulSource(prefix, settings=ConsulSettings.read(server.url))


async def test_keys_and_objects_make_one_document(consul_server: ConsulServer, prefix: str) -> None:
    """The longer key goes before the shorter one; a name that only begins alike is another one."""
    async with ConsulClient(consul_server.url) as client:
        await client.kv.put(prefix, b'{"port": 1, "server": {"host": "a", "port": 1}}')
        await client.kv.put(f"{prefix}/server", b'{"port": 2}')
        await client.kv.put(f"{prefix}/server/tls/", b"")
        await client.kv.put(f"{prefix}/names", b'["x"]')
        await client.kv.put(f"{prefix}-other/port", b"9")
        document = await ConsulSource(prefix, client=client).read()
    assert document == {"port": 1, "server": {"host": "a", "port": 2}, "names": ["x"]}


async def test_a_change_arrives_and_a_bad_one_is_refused(
    consul_server: ConsulServer, prefix: str
) -> None:
    consul = source(consul_server, prefix)
    with anyio.fail_after(30):
        async with (
            Config(Settings, [MemorySource({"port": 1}), consul]) as config,
            ConsulClient(consul_server.url) as client,
        ):
            changes = config.changes()
            begun = anyio.current_time()
            await consul.set("port", 2, by="ada")
            assert (await anext(changes)).value.port == 2
            assert anyio.current_time() - begun < 2.0
            for bad, reason in ((b"no json", "no JSON"), (b'"many"', "Expected `int`")):
                await client.kv.put(f"{prefix}/port", bad)
                await until_problem(config, reason)
                assert config.current.port == 2
                assert config.problems[0].key == "port"
            await consul.set("port", 3, by="ada")
            assert (await anext(changes)).value.port == 3
            assert config.problems == ()
    told = [(each.by, dict(each.changes)) for each in await consul.history()]
    assert told == [
        ("ada", {"port": ["many", 3]}),
        ("unknown", {"port": [2, "many"]}),
        ("ada", {"port": [None, 2]}),
    ]


async def until_problem(config: Config[Any], reason: str) -> None:
    while not any(reason in str(each) for each in config.problems):  # noqa: ASYNC110 - nobody tells
        await anyio.sleep(0.02)


async def test_changes_at_once_lose_nothing(consul_server: ConsulServer, prefix: str) -> None:
    consul = source(consul_server, prefix)
    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(
                lambda number=number: consul.set(f"key{number}", number, by=str(number))
            )
    assert await consul.read() == {f"key{number}": number for number in range(5)}
    history = await consul.history()
    assert {each.by for each in history} == set("01234")
    assert len(history) == 5


async def test_a_value_inside_of_an_object_is_changed_there(
    consul_server: ConsulServer, prefix: str
) -> None:
    consul = source(consul_server, prefix)
    async with ConsulClient(consul_server.url) as client:
        await client.kv.put(prefix, b'{"server": {"host": "a", "port": 1}}')
        await consul.set("server.port", 2, by="x")
        assert await client.kv.keys(prefix) == (prefix,)
        await consul.set("server.tls.on", True, by="x")
        assert await client.kv.keys(prefix) == (prefix, f"{prefix}/server/tls/on")
        # What is set as a whole is not hidden by what was below it.
        await consul.set("server.tls", {"off": True}, by="x")
        assert (await consul.read())["server"]["tls"] == {"off": True}
        await consul.set("server", MISSING, by="x")
        assert await consul.read() == {}


async def test_everything_can_be_rolled_back(consul_server: ConsulServer, prefix: str) -> None:
    consul = source(consul_server, prefix)
    first = await consul.set("port", 1, by="ada")
    await consul.set("names", ["x"], by="ben")
    await consul.set("port", MISSING, by="cai")
    undone = await consul.rollback(first.id, by="dee")
    assert await consul.read() == {"port": 1}
    assert dict(undone.changes) == {"names": [["x"], None], "port": [None, 1]}
    assert [each.by for each in await consul.history(2)] == ["dee", "cai"]
    with pytest.raises(ValueError, match="no revision"):
        await consul.rollback("0", by="dee")


async def test_an_outage_keeps_what_was_said_last(own_consul: ConsulServer, prefix: str) -> None:
    consul = source(own_consul, prefix)
    await consul.set("port", 1, by="ada")
    with anyio.fail_after(60):
        async with Config(Settings, [consul]) as config:
            await anyio.to_thread.run_sync(own_consul.kill)
            await until_problem(config, "")
            assert config.problems[0].away
            assert config.current.port == 1
            await anyio.to_thread.run_sync(own_consul.start)
            while config.problems:  # noqa: ASYNC110 - nobody tells
                await anyio.sleep(0.02)
            assert config.snapshot.version == 1
            await consul.set("port", 2, by="ada")
            assert (await anext(config.changes())).value.port == 2


def run(server: ConsulServer, *arguments: str) -> Any:
    """In this process: others take seconds to start on a busy machine."""
    return CliRunner(env={"CONSUL_HTTP_ADDR": server.url}).invoke(app, ["config", *arguments])


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_command_line(consul_server: ConsulServer, prefix: str, loop: str) -> None:
    where = ("--source", f"consul:///{prefix}", "--loop", loop)
    first = run(consul_server, "set", "db.password", "hunter2", *where, "--by", "ada")
    assert (first.exit_code, first.stderr) == (0, "")
    revision = json.loads(first.stdout)
    assert (revision["by"], revision["changes"]) == ("ada", {"db.password": [None, "***"]})
    assert run(consul_server, "set", "db.password_file", "/run/pw", *where).exit_code == 0
    assert run(consul_server, "set", "db.password", "--unset", *where).exit_code == 0
    shown = run(consul_server, "get", *where)
    assert json.loads(shown.stdout) == {"db": {"password_file": "/run/pw"}}
    assert run(consul_server, "get", "db.port", *where).exit_code == 1
    assert run(consul_server, "get", "db.port", *where, "--default", "1").stdout == "1\n"
    history = [
        json.loads(each) for each in run(consul_server, "history", *where).stdout.splitlines()
    ]
    assert [each["by"] == "ada" for each in history] == [False, False, True]
    assert run(consul_server, "rollback", revision["id"], *where).exit_code == 0
    assert json.loads(run(consul_server, "get", "db", *where).stdout) == {"password": "***"}
    wrong = run(consul_server, "rollback", "none", *where)
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "has no revision 'none'" in wrong.stderr


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_watching_on_the_command_line(consul_server: ConsulServer, prefix: str, loop: str) -> None:
    where = ("--source", f"consul:///{prefix}")
    run(consul_server, "set", "port", "1", *where)
    with subprocess.Popen(
        [*COMMAND, "watch", "port", *where, "--loop", loop],
        env={**os.environ, "CONSUL_HTTP_ADDR": consul_server.url, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "1\n"
            run(consul_server, "set", "port", "2", *where)
            assert process.stdout.readline() == "2\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            assert process.stderr.read() == ""
        finally:
            process.kill()
