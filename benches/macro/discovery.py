"""Discovery by a real Consul: how soon a new instance is called, and what 1,000 watches cost."""

import json

from bascule.testing.servers import ConsulServer, MissingProgramError
from benches.harness import process
from benches.harness.figures import Figures, Key
from benches.macro._settings import Settings

SERVICES = 1000
_TIMEOUT = 300.0  #: seconds

#: Metric, unit, and case of each figure that the subject prints.
_FIGURES = {
    "routed_median": ("first_routed_call", "s", "a new instance"),
    "routed_worst": ("first_routed_call_worst", "s", "a new instance"),
    "start_seconds": ("start", "s", "{} watches"),
    "start_cpu_seconds": ("start_cpu", "s", "{} watches"),
    "idle_cpu": ("cpu_share", "cores", "{} watches"),
    "sockets": ("sockets", "sockets", "{} watches"),
    "bytes_per_watch": ("bytes_per_watch", "B", "{} watches"),
    "own_median": ("update", "s", "{} watches, query of its own"),
    "own_worst": ("update_worst", "s", "{} watches, query of its own"),
    "shared_median": ("update", "s", "{} watches, shared query"),
    "shared_worst": ("update_worst", "s", "{} watches, shared query"),
}


def measure(settings: Settings, figures: Figures) -> None:
    """Measure each loop once a round."""
    try:
        ConsulServer.find()
    except MissingProgramError as error:
        figures.skip("discovery", str(error))
        return
    services = 100 if settings.smoke else SERVICES
    for _ in range(settings.rounds):
        for backend in ("asyncio", "trio"):
            command = process.python("benches.peers.discovery", backend, services)
            # On both cores: the agent runs beside it.
            said, readable = process.run(command, None, _TIMEOUT)
            for name, value in json.loads(said).items():
                metric, unit, case = _FIGURES[name]
                key = Key("discovery", f"bascule {backend}", case.format(services), metric)
                figures.add(key, unit, value, readable)
