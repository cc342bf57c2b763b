"""Real servers answer their clients, and keep what they acknowledged when they are started again."""

from __future__ import annotations

import base64
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import coredis
import httpx
import psutil
import pymongo
import pymysql
import pytest
from tests.certificates import Certificates
from tests.servers import need, running

from bascule.net import ServerTLS
from bascule.testing.servers import (
    ConsulServer,
    EtcdServer,
    KubeApiServer,
    LocalServer,
    MariaDBServer,
    MongoJavaServer,
    MongoServer,
    NxMongoServer,
    PrometheusServer,
    RedisServer,
    TemporalServer,
)


class RedisClient:
    def __init__(self, server: RedisServer) -> None:
        self.server = server

    def write(self, value: str) -> None:
        async def put() -> None:
            async with coredis.Redis.from_url(self.server.url) as client:
                assert await client.set("key", value)

        anyio.run(put)

    def read(self) -> str | None:
        async def get() -> str | None:
            async with coredis.Redis.from_url(self.server.url, decode_responses=True) as client:
                return await client.get("key")

        return anyio.run(get)


class MariaDBClient:
    def __init__(self, server: MariaDBServer) -> None:
        self.server = server

    def _run(self, statement: str, *values: str) -> str | None:
        login = {"user": self.server.user, "password": self.server.password, "database": "kept"}
        with pymysql.connect(host="127.0.0.1", port=self.server.port, **login) as connection:
            with connection.cursor() as cursor:
                cursor.execute(statement, values)
                row = cursor.fetchone()
            connection.commit()
        return row and row[0]

    def write(self, value: str) -> None:
        assert self.server.fresh_database("kept") == self.server.url("kept")
        self._run("CREATE TABLE pairs (value TEXT)")
        self._run("INSERT INTO pairs VALUES (%s)", value)

    def read(self) -> str | None:
        return self._run("SELECT value FROM pairs")


class ConsulClient:
    def __init__(self, server: ConsulServer) -> None:
        self.server = server

    def _call(self, method: str, path: str, **body: Any) -> httpx.Response:
        headers = {"X-Consul-Token": self.server.token} if self.server.token else {}
        url = f"{self.server.url}/v1/{path}"
        return httpx.request(method, url, headers=headers, **body).raise_for_status()

    def write(self, value: str) -> None:
        assert self._call("PUT", "kv/config/key", content=value).json() is True
        service = {"Name": "orders", "ID": "orders-1", "Port": 1, "Tags": [value]}
        self._call("PUT", "agent/service/register", json=service)

    def read(self) -> str:
        (found,) = self._call("GET", "agent/services").json().values()
        value = self._call("GET", "kv/config/key?raw").text
        assert found["Tags"] == [value]
        return value


class EtcdClient:
    def __init__(self, server: EtcdServer) -> None:
        self.server = server

    def _call(self, method: str, **fields: str) -> dict:
        body = {name: base64.b64encode(text.encode()).decode() for name, text in fields.items()}
        return httpx.post(f"{self.server.url}/v3/kv/{method}", json=body).raise_for_status().json()

    def write(self, value: str) -> None:
        self._call("put", key="key", value=value)

    def read(self) -> str:
        return base64.b64decode(self._call("range", key="key")["kvs"][0]["value"]).decode()


class MongoClient:
    def __init__(self, server: MongoServer) -> None:
        self.server = server

    def write(self, value: str) -> None:
        with pymongo.MongoClient(self.server.url) as client:
            client.test.pairs.insert_one({"_id": "key", "value": value})

    def read(self) -> str:
        with pymongo.MongoClient(self.server.url) as client:
            return client.test.pairs.find_one({"_id": "key"})["value"]


class KubeClient:
    def __init__(self, server: KubeApiServer) -> None:
        self.server = server

    def _call(self, method: str, path: str, body: object = None) -> dict:
        trust = ssl.create_default_context(cafile=self.server.certificate)
        headers = {"Authorization": f"Bearer {self.server.token}"}
        with httpx.Client(base_url=self.server.url, verify=trust, headers=headers) as client:
            return client.request(method, path, json=body).raise_for_status().json()

    def write(self, value: str) -> None:
        body = {"metadata": {"name": "key"}, "data": {"value": value}}
        self._call("POST", "/api/v1/namespaces/default/configmaps", body)

    def read(self) -> str:
        return self._call("GET", "/api/v1/namespaces/default/configmaps/key")["data"]["value"]


