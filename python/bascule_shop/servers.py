"""Real servers for a shop that is tried out: started on this machine, and ended with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import anyio.to_thread

from bascule.errors import ConfigurationError
from bascule_shop._services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AsyncExitStack

    from bascule.testing.servers import LocalServer, MongoServer

__all__ = ["Component", "Components", "read_components", "start_components"]


class Component(StrEnum):
    """What the shop can use instead of what is embedded."""

    CONSUL = "consul"
    JAEGER = "jaeger"
    REDIS = "redis"
    MYSQL = "mysql"
    MONGO = "mongo"


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


async def start_components(wanted: Collection[Component], stack: AsyncExitStack) -> Components:
    """Start servers that end when the stack is left.

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
