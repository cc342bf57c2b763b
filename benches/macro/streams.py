"""Messages a second in streams, rounds a second, and bytes a second of large messages."""

from benches.harness import process
from benches.harness.figures import Figures, Key
from benches.macro._settings import Settings, Subject, python_subjects
from benches.peers import go_peer

#: Kind of load: the case, the metric and its unit.
LOADS = {
    "count": ("1,000 small messages a call", "messages_per_second", "1/s"),
    "pingpong": ("10 streams of ping-pong", "rounds_per_second", "1/s"),
    "large": ("1 MiB back and forth", "bytes_per_second", "B/s"),
}


def measure(settings: Settings, figures: Figures) -> None:
    """Measure the servers under a client in Go, then the clients against a server in Go.

    :raises MissingToolError: if go is not installed
    """
    go = str(go_peer(build=not settings.smoke))
    native = Subject("grpc-go", [go, "echo"])
    servers = [*python_subjects("benches.peers.serve"), native]
    clients = [*python_subjects("benches.peers.streaming"), Subject("grpc-go", [go, "load"])]
    for _ in range(settings.rounds):
        for subject in servers:
            with process.serving(subject.command, settings.subject_core) as server:
                for kind in LOADS:
                    load = [go, "load", kind, server.address, str(settings.seconds)]
                    _add("server", subject, kind, load, server, settings.load_core, figures)
        with process.serving(native.command, settings.load_core) as server:
            for subject in clients:
                for kind in LOADS:
                    load = [*subject.command, kind, server.address, str(settings.seconds)]
                    _add("client", subject, kind, load, server, settings.subject_core, figures)


def _add(
    side: str,
    subject: Subject,
    kind: str,
    load: list[str],
    server: process.Running,
    core: int | None,
    figures: Figures,
) -> None:
    output, readable = process.run(load, core, 30.0)
    case, metric, unit = LOADS[kind]
    key = Key("streams", subject.name, f"{side}, {case}", metric)
    figures.add(key, unit, float(output), f"{server.command} | {readable}")
