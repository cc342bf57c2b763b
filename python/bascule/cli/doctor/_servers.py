"""Servers that a service needs: whether they answer a real question, and what time they have."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from bascule.cli._http import ask, http_client
from bascule.cli.doctor._clocks import Moment, compare
from bascule.cli.doctor._examine import Check, Report
from bascule.errors import ConfigurationError, RpcError, Status, TransportError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    import sqlalchemy as sa

    from bascule.cli._http import Answer
    from bascule.cli.doctor._examine import Look
    from bascule.net import ClientTLS

__all__ = ["Servers", "check_date", "checks_of_servers", "without_password"]

#: Where each kind of server may be named instead of on the command line.
_CONSUL = ("SHOP_CONSUL", "CONSUL_HTTP_ADDR")
_REDIS = ("SHOP_EVENTS",)
_DATABASES = (
    "BASCULE_SAGA_DATABASE",
    *(f"SHOP_DATABASE_{name}" for name in ("USER", "PRODUCT", "PAYMENT", "ORDER")),
)
_OTLP = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

#: Threads for database drivers that block.
_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Which servers to ask. See :func:`bascule.cli._doctor.doctor`.

    :ivar timeout: seconds that each has
    :ivar tls: for ``targets``, and whom to trust by https; None for none
    :ivar authorities: context for https, which goes before that
    """

    consul: tuple[str, ...] = ()
    redis: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    otlp: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    jwks: tuple[str, ...] = ()
    timeout: float = 5.0
    tls: ClientTLS | None = None
    authorities: ssl.SSLContext | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def named(self, given: tuple[str, ...], variables: tuple[str, ...]) -> dict[str, str]:
        """Give addresses, each with the variable that it is from, empty if it is from none."""
        found = dict.fromkeys(given, "")
        for name in variables:
            if said := self.environment.get(name):
                found.setdefault(said, name)
        return found


def checks_of_servers(servers: Servers, *, every_kind: bool = False) -> Iterator[Check]:
    """Give a check for each server.

    :param every_kind: also one for each kind of which none is named, which says how to name one
    """
    look = _Look(servers)
    for option, given, variables, kind, method in (
        ("--consul HOST:PORT", servers.consul, _CONSUL, "consul", look.consul),
        ("--redis URL", servers.redis, _REDIS, "redis", look.redis),
        ("--database URL", servers.databases, _DATABASES, "database", look.database),
        ("--otlp URL", servers.otlp, _OTLP, "otlp", look.otlp),
        ("--target TARGET", servers.targets, (), "grpc", look.target),
        ("--url URL", servers.urls, (), "http", look.url),
        ("--jwks URL", servers.jwks, (), "jwks", look.jwks),
    ):
        named = servers.named(given, variables)
        for address, variable in named.items():
            subject = f"{kind} {without_password(address)}"
            check = Check(
                "servers",
                subject + (f" ({variable})" if variable else ""),
                _asking(method, address, subject),
                f"start it, or correct its address{f' in {variable}' if variable else ''}",
                servers.timeout,
            )
            yield check
        if every_kind and not named:
            or_variable = f", or set {' or '.join(variables[:2])}" if variables else ""
            yield Check("servers", kind, _none_named(f"to look at one: {option}{or_variable}"))


def _asking(method: Any, address: str, subject: str) -> Look:
    async def look(report: Report) -> None:
        await method(report, address, subject)

    return look


def _none_named(advice: str) -> Look:
    async def look(report: Report) -> None:
        report.unchecked("none is named", advice)

    return look


