"""Real servers answer their clients, and keep what they acknowledged when they are started again."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pymongo
import pymysql
import pytest
from tests.servers import running

from bascule.testing.servers import (
    ConsulServer,
    EtcdServer,
    KubeApiServer,
    LocalServer,
    MariaDBServer,
    MongoJavaServer,
    MongoServer,
    NxMongoServer,
    RedisServer,
    TemporalServer,
)


class RedisClient:
    def __init__(self, server: RedisServer) -> None:
        self.server = server

    def write(self, value: str) -> None:
        assert self.server._ask(f"SET key {value}\r\n".encode()) == b"+OK\r\n"

    def read(self) -> str | None:
        size, value, *_ = self.server._ask(b"GET key\r\n").split(b"\r\n")
        return None if size == b"$-1" else value.decode()


class MariaDBClient:
    def __init__(self, server: MariaDBServer) -> None:
        self.server = server
        assert server.fresh_database("kept") == server.url("kept")
        self._run("CREATE TABLE pairs (value TEXT)")

    def _run(self, statement: str, *values: str) -> str | None:
        login = {"user": self.server.user, "password": self.server.password, "database": "kept"}
        with pymysql.connect(host="127.0.0.1", port=self.server.port, **login) as connection:
            with connection.cursor() as cursor:
                cursor.execute(statement, values)
                row = cursor.fetchone()
            connection.commit()
        return row and row[0]

    def write(self, value: str) -> None:
        self._run("INSERT INTO pairs VALUES (%s)", value)

    def read(self) -> str | None:
        return self._run("SELECT value FROM pairs")


class ConsulClient:
    def __init__(self, server: ConsulServer) -> None:
        self.server = server

    def write(self, value: str) -> None:
        assert httpx.put(f"{self.server.url}/v1/kv/config/key", content=value).json() is True
        service = {"Name": "orders", "ID": "orders-1", "Port": 1, "Tags": [value]}
        url = f"{self.server.url}/v1/agent/service/register"
        assert httpx.put(url, json=service).status_code == 200

    def read(self) -> str:
        (found,) = httpx.get(f"{self.server.url}/v1/agent/services").json().values()
        value = httpx.get(f"{self.server.url}/v1/kv/config/key?raw").text
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


def test_a_database_is_fresh_each_time(mariadb_server: MariaDBServer):
    MariaDBClient(mariadb_server).write("gone")
    user = MariaDBClient(mariadb_server)
    assert user.read() is None
    mariadb_server.drop_database("kept")


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
