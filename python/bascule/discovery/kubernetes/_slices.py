"""EndpointSlices, and the endpoints that they make together.

Source: Kubernetes' documentation, "EndpointSlices": a service has several, an endpoint may be in
more than one of them while they change, and clients have to tell duplicates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bascule.discovery._endpoint import Endpoint
from bascule.discovery._usable import is_usable
from bascule.net import Address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["EndpointSlice", "ListMeta", "ObjectMeta", "SliceList", "endpoints_of"]


class ObjectMeta(msgspec.Struct, rename="camel"):
    """What tells an object."""

    name: str = ""
    resource_version: str = ""


class ListMeta(msgspec.Struct, rename="camel"):
    """What tells a list. ``continue`` is where the next page begins."""

    resource_version: str = ""
    next_page: str = msgspec.field(name="continue", default="")


class _Conditions(msgspec.Struct):
    """None is unknown, which counts as ready."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class _Zone(msgspec.Struct):
    name: str = ""


class _Hints(msgspec.Struct, rename="camel"):
    for_zones: list[_Zone] | None = None


class _Target(msgspec.Struct):
    kind: str = ""
    name: str = ""
    uid: str = ""


class _Endpoint(msgspec.Struct, rename="camel"):
    addresses: list[str]
    conditions: _Conditions = msgspec.field(default_factory=_Conditions)
    target_ref: _Target | None = None
    zone: str | None = None
    node_name: str | None = None
    hints: _Hints | None = None


class _Port(msgspec.Struct):
    name: str | None = None
    port: int | None = None


class EndpointSlice(msgspec.Struct, rename="camel"):
    """A part of a service's endpoints."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    address_type: str = "IPv4"
    endpoints: list[_Endpoint] | None = None
    ports: list[_Port] | None = None


class SliceList(msgspec.Struct):
    """The answer to a list."""

    metadata: ListMeta
    items: list[EndpointSlice] | None = None


def endpoints_of(
    slices: Iterable[EndpointSlice], port: str, authority: str
) -> tuple[Endpoint, ...]:
    """Those that are ready; if none is, those that still serve while they end, as kube-proxy does.

    :param port: number or name; empty for the only one
    """
    ready: dict[str, Endpoint] = {}
    ending: dict[str, Endpoint] = {}
    # Of a pod with addresses of both families, the first is taken.
    for each in sorted(slices, key=lambda each: (each.address_type, each.metadata.name)):
        if each.address_type not in {"IPv4", "IPv6"}:
            continue
        number = _number(each, port)
        if number is None:
            continue
        for endpoint in each.endpoints or ():
            said = endpoint.conditions
            if said.ready is not False:
                found = ready
            elif said.serving and said.terminating:
                found = ending
            else:
                continue
            for address in _usable(endpoint.addresses):
                target = endpoint.target_ref
                key = target.uid if target is not None and target.uid else address
                where = str(Address("tcp", address, number))
                found.setdefault(key, Endpoint(where, 1, _metadata(endpoint), authority))
                break
    unique = {each.address: each for each in (ready or ending).values()}
    return tuple(unique[address] for address in sorted(unique))


def _number(each: EndpointSlice, port: str) -> int | None:
    if port.isdecimal():
        return int(port)
    ports = [one for one in each.ports or () if one.port is not None]
    if port:
        ports = [one for one in ports if one.name == port]
    return ports[0].port if len(ports) == 1 else None


def _usable(addresses: Iterable[str]) -> Iterator[str]:
    for each in addresses:
        try:
            if is_usable(each):
                yield each
        except ValueError:
            continue


def _metadata(endpoint: _Endpoint) -> dict[str, str]:
    hints = endpoint.hints.for_zones if endpoint.hints is not None else None
    target = endpoint.target_ref
    metadata = {
        "zone": endpoint.zone,
        "node": endpoint.node_name,
        "pod": target.name if target is not None and target.kind == "Pod" else None,
        "zones": ",".join(sorted(each.name for each in hints)) if hints else None,
    }
    return {name: value for name, value in metadata.items() if value}
