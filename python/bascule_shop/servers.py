"""Real servers for a shop that is tried out: started on this machine, and ended with it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from bascule.errors import ConfigurationError
from bascule_shop._services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AsyncExitStack

    from bascule.testing.servers import LocalServer, MongoServer, PrometheusServer, Series

__all__ = [
    "Component",
    "Components",
    "Watcher",
    "read_components",
    "start_components",
    "start_prometheus",
]

#: Seconds between two scrapes: short, for a tour is over in a few.
SCRAPE = 0.25


class Component(StrEnum):
    """What the shop can use instead of what is embedded, and what can watch it."""

    CONSUL = "consul"
    JAEGER = "jaeger"
    REDIS = "redis"
    MYSQL = "mysql"
    MONGO = "mongo"
    PROMETHEUS = "prometheus"


@dataclass(slots=True)
class Components:
    """Where the servers are.

    :ivar consul: ``host:port`` of the agent; None if there is none
    :ivar redis: URL; None if there is none
    :ivar jaeger: URL of its pages; None if there is none
    :ivar spans: where Jaeger takes spans, as ``OTEL_EXPORTER_OTLP_ENDPOINT`` says it
    :ivar databases: URLs by short name of the service
    :ivar addresses: of every server, by the name of what it is, for people
    """

    consul: str | None = None
    redis: str | None = None
    jaeger: str | None = None
    spans: str | None = None
    databases: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)


class Watcher:
    """A Prometheus that scrapes the shop.

    :ivar url: of its pages
    :ivar rules: how many files of alerts it evaluates
    """

    def __init__(self, server: PrometheusServer) -> None:
        self.url = server.url
        self.rules = len(server.rules)
        self._server = server

    async def ask(self, expression: str) -> list[Series]:
        """Evaluate an expression.

        :raises ValueError: if it cannot be evaluated
        :raises OSError: if Prometheus does not answer
        """
        return await anyio.to_thread.run_sync(self._server.query, expression)

    async def catch_up(self, within: float = 30.0) -> None:
        """Wait until it has scraped what has happened up to now.

        :raises TimeoutError: if it has not within so many seconds
        """
        now = time.time()
        with anyio.fail_after(within):
            while not await self.ask(f"timestamp(up == 1) > {now}"):  # noqa: ASYNC110 - it sets no event
                await anyio.sleep(SCRAPE)


def read_components(text: str) -> tuple[Component, ...]:
    """Read a list such as ``consul,redis``.

    :raises ConfigurationError: if there is no such component
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = {each.value for each in Component}
    if unknown := [name for name in names if name not in known]:
        raise ConfigurationError(
            f"there is no {', '.join(unknown)} to try the shop with: choose from {', '.join(sorted(known))}"
        )
    return tuple(Component(name) for name in names)


async def start_prometheus(metrics: str, authority: Path, stack: AsyncExitStack) -> Watcher:
    """Start a Prometheus that ends when the stack is left, and wait for its first scrape.

    The alerts of a checkout are evaluated if it is to be found: wheels do not have them. Those about
    services that are down want a process for each, and are left out.

    :param metrics: URL of what the shop has counted
    :param authority: file with the certificate to trust
    :raises ConfigurationError: if the program is missing or does not start
    """
    from bascule.testing.servers import MissingProgramError, PrometheusServer, StartError

    server = PrometheusServer(
        scrape={"shop": metrics}, rules=_rules(), interval=SCRAPE, authority=authority
    )
    try:
        await stack.enter_async_context(server)
    except (MissingProgramError, StartError) as error:
        raise ConfigurationError(str(error)) from error
    watcher = Watcher(server)
    await watcher.catch_up()
    return watcher


def _rules() -> list[Path]:
    """Find the rules of the checkout that this is started in, or that this file is of."""
    for root in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if found := sorted((root / "deploy/prometheus/rules").glob("*.yml")):
            return [path for path in found if path.stem != "availability"]
    return []


async def start_components(wanted: Collection[Component], stack: AsyncExitStack) -> Components:
    """Start servers that end when the stack is left, but for Prometheus, which needs the shop first.

    :raises ConfigurationError: if a program is missing or does not start
    """
    from bascule.testing.servers import (
        ConsulServer,
        JaegerServer,
        MariaDBServer,
        MissingProgramError,
        RedisServer,
        StartError,
    )

    found = Components()

    async def start(component: Component, server: LocalServer) -> None:
        try:
            await stack.enter_async_context(server)
        except (MissingProgramError, StartError) as error:
            raise ConfigurationError(str(error)) from error
        found.addresses[component] = server.address

    if Component.MYSQL in wanted:
        mariadb = MariaDBServer()
        await start(Component.MYSQL, mariadb)
        for name in SERVICES:
            found.databases[name] = await anyio.to_thread.run_sync(mariadb.fresh_database, name)
    if Component.MONGO in wanted:
        mongo = _mongo()
        await start(Component.MONGO, mongo)
        found.databases["product"] = mongo.url.replace("/?", "/product?")
    if Component.CONSUL in wanted:
        consul = ConsulServer()
        await start(Component.CONSUL, consul)
        found.consul = consul.address
    if Component.JAEGER in wanted:
        jaeger = JaegerServer()
        await start(Component.JAEGER, jaeger)
        found.jaeger, found.spans = jaeger.url, jaeger.endpoint
    if Component.REDIS in wanted:
        redis = RedisServer()
        await start(Component.REDIS, redis)
        found.redis = redis.url
    return found


def _mongo() -> MongoServer:
    """Give MongoDB itself if it is installed, else a program that speaks its protocol.

    :raises ConfigurationError: if there is neither
    """
    from bascule.testing.servers import (
        MissingProgramError,
        MongoJavaServer,
        MongoServer,
        NxMongoServer,
    )

    for kind in (MongoServer, NxMongoServer, MongoJavaServer):
        try:
            kind.find()
        except MissingProgramError as error:
            missing = error
        else:
            return kind()
    raise ConfigurationError(str(missing)) from missing
