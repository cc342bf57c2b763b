"""Events a second through outbox, Redis and inbox, and how long one of them takes."""

import json
import tempfile
from contextlib import ExitStack

from bascule.testing.servers import MissingProgramError, RedisServer
from benches.harness import process
from benches.harness.figures import Figures, Key
from benches.macro._settings import Settings

EVENTS = 5_000
_TIMEOUT = 120.0  #: seconds
#: Metric, unit and case of each figure that the subject prints.
_FIGURES = {
    "events_per_second": ("1/s", "{} waiting"),
    "cpu_per_event": ("s", "{} waiting"),
    "p50": ("s", "one after the other"),
    "p99": ("s", "one after the other"),
}


def measure(settings: Settings, figures: Figures) -> None:
    """Measure each loop on a core of its own; Redis has the other."""
    events = 500 if settings.smoke else EVENTS
    with ExitStack() as stack:
        try:
            with process.on_core(settings.load_core):
                servers = {
                    "Redis in memory": stack.enter_context(RedisServer(durable=False)),
                    "Redis with fsync": stack.enter_context(RedisServer()),
                }
        except MissingProgramError as error:
            figures.skip("events", str(error))
            return
        for _ in range(settings.few_rounds):
            for store, redis in servers.items():
                for backend in ("asyncio", "trio"):
                    redis.flush()
                    with tempfile.TemporaryDirectory() as folder:
                        command = process.python(
                            "benches.peers.events", backend, redis.url, folder, events
                        )
                        said, readable = process.run(command, settings.subject_core, _TIMEOUT)
                    for metric, value in json.loads(said).items():
                        unit, case = _FIGURES[metric]
                        key = Key(
                            "events",
                            f"bascule {backend}",
                            f"{store}, {case.format(f'{events:,}')}",
                            metric,
                        )
                        figures.add(key, unit, value, readable)
