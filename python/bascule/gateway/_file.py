"""A gateway as a TOML file describes it."""

from __future__ import annotations

import importlib
import os
import ssl
import sys
import tomllib
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bascule.config._document import merged
from bascule.errors import ConfigurationError, Status
from bascule.gateway._access import LineLog
from bascule.gateway._config import (
    AuthConfig,
    CorsConfig,
    Created,
    GatewayConfig,
    IdempotencyConfig,
    LimitConfig,
    RouteConfig,
    UpstreamConfig,
)
from bascule.gateway._devkey import DevelopmentKey
from bascule.gateway._file_read import join, read_table
from bascule.gateway._file_schema import FileTable, LimitTable, RouteTable, UpstreamTable
from bascule.gateway._gateway import Gateway
from bascule.gateway._keys import StaticKeys
from bascule.gateway._remote_keys import RemoteKeys
from bascule.net import ClientTLS, HttpLimits, ServerTLS, parse_address
from bascule.resilience import BreakerSettings, CountWindow, TimeWindow
from bascule.rpc import HedgingPolicy, MethodConfig, RetryPolicy, RetryThrottling, ServiceConfig
from bascule.rpc._descriptors import descriptor_set

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bascule.discovery import MemoryRegistry
    from bascule.gateway._access import AccessEntry, AccessLog
    from bascule.gateway._file_schema import (
        AuthTable,
        BreakerTable,
        CorsTable,
        HedgeTable,
        HttpTable,
        LogTable,
        RetryTable,
    )
    from bascule.gateway._keys import KeySource
    from bascule.observe import Metrics, Tracer

__all__ = ["GatewayFile"]

#: Bytes of a secret.
_LARGEST_SECRET = 64 * 1024

#: Seconds that one part of a gateway's end may take.
_LONGEST_END = 86_400.0

#: Of any bound of a listener: what the engine can count.
_LARGEST_BOUND = 2**31 - 1

_ADDRESS_LIMIT = LimitConfig(requests=6000, per=60.0)


@dataclass(frozen=True, slots=True)
class GatewayFile:
    """What a gateway's file says, checked and put together.

    :ivar path: of the file
    :ivar config: for :class:`bascule.gateway.Gateway`
    :ivar descriptors: a serialized ``FileDescriptorSet``
    :ivar operations: address of the page for operators; None for none
    :ivar propagation: seconds from not ready to the drain
    :ivar log: level, format, and where the access log goes
    :ivar development_key: what signs tokens for development; None in earnest
    """

    path: Path
    config: GatewayConfig
    descriptors: bytes
    operations: str | None
    propagation: float
    log: LogTable
    development_key: DevelopmentKey | None = None

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        *,
        environment: Mapping[str, str] | None = None,
        over: Mapping[str, Any] | None = None,
        development: str | os.PathLike[str] | None = None,
    ) -> GatewayFile:
        """Read a file. Paths in it are relative to its own folder.

        Files that it names are read, and development files are made; nobody is connected to.

        :param development: folder for development files instead of those that the file names
        :param environment: what ``${NAME}`` stands for; the process's own if None
        :param over: keys that go before those of the file, nested as there
        :raises ConfigurationError: naming file and key, if something cannot work
        """
        file = Path(path)
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"{file}: it cannot be read: {error}") from error
        said = os.environ if environment is None else environment
        try:
            return _Reader(file, merged(document, over or {}), said, development).read()
        except ConfigurationError as error:
            raise ConfigurationError(f"{file}: {error}") from error

    def gateway(
        self,
        *,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        registry: MemoryRegistry | None = None,
    ) -> Gateway:
        """Put the gateway together; ``async with`` starts it.

        :param metrics: what it counts; None for metrics of its own
        :param tracer: where spans go; None as for :class:`bascule.gateway.Gateway`
        :param registry: resolves ``memory:///`` targets
        :raises ConfigurationError: naming the file, if routes and settings do not fit together
        """
        try:
            return Gateway(
                self.config,
                self.descriptors,
                access_log=_access_log(self.log.access),
                metrics=metrics,
                tracer=tracer,
                registry=registry,
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.path}: {error}") from error


