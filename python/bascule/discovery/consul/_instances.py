"""From what Consul lists to what calls are sent to.

Source of the panic threshold: Envoy's documentation, "Panic threshold": when few instances are
healthy, it is more likely that health checking is broken than that they all are, and calls to all
of them do less harm than all calls to a few.
"""

from __future__ import annotations

import enum
import ipaddress
import logging
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bascule.discovery._endpoint import Endpoint
from bascule.discovery._usable import is_usable
from bascule.errors import ConfigurationError
from bascule.net import Address

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bascule.discovery.consul._wire import ServiceEntry

__all__ = ["Health", "Instance", "Protection", "ServiceList", "instances_of", "is_callable"]

logger = logging.getLogger("bascule.discovery")

_HOST = re.compile(r"(?!.{254})[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")


class Health(enum.StrEnum):
    """The worst of an instance's checks."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"
    MAINTENANCE = "maintenance"
    """A person took it out on purpose."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance as Consul lists it."""

    endpoint: Endpoint
    health: Health


@dataclass(frozen=True, slots=True)
class Protection:
    """What a list must not do at once, whatever Consul says.

    :param panic_threshold: if less than this fraction of the known instances is healthy, all of them
        are called; 0: never
    :param hold: seconds for which instances that vanished count as known, if so many did that the
        threshold is crossed: an empty answer is more often a fault than the truth
    :raises ConfigurationError: if one is out of range
    """

    panic_threshold: float = 0.5
    hold: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.panic_threshold <= 1 or not 0 <= self.hold < math.inf:
            raise ConfigurationError(
                f"panic_threshold is {self.panic_threshold} and hold {self.hold}: "
                "give a fraction from 0 to 1, and seconds"
            )


class ServiceList:
    """The endpoints to call, out of one answer after the other.

    :ivar endpoints: what to call now
    :ivar known: whether any list was taken
    :ivar problem: why it is not what Consul lists as healthy; None if it is
    :ivar until: time at which :meth:`review` may change it
    """

    def __init__(self, protection: Protection, *, warnings: bool) -> None:
        self._protection = protection
        self._healthy = {Health.PASSING, Health.WARNING} if warnings else {Health.PASSING}
        self._said: tuple[Instance, ...] = ()
        self._good: tuple[Endpoint, ...] = ()
        self._doubted_at: float | None = None
        self.endpoints: tuple[Endpoint, ...] = ()
        self.known = False
        self.problem: str | None = None
        self.until = math.inf

    def believe(self, endpoints: Iterable[Endpoint]) -> None:
        """Begin with what was good some time ago."""
        self._good = self.endpoints = tuple(endpoints)
        self.known = True

    def take(self, instances: Sequence[Instance], now: float) -> None:
        """Take what Consul says."""
        self._said = tuple(instances)
        self.known = True
        self.review(now)

    def review(self, now: float) -> None:
        """Judge the last answer again: doubts end with time."""
        listed = {each.endpoint.address for each in self._said}
        # Who was taken out on purpose and then is not listed any more is gone, not missed.
        out = {e.endpoint.address for e in self._said if e.health is Health.MAINTENANCE}
        self._good = tuple(each for each in self._good if each.address not in out)
        present = [each for each in self._said if each.health is not Health.MAINTENANCE]
        healthy = tuple(each.endpoint for each in present if each.health in self._healthy)
        vanished = tuple(each for each in self._good if each.address not in listed)
        doubted_at = now if self._doubted_at is None else self._doubted_at
        holds_until = doubted_at + self._protection.hold
        if now >= holds_until:
            vanished = ()
        known = len(present) + len(vanished)
        self.until = math.inf
        if len(healthy) >= self._protection.panic_threshold * known:
            self._doubted_at = None
            self._good = self.endpoints = healthy
            self.problem = None
            return
        self._doubted_at = doubted_at
        self.endpoints = (*(each.endpoint for each in present), *vanished)
        if now >= holds_until:
            self._good = self.endpoints
        else:
            self.until = holds_until
        self.problem = f"Consul lists {len(healthy)} of {known} known instances as healthy: all of them are called"


def instances_of(
    service: str, entries: Iterable[ServiceEntry], *, authority: str, in_order: bool
) -> tuple[Instance, ...]:
    """The instances that can be called, one for each address.

    :param in_order: they come nearest first; otherwise, order means nothing
    """
    found: dict[str, Instance] = {}
    for entry in entries:
        host = entry.service.address or entry.node.address
        if not is_callable(host, entry.service.port):
            logger.warning(
                "%s: instance %r is at %r, port %r: no service is called there",
                service,
                entry.service.id,
                host,
                entry.service.port,
            )
            continue
        health = _health(entry)
        weights = entry.service.weights
        weight = weights.warning if health is Health.WARNING else weights.passing
        endpoint = Endpoint(
            str(Address("tcp", host, entry.service.port)),
            max(weight, 0),
            _metadata(entry),
            authority,
        )
        before = found.get(endpoint.address)
        if before is None or _WORST.index(health) > _WORST.index(before.health):
            found[endpoint.address] = Instance(endpoint, health)
    listed = found.values()
    return tuple(listed if in_order else sorted(listed, key=lambda each: each.endpoint.address))


_WORST = (Health.MAINTENANCE, Health.CRITICAL, Health.WARNING, Health.PASSING)


def _health(entry: ServiceEntry) -> Health:
    worst = Health.PASSING
    for check in entry.checks:
        if check.check_id == "_node_maintenance" or check.check_id.startswith(
            "_service_maintenance:"
        ):
            return Health.MAINTENANCE
        # A status of the future is not healthy.
        health = Health.CRITICAL if check.status not in _KNOWN else Health(check.status)
        worst = min(worst, health, key=_WORST.index)
    return worst


_KNOWN = {"passing", "warning", "critical"}


def is_callable(host: str, port: int) -> bool:
    """Whether a service may be there."""
    if not 0 < port < 65536:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _HOST.fullmatch(host) is not None
    return is_usable(host)


def _metadata(entry: ServiceEntry) -> dict[str, str]:
    return (entry.service.meta or {}) | {
        "consul.id": entry.service.id,
        "consul.node": entry.node.node,
        "consul.datacenter": entry.node.datacenter,
        "consul.tags": ",".join(entry.service.tags or ()),
    }
