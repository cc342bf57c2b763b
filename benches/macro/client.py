"""Calls a second, CPU a call and latency of the clients, against compiled echo servers."""

import json

from benches.harness import process
from benches.harness.figures import Figures, Key
from benches.macro._settings import Settings, Subject, native_echo_subjects, python_subjects

IN_FLIGHT = 100
_CASES = {
    "calls_per_second": (f"{IN_FLIGHT} in flight", "1/s"),
    "cpu_per_call": (f"{IN_FLIGHT} in flight", "s"),
    "sequential_p50": ("sequential", "s"),
    "sequential_p99": ("sequential", "s"),
}


def measure(settings: Settings, figures: Figures) -> None:
    """Measure every client on its core while the server has the other."""
    servers = native_echo_subjects(settings, figures)
    if not servers:
        # Too slow to judge a client by, but enough to see that each works.
        servers = [
            Subject("grpcio.aio", process.python("benches.peers.serve", "grpcio", "asyncio"))
        ]
    if settings.smoke:
        del servers[1:]
    for _ in range(settings.rounds):
        for server in servers:
            with process.serving(server.command, settings.load_core) as running:
                for subject in python_subjects("benches.peers.call"):
                    options = ["--in-flight", str(IN_FLIGHT), "--seconds", str(settings.seconds)]
                    command = [*subject.command, running.address, *options]
                    output, readable = process.run(
                        command, settings.subject_core, settings.seconds * 4 + 20
                    )
                    result: dict[str, float] = json.loads(output)
                    for metric, (case, unit) in _CASES.items():
                        key = Key("client", subject.name, f"{case}, to {server.name}", metric)
                        figures.add(key, unit, result[metric], f"{running.command} | {readable}")
