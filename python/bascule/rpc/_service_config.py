"""How calls of a service behave: gRPC's service config, typed and from JSON.

Source: gRPC's service config document and ``grpc/service_config.proto``, gRFC A2 (in DNS), A6
(retries, hedging), A17 (health checks), A21 (errors), A62 (``pick_first``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bascule.rpc._method_config import MethodConfig, RetryThrottling

__all__ = ["POLICIES", "LoadBalancing", "OutlierDetection", "OutlierRule", "ServiceConfig"]

#: Balancers, by the names that :class:`LoadBalancing` and JSON take.
POLICIES = (
    "pick_first",
    "round_robin",
    "weighted_round_robin",
    "random",
    "least_request",
    "peak_ewma",
    "ring_hash",
    "maglev",
)

#: Those that send calls with the same key to the same endpoint.
HASHING = frozenset({"ring_hash", "maglev"})


def _require(
    name: str, value: float, least: float, most: float | None = None, *, exclusive: bool = False
) -> None:
    """Comparisons are written so that NaN fails them."""
    if value > least or (not exclusive and value == least):
        if most is None and value < float("inf"):
            return
        if most is not None and value <= most:
            return
    start = "above" if exclusive else "from"
    end = "" if most is None else f" to {most:g}"
    message = f"{name} is {value}: give a number {start} {least:g}{end}"
    raise ConfigurationError(message)


@dataclass(frozen=True, slots=True)
class OutlierRule:
    """When an endpoint is an outlier.

    :param threshold: see :class:`OutlierDetection`
    :param enforcement: percent of those found that are ejected
    :param min_hosts: endpoints with enough calls that there must be to tell
    :param min_calls: calls within an interval by which an endpoint is judged
    :raises ConfigurationError: if a value cannot work
    """

    threshold: float
    enforcement: int = 100
    min_hosts: int = 5
    min_calls: int = 100

    def __post_init__(self) -> None:
        _require("threshold", self.threshold, 0.0)
        _require("enforcement", self.enforcement, 0, 100)
        _require("min_hosts", self.min_hosts, 0)
        _require("min_calls", self.min_calls, 0)


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """Eject endpoints that fail more often than the others, by gRFC A50.

    They are judged every ``interval`` seconds. One that is ejected comes back after
    ``base_ejection`` seconds times how often it was ejected, but after ``max_ejection`` at most.

    :param max_ejection_percent: once so many percent are ejected, no more are
    :param success_rate: ejects an endpoint whose success rate is ``threshold`` standard deviations
        below the mean; None turns this off
    :param failure_percentage: ejects one of whose calls more than ``threshold`` percent failed;
        None turns this off
    :raises ConfigurationError: if a value cannot work
    """

    interval: float = 10.0
    base_ejection: float = 30.0
    max_ejection: float = 300.0
    max_ejection_percent: int = 10
    success_rate: OutlierRule | None = OutlierRule(1.9)
    failure_percentage: OutlierRule | None = None

    def __post_init__(self) -> None:
        for name in ("interval", "base_ejection", "max_ejection"):
            _require(name, getattr(self, name), 0.0, exclusive=True)
        _require("max_ejection_percent", self.max_ejection_percent, 0, 100)
        if self.failure_percentage is not None:
            threshold = self.failure_percentage.threshold
            _require("failure_percentage.threshold", threshold, 0, 100)


@dataclass(frozen=True, slots=True)
class LoadBalancing:
    """How a channel chooses the endpoint of a call.

    ``pick_first`` uses one endpoint, the first that can be reached, by gRFC A61. The others
    connect to all.

    :param policy: one of :data:`POLICIES`
    :param shuffle: of ``pick_first``: try the endpoints in a random order (gRFC A62)
    :param hash_header: of ``ring_hash`` and ``maglev``: the metadata key by whose value calls go
        to endpoints (gRFC A76); a call without it goes anywhere
    :param min_ring: of ``ring_hash``: entries of the ring at least
    :param max_ring: of ``ring_hash``: entries of the ring at most
    :param table: of ``maglev``: entries of its table, a prime
    :param subset: ``(client, size)``: use only ``size`` endpoints, chosen so that clients
        numbered from 0 spread evenly
    :param outlier: eject endpoints that fail more than others; None leaves them in
    :param slow_start: seconds over which an endpoint that is new gets its full share; 0 for none
    :raises ConfigurationError: if a value cannot work
    """

    policy: str = "round_robin"
    shuffle: bool = False
    hash_header: str | None = None
    min_ring: int = 1024
    max_ring: int = 4096
    table: int = 65537
    subset: tuple[int, int] | None = None
    outlier: OutlierDetection | None = None
    slow_start: float = 0.0

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            message = f"balancer {self.policy!r} is unknown: take one of {', '.join(POLICIES)}"
            raise ConfigurationError(message)
        _require("min_ring", self.min_ring, 1, 8 * 1024 * 1024)
        _require("max_ring", self.max_ring, self.min_ring, 8 * 1024 * 1024)
        _require("table", self.table, 2, 5_000_011)
        _require("slow_start", self.slow_start, 0.0)
        if self.subset is not None and (self.subset[0] < 0 or self.subset[1] < 1):
            message = (
                f"subset is {self.subset}: give a number of this client from 0 and a size from 1"
            )
            raise ConfigurationError(message)
        if self.hash_header is not None and self.policy not in HASHING:
            message = f"hash_header is of use to {', '.join(sorted(HASHING))}, not to {self.policy}"
            raise ConfigurationError(message)


def _none() -> Mapping[str, MethodConfig]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """What holds for the calls of a channel, unless a call says otherwise.

    :param methods: settings by ``/package.Service/Method``, by ``/package.Service/`` for all
        other methods of a service, or by the empty string for all others: the longest one holds,
        and holds alone
    :param load_balancing: None: as the channel says
    :param retry_throttling: None: retries are never throttled
    :param health_check_service: ask each endpoint for this service's health and call only those
        that serve it (gRFC A17); None asks for none
    :raises ConfigurationError: if a value cannot work
    """

    methods: Mapping[str, MethodConfig] = field(default_factory=_none)
    load_balancing: LoadBalancing | None = None
    retry_throttling: RetryThrottling | None = None
    health_check_service: str | None = None

    def __post_init__(self) -> None:
        for name in self.methods:
            if name and (not name.startswith("/") or name.count("/") != 2 or name.startswith("//")):
                message = (
                    f"methods has the key {name!r}: write /package.Service/Method, "
                    "/package.Service/ or an empty string"
                )
                raise ConfigurationError(message)
        object.__setattr__(self, "methods", MappingProxyType(dict(self.methods)))

    def method(self, path: str) -> MethodConfig | None:
        """The settings of ``/package.Service/Method``: its own, its service's or those of all."""
        methods = self.methods
        if not methods:
            return None
        service = path[: path.rfind("/") + 1]
        return methods.get(path) or methods.get(service) or methods.get("")

    @classmethod
    def from_json(cls, document: str | Mapping[str, Any]) -> ServiceConfig:
        """Read gRPC's JSON form. Fields that are unknown are ignored, as gRPC demands.

        :raises ConfigurationError: if it is no JSON, or a value is none that its field takes
        """
        from bascule.rpc._service_config_json import read_service_config

        return read_service_config(document)

    @classmethod
    def of(cls, config: ServiceConfig | str | Mapping[str, Any] | None) -> ServiceConfig:
        """Any of the forms that a channel takes.

        :raises ConfigurationError: as :meth:`from_json`
        """
        if config is None:
            return cls()
        return config if isinstance(config, ServiceConfig) else cls.from_json(config)
