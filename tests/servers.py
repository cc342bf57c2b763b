"""Fixtures with real servers.

Those of a session are started once, for all tests that only call them. Tests that stop, kill or
wipe a server take one of their own. What is not installed skips the test, or fails it where no
suite may be left out (:mod:`tests.tools`).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from tests.tools import lacking

from bascule.testing.servers import (
    ConsulServer,
    JaegerServer,
    KubeApiServer,
    LocalServer,
    MariaDBServer,
    MissingProgramError,
    MongoJavaServer,
    MongoServer,
    NxMongoServer,
    PrometheusServer,
    RedisServer,
    TemporalServer,
)

#: What speaks MongoDB's protocol: with transactions, without, and the real one where it is installed.
MONGO = [NxMongoServer, MongoJavaServer, *([MongoServer] if shutil.which("mongod") else [])]

S = TypeVar("S", bound=LocalServer)


def need(kind: type[LocalServer]) -> None:
    """Do without the test if a server's program is not to be found."""
    try:
        kind.find()
    except MissingProgramError as error:
        lacking(str(error))


@contextmanager
def running(kind: type[S], **settings: Any) -> Iterator[S]:
    """Run a server, or do without the test for want of its program."""
    need(kind)
    with kind(**settings) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis that all tests share: do not stop it."""
    with running(RedisServer, durable=False) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The shared Redis, without any key."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis to stop, kill and start again; it keeps what it has acknowledged."""
    with running(RedisServer) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    """A MariaDB that all tests share: do not stop it."""
    with running(MariaDBServer) as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb_server: MariaDBServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database for one test, on the shared MariaDB."""
    name = database_name(request)
    yield mariadb_server.fresh_database(name)
    mariadb_server.drop_database(name)


@pytest.fixture(scope="module")
def mariadb_module_url(
    mariadb_server: MariaDBServer, request: pytest.FixtureRequest
) -> Iterator[str]:
    """A database that the tests of a module share, empty before the first of them."""
    name = database_name(request)
    yield mariadb_server.fresh_database(name)
    mariadb_server.drop_database(name)


@pytest.fixture
def own_mariadb() -> Iterator[MariaDBServer]:
    """A MariaDB to stop, kill and start again."""
    with running(MariaDBServer) as server:
        yield server


@pytest.fixture(scope="session")
def consul_server() -> Iterator[ConsulServer]:
    """A Consul that all tests share: do not stop it, and use names of your own."""
    with running(ConsulServer) as server:
        yield server


@pytest.fixture
def own_consul() -> Iterator[ConsulServer]:
    """A Consul to stop, kill and start again; it keeps what was written."""
    with running(ConsulServer) as server:
        yield server


@pytest.fixture(scope="session")
def jaeger_server() -> Iterator[JaegerServer]:
    """A Jaeger that all tests share: do not stop it, and look for traces of your own."""
    with running(JaegerServer) as server:
        yield server


@pytest.fixture(scope="session", params=MONGO, ids=lambda kind: kind.program)
def mongo_server(request: pytest.FixtureRequest) -> Iterator[MongoServer]:
    """One server of MongoDB's protocol after the other: do not stop it."""
    with running(request.param) as server:
        yield server


@pytest.fixture
def mongo_database(mongo_server: MongoServer, request: pytest.FixtureRequest) -> str:
    """The name of a database for one test, on the shared server."""
    return database_name(request)


@pytest.fixture(params=MONGO, ids=lambda kind: kind.program)
def own_mongo(request: pytest.FixtureRequest) -> Iterator[MongoServer]:
    """A server of MongoDB's protocol to stop, kill and start again."""
    with running(request.param) as server:
        yield server


@pytest.fixture(scope="session")
def kube_server() -> Iterator[KubeApiServer]:
    """An API server of Kubernetes that all tests share: do not stop it, and use names of your own."""
    with running(KubeApiServer) as server:
        yield server


@pytest.fixture
def own_kube() -> Iterator[KubeApiServer]:
    """An API server of Kubernetes to stop, kill and start again."""
    with running(KubeApiServer) as server:
        yield server


@pytest.fixture(scope="session")
def temporal_server() -> Iterator[TemporalServer]:
    """A Temporal that all tests share: do not stop it, and use names of your own."""
    with running(TemporalServer) as server:
        yield server


@pytest.fixture
def own_temporal() -> Iterator[TemporalServer]:
    """A Temporal to stop, kill and start again."""
    with running(TemporalServer) as server:
        yield server


@pytest.fixture(scope="session")
def prometheus_server() -> Iterator[PrometheusServer]:
    """A Prometheus that scrapes nothing, for expressions: one that scrapes is a test's own."""
    with running(PrometheusServer) as server:
        yield server


def database_name(request: pytest.FixtureRequest) -> str:
    """Name a database after the test or module that asks for it."""
    return "test_" + re.sub(r"\W+", "_", request.node.nodeid.rpartition("/")[2])[-50:].lower()