class _Look:
    """Asks servers, one method a kind."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    async def consul(self, report: Report, address: str, subject: str) -> None:
        from bascule.discovery.consul import ConsulClient, ConsulDeniedError, ConsulSettings

        settings = ConsulSettings.read(address, environment=self._servers.environment)
        began = anyio.current_time()
        async with ConsulClient(settings=settings) as client:
            leader = await client.http.call("GET", "/v1/status/leader", str)
            seconds = anyio.current_time() - began
            try:
                services = len(await client.agent.services())
            except ConsulDeniedError as error:
                report.failed(
                    f"answers, but {error}",
                    "give it a token with service:write for what registers: CONSUL_HTTP_TOKEN_FILE",
                )
                return
        if not leader.value:
            report.failed(
                "answers, but its cluster has no leader", "look at its servers: consul members"
            )
            return
        report.ok(f"{services} services at this agent, in {_ms(seconds)}")
        if settings.socket is None:
            async with self._http(settings.context()) as client:
                moment = Moment()
                answer = await ask(client, f"{settings.url}/v1/status/leader")
                moment.end()
            check_date(report, subject, answer, moment)

    async def redis(self, report: Report, address: str, subject: str) -> None:
        from bascule._redis import RedisClient

        began = anyio.current_time()
        async with RedisClient(address, timeout=self._servers.timeout) as client:
            await client.call("PING")
            seconds = anyio.current_time() - began
            moment = Moment()
            second, micros = await client.call("TIME")
            moment.end()
            about = _pairs(await client.call("INFO"))
        where = f"Redis {about.get('redis_version', '?')}, in {_ms(seconds)}"
        if about.get("aof_enabled") != "1":
            report.warning(
                f"{where}; what it holds is lost when it stops (appendonly is off)",
                "for events that must not be lost: appendonly yes; for limits and caches, this is fine",
            )
        elif about.get("maxmemory", "0") != "0" and about.get("maxmemory_policy") != "noeviction":
            report.warning(
                f"{where}; it forgets keys when memory is short ({about.get('maxmemory_policy')})",
                "for events: maxmemory-policy noeviction",
            )
        else:
            report.ok(where)
        compare(report, subject, int(second) + int(micros) / 1e6, moment, grain=1e-6)

    async def database(self, report: Report, address: str, subject: str) -> None:
        if address.startswith(("mongodb:", "mongodb+srv:")):
            await self._mongo(report, address, subject)
            return
        from bascule.sql import Database, database_micros
        from bascule.sql._dialects import read_url

        url = read_url(address)
        if url.get_backend_name() == "sqlite" and not await anyio.Path(str(url.database)).exists():
            report.warning(
                f"there is no file {url.database} yet",
                "nothing to do if the service makes it; else correct the path",
            )
            return

        def look(connection: sa.Connection) -> tuple[Moment, int, str]:
            version = ".".join(map(str, connection.dialect.server_version_info or ()))
            moment = Moment()
            micros = database_micros(connection)
            moment.end()
            return moment, micros, f"{connection.dialect.name} {version}"

        limit = self._servers.timeout
        began = anyio.current_time()
        async with Database(
            url,
            connect_timeout=limit / 2,
            statement_timeout=limit / 2,
            lock_timeout=limit / 2,
            attempts=1,
        ) as database:
            moment, micros, product = await database.read(look)
        report.ok(f"{product}, connected and asked in {_ms(anyio.current_time() - began)}")
        if url.get_backend_name() != "sqlite":
            compare(report, subject, micros / 1e6, moment, grain=1e-6)

    async def _mongo(self, report: Report, address: str, subject: str) -> None:
        try:
            from pymongo import MongoClient
            from pymongo.errors import PyMongoError
        except ImportError as error:
            raise ConfigurationError(
                "MongoDB needs the library pymongo: pip install 'bascule[mongo]'"
            ) from error
        moment = Moment()

        def look() -> tuple[dict[str, Any], str]:
            limit = int(self._servers.timeout * 1000)
            client: MongoClient[dict[str, Any]]
            try:
                with MongoClient(
                    address,
                    serverSelectionTimeoutMS=limit,
                    connectTimeoutMS=limit,
                    socketTimeoutMS=limit,
                    tz_aware=True,
                ) as client:
                    version = str(client.server_info().get("version", "?"))
                    moment.begun = Moment().begun
                    # Its old name: what only speaks the protocol may not know "hello".
                    said = client.admin.command("isMaster")
                    moment.end()
                    return said, version
            except PyMongoError as error:
                raise TransportError(
                    without_password(str(error).partition(", Timeout:")[0])
                ) from error

        said, version = await anyio.to_thread.run_sync(
            look, limiter=anyio.CapacityLimiter(_THREADS), abandon_on_cancel=True
        )
        transactions = "with" if said.get("setName") else "without"
        report.ok(f"MongoDB's protocol, version {version}, {transactions} a replica set")
        if (time := said.get("localTime")) is not None:
            compare(report, subject, time.timestamp(), moment, grain=1e-3)

    async def otlp(self, report: Report, address: str, subject: str) -> None:
        base = address.rstrip("/")
        url = base if base.endswith("/v1/traces") else f"{base}/v1/traces"
        async with self._http() as client:
            began = anyio.current_time()
            # An export of nothing: an empty ExportTraceServiceRequest has no bytes.
            answer = await ask(client, url, post=b"", kind="application/x-protobuf")
        if answer.status == 200:
            report.ok(f"takes spans, in {_ms(anyio.current_time() - began)}")
            return
        report.failed(
            f"answers {answer.status} to an export",
            "name the collector's port for OTLP over HTTP (4318 by default), not gRPC's (4317)",
        )

    async def target(self, report: Report, address: str, subject: str) -> None:
        from bascule.rpc import Channel
        from bascule.rpc._generated.health_pb2 import HealthCheckRequest, HealthCheckResponse
        from bascule.rpc._health import HEALTH_CHECK

        await look_up(report, address)
        began = anyio.current_time()
        async with Channel(address, tls=self._servers.tls) as channel:
            try:
                answer = await channel.unary(
                    HEALTH_CHECK, HealthCheckRequest(), timeout=self._servers.timeout * 0.9
                )
            except RpcError as error:
                if error.status is Status.UNIMPLEMENTED:
                    report.warning(
                        "speaks gRPC, and has no health service",
                        "serve HealthService beside the others: probes and Consul ask for it",
                    )
                    return
                report.failed(
                    f"{error.status.name}: {error.message or 'no reason given'}",
                    "start it, or correct the target; if it talks TLS: --cacert PEM",
                )
                return
        seconds = _ms(anyio.current_time() - began)
        if answer.status == HealthCheckResponse.SERVING:
            report.ok(f"is serving, connected and asked in {seconds}")
        else:
            state = HealthCheckResponse.ServingStatus.Name(answer.status)
            report.failed(
                f"answers {state}, in {seconds}",
                "look at what it waits for: /readyz of its --operations address, and its log",
            )

    async def url(self, report: Report, address: str, subject: str) -> None:
        async with self._http() as client:
            moment = Moment()
            answer = await ask(client, address)
            moment.end()
        found = f"answers {answer.status}, in {_ms(moment.ended - moment.begun)}"
        if answer.status < 400:
            report.ok(found)
        else:
            said = answer.body[:200].decode(errors="replace").strip()
            report.failed(f"{found}: {said}" if said else found, "ask it for what it lacks")
        check_date(report, subject, answer, moment)

    async def jwks(self, report: Report, address: str, subject: str) -> None:
        import json

        from bascule.gateway._keys import VerificationKey, jwk_entries
        from bascule.gateway._remote_keys import RemoteKeys

        RemoteKeys(address)  # refuses what a gateway would refuse
        async with self._http() as client:
            moment = Moment()
            answer = await ask(client, address)
            moment.end()
        if answer.status != 200:
            report.failed(f"answers {answer.status}", "correct the address of the key set")
            return
        usable, others = [], 0
        for entry in jwk_entries(json.loads(answer.body)):
            try:
                key = VerificationKey.from_jwk(entry)
            except ConfigurationError:
                others += 1
                continue
            usable += sorted(key.algorithms - {"HS256"})
        if usable:
            found = f"keys for {', '.join(sorted(set(usable)))}"
            report.ok(f"{found}; {others} that are of no use here" if others else found)
        else:
            report.failed(
                "no key that a gateway could verify with",
                "have the issuer publish RS256, ES256 or EdDSA keys with use=sig",
            )
        check_date(report, subject, answer, moment)

    def _http(self, context: Any = None) -> AbstractAsyncContextManager[Any]:
        tls = self._servers.tls
        context = context or self._servers.authorities
        if context is None and tls is not None:
            context = tls.context(("http/1.1",))
        return http_client(timeout=self._servers.timeout, tls=context)


async def look_up(report: Report, target: str) -> None:
    """Resolve the host of a target by the operating system, if it has one by name."""
    from ipaddress import ip_address

    rest = target.partition("///")[2] if target.startswith("dns:") else target
    host, colon, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or "/" in host or ":" in host or "," in host:
        return
    try:
        ip_address(host)
    except ValueError:
        pass
    else:
        return
    try:
        found = await anyio.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        report.failed(
            f"is not known: {error.strerror or error}",
            "correct the name, or look at /etc/resolv.conf and /etc/hosts",
            topic="names",
            subject=host,
        )
        return
    addresses = list(dict.fromkeys(each[4][0] for each in found))
    report.ok(", ".join(addresses[:4]), topic="names", subject=host)


def check_date(report: Report, whose: str, answer: Answer, moment: Moment) -> None:
    """Compare our clock with the ``Date`` of an answer, which has whole seconds."""
    date = answer.headers.get("date")
    if date is None:
        return
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except ValueError:
        report.warning(
            f"its Date is {date[:60]!r}",
            "tell who runs it",
            topic="clocks",
            subject=f"clock of {whose}",
        )
        return
    compare(report, whose, theirs, moment, grain=1.0)


def without_password(text: str) -> str:
    """Give a URL without user, password and options; any other text as it is."""
    # Up to the last @: a password may hold whatever should have been escaped.
    return re.sub(r"(?s)[?#].*", "", re.sub(r"(?s)://.*@", "://", text))


def _pairs(info: bytes | str) -> dict[str, str]:
    text = info.decode() if isinstance(info, bytes) else info
    return {name: value for name, _, value in (line.partition(":") for line in text.splitlines())}


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
