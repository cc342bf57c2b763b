"""What Consul's answers hold, as far as it is used here; unknown fields are passed over."""

from __future__ import annotations

import msgspec

__all__ = [
    "AgentService",
    "CheckState",
    "NodeEntry",
    "ServiceEntry",
    "ServiceInfo",
    "SessionInfo",
    "Weights",
]


class Weights(msgspec.Struct, frozen=True, rename="pascal"):
    """The share of an instance by its health."""

    passing: int = 1
    warning: int = 1


class NodeEntry(msgspec.Struct, frozen=True, rename="pascal"):
    """The machine that an instance runs on."""

    node: str
    address: str
    datacenter: str = ""
    meta: dict[str, str] | None = None


class ServiceInfo(msgspec.Struct, frozen=True, rename="pascal"):
    """An instance as it was registered.

    :ivar address: empty for the node's
    """

    id: str = msgspec.field(name="ID")
    service: str
    port: int = 0
    address: str = ""
    tags: tuple[str, ...] | None = None
    meta: dict[str, str] | None = None
    weights: Weights = Weights()


class CheckState(msgspec.Struct, frozen=True, rename="pascal"):
    """The last result of a check.

    :ivar status: ``passing``, ``warning`` or ``critical``
    :ivar service_name: empty for a check of the node
    """

    check_id: str = msgspec.field(name="CheckID")
    status: str
    node: str = ""
    name: str = ""
    service_id: str = msgspec.field(name="ServiceID", default="")
    service_name: str = ""
    output: str = ""


class ServiceEntry(msgspec.Struct, frozen=True, rename="pascal"):
    """An instance with its node and all its checks."""

    node: NodeEntry
    service: ServiceInfo
    checks: tuple[CheckState, ...] = ()


class AgentService(msgspec.Struct, frozen=True, rename="pascal"):
    """An instance as its own agent knows it."""

    id: str = msgspec.field(name="ID")
    service: str
    port: int = 0
    address: str = ""
    tags: tuple[str, ...] | None = None
    meta: dict[str, str] | None = None
    weights: Weights = Weights()


class SessionInfo(msgspec.Struct, frozen=True, rename="pascal"):
    """A session: what locks are held by."""

    id: str = msgspec.field(name="ID")
    name: str = ""
    node: str = ""
    behavior: str = "release"
    ttl: str = msgspec.field(name="TTL", default="")
    create_index: int = 0