class _Reader:
    def __init__(
        self,
        file: Path,
        document: Mapping[str, Any],
        environment: Mapping[str, str],
        development: str | os.PathLike[str] | None,
    ) -> None:
        self._file = file
        self._development = None if development is None else Path(development)
        self._folder = file.parent
        self._document = document
        self._environment = environment
        self._key: DevelopmentKey | None = None

    def read(self) -> GatewayFile:
        table = read_table(self._document, FileTable, self._environment)
        routes = self._routes(table)
        upstreams = {name: self._upstream(name, table, routes) for name in table.upstreams}
        limits = table.limits
        listen = (table.listen,) if isinstance(table.listen, str) else tuple(table.listen)
        if not listen:
            raise ConfigurationError("listen: it is empty: give an address such as 0.0.0.0:8443")
        for key, addresses in (
            ("listen", listen),
            ("operations.listen", _given(table.operations.listen)),
        ):
            with _at(key):
                for address in addresses:
                    parse_address(address)
        for key in ("grace", "propagation"):
            value = getattr(table, key)
            if not 0 <= value <= _LONGEST_END:
                raise ConfigurationError(f"{key}: {value!r}: give 0 to {_LONGEST_END:g} seconds")
        with _at("auth"):
            auth = self._auth(table.auth)
        config = GatewayConfig(
            upstreams,
            listen=listen,
            tls=self._tls(table),
            auth=auth,
            route=_route("route", table.route),
            routes={path: _route(join("routes", path), each) for path, each in routes.items()},
            subject_limit=_limit("limits.subject", limits.subject, LimitConfig()),
            address_limit=_limit("limits.address", limits.address, _ADDRESS_LIMIT),
            redis=self._redis(table),
            limit_away=limits.away,
            limit_timeout=limits.timeout,
            idempotency=self._idempotency(table),
            cors=_cors(table.cors),
            forward_headers=tuple(table.forward_headers),
            max_json_depth=table.http.max_json_depth,
            http=_http(table.http),
            health_path=table.operations.health_path,
            ready_path=table.operations.ready_path,
            metrics_path=table.operations.metrics_path,
            grace=table.grace,
        )
        return GatewayFile(
            path=self._file,
            config=config,
            descriptors=self._descriptors(table.descriptors),
            operations=table.operations.listen,
            propagation=table.propagation,
            log=table.log,
            development_key=self._key,
        )

    def _path(self, path: str) -> Path:
        return self._folder / path

    def _made(self, path: str) -> Path:
        return self._development or self._path(path)

    def _optional(self, path: str | None) -> Path | None:
        return None if path is None else self._path(path)

    def _secret(self, key: str, path: str) -> str:
        try:
            with self._path(path).open("rb") as file:
                content = file.read(_LARGEST_SECRET + 1)
            if len(content) > _LARGEST_SECRET:
                raise ConfigurationError(f"{key}: {path!r} has more than {_LARGEST_SECRET} bytes")
            return content.decode().removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{key}: {path!r} cannot be read: {error}") from error

    def _tls(self, table: FileTable) -> ServerTLS | None:
        said = table.tls
        if said is None or (said.development is None and said.certificate is said.key is None):
            return None
        with _at("tls"):
            if said.development is not None:
                if said.certificate or said.key:
                    raise ConfigurationError("give either development, or certificate and key")
                from bascule.net import development_certificate

                certificate, key = development_certificate(self._made(said.development))
            elif said.certificate is None or said.key is None:
                raise ConfigurationError("give both certificate and key, or development")
            else:
                certificate, key = self._path(said.certificate), self._path(said.key)
            names = {
                name: (self._path(each.certificate), self._path(each.key))
                for name, each in said.names.items()
            }
            if not said.reload > 0:
                raise ConfigurationError(f"reload: {said.reload!r}: give more than 0 seconds")
            tls = ServerTLS(
                certificate, key, self._optional(said.client_ca), names, reload=said.reload
            )
            tls.context(("h2", "http/1.1"))
            return tls

    def _auth(self, said: AuthTable | None) -> AuthConfig | None:
        if said is None:
            return None
        sources = ("jwks_url", "jwks_file", "secret_file", "development")
        given = [name for name in sources if getattr(said, name) is not None]
        if len(given) != 1:
            found = ", ".join(given) or "none"
            raise ConfigurationError(f"give exactly one of {', '.join(sources)}, not {found}")
        algorithms = frozenset(said.algorithms) or frozenset(
            {"HS256"} if said.secret_file else {"RS256", "ES256", "EdDSA"}
        )
        issuer, audience, keys = said.issuer, said.audience, self._keys(said)
        if self._key is not None:
            issuer, audience = self._key.issuer, self._key.audience
        if issuer is None or audience is None:
            raise ConfigurationError("give issuer and audience: what tokens must have")
        return AuthConfig(
            issuer,
            audience,
            keys,
            algorithms=algorithms,
            leeway=said.leeway,
            cache_seconds=said.cache_seconds,
            cache_size=said.cache_size,
            realm=said.realm,
        )

    def _keys(self, said: AuthTable) -> KeySource:
        if said.development is not None:
            own = {"issuer": said.issuer, "audience": said.audience}
            given = {name: value for name, value in own.items() if value is not None}
            self._key = DevelopmentKey(self._made(said.development), **given)
            return self._key.auth.keys
        if said.jwks_file is not None:
            return StaticKeys.from_file(self._path(said.jwks_file))
        if said.secret_file is not None:
            return StaticKeys.from_secret(self._secret("secret_file", said.secret_file).encode())
        context = None
        if said.jwks_ca is not None:
            try:
                context = ssl.create_default_context(cafile=self._path(said.jwks_ca))
            except OSError as error:
                raise ConfigurationError(f"jwks_ca: {said.jwks_ca!r}: {error}") from error
        return RemoteKeys(str(said.jwks_url), tls=context)

    def _redis(self, table: FileTable) -> str | None:
        said = table.redis
        if said.url_file is None:
            return said.url
        if said.url is not None:
            raise ConfigurationError("redis: give either url or url_file")
        return self._secret("redis.url_file", said.url_file)

    def _idempotency(self, table: FileTable) -> IdempotencyConfig | None:
        said = table.idempotency
        if isinstance(said, bool):
            return IdempotencyConfig() if said else None
        with _at("idempotency"):
            return IdempotencyConfig(**asdict(said))

    def _routes(self, table: FileTable) -> dict[str, RouteTable]:
        """Each route's table with what it takes from its service's and from that of all."""
        documents = self._document.get("routes", {})
        general = self._document.get("route", {})
        found = {}
        for path in table.routes:
            service = f"{path.rpartition('/')[0]}/*"
            whole = merged(general, documents.get(service, {}))
            whole = merged(whole, documents[path])
            found[path] = read_table(whole, RouteTable, self._environment, join("routes", path))
        return found

    def _upstream(
        self, name: str, table: FileTable, routes: Mapping[str, RouteTable]
    ) -> UpstreamConfig:
        at = join("upstreams", name)
        said = self._document["upstreams"][name]
        own = {"target": said} if isinstance(said, str) else said
        whole = merged(self._document.get("upstream", {}), own)
        read = read_table(whole, UpstreamTable, self._environment, at)
        if read.target is None:
            raise ConfigurationError(f"{at}.target: it is missing: where is the service?")
        tls: ClientTLS | None = None
        if not isinstance(read.tls, bool):
            with _at(f"{at}.tls"):
                tls = ClientTLS(
                    self._optional(read.tls.ca),
                    self._optional(read.tls.certificate),
                    self._optional(read.tls.key),
                    read.tls.server_name,
                )
                tls.context(("h2",))
        elif read.tls:
            tls = ClientTLS()
        with _at(f"{at}.breaker"):
            breaker = _breaker(read.breaker)
        with _at(f"{at}.retry_throttling"):
            throttling = RetryThrottling(**asdict(read.retry_throttling))
        return UpstreamConfig(
            read.target,
            tls=tls,
            breaker=breaker,
            balancer=read.balancer,
            wait_for_ready=read.wait_for_ready,
            service_config=ServiceConfig(
                methods=_methods(name, table.route, routes), retry_throttling=throttling
            ),
        )

    def _descriptors(self, sources: list[str]) -> bytes:
        from google.protobuf.descriptor_pb2 import FileDescriptorSet
        from google.protobuf.message import DecodeError

        files: dict[str, Any] = {}
        for position, source in enumerate(sources):
            with _at(f"descriptors[{position}]"):
                try:
                    found = FileDescriptorSet.FromString(self._described(source))
                except DecodeError as error:
                    raise ConfigurationError(f"{source!r} is no FileDescriptorSet") from error
                for file in found.file:
                    files.setdefault(file.name, file)
        if not files:
            raise ConfigurationError("descriptors: they are empty: what declares the routes?")
        return FileDescriptorSet(file=files.values()).SerializeToString()

    def _described(self, source: str) -> bytes:
        module, separator, name = source.removeprefix("python:").partition(":")
        if not source.startswith("python:"):
            try:
                return self._path(source).read_bytes()
            except OSError as error:
                raise ConfigurationError(f"{source!r} cannot be read: {error}") from error
        try:
            found = getattr(importlib.import_module(module), name if separator else "DESCRIPTOR")
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigurationError(f"{source!r} cannot be imported: {error}") from error
        if not separator:
            return descriptor_set(found)
        content = found() if callable(found) else found
        if not isinstance(content, bytes):
            raise ConfigurationError(f"{source!r} is {type(content).__name__}, not bytes")
        return content


