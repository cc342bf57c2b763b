"""Every family that bascule declares, by the part that counts it. docs/reference/metrics.md is made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bascule.observe._app_metrics import APP, CONFIG
from bascule.observe._breaker_metrics import BREAKERS
from bascule.observe._call_metrics import CLIENT_CALLS, SERVER_CALLS
from bascule.observe._channel_metrics import CHANNELS
from bascule.observe._concurrency_metrics import CONCURRENCY
from bascule.observe._database_metrics import DATABASES
from bascule.observe._discovery_metrics import DISCOVERY
from bascule.observe._event_metrics import EVENTS
from bascule.observe._http_metrics import HTTP
from bascule.observe._limit_metrics import LIMITS
from bascule.observe._process_metrics import CERTIFICATES, PROCESS
from bascule.observe._saga_metrics import SAGAS
from bascule.observe._server_metrics import SERVERS

if TYPE_CHECKING:
    from bascule.observe._families import Families

__all__ = ["FAMILIES", "SECTIONS", "Section"]


class Section(NamedTuple):
    """The families of one part.

    :ivar source: what a program adds to its metrics for them
    """

    title: str
    source: str
    families: Families


_BY_APP = "An `App` adds it by itself"
_BY_BOTH = "An `App` and a `Gateway` add it by themselves"

SECTIONS = (
    Section(
        "Calls that a server answers",
        f"{_BY_APP}; others: `metrics.add_server(server)`.",
        SERVER_CALLS,
    ),
    Section(
        "Listeners",
        f"{_BY_BOTH}; others: `metrics.add_server(server)`.",
        SERVERS,
    ),
    Section(
        "Calls that a channel makes",
        "A `Gateway` adds its channels by itself; others: `metrics.add_channel(channel)`.",
        CLIENT_CALLS,
    ),
    Section("Channels", "As above.", CHANNELS),
    Section(
        "Circuit breakers",
        "Those of channels come with them; others: `metrics.add_breaker(breaker)`.",
        BREAKERS,
    ),
    Section(
        "Limits of concurrency",
        "Those of channels and servers come with them; others: `metrics.add_concurrency(limiter)`, of "
        "bulkheads as well.",
        CONCURRENCY,
    ),
    Section(
        "Rate limits",
        "A `Gateway` adds its own by itself; others: `metrics.add_limiter(limiter)`.",
        LIMITS,
    ),
    Section("Gateway", "A `Gateway` adds it by itself.", HTTP),
    Section(
        "Sagas",
        "`metrics.add_sagas(coordinator.stats)`. `saga_unfinished` comes from the log: it is the same "
        "in every process that has a worker, and 0 in those that have none.",
        SAGAS,
    ),
    Section(
        "Events",
        "`metrics.add_events(bus.stats)` and `metrics.add_events(relay.stats)`.",
        EVENTS,
    ),
    Section(
        "Discovery",
        "A `Gateway` with services in Consul adds it by itself; others: "
        "`metrics.add_discovery(ConsulStats.default())`.",
        DISCOVERY,
    ),
    Section(
        "Configuration",
        f"{_BY_APP}; others: `metrics.add_samples(config.samples)`.",
        CONFIG,
    ),
    Section("Databases", "`metrics.add_database(database.stats)`.", DATABASES),
    Section("Life of a service", f"{_BY_APP}.", APP),
    Section(
        "Certificates",
        f"{_BY_BOTH}, and `add_server` and `add_channel` with what they are given.",
        CERTIFICATES,
    ),
    Section("Process", f"{_BY_BOTH}.", PROCESS),
)

FAMILIES: Families = {
    name: family for section in SECTIONS for name, family in section.families.items()
}
