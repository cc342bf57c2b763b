"""``bascule demo`` as a user starts it: a process of its own, judged by its output and exit code."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from rich.console import Console
from tests.servers import need

from bascule.cli._account import print_account
from bascule.cli._demo import Account
from bascule.cli._questions import Question
from bascule.testing.servers import (
    ConsulServer,
    JaegerServer,
    MariaDBServer,
    NxMongoServer,
    PrometheusServer,
    RedisServer,
)
from bascule_shop import servers
from bascule_shop.app import Shop

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = [sys.executable, "-c", "from bascule.cli import main; main()", "demo"]
ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "error", "COLUMNS": "100"}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def problems(account: dict[str, Any]) -> list[str]:
    return [
        f"{visit['title']}: {visit['problem']}" for visit in account["visits"] if visit["problem"]
    ]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_tour_is_as_expected(backend: str) -> None:
    done = run("--json", "--backend", backend)
    account = json.loads(done.stdout)
    assert problems(account) == []
    assert (done.returncode, done.stderr) == (0, "")
    assert (account["ok"], account["backend"]) == (True, backend)
    titles = [visit["title"] for visit in account["visits"]]
    assert len(titles) == len(set(titles)) >= 15
    assert not Path(account["certificate"]).exists(), "the temporary folder is gone"


def services_of(node: dict[str, Any]) -> set[str]:
    """Whose spans a trace has."""
    return {node["service"]}.union(*map(services_of, node["children"]))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_tour_is_the_same_on_real_servers(tmp_path: Path, backend: str) -> None:
    for kind in (ConsulServer, RedisServer, MariaDBServer, NxMongoServer, JaegerServer):
        need(kind)
    names = "consul,redis,mysql,mongo,jaeger"
    done = run("--json", "--backend", backend, "--with", names, TMPDIR=str(tmp_path))
    account = json.loads(done.stdout)
    assert problems(account) == []
    assert (done.returncode, done.stderr) == (0, "")
    assert account["components"].keys() == {"consul", "redis", "mysql", "mongo", "jaeger"}
    trace = account["trace"]
    assert (trace["service"], trace["name"]) == ("gateway", "POST /api/v1/orders")
    assert services_of(trace) == {"gateway", "order", "user", "product", "payment", "tour"}
    assert account["trace_url"].startswith(f"http://{account['components']['jaeger']}/trace/")
    for address in account["components"].values():
        host, _, port = address.rpartition(":")
        with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), 5):
            pass
    assert list(tmp_path.iterdir()) == [], "servers leave nothing behind"


def test_prometheus_is_asked_what_the_tour_was_like() -> None:
    """Over ten seconds, for Prometheus takes five until its first scrape; one loop says it all."""
    need(PrometheusServer)
    done = run("--json", "--with", "prometheus", "--backend", "trio")
    account = json.loads(done.stdout)
    assert problems(account) == []
    assert (done.returncode, done.stderr) == (0, "")
    rules = Path(__file__).parents[2] / "deploy/prometheus/rules"
    assert account["rules"] == len(list(rules.iterdir())) - 1, "all but those about other processes"
    requests, errors, latency, breakers = (each["values"] for each in account["questions"])
    services = {f"{each}.{each.title()}Service" for each in ("user", "order", "product", "payment")}
    assert requests.keys() == latency.keys() == services
    assert float(requests["product.ProductService"]) > 1
    assert errors["product.ProductService"] != "0.00%", "there was an outage"
    assert set(breakers.values()) == {"0"}


def test_a_wheel_alone_has_no_alerts_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "__file__", str(tmp_path / "bascule_shop/servers.py"))
    monkeypatch.chdir(tmp_path)
    assert servers._rules() == []
    account = Account(
        backend="trio",
        url="https://127.0.0.1:1",
        services={},
        components={"prometheus": "http://127.0.0.1:2"},
        certificate="",
        token="",
        starting=0.1,
        rules=0,
        questions=[Question(title="Cups", expression="cups", values={"blue": "2"})],
    )
    console = Console(file=io.StringIO(), width=100)
    print_account(account, console)
    text = console.file.getvalue()
    assert re.search(r"Cups\ncups\n +blue +2\n", text)
    assert "It evaluates no alerts" in text


def test_an_unknown_component_is_said_in_one_line() -> None:
    done = run("--with", "consul,oracle")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("bascule demo: there is no oracle")
    assert "consul, jaeger, mongo, mysql, prometheus, redis" in line


def test_an_unexpected_answer_is_shown_and_ends_with_1(tmp_path: Path) -> None:
    """The shop has what it should not have: the tour must notice."""
    fill(tmp_path)
    with closing(sqlite3.connect(tmp_path / "product.db")) as database, database:
        database.execute("UPDATE products SET stock = 5 WHERE id = 'prd_060'")
    done = run("--data", str(tmp_path))
    assert done.returncode == 1
    assert re.search(r"no +Order what is out of stock", done.stdout)
    assert "got 201" in done.stdout
    assert "1 of 18 stops differ" in done.stdout


def fill(folder: Path) -> None:
    async def start() -> None:
        async with Shop(folder):
            pass

    anyio.run(start)


def test_an_address_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("--listen", address, "--data", str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("bascule demo: ")
    assert address in line


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_serves_on_until_it_is_told_to_stop(tmp_path: Path, backend: str) -> None:
    arguments: Sequence[str] = ("--serve", "--json", "--backend", backend, "--data", str(tmp_path))
    with subprocess.Popen(
        [*COMMAND, *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stdout is not None
            hints = ""
            while "curl" not in hints:
                line = process.stderr.readline()
                assert line, hints
                hints += line
            token, command = (
                re.search(r"TOKEN=(\S+)", hints),
                re.search(r"(https://\S+)/api", hints),
            )
            assert token is not None
            assert command is not None
            trust = ssl.create_default_context(cafile=tmp_path / "localhost.pem")
            headers = {"authorization": f"Bearer {token[1]}"}
            with httpx.Client(
                http2=True, verify=trust, base_url=command[1], headers=headers
            ) as client:
                answer = client.get("/api/v1/users/usr_ada")
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
            assert answer.json()["displayName"] == "Ada Okafor"
            process.send_signal(signal.SIGINT)
            account, rest = process.communicate(timeout=30)
        finally:
            process.kill()
    assert problems(json.loads(account)) == []
    assert (process.returncode, rest.strip()) == (0, "")