class TemporalClient:
    def __init__(self, server: TemporalServer) -> None:
        self.url = f"http://127.0.0.1:{server.ports[1]}/api/v1/namespaces/default/workflows/key"

    def write(self, value: str) -> None:
        body = {
            "workflowType": {"name": value},
            "taskQueue": {"name": "nobody"},
            "requestId": value,
        }
        httpx.post(self.url, json=body).raise_for_status()

    def read(self) -> str:
        found = httpx.get(self.url).raise_for_status().json()
        return found["workflowExecutionInfo"]["type"]["name"]


CLIENTS = [
    (RedisServer, RedisClient),
    (MariaDBServer, MariaDBClient),
    (ConsulServer, ConsulClient),
    (EtcdServer, EtcdClient),
    (NxMongoServer, MongoClient),
    (MongoJavaServer, MongoClient),
    (KubeApiServer, KubeClient),
    (TemporalServer, TemporalClient),
]


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize(("kind", "client"), CLIENTS, ids=[kind.program for kind, _ in CLIENTS])
def test_what_it_acknowledged_outlives_a_restart(
    kind: type[LocalServer], client: Callable, how: str
):
    before = set(psutil.Process().children())
    with running(kind) as server:
        user, address = client(server), server.address
        user.write("kept")
        getattr(server, how)()
        server.start()
        assert server.address == address
        assert user.read() == "kept"
        folder = server.folder
        started = set(psutil.Process().children()) - before
    assert started
    assert not any(process.is_running() for process in started)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("kind", "client", "settings"),
    [
        (RedisServer, RedisClient, {}),
        (MariaDBServer, MariaDBClient, {}),
        (ConsulServer, ConsulClient, {"acl": True}),
        (KubeApiServer, KubeClient, {}),
    ],
    ids=["redis", "mariadb", "consul", "kube"],
)
def test_a_folder_that_was_kept_can_be_served_again(
    kind: type[LocalServer], client: Callable, settings: dict, tmp_path: Path
):
    for number in range(2):
        with running(kind, folder=tmp_path / "kept", **settings) as server:
            user = client(server)
            if number:
                assert user.read() == "kept"
            else:
                user.write("kept")


def test_a_redis_that_need_not_be_durable_is_empty_after_a_crash():
    with running(RedisServer, durable=False) as server:
        user = RedisClient(server)
        user.write("gone")
        server.kill()
        server.start()
        assert user.read() is None


def test_each_test_has_an_empty_redis(redis_url: str, redis_server: RedisServer):
    user = RedisClient(redis_server)
    user.write("gone")
    redis_server.flush()
    assert user.read() is None
    assert redis_url == f"redis://127.0.0.1:{redis_server.port}/0"


def test_a_redis_with_a_password_refuses_who_does_not_give_it():
    with running(RedisServer, password="secret") as server:
        user = RedisClient(server)
        user.write("kept")
        server.kill()
        server.start()
        assert user.read() == "kept"
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"GET key\r\n")
            assert connection.recv(64).startswith(b"-NOAUTH")


def test_a_database_is_fresh_each_time(mariadb_server: MariaDBServer):
    user = MariaDBClient(mariadb_server)
    user.write("gone")
    mariadb_server.fresh_database("kept")
    with pytest.raises(pymysql.err.ProgrammingError, match="pairs' doesn't exist"):
        user.read()
    mariadb_server.drop_database("kept")
    with pytest.raises(pymysql.err.OperationalError, match="Unknown database"):
        user.read()


@pytest.mark.parametrize("name", ["a`; DROP DATABASE mysql", "", "é"])
def test_a_database_has_a_name_that_needs_no_quotes(mariadb_server: MariaDBServer, name: str):
    with pytest.raises(ValueError, match="letters, digits and underscores"):
        mariadb_server.fresh_database(name)