def _given(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


@contextmanager
def _at(key: str) -> Iterator[None]:
    """Name the key in what is said of its value."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{key}: {error}") from error


def _cors(said: CorsTable | None) -> CorsConfig | None:
    if said is None:
        return None
    with _at("cors"):
        usual = CorsConfig(())
        return CorsConfig(
            tuple(said.allow_origins),
            said.allow_credentials,
            (*usual.allow_headers, *said.allow_headers),
            (*usual.expose_headers, *said.expose_headers),
            said.max_age,
        )


def _http(said: HttpTable) -> HttpLimits:
    values = asdict(said)
    for key, value in values.items():
        if not 0 < value <= _LARGEST_BOUND:
            raise ConfigurationError(f"http.{key}: {value!r}: give more than 0")
    del values["max_json_depth"]
    return HttpLimits(**values)


def _limit(key: str, said: LimitTable | bool, default: LimitConfig) -> LimitConfig | None:
    if isinstance(said, bool):
        return default if said else None
    with _at(key):
        return LimitConfig(**asdict(said))


def _route(key: str, said: RouteTable) -> RouteConfig:
    with _at(key):
        created = Created(said.created if isinstance(said.created, str) else None)
        return RouteConfig(
            public=said.public,
            scopes=frozenset(said.scopes),
            timeout=said.timeout,
            created=created if said.created else None,
        )


def _breaker(said: BreakerTable | bool) -> BreakerSettings | None:
    if isinstance(said, bool):
        return BreakerSettings() if said else None
    if said.count_window is not None and said.time_window is not None:
        raise ConfigurationError("give either count_window or time_window")
    window: CountWindow | TimeWindow | None = None
    if said.count_window is not None:
        with _at("count_window"):
            window = CountWindow(**asdict(said.count_window))
    elif said.time_window is not None:
        with _at("time_window"):
            window = TimeWindow(**asdict(said.time_window))
    return BreakerSettings(
        failure_threshold=said.failure_threshold,
        success_threshold=said.success_threshold,
        timeout=said.timeout,
        half_open_permits=said.half_open_permits,
        half_open_timeout=said.half_open_timeout,
        window=window,
    )


def _methods(
    service: str, general: RouteTable, routes: Mapping[str, RouteTable]
) -> dict[str, MethodConfig]:
    """Retries and hedging of a service, as a channel's service config has them."""
    prefix = f"/{service}/"
    said = {prefix: ("route", general)}
    for path, route in routes.items():
        if path.startswith(prefix):
            said[path.removesuffix("*")] = (join("routes", path), route)
    found = {}
    for path, (key, route) in said.items():
        with _at(key):
            retry, hedging = _retry(route.retry), _hedging(route.hedge)
            found[path] = MethodConfig(retry=retry, hedging=hedging)
    return found


def _retry(said: RetryTable | bool) -> RetryPolicy | None:
    if isinstance(said, bool):
        return RetryPolicy() if said else None
    unknown = sorted(set(said.statuses) - set(Status.__members__))
    if unknown:
        names = ", ".join(Status.__members__)
        raise ConfigurationError(f"retry.statuses: {unknown[0]!r} is none of {names}")
    values = asdict(said)
    statuses = frozenset(Status[name] for name in values.pop("statuses"))
    return RetryPolicy(**values, retryable_statuses=statuses)


def _hedging(said: HedgeTable | bool) -> HedgingPolicy | None:
    if isinstance(said, bool):
        return HedgingPolicy(hedging_delay=0.1) if said else None
    return HedgingPolicy(said.max_attempts, said.delay)


class _NoLog:
    def record(self, entry: AccessEntry) -> None:
        """Forget it."""

    async def run(self) -> None:
        """Nothing to write."""


def _access_log(where: str) -> AccessLog:
    if where == "off":
        return _NoLog()
    return LineLog(sys.stdout.buffer if where == "stdout" else sys.stderr.buffer)
