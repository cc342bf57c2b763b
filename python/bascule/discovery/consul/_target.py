"""``consul:///service``: what a target may say about a service in Consul."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from bascule.discovery.consul._instances import Protection
from bascule.discovery.consul._resolver import ConsulResolver
from bascule.discovery.consul._settings import ConsulSettings
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["consul_target"]

FORM = (
    "consul:///service or consul://agent:port/service, with ?tag= (again and again), dc, near, filter, "
    "passing_only, consistency, panic_threshold, hold, cache or authority"
)


def consul_target(target: str) -> ConsulResolver:
    """The resolver of ``consul://[agent:port]/service[?parameters]``.

    Without an agent in it, ``CONSUL_HTTP_ADDR`` and the other variables say where that is; tokens and
    TLS come from there in both cases.

    :raises ConfigurationError: if it has not this form
    """
    try:
        parts = urlsplit(target)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ConfigurationError(f"target {target!r}: {error}; expected {FORM}") from error
    service = unquote(parts.path.removeprefix("/"))
    if not target.startswith("consul://") or not service or parts.fragment or "@" in parts.netloc:
        raise ConfigurationError(f"target {target!r}: expected {FORM}")
    tags = [value for name, value in pairs if name == "tag"]
    settings: dict[str, Any] = {}
    protection: dict[str, float] = {}
    for name, value in pairs:
        if name == "tag":
            continue
        where = protection if name in _PROTECTION else settings
        read = _PROTECTION.get(name) or _PARAMETERS.get(name)
        named = _NAMES.get(name, name)
        if read is None or named in where:
            raise ConfigurationError(
                f"target {target!r}: {name!r} twice or unknown; expected {FORM}"
            )
        try:
            where[named] = read(value)
        except ValueError as error:
            raise ConfigurationError(f"target {target!r}: {name}: {error}") from error
    return ConsulResolver(
        service,
        tags=tags,
        settings=ConsulSettings.read(parts.netloc or None),
        protection=Protection(**protection),
        **settings,
    )


def _boolean(text: str) -> bool:
    if text not in {"true", "false"}:
        message = f"{text!r}: expected true or false"
        raise ValueError(message)
    return text == "true"


_NAMES = {"dc": "datacenter"}
_PARAMETERS: dict[str, Callable[[str], Any]] = {
    "dc": str,
    "near": str,
    "filter": str,
    "passing_only": _boolean,
    "consistency": str,
    "cache": str,
    "authority": str,
}
_PROTECTION: dict[str, Callable[[str], float]] = {"panic_threshold": float, "hold": float}