def test_a_consul_with_acl_refuses_who_has_no_token():
    with running(ConsulServer, acl=True) as server:
        url = f"{server.url}/v1/kv/key"
        assert httpx.put(url, content="x").status_code == 403
        assert server.token
        allowed = {"X-Consul-Token": server.token}
        assert httpx.put(url, content="x", headers=allowed).json() is True


@pytest.mark.parametrize("mutual", [False, True], ids=["server", "mutual"])
def test_a_consul_with_tls_shows_its_certificate(certificates: Certificates, mutual: bool):
    client_ca = certificates.ca if mutual else None
    tls = ServerTLS(certificates.certificate, certificates.key, client_ca)
    with running(ConsulServer, tls=tls) as server:
        assert server.url == f"https://127.0.0.1:{server.port}"
        trust = ssl.create_default_context(cafile=certificates.ca)
        if mutual:
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                httpx.get(f"{server.url}/v1/status/leader", verify=trust)
            trust.load_cert_chain(certificates.certificate, certificates.key)
        assert httpx.get(f"{server.url}/v1/status/leader", verify=trust).json()


def test_kubernetes_refuses_what_is_no_valid_object(kube_server: KubeApiServer):
    body = {"metadata": {"name": "Not A Name"}}
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        KubeClient(kube_server)._call("POST", "/api/v1/namespaces/default/configmaps", body)


def test_a_kubeconfig_is_there_for_other_clients(kube_server: KubeApiServer):
    text = Path(kube_server.kubeconfig).read_text()
    assert kube_server.url in text
    assert kube_server.token in text


def test_one_that_has_transactions_changes_documents_together():
    assert NxMongoServer.transactions
    with running(NxMongoServer) as server:
        with pymongo.MongoClient(server.url) as client, client.start_session() as session:
            pairs = client.test.pairs
            pairs.insert_one({"_id": 1})
            session.start_transaction()
            pairs.insert_one({"_id": 2}, session=session)
            session.abort_transaction()
            assert pairs.count_documents({}) == 1


def test_both_kinds_update_a_document_on_a_condition(
    mongo_server: MongoServer, mongo_database: str
):
    with pymongo.MongoClient(mongo_server.url) as client:
        stock = client[mongo_database].stock
        stock.insert_one({"_id": "cup", "left": 1})
        take = ({"_id": "cup", "left": {"$gte": 1}}, {"$inc": {"left": -1}})
        assert [stock.update_one(*take).modified_count for _ in range(2)] == [1, 0]


def test_by_hand_they_run_until_a_signal_comes(tmp_path: Path):
    need(RedisServer)
    script = Path(__file__).parents[2] / "scripts/servers.py"
    command = [sys.executable, str(script), "redis", "--keep", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        name, url = process.stdout.readline().split()
        assert name == "redis"
        with socket.create_connection(("127.0.0.1", int(url.split(":")[2].partition("/")[0]))):
            process.send_signal(signal.SIGINT)
        assert process.wait(10.0) == 0
        assert process.stdout.read() == "Ctrl-C stops them.\n"
    assert (tmp_path / "redis/data").is_dir()


def test_a_prometheus_evaluates_and_says_what_it_cannot(prometheus_server: PrometheusServer):
    assert prometheus_server.query("6 * 7") == [({}, 42.0)]
    assert prometheus_server.query('label_replace(vector(1), "cup", "blue", "", "")') == [
        ({"cup": "blue"}, 1.0)
    ]
    assert prometheus_server.query("up") == []
    assert prometheus_server.alerts() == []
    with pytest.raises(ValueError, match="unexpected end of input"):
        prometheus_server.query("up{")


def test_a_prometheus_that_restarts_knows_what_it_has_scraped():
    """It takes five seconds until its first scrape."""
    with running(PrometheusServer) as scraped:
        with running(PrometheusServer, scrape={"other": f"{scraped.url}/metrics"}) as server:
            eventually(lambda: server.query('up{job="other"} == 1'))
            assert server.targets() == {f"{scraped.url}/metrics": "up"}
            server.kill()
            server.scrape = {}
            server.start()
            (found,) = server.query('last_over_time(up{job="other"}[1h])')
            assert found.labels["instance"] == scraped.address


def eventually(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
