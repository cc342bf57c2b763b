"""What a channel's target names."""

from __future__ import annotations

from bascule.discovery import DnsResolver, Endpoint, MemoryRegistry, Resolver, StaticResolver
from bascule.errors import ConfigurationError
from bascule.net import parse_address

#: Schemes of the targets that this version resolves.
SCHEMES = (
    "host:port, static:///host:port,host:port, dns:///host:port, dns:///_service._proto.name, "
    "dns://nameserver/host:port, consul:///service, consul://agent:port/service, k8s:///service.namespace:port, unix:/path, memory:name or memory:///service"
)


def resolve_target(target: str, registry: MemoryRegistry | None) -> Resolver:
    """The resolver of a target.

    :raises ConfigurationError: if the target has no form that is known
    """
    if target.startswith("dns:"):
        return _resolve_dns(target)
    if target.startswith("consul:"):
        from bascule.discovery.consul import consul_target

        return consul_target(target)
    if target.startswith("k8s:"):
        from bascule.discovery.kubernetes import kubernetes_target

        return kubernetes_target(target)
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


def _resolve_dns(target: str) -> Resolver:
    """By gRPC's naming document: ``dns:[//nameserver/]name``, though the port is not optional."""
    rest = target.removeprefix("dns:")
    nameserver = ""
    if rest.startswith("//"):
        nameserver, _, rest = rest.removeprefix("//").partition("/")
    if not rest:
        message = f"target {target!r}: expected {SCHEMES}"
        raise ConfigurationError(message)
    return DnsResolver(rest, nameserver=nameserver or None)
