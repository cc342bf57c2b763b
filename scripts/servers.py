"""Start real servers, say where they are, and stop them at Ctrl-C.

Their data is in temporary folders and is gone with them, unless ``--keep`` names a folder for it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bascule.testing.servers import (
    AlertmanagerServer,
    ConsulServer,
    EtcdServer,
    JaegerServer,
    KubeApiServer,
    MariaDBServer,
    MissingProgramError,
    MongoJavaServer,
    MongoServer,
    NxMongoServer,
    PrometheusServer,
    RedisServer,
    StartError,
    TemporalServer,
)

if TYPE_CHECKING:
    from bascule.testing.servers import LocalServer

SERVERS: dict[str, type[LocalServer]] = {
    "alertmanager": AlertmanagerServer,
    "consul": ConsulServer,
    "etcd": EtcdServer,
    "jaeger": JaegerServer,
    "kube": KubeApiServer,
    "mariadb": MariaDBServer,
    "mongo": NxMongoServer,
    "mongo-java": MongoJavaServer,
    "mongod": MongoServer,
    "prometheus": PrometheusServer,
    "redis": RedisServer,
    "temporal": TemporalServer,
}


def main() -> int:
    """Run the servers that are named until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(SERVERS), metavar="NAME")
    parser.epilog = "servers: " + ", ".join(sorted(SERVERS))
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep their data in it")
    arguments = parser.parse_args()
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with ExitStack() as running:
        names = dict.fromkeys(arguments.names)
        folders = {name: arguments.keep and arguments.keep / name for name in names}
        servers = {name: SERVERS[name](folder=folders[name]) for name in names}
        for server in servers.values():
            running.callback(server.close)
        try:
            with ThreadPoolExecutor() as starters:
                list(starters.map(lambda server: server.start(), servers.values()))
        except (MissingProgramError, StartError) as error:
            print(error, file=sys.stderr)
            return 1
        for name, server in servers.items():
            print(f"{name:12}{where(server)}", flush=True)
        print("Ctrl-C stops them.", flush=True)
        over.wait()
    return 0


def where(server: LocalServer) -> str:
    """Answer with what a client needs to know, in a line."""
    match server:
        case MariaDBServer():
            return server.url()
        case JaegerServer():
            return f"{server.url}  OTEL_EXPORTER_OTLP_ENDPOINT={server.endpoint}"
        case KubeApiServer():
            return f"{server.url}  KUBECONFIG={server.kubeconfig}"
        case TemporalServer():
            return server.address
        case _:
            return str(getattr(server, "url", server.address))


if __name__ == "__main__":
    sys.exit(main())
