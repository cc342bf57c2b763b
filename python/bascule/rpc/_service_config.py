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

    from bascule.rpc._load_balancing import LoadBalancing
    from bascule.rpc._method_config import MethodConfig, RetryThrottling

__all__ = ["ServiceConfig"]


def _none() -> Mapping[str, MethodConfig]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """What holds for the calls of a channel, unless a call says otherwise.

    :param methods: settings by ``/package.Service/Method``, by ``/package.Service/`` for all
        other methods of a service, or by the empty string for all others: the longest one holds,
        and holds alone
    :param load_balancing: None: as the channel says
    :param retry_throttling: None: as :class:`RetryThrottling` has it by default
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
        service = self.health_check_service
        if service is not None and any("\ud800" <= each <= "\udfff" for each in service):
            message = f"health_check_service is {service!r}: surrogates cannot be sent"
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
