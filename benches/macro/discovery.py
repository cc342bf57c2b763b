"""Discovery by a real Consul: how soon a new instance is called, and what 1,000 watches cost."""

import json

from bascule.testing.servers import ConsulServer, MissingProgramError
from benches.harness import process
from benches.harness.figures import Figures, Key
from benches.macro._settings import Settings

SERVICES = 1000
TRIALS = 100
_TIMEOUT = 300.0  #: seconds

#: Metric, unit, and case of each figure that the subject prints.
_FIGURES = {
    "routed_p50": ("first_routed_call_p50", "s", "a new instance"),
    "routed_p99": ("first_routed_call_p99", "s", "a new instance"),
    "start_seconds": ("start", "s", "{} watches"),
    "start_cpu_seconds": ("start_cpu", "s", "{} watches"),
    "idle_cpu": ("cpu_share", "cores", "{} watches"),
    "requests_per_second": ("requests_at_rest", "1/s", "{} watches"),
    "sockets": ("sockets", "sockets", "{} watches"),
    "tasks": ("tasks", "tasks", "{} watches"),
    "resident": ("resident", "B", "{} watches"),
    "bytes_per_watch": ("bytes_per_watch", "B", "{} watches"),
    "own_median": ("update", "s", "{} watches, query of its own"),
    "own_worst": ("update_worst", "s", "{} watches, query of its own"),
    "shared_median": ("update", "s", "{} watches, shared query"),
    "shared_worst": ("update_worst", "s", "{} watches, shared query"),
}


def measure(settings: Settings, figures: Figures) -> None:
    """Measure once: what takes most of the time is neither loop's, and the trials are many."""
    try:
        ConsulServer.find()
    except MissingProgramError as error:
        figures.skip("discovery", str(error))
        return
    trials, services = (5, 100) if settings.smoke else (TRIALS, SERVICES)
    for backend in ("asyncio", "trio"):
        _measure(backend, "routed", trials, figures)
        _measure(backend, "watches", services, figures)


def _measure(backend: str, part: str, count: int, figures: Figures) -> None:
    command = process.python("benches.peers.discovery", backend, part, count)
    # On both cores: the agent runs beside it.
    said, readable = process.run(command, None, _TIMEOUT)
    for name, value in json.loads(said).items():
        metric, unit, case = _FIGURES[name]
        key = Key("discovery", f"bascule {backend}", case.format(count), metric)
        figures.add(key, unit, value, readable)
