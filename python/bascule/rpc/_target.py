"""What a channel's target names."""

from __future__ import annotations

from bascule.discovery import Endpoint, MemoryRegistry, Resolver, StaticResolver
from bascule.errors import ConfigurationError
from bascule.net import parse_address

#: Schemes of the targets that this version resolves.
SCHEMES = "static:///host:port,host:port, host:port, unix:/path, memory:name or memory:///service"


def resolve_target(target: str, registry: MemoryRegistry | None) -> Resolver:
    """The resolver of a target.

    :raises ConfigurationError: if the target has no form that is known
    """
    scheme, separator, rest = target.partition(":///")
    if separator and scheme == "memory" and rest:
        return (registry or MemoryRegistry.default()).resolver(rest)
    if separator and scheme == "static" and rest:
        return StaticResolver(Endpoint(str(parse_address(each))) for each in rest.split(","))
    if separator and scheme == "unix" and rest:
        return StaticResolver([Endpoint(f"unix:/{rest}")])
    if separator or not target:
        message = f"target {target!r}: expected {SCHEMES}"
        raise ConfigurationError(message)
    return StaticResolver([Endpoint(str(parse_address(target)))])
